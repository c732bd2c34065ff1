"""The name server by its sockets, in a network namespace, with other servers that behave and that do not."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, suppress
from ipaddress import ip_address
from typing import Any

import pytest

from pier.kernel.nftables import Nftables
from pier.networks.dns import DnsServer, NameTable, Settings, upstream
from pier.networks.dns import server as server_module
from pier.networks.dns.server import NotNameServerSockets
from pier.networks.resolv import Upstream
from pier.runtime.process import resolver

from ....dns_wire import AAAA, ANY, HTTPS, MX, PTR, SRV, TXT, A, Reply, ask, opt, question, read, receive
from ....netlab import Machine, machines, stop

pytestmark = pytest.mark.root
IN_CONTAINER, IN_CONTAINER_TOO = "127.0.0.5", "127.0.0.6"
ON_HOST = f"127.77.{os.getpid() % 250 + 1}.53"
"""Other sessions, and other processes of this one, have theirs."""
HOST = {b"host.docker.internal": (ip_address("172.20.0.1").packed,)}

Behaviour = Callable[[bytes], list[bytes]]
"""A question -> what is sent back."""


def answered(address: str = "192.0.2.1", rcode: int = 0) -> Behaviour:
    """A server that knows every name."""

    def deed(data: bytes) -> list[bytes]:
        records = b"" if rcode else b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4" + ip_address(address).packed
        header = data[:2] + struct.pack("!5H", 0x8180 | rcode, 1, 0 if rcode else 1, 0, 0)
        end = data.index(b"\0", 12) + 5
        return [header + data[12:end] + records]

    return deed


class FakeServer:
    """A name server of the test's, UDP and TCP."""

    def __init__(self, address: str, deed: Behaviour) -> None:
        self.asked: list[bytes] = []
        self.ports: list[int] = []
        self._deed = deed
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind((address, 53))
        self._tcp = socket.create_server((address, 53))
        for loop in (self._datagrams, self._streams):
            threading.Thread(target=loop, daemon=True).start()

    def _datagrams(self) -> None:
        with suppress(OSError):  # closed meanwhile
            while True:
                data, peer = self._udp.recvfrom(4096)
                if not peer:  # shut down
                    return
                self.asked.append(data)
                self.ports.append(peer[1])
                for answer in self._deed(data):
                    self._udp.sendto(answer, peer)

    def _streams(self) -> None:
        while True:
            try:
                sock, _ = self._tcp.accept()
            except OSError:
                return
            with sock, suppress(OSError, EOFError):  # the client gives up when it likes
                data = receive(sock)
                self.asked.append(data)
                for answer in self._deed(data):
                    sock.sendall(struct.pack("!H", len(answer)) + answer)

    def close(self) -> None:
        stop(self._udp)
        stop(self._tcp)


@pytest.fixture(scope="module")
def box() -> Iterator[Machine]:
    """The container."""
    with machines(1) as (machine,):
        yield machine


class House:
    """A daemon's server, one container on one network, and its client."""

    def __init__(self, server: DnsServer, box: Machine, fds: list[int], stack: ExitStack) -> None:
        self.server = server
        self.box = box
        self.fds = fds
        self._stack = stack

    def upstream(self, address: str, deed: Behaviour) -> FakeServer:
        made = self.box.run(lambda: FakeServer(address, deed)) if address != ON_HOST else FakeServer(address, deed)
        self._stack.callback(made.close)
        return made

    def configure(self, *servers: Upstream, **changes: Any) -> None:
        self.server.configure("c1", Settings(servers=servers, host_addresses=HOST, **changes))

    async def ask(self, name: str, kind: int = A, *, tcp: bool = False, **options: Any) -> Reply:
        return read(await self.send(question(name, kind, **options), tcp=tcp))

    async def send(self, data: bytes, *, tcp: bool = False) -> bytes:
        kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
        with self.box.run(lambda: socket.socket(socket.AF_INET, kind)) as sock:
            return await asyncio.to_thread(ask, data, sock)


@pytest.fixture
async def house(box: Machine) -> AsyncIterator[House]:
    names = NameTable()
    server = DnsServer(names)
    names.put("n1", "e1", "c1", ["me", "web"], ["172.20.0.2"], network_name="front")
    names.put("n1", "e2", "c2", ["you", "web"], ["172.20.0.3"], network_name="front", links={"link": "me"})
    names.put("n2", "e3", "c3", ["secret"], ["172.21.0.2"], network_name="back")
    sockets = box.run(resolver.open_sockets)
    assert sockets.warning == ""
    with ExitStack() as stack:
        stack.callback(sockets.close)
        server.serve("c1", [os.dup(fd) for fd in sockets.filenos()], Settings(host_addresses=HOST))
        yield House(server, box, sockets.filenos(), stack)
        await server.close()
    box.run(lambda: nft(f"delete table ip {resolver.TABLE}"))  # the next test makes its own


def nft(commands: str) -> None:
    """In this thread's network namespace."""
    filter_ = Nftables()
    filter_.run(commands)
    filter_.close()


# Facts recorded from Docker 28.5, two containers on a network `front` with the alias `web`.
KNOWN = [
    ("me", A, 0, ["172.20.0.2"]),
    ("ME", A, 0, ["172.20.0.2"]),
    ("web", A, 0, ["172.20.0.2", "172.20.0.3"]),
    ("me.front", A, 0, ["172.20.0.2"]),
    ("web.front", A, 0, ["172.20.0.2", "172.20.0.3"]),
    ("me", AAAA, 0, []),
    ("me", MX, 0, []),
    ("2.0.20.172.in-addr.arpa", PTR, 0, ["me.front"]),
    ("link", A, 2, []),
    ("secret", A, 2, []),
    ("secret.back", A, 2, []),
    ("nobody", A, 2, []),
    ("nobody.example", A, 2, []),
    ("localhost", A, 2, []),
    ("_http._tcp.me", SRV, 2, []),
    ("9.0.20.172.in-addr.arpa", PTR, 2, []),
    ("2.0.21.172.in-addr.arpa", PTR, 2, []),
    ("", A, 2, []),
]
BEYOND = [
    ("me", TXT, 0, []),  # Docker asks other servers what they know of a container's name
    ("me", HTTPS, 0, []),
    ("web", ANY, 0, ["172.20.0.2", "172.20.0.3"]),
    ("2.0.20.172.IN-ADDR.ARPA", PTR, 0, ["me.front"]),
    ("host.docker.internal", A, 0, ["172.20.0.1"]),
    ("HOST.docker.internal", AAAA, 0, []),
]


@pytest.mark.parametrize("tcp", [False, True])
async def test_answers(house: House, tcp: bool) -> None:
    for name, kind, rcode, data in KNOWN + BEYOND:
        found = await house.ask(name, kind, tcp=tcp)
        assert (found.rcode, sorted(item[3] for item in found.answers)) == (rcode, data), (name, kind)
        assert found.question == [(name, kind)]
        assert {item[:3] for item in found.answers} <= {(name, 1 if kind == ANY else kind, 600)}
        assert (found.ident, found.flags) == (0x1234, {"qr", "rd", "ra"})


async def test_several_addresses_take_turns(house: House) -> None:
    first = {(await house.ask("web")).answers[0][3] for _ in range(40)}
    assert first == {"172.20.0.2", "172.20.0.3"}


async def test_edns_version_of_the_future(house: House) -> None:
    found = await house.ask("me", edns=opt(1232, version=1))
    assert (found.rcode, found.edns, found.answers) == (0, (4096, 1, 0, 0), [])


async def test_more_addresses_than_a_datagram_holds_go_over_tcp(house: House) -> None:
    for number in range(100):
        house.server._names.put("n1", f"m{number}", f"m{number}", ["many"], [f"172.20.1.{number}"])
    assert (found := await house.ask("many")).flags == {"qr", "tc", "rd", "ra"}
    assert len(found.answers) == 30
    assert len((await house.ask("many", edns=opt(1232))).answers) == 74
    assert len((await house.ask("many", tcp=True)).answers) == 100


async def test_settings_may_be_renewed_before_a_question_is_passed_on(house: House) -> None:
    house.upstream(IN_CONTAINER, answered())
    looks = []

    def look() -> None:
        looks.append(1)
        house.configure(Upstream(IN_CONTAINER))

    house.server.refresh = look
    assert (await house.ask("me")).rcode == 0
    assert looks == []
    for tcp in (False, True):  # the second within the time that a look is good for
        assert (await house.ask("a.example", tcp=tcp)).answers
    assert looks == [1]


async def test_no_room_for_a_connection(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "PAUSE_S", 0.02)
    served = house.server._served["c1"]
    listener, turns = served.tcp, []

    class Full:
        def accept(self) -> None:
            turns.append(1)
            if len(turns) > 1:
                served.tcp = listener
            raise OSError(errno.EMFILE, "Too many open files")

        def fileno(self) -> int:
            return listener.fileno()

    served.tcp = Full()
    assert (await house.ask("me", tcp=True)).answers
    assert len(turns) == 2


async def test_what_is_no_query_is_refused_by_its_header(house: House) -> None:
    assert await house.send(question("me")[:-2]) == struct.pack("!6H", 0x1234, 0x8101, 0, 0, 0, 0)
    assert await house.send(question("me", flags=0x2800)) == struct.pack("!6H", 0x1234, 0xA804, 0, 0, 0, 0)
    assert await house.send(question("me")[:-2], tcp=True) == struct.pack("!6H", 0x1234, 0x8101, 0, 0, 0, 0)


async def test_other_servers_answer_for_other_names(house: House) -> None:
    other = house.upstream(IN_CONTAINER, answered())
    house.configure(Upstream(IN_CONTAINER))
    for tcp in (False, True):
        found = await house.ask("nobody.example", tcp=tcp, ident=0x4321)
        assert (found.ident, [item[3] for item in found.answers]) == (0x4321, ["192.0.2.1"])
    assert [item[12:] for item in other.asked] == [question("nobody.example")[12:]] * 2
    assert (await house.ask("me")).answers
    assert len(other.asked) == 2


async def test_ids_and_ports_are_not_the_clients(house: House) -> None:
    other = house.upstream(IN_CONTAINER, answered())
    house.configure(Upstream(IN_CONTAINER))
    for _ in range(12):
        await house.ask("nobody.example", ident=7)
    assert len({item[:2] for item in other.asked}) > 6
    assert len(set(other.ports)) > 6


@pytest.mark.parametrize("rcode", [2, 5])
async def test_a_server_that_fails_is_followed_by_the_next(house: House, rcode: int) -> None:
    house.upstream(IN_CONTAINER, answered(rcode=rcode))
    house.upstream(IN_CONTAINER_TOO, answered("192.0.2.2"))
    house.configure(Upstream("127.0.0.99"), Upstream(IN_CONTAINER), Upstream(IN_CONTAINER_TOO))
    for tcp in (False, True):
        assert (await house.ask("a.example", tcp=tcp)).answers[0][3] == "192.0.2.2"


async def test_a_name_that_is_nowhere(house: House) -> None:
    house.upstream(IN_CONTAINER, answered(rcode=3))
    second = house.upstream(IN_CONTAINER_TOO, answered())
    house.configure(Upstream(IN_CONTAINER), Upstream(IN_CONTAINER_TOO))
    assert (await house.ask("a.example")).rcode == 3
    assert second.asked == []


async def test_a_silent_server_is_not_waited_for_alone(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "PATIENCE_S", 0.02)
    house.upstream(IN_CONTAINER, lambda data: [])
    house.upstream(IN_CONTAINER_TOO, answered("192.0.2.2"))
    house.configure(Upstream(IN_CONTAINER), Upstream(IN_CONTAINER_TOO))
    assert (await house.ask("a.example")).answers[0][3] == "192.0.2.2"


async def test_when_nobody_answers_the_client_is_told(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "TIMEOUT_S", 0.05)
    house.upstream(IN_CONTAINER, lambda data: [])
    house.configure(Upstream(IN_CONTAINER))
    assert (await house.ask("a.example")).rcode == 2
    assert (await house.ask("a.example", tcp=True)).rcode == 2


async def test_spoofed_and_malformed_replies_are_not_taken(house: House) -> None:
    """Wrong ids, other questions, noise, a query: all from the right address, before the right answer."""

    def liar(data: bytes) -> list[bytes]:
        (good,) = answered("192.0.2.66")(data)
        wrong_id = bytes([good[0] ^ 1]) + good[1:]
        other_name = good.replace(b"\1a\7example", b"\1b\7example")
        return [b"", b"x", good[:11], wrong_id, other_name, data, *answered("192.0.2.1")(data)]

    house.upstream(IN_CONTAINER, liar)
    house.configure(Upstream(IN_CONTAINER))
    assert [item[3] for item in (await house.ask("a.example")).answers] == ["192.0.2.1"]


async def test_a_reply_longer_than_the_client_takes_is_truncated(house: House) -> None:
    def long(data: bytes) -> list[bytes]:
        (short,) = answered()(data)
        return [short[:6] + struct.pack("!H", 60) + short[8:] + short[-16:] * 59]

    house.upstream(IN_CONTAINER, long)
    house.configure(Upstream(IN_CONTAINER))
    assert ((found := await house.ask("a.example")).flags, found.answers) == ({"qr", "tc", "rd", "ra"}, [])
    assert len((await house.ask("a.example", edns=opt(1232))).answers) == 60
    assert len((await house.ask("a.example", tcp=True)).answers) == 60


async def test_attack_21_internal_network_sends_nothing_from_the_host(house: House) -> None:
    """CVE-2024-29018: the host's own server would carry a container's questions out of an internal network."""
    outside = house.upstream(ON_HOST, answered())
    house.configure(Upstream(ON_HOST, from_host=True))
    assert (await house.ask("data.evil.example")).rcode == 0
    assert len(outside.asked) == 1
    for servers in ([Upstream(ON_HOST, from_host=True)], [Upstream(ON_HOST, from_host=True), Upstream("192.0.2.53")]):
        house.configure(*servers, forwards=False)
        for tcp in (False, True):
            assert (await house.ask("data.evil.example", tcp=tcp)).rcode == 2
    assert len(outside.asked) == 1
    on_net = house.upstream(IN_CONTAINER, answered())
    house.configure(Upstream(ON_HOST, from_host=True), Upstream(IN_CONTAINER), forwards=False)
    assert (await house.ask("a.example")).rcode == 0
    assert (len(outside.asked), len(on_net.asked)) == (1, 1)


async def test_single_labels_stay_where_ndots_is_set(house: House) -> None:
    other = house.upstream(IN_CONTAINER, answered())
    house.configure(Upstream(IN_CONTAINER), single_label_is_local=True)
    assert ((found := await house.ask("nobody")).rcode, found.answers) == (0, [])
    assert ((found := await house.ask("nobody", AAAA)).rcode, found.answers) == (0, [])
    assert other.asked == []
    assert (await house.ask("nobody.example")).answers
    assert (await house.ask("nobody", TXT)).rcode == 0
    assert len(other.asked) == 2


async def test_questions_under_way_are_bounded(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server_module, "UNDER_WAY_MAX", 2)
    release = threading.Event()

    def slow(data: bytes) -> list[bytes]:
        release.wait(10)
        return answered()(data)

    other = house.upstream(IN_CONTAINER, slow)
    house.configure(Upstream(IN_CONTAINER))
    async with asyncio.TaskGroup() as group:
        first = [group.create_task(house.ask(f"{n}.example")) for n in range(2)]
        while not other.asked or house.server._under_way < 2:
            await asyncio.sleep(0.001)
        for tcp in (False, True):
            assert (await house.ask("third.example", tcp=tcp)).rcode == 5
        assert (await house.ask("me")).rcode == 0
        release.set()
    assert [(await task).rcode for task in first] == [0, 0]
    assert house.server._under_way == 0
    told = [record.getMessage() for record in caplog.records if record.name == "pier.dns"]
    assert told == ["container c1: 2 questions for names wait for other servers, more are refused"]


async def test_hostile_datagrams_and_streams(house: House) -> None:
    """Noise, and questions with one byte changed: the server answers them, or does not, and goes on."""
    chance = random.Random(21)
    good = question("me", edns=opt(1232))
    with house.box.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.connect(("127.0.0.11", 53))
        for number in range(300):
            data = bytearray(good if number % 2 else chance.randbytes(chance.randrange(600)))
            if data:
                data[chance.randrange(len(data))] = chance.randrange(256)
            sock.send(data)
            await asyncio.sleep(0)
    for data in (b"\0", b"\xff\xff" + bytes(100), struct.pack("!H", len(good)) + good[:-4], b"\0\0"):
        with house.box.run(socket.socket) as stream:
            stream.connect(("127.0.0.11", 53))
            stream.send(data)
    assert (await house.ask("me")).answers
    assert (await house.ask("me", tcp=True)).answers


async def test_questions_wait_for_the_next_daemon(house: House) -> None:
    """The sockets are kept by another process: nothing is refused meanwhile."""
    house.server.stop("c1")
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(house.ask("me", tcp=tcp)) for tcp in (False, True)]
        await asyncio.sleep(0)
        house.server.serve("c1", [os.dup(fd) for fd in house.fds], Settings())
    assert [(await task).answers[0][3] for task in waiting] == ["172.20.0.2"] * 2


async def test_stop_ends_what_is_under_way(house: House) -> None:
    release = threading.Event()
    house.upstream(IN_CONTAINER, lambda data: answered()(data) if release.wait(10) else [])
    house.configure(Upstream(IN_CONTAINER))
    before = len(os.listdir("/proc/self/fd"))
    clients = [house.box.run(lambda kind=kind: socket.socket(socket.AF_INET, kind)) for kind in (1, 2)]
    for client in clients:
        client.connect(("127.0.0.11", 53))
        data = question("a.example")
        client.send(data if client.type == socket.SOCK_DGRAM else struct.pack("!H", len(data)) + data)
    while house.server._under_way < 2:
        await asyncio.sleep(0.001)
    house.server.stop("c1")
    release.set()
    while len(os.listdir("/proc/self/fd")) != before - 2 + len(clients):
        await asyncio.sleep(0.001)
    assert house.server._under_way == 0
    assert not house.server._sockets._callbacks
    for client in clients:
        client.close()


async def test_a_server_of_the_containers_own_on_port_53(house: House) -> None:
    """It binds, and answers on every address but 127.0.0.11."""
    own = house.upstream("0.0.0.0", answered("192.0.2.9"))
    assert (await house.ask("me")).answers[0][3] == "172.20.0.2"
    assert own.asked == []
    with house.box.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        data = await asyncio.to_thread(ask, question("me"), sock, ("127.0.0.1", 53))
    assert read(data).answers[0][3] == "192.0.2.9"


FIREWALL = """
table ip firewall {
    chain out {
        type filter hook output priority 0; policy drop
        ct state established accept
        ip daddr 127.0.0.11 udp dport 53 accept
        ip daddr 127.0.0.11 tcp dport 53 accept
    }
    chain in {
        type filter hook input priority 0; policy drop
        ct state established accept
        udp dport 53 accept
        tcp dport 53 accept
    }
}
"""


async def test_a_firewall_of_the_containers_own_sees_port_53(house: House) -> None:
    """With connection tracking: what is answered belongs to what was asked."""
    house.box.run(lambda: nft(FIREWALL))
    try:
        for tcp in (False, True):
            assert (await house.ask("me", tcp=tcp)).answers[0][3] == "172.20.0.2"
    finally:
        house.box.run(lambda: nft("delete table ip firewall"))


@pytest.mark.parametrize("case", ["file", "swapped", "not listening", "one"])
async def test_only_name_server_sockets_are_served(case: str) -> None:
    udp, tcp, file = os.dup(0), os.dup(0), os.open("/dev/null", os.O_RDONLY)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, socket.socket() as stream:
        os.dup2(datagrams.fileno(), udp)
        os.dup2(stream.fileno(), tcp)
    fds = {"file": [file, tcp], "swapped": [tcp, udp], "not listening": [udp, tcp], "one": [udp]}[case]
    for fd in {udp, tcp, file} - set(fds):
        os.close(fd)
    server = DnsServer(NameTable())
    with pytest.raises(NotNameServerSockets):
        server.serve("c1", fds, Settings())
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    assert not server.serves("c1")
