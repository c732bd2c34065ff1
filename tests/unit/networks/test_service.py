"""The service on machines made of network namespaces: what must be reachable is, and what must not be is not.

    lan ── (192.0.2.0/24) ── host ── pier0 ── one, two

`one` and `two` stand for containers: their interface is made from the endpoint as a container's init makes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from netdaemon import HOST, LAN, Daemon, Site, bindings, make_site, on_host
from netlab import WAIT_S, Machine, machines, stop
from pier.errors import Unavailable
from pier.events import EventBus
from pier.kernel import nftables
from pier.kernel.netlink import NetlinkSocket
from pier.kernel.nftables import Nftables, NftablesError
from pier.model.network import PortBinding
from pier.networks import Ask, Publishing
from pier.networks.publishing import ConnectivityFailed
from pier.networks.registry import NetworkNotFound
from pier.networks.service import NetworkConfig, NetworkService
from pier.runtime.request import Interface
from pier.state import MemoryStore, Put

pytestmark = pytest.mark.root

T = TypeVar("T")
ONE, TWO = "1" * 64, "2" * 64
SILENCE_S = 0.3
"""How long nothing must come where nothing may come."""


@pytest.fixture
def site() -> Iterator[Site]:
    with make_site() as made:
        yield made


@pytest.fixture
def daemon(site: Site) -> Iterator[Daemon]:
    made = Daemon(site)
    made.start()
    yield made
    made.kill()


def elements(site: Site) -> str:
    nft = site.host.run(Nftables)
    try:
        return nft.run("list table inet pier")
    finally:
        nft.close()


@pytest.fixture
def servers() -> Iterator[list[socket.socket]]:
    made: list[socket.socket] = []
    yield made
    for server in made:
        stop(server)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_published_port_is_reachable_from_everywhere(
    site: Site, daemon: Daemon, servers: list[socket.socket], protocol: str
) -> None:
    one = daemon.connect(ONE, site.one, f"8080:80/{protocol}")
    two = daemon.connect(TWO, site.two)
    assert (one.ip, one.gateway, one.mac) == ("172.17.0.2", "172.17.0.1", "02:42:ac:11:00:02")
    servers.append(site.one.serve(protocol, 80))
    assert site.lan.ask(protocol, HOST, 8080) == LAN  # the client's own address is what the server sees
    assert site.host.ask(protocol, HOST, 8080) == HOST
    assert site.host.ask(protocol, "127.0.0.1", 8080) == "172.17.0.1"
    assert site.host.ask(protocol, "172.17.0.1", 8080) == "172.17.0.1"
    assert site.host.ask(protocol, one.ip, 80) == "172.17.0.1"
    assert site.two.ask(protocol, HOST, 8080) == "172.17.0.1"
    assert site.two.ask(protocol, "172.17.0.1", 8080) == "172.17.0.1"
    assert site.two.ask(protocol, one.ip, 80) == two.ip
    assert site.one.ask(protocol, HOST, 8080) == "172.17.0.1"  # hairpin


@pytest.mark.parametrize("call_iptables", ["0", "1"])
def test_hairpin_with_and_without_br_netfilter(
    site: Site, daemon: Daemon, servers: list[socket.socket], call_iptables: str
) -> None:
    try:
        site.host.run(lambda: write("/proc/sys/net/bridge/bridge-nf-call-iptables", call_iptables))
    except FileNotFoundError:
        pytest.skip("this kernel has no br_netfilter")
    daemon.connect(ONE, site.one, "8080:80/tcp")
    daemon.connect(TWO, site.two)
    servers.append(site.one.serve("tcp", 80))
    assert site.one.ask("tcp", HOST, 8080) == "172.17.0.1"
    assert site.two.ask("tcp", HOST, 8080) == "172.17.0.1"


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def test_a_udp_client_that_never_pauses_follows_what_is_published(
    site: Site, daemon: Daemon, servers: list[socket.socket]
) -> None:
    """Its flow in the kernel's connection tracking is as old as its first datagram."""
    client = site.lan.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    servers.append(client)
    client.connect((HOST, 5353))
    client.settimeout(WAIT_S)
    client.send(b"?")
    with pytest.raises(ConnectionRefusedError):
        client.recv(100)
    for container_id, machine in ((ONE, site.one), (TWO, site.two)):
        daemon.connect(container_id, machine, "5353:53/udp")
        servers.append(machine.serve("udp", 53))
        client.send(b"?")
        assert client.recv(100) == LAN.encode()
        daemon.do(daemon.service.release(container_id))
    client.send(b"?")
    with pytest.raises(ConnectionRefusedError):
        client.recv(100)


def test_containers_reach_the_outside_as_the_host(site: Site, daemon: Daemon, servers: list[socket.socket]) -> None:
    daemon.connect(ONE, site.one)
    for protocol in ("tcp", "udp"):
        servers.append(site.lan.serve(protocol, 7))
        assert site.one.ask(protocol, LAN, 7) == HOST


def test_attack_21_what_is_not_published_is_not_reachable_from_outside(
    site: Site, daemon: Daemon, servers: list[socket.socket]
) -> None:
    """Unpublished ports, published ones by the container's own address, other protocols and addresses."""
    one = daemon.connect(ONE, site.one, "8080:80/tcp", "127.0.0.1:8081:80/tcp")
    servers += [site.one.serve("tcp", 80), site.one.serve("tcp", 81), site.one.serve("udp", 80)]
    assert site.host.ask("tcp", "127.0.0.1", 8081) == "172.17.0.1"
    # a neighbour that routes to the container's network through the host
    assert site.host.ask("tcp", one.ip, 81) == "172.17.0.1"
    for port in (80, 81):
        assert site.lan.ask("tcp", one.ip, port, SILENCE_S) is None
    assert site.lan.ask("udp", one.ip, 80, SILENCE_S) is None
    assert site.lan.ask("udp", HOST, 8080, SILENCE_S) is None
    assert site.lan.ask("tcp", HOST, 81, SILENCE_S) is None
    assert site.lan.ask("tcp", HOST, 8081, SILENCE_S) is None
    assert site.lan.ask("tcp", HOST, 8080) == LAN


def udp_frame(target_mac: str, source: str, target: str, port: int, payload: bytes) -> bytes:
    """An Ethernet frame with one UDP datagram, checksum left out."""
    length = 8 + len(payload)
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + length, 1, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(target)
    )
    total = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    header = header[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + header[12:]
    ethernet = bytes.fromhex(target_mac.replace(":", "")) + bytes.fromhex("0242c0000209") + b"\x08\x00"
    return ethernet + header + struct.pack("!HHHH", 4000, port, length, 0) + payload


def first_heard(receiver: socket.socket, wire: socket.socket, *frames: bytes) -> bytes:
    """The first to come of frames sent in this order; sent again, since a bridge's new port forwards none at first."""
    receiver.settimeout(SILENCE_S)
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        for frame in frames:
            wire.send(frame)
        with contextlib.suppress(TimeoutError):
            return receiver.recv(100)
    raise TimeoutError("nothing was heard")


def waiting(receiver: socket.socket) -> Iterator[bytes]:
    """What has come and was not read."""
    receiver.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            yield receiver.recv(100)


def test_attack_21_a_port_on_127_0_0_1_cannot_be_reached_by_a_neighbours_frame(
    site: Site, daemon: Daemon, servers: list[socket.socket]
) -> None:
    """CVE-2020-8558 and kin: route_localnet, and a frame addressed to 127.0.0.1 at the host's MAC."""
    daemon.connect(ONE, site.one, "127.0.0.1:5353:53/udp", "5354:53/udp")
    receiver = site.one.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    servers.append(receiver)
    receiver.bind(("0.0.0.0", 53))
    receiver.settimeout(WAIT_S)
    with site.lan.run(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as wire:
        wire.bind(("eth0", 0))
        hostile = udp_frame("02:42:c0:00:02:01", LAN, "127.0.0.1", 5353, b"hostile")
        honest = udp_frame("02:42:c0:00:02:01", LAN, HOST, 5354, b"honest")
        assert first_heard(receiver, wire, hostile, honest) == b"honest"
    assert site.host.ask("udp", "127.0.0.1", 9, SILENCE_S) is None
    assert set(waiting(receiver)) <= {b"honest"}


def test_attack_21_a_container_cannot_reach_the_hosts_loopback(
    site: Site, daemon: Daemon, servers: list[socket.socket]
) -> None:
    """The bridge has route_localnet: only the firewall stands between a crafted frame and 127.0.0.1."""
    daemon.connect(ONE, site.one)
    receiver = site.host.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    servers.append(receiver)
    receiver.bind(("0.0.0.0", 5000))
    receiver.settimeout(WAIT_S)
    with site.one.run(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as wire:
        wire.bind(("eth0", 0))
        hostile = udp_frame("02:42:ac:11:00:01", "172.17.0.2", "127.0.0.1", 5000, b"hostile")
        honest = udp_frame("02:42:ac:11:00:01", "172.17.0.2", "172.17.0.1", 5000, b"honest")
        assert first_heard(receiver, wire, hostile, honest) == b"honest"


def test_attack_21_no_ipv6_where_none_was_asked_for(site: Site, daemon: Daemon) -> None:
    daemon.connect(ONE, site.one)
    for machine, device in ((site.one, "eth0"), (site.host, "pier0")):
        with machine.run(NetlinkSocket) as sock:
            index = sock.link_index(device)
            assert [item for item in sock.addresses() if item.index == index and ":" in item.address] == []


def test_turning_forwarding_on_does_not_make_the_host_a_router_for_others(
    site: Site, daemon: Daemon, servers: list[socket.socket]
) -> None:
    with machines(1) as (other,), site.host.run(NetlinkSocket) as sock:
        sock.create_bridge("lan1", mac="02:42:c6:33:64:01")
        index = sock.link_index("lan1")
        sock.add_address(index, "198.51.100.1/24")
        sock.set_up(index)
        other.plug(
            Interface("eth0", "vethoth", "lan1", "02:42:c6:33:64:09", ["198.51.100.9/24"], ["198.51.100.1"]), site.host
        )
        servers.append(other.serve("tcp", 7))
        assert site.host.ask("tcp", "198.51.100.9", 7) == "198.51.100.1"
        assert site.lan.ask("tcp", "198.51.100.9", 7, SILENCE_S) is None
        again = Daemon(site, daemon.store)
        again.start()  # a daemon that finds forwarding on, and knows whose deed that was
        assert site.lan.ask("tcp", "198.51.100.9", 7, SILENCE_S) is None
        again.kill()


def test_two_daemons_of_one_machine_do_not_disturb_each_other(
    site: Site, daemon: Daemon, servers: list[socket.socket]
) -> None:
    """The first turned forwarding on, and drops for strangers; when it goes, the second has both from it."""
    second = Daemon(site, bridge="pier-b", bip="10.213.0.1/24")
    second.start()
    one = daemon.connect(ONE, site.one, "8080:80/tcp")
    two = second.connect(TWO, site.two, "9090:80/tcp")
    servers += [site.one.serve("tcp", 80), site.two.serve("tcp", 80), site.lan.serve("tcp", 7)]
    assert site.lan.ask("tcp", HOST, 8080) == LAN
    assert site.lan.ask("tcp", HOST, 9090) == LAN
    assert site.two.ask("tcp", LAN, 7) == HOST
    assert site.two.ask("tcp", HOST, 8080) is not None
    assert site.two.ask("tcp", one.ip, 80, SILENCE_S) is None
    assert site.one.ask("tcp", two.ip, 80, SILENCE_S) is None
    daemon.do(daemon.service.release(ONE))
    assert daemon.do(daemon.service.teardown())
    assert site.lan.ask("tcp", HOST, 9090) == LAN
    nft = site.host.run(Nftables)
    assert "elements = { ipv4 }" in nft.run("list set inet pier-pier-b closed")
    nft.close()
    second.do(second.service.release(TWO))
    assert second.do(second.service.teardown())
    second.kill()
    assert site.host.run(lambda: Path("/proc/sys/net/ipv4/ip_forward").read_text()) == "0\n"


def test_icc_false_keeps_containers_apart_but_not_from_published_ports(
    site: Site, servers: list[socket.socket]
) -> None:
    daemon = Daemon(site, icc=False)
    daemon.start()
    one = daemon.connect(ONE, site.one, "8080:80/tcp")
    daemon.connect(TWO, site.two)
    servers.append(site.one.serve("tcp", 80))
    assert site.two.ask("tcp", one.ip, 80, SILENCE_S) is None
    assert site.two.ask("tcp", HOST, 8080) == "172.17.0.1"
    assert site.lan.ask("tcp", HOST, 8080) == LAN
    daemon.kill()


class InThread(Machine):
    """The host, whose own thread is busy with the event loop: threads of that loop are on it too."""

    def __init__(self) -> None:
        pass

    def run(self, deed: Callable[[], T]) -> T:
        return deed()


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_the_hosts_ipv6_addresses_lead_to_a_container_that_has_none(
    site: Site, servers: list[socket.socket], protocol: str
) -> None:
    servers.append(site.one.serve(protocol, 80))

    async def ask() -> bytes:
        service = NetworkService(NetworkConfig(), MemoryStore(), EventBus())
        await service.start(set())
        publishing = Publishing(bindings(f"8080:80/{protocol}"))
        sandbox = await service.connect(ONE, [Ask("bridge")], name="one", publishing=publishing)
        endpoint = sandbox.endpoints[0]
        assert sandbox.ports[f"80/{protocol}"] == [PortBinding("0.0.0.0", "8080"), PortBinding("::", "8080")]
        await asyncio.to_thread(site.one.plug, endpoint.interface, InThread())
        client = socket.socket(socket.AF_INET6, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        with client:
            async with asyncio.timeout(WAIT_S):
                await loop.sock_connect(client, ("::1", 8080))
                await loop.sock_sendall(client, b"?")
                answer = await loop.sock_recv(client, 100)
        await service.release(ONE)
        await service.close()
        return answer

    assert on_host(site, ask) == b"172.17.0.1"


def test_release_frees_address_port_and_elements(site: Site, daemon: Daemon, servers: list[socket.socket]) -> None:
    daemon.connect(ONE, site.one, "8080:80/tcp", "127.0.0.1:5353:53/udp")
    servers.append(site.one.serve("tcp", 80))
    assert "172.17.0.2" in elements(site)
    daemon.do(daemon.service.release(ONE))
    daemon.do(daemon.service.release(ONE))
    assert "172.17.0.2" not in elements(site)
    assert site.lan.ask("tcp", HOST, 8080, SILENCE_S) is None
    assert daemon.service.sandbox(ONE) is None
    assert not daemon.keeps(ONE)
    again = daemon.connect(TWO, None, "8080:80/tcp")
    assert again.ip == "172.17.0.3"


def test_conflicts_are_worded_as_docker_words_them_and_leave_nothing(site: Site, daemon: Daemon) -> None:
    daemon.connect(ONE, None, "8080:80/tcp")
    before = elements(site)
    text = (
        r"^failed to set up container networking: driver failed programming external connectivity on endpoint web "
        r"\([0-9a-f]{64}\): Bind for 0\.0\.0\.0:8080 failed: port is already allocated"
    )
    with pytest.raises(ConnectivityFailed, match=text) as refused:
        daemon.connect(TWO, None, "7070:70/tcp", "8080:80/tcp", name="web")
    assert refused.value.status == 500
    with site.host.run(lambda: socket.create_server(("0.0.0.0", 9090))):
        text = r"failed to bind host port for 0\.0\.0\.0:9090:172\.17\.0\.\d+:80/tcp: address already in use$"
        with pytest.raises(ConnectivityFailed, match=text):
            daemon.connect(TWO, None, "9090:80/tcp")
    assert elements(site) == before
    assert daemon.service.sandbox(TWO) is None
    assert not daemon.keeps(TWO)
    daemon.connect(TWO, None, "7070:70/tcp", "9090:80/tcp")


def test_attack_26_after_kill_9_what_lives_goes_on_and_what_died_is_freed(
    site: Site, daemon: Daemon, servers: list[socket.socket]
) -> None:
    daemon.connect(ONE, site.one, "8080:80/tcp", "5353:53/udp")
    daemon.connect(TWO, None, "9090:90/tcp")
    servers.append(site.one.serve("tcp", 80))
    daemon.kill()
    assert site.lan.ask("tcp", HOST, 8080) == LAN  # no daemon, still published
    first = Daemon(site, daemon.store)
    with site.host.run(lambda: socket.create_server(("0.0.0.0", 8080))):
        lost = first.start({ONE})  # and one of its ports was taken meanwhile
    assert [text for text in lost if "freed" in text] == [
        "network endpoint of container 222222222222: freed, it is gone"
    ]
    assert any("0.0.0.0:8080" in text and "address already in use" in text for text in lost)
    assert site.lan.ask("tcp", HOST, 8080) == LAN
    assert "9090" not in elements(site)
    assert not first.keeps(TWO)
    endpoint = first.service.sandbox(ONE)
    assert endpoint is not None
    assert endpoint.ports["53/udp"] == [PortBinding("0.0.0.0", "5353"), PortBinding("::", "5353")]
    assert first.connect(TWO, None, "9090:90/tcp").ip == "172.17.0.3"
    with pytest.raises(ConnectivityFailed, match="5353 failed: port is already allocated"):
        first.connect("3" * 64, None, "5353:1/udp")
    first.do(first.service.release(ONE))
    first.kill()


def test_the_subnet_stays_and_avoids_the_hosts_routes(site: Site) -> None:
    with site.host.run(NetlinkSocket) as sock:
        sock.add_address(sock.link_index("lan0"), "172.17.200.1/24")
    daemon = Daemon(site)
    daemon.start()
    assert daemon.connect(ONE).ip == "172.18.0.2"
    network_id = daemon.service.find("bridge").id
    daemon.kill()
    again = Daemon(site, daemon.store)
    again.start()
    assert (again.connect(TWO).ip, again.service.find("bridge").id) == ("172.18.0.2", network_id)
    again.kill()


def test_other_modes_have_no_interface(site: Site, daemon: Daemon) -> None:
    for mode in ("host", "none"):
        endpoint = daemon.connect(ONE, None, "8080:80/tcp", mode=mode)
        assert (endpoint.interface, endpoint.forwards, endpoint.ip) == (None, [], "")
        assert endpoint.network_id == daemon.service.find(mode).id
        assert daemon.sandbox(ONE).ports == {}
    with pytest.raises(NetworkNotFound, match=r"^network nowhere not found$"):
        daemon.connect(TWO, None, mode="nowhere")


def test_ephemeral_ports_and_exposed_ones(daemon: Daemon) -> None:
    daemon.connect(ONE, None, exposed=["99/tcp", "80/tcp"], publish_all=True)
    found = daemon.sandbox(ONE).ports
    ports = {key: {int(item.host_port) for item in value or []} for key, value in found.items()}
    assert set(ports) == {"80/tcp", "99/tcp"}
    assert all(len(chosen) == 1 and min(chosen) >= 32768 for chosen in ports.values())
    assert ports["80/tcp"] != ports["99/tcp"]
    daemon.connect(TWO, None, exposed=["99/tcp"])
    assert daemon.sandbox(TWO).ports == {"99/tcp": None}


def test_a_cancelled_connect_leaves_nothing(site: Site, daemon: Daemon) -> None:
    async def cancel_it() -> None:
        task = asyncio.create_task(
            daemon.service.connect(ONE, [Ask("bridge")], name="one", publishing=Publishing(bindings("8080:80/tcp")))
        )
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    daemon.do(cancel_it())
    assert daemon.service.sandbox(ONE) is None
    assert not daemon.keeps(ONE)
    assert "8080" not in elements(site)
    daemon.connect(TWO, None, "8080:80/tcp")


def test_teardown_waits_for_the_last_container_and_leaves_the_host_as_it_was(site: Site) -> None:
    before = host_state(site)
    daemon = Daemon(site)
    daemon.start()
    daemon.connect(ONE)
    assert not daemon.do(daemon.service.teardown())
    daemon.do(daemon.service.release(ONE))
    assert daemon.do(daemon.service.teardown())
    daemon.kill()
    assert host_state(site) == before


def host_state(site: Site) -> tuple[object, ...]:
    nft = site.host.run(Nftables)
    with site.host.run(NetlinkSocket) as sock:
        links = [link.name for link in sock.links()]
    tables = nft.run("list tables")
    nft.close()
    return links, tables, site.host.run(lambda: Path("/proc/sys/net/ipv4/ip_forward").read_text())


def test_trap_14_without_libnftables_the_daemon_carries_published_ports_and_says_what_is_missing(
    site: Site, monkeypatch: pytest.MonkeyPatch, servers: list[socket.socket]
) -> None:
    monkeypatch.setattr(nftables, "LIBRARY", "libnftables-that-is-not-there.so.1")
    daemon = Daemon(site)
    daemon.start()
    first, second = daemon.service.features
    assert "no isolation between networks" in first
    assert "install the package libnftables1" in first
    assert "published ports are carried by the daemon itself" in second
    one = daemon.connect(ONE, site.one, "8080:80/tcp")
    servers.append(site.one.serve("tcp", 80))
    assert site.host.ask("tcp", one.ip, 80) == "172.17.0.1"
    assert daemon.do(asyncio.to_thread(site.lan.ask, "tcp", HOST, 8080)) == "172.17.0.1"
    daemon.kill()


def test_trap_14_a_kernel_without_nat_keeps_networks_apart_and_the_daemon_carries_ports(
    site: Site, monkeypatch: pytest.MonkeyPatch, servers: list[socket.socket]
) -> None:
    run = Nftables.run

    def without_nat(nft: Nftables, commands: str) -> str:
        if "type nat hook" in commands or "masquerade" in commands:
            raise NftablesError(reason="Could not process rule: No such file or directory", text="")
        return run(nft, commands)

    monkeypatch.setattr(Nftables, "run", without_nat)
    daemon = Daemon(site)
    daemon.start()
    first, second = daemon.service.features
    assert first.startswith("WARNING: no address translation: nftables: Could not process rule")
    assert "nft_chain_nat" in first
    assert "published ports are carried by the daemon itself" in second
    daemon.create("other")
    one = daemon.connect(ONE, site.one, "8080:80/tcp")
    daemon.connect(TWO, site.two, mode="other")
    servers.append(site.one.serve("tcp", 80))
    assert daemon.do(asyncio.to_thread(site.lan.ask, "tcp", HOST, 8080)) == "172.17.0.1"
    assert site.two.ask("tcp", one.ip, 80, SILENCE_S) is None
    daemon.kill()


def test_trap_14_a_kernel_without_nftables_is_told_what_it_lacks(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there is iptables with the old modules alone."""

    def refuse(nft: Nftables, commands: str) -> str:
        raise NftablesError(reason="Operation not supported", text="")

    monkeypatch.setattr(Nftables, "run", refuse)
    daemon = Daemon(site)
    daemon.start()
    assert "no isolation between networks: nftables: Operation not supported" in daemon.service.features[0]
    assert "nf_tables, nft_ct and nft_fib_inet; rules of iptables are not used" in daemon.service.features[0]
    assert daemon.connect(ONE, site.one, "8080:80/tcp").ip == "172.17.0.2"
    daemon.kill()


@pytest.mark.parametrize("options", [{"iptables": False}, {"ports_firewall": "host"}])
def test_attack_21_published_ports_obey_the_hosts_firewall_where_that_is_asked_for(
    site: Site, servers: list[socket.socket], options: dict[str, Any]
) -> None:
    """As ufw's and firewalld's rules do it: in the input chain. Without rules of Pier's it is the same."""
    daemon = Daemon(site, **options)
    daemon.start()
    daemon.connect(ONE, site.one, "8080:80/tcp", "9090:80/tcp")
    daemon.connect(TWO, site.two)
    servers.append(site.one.serve("tcp", 80))
    nft = site.host.run(Nftables)
    nft.run("add table inet ufw; add chain inet ufw in { type filter hook input priority 0; }")
    nft.run('add rule inet ufw in iifname "lan0" tcp dport 8080 drop')

    def asked(source: Machine, port: int, timeout_s: float = WAIT_S) -> str | None:
        return daemon.do(asyncio.to_thread(source.ask, "tcp", HOST, port, timeout_s))

    assert asked(site.lan, 8080, SILENCE_S) is None
    assert asked(site.lan, 9090) == "172.17.0.1"
    assert asked(InThread(), 8080)
    assert asked(site.two, 8080)
    nft.run("flush chain inet ufw in")
    assert asked(site.lan, 8080) == "172.17.0.1"
    nft.close()
    daemon.kill()


def test_without_a_proxy_only_what_the_kernel_translates_is_published(site: Site) -> None:
    daemon = Daemon(site, userland_proxy=False)
    daemon.start()
    asked = Publishing(bindings("8080:80/tcp"))
    sandbox = daemon.start_on(ONE, None, Ask("bridge"), publishing=asked)
    assert sandbox.ports["80/tcp"] == [PortBinding("0.0.0.0", "8080")]
    with pytest.raises(ConnectivityFailed, match="userland-proxy=false"):
        daemon.connect(TWO, None, "::1:8081:80/tcp")
    daemon.kill()


def test_trap_14_without_a_bridge_the_daemon_starts_and_host_and_none_work(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(95, "create bridge pier0: Operation not supported")

    monkeypatch.setattr(NetlinkSocket, "create_bridge", refuse)
    daemon = Daemon(site)
    daemon.start()
    assert daemon.service.features == [
        "WARNING: bridge networks are off: [Errno 95] create bridge pier0: Operation not supported"
    ]
    with pytest.raises(Unavailable, match=r"the bridge network is off: .*Operation not supported.*--network host"):
        daemon.connect(ONE)
    assert daemon.connect(ONE, None, mode="host").network == "host"
    daemon.kill()


def test_damaged_records_are_freed(site: Site) -> None:
    daemon = Daemon(site, MemoryStore(Put("endpoint", ONE, b"{not json"), Put("network", "bridge", b"[]")))
    assert daemon.start({ONE}) == ["network bridge: its record was damaged and is dropped"]
    assert daemon.connect(ONE).ip == "172.17.0.2"
    daemon.kill()


@pytest.mark.parametrize("commands", ["flush ruleset", "delete table inet pier"])
def test_trap_11_a_published_port_survives_a_flush_by_others(
    site: Site, daemon: Daemon, servers: list[socket.socket], commands: str
) -> None:
    """As a restart of a firewall's service does it (attack 21: isolation comes back as well)."""
    one = daemon.connect(ONE, site.one, "8080:80/tcp")
    servers.append(site.one.serve("tcp", 80))
    before = elements(site)

    async def flushed() -> None:
        nft = Nftables()
        async with asyncio.timeout(WAIT_S), daemon.events.subscribe() as told:
            nft.run(commands)
            event = await anext(told)
        assert (event.type, event.action) == ("daemon", "firewall")
        assert event.actor.attributes["message"].startswith("inet pier was changed or removed by others")
        nft.close()

    daemon.do(flushed())
    assert elements(site) == before
    assert site.lan.ask("tcp", HOST, 8080) == LAN
    site.lan.route("172.17.0.0/16", HOST)
    assert site.lan.ask("tcp", one.ip, 80, SILENCE_S) is None


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_port_of_a_network_with_both_families_and_of_one_with_ipv6_alone(
    site: Site, daemon: Daemon, servers: list[socket.socket], protocol: str
) -> None:
    """Within a family the kernel translates; ::1, and IPv4 to a container without it, a relay carries."""
    daemon.create("both", enable_ipv6=True)
    daemon.create("six", enable_ipv6=True, enable_ipv4=False)
    one = daemon.connect(ONE, site.one, f"8080:80/{protocol}", mode="both")
    two = daemon.connect(TWO, site.two, f"9090:80/{protocol}", mode="six")
    for machine in (site.one, site.two):
        servers.append(machine.serve(protocol, 80, "::"))
    servers += [site.one.serve("tcp", 80)] if protocol == "tcp" else []
    gateways = [network.addresses for network in daemon.service._host.firewall.networks.values()]
    (six,) = (text.partition("/")[0] for text in gateways[2])
    setting = Path("/proc/sys/net/ipv6/conf/eth0/accept_ra")
    assert site.one.run(setting.read_text) == "0\n", "another container could name itself the router"

    async def asked(source: Machine, *targets: tuple[str, int]) -> list[str | None]:
        return [await asyncio.to_thread(source.ask, protocol, *target) for target in targets]

    answers = daemon.do(asked(InThread(), ("::1", 8080), ("127.0.0.1", 8080), (six, 8080), ("127.0.0.1", 9090)))
    assert all(answers), answers
    answers = daemon.do(asked(site.lan, (HOST, 8080), (HOST, 9090)))
    assert [text and text.removeprefix("::ffff:") for text in answers] == [LAN, six]
    assert all(daemon.do(asked(InThread(), ("::1", 9090), (six, 9090))))
    assert one.ip
    assert not two.ip


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_attack_21_a_relay_serves_nobody_of_an_internal_network(
    site: Site, daemon: Daemon, servers: list[socket.socket], protocol: str
) -> None:
    """It listens at the internal gateway's address too, and its target is on another network."""
    daemon.create("inner", internal=True, enable_ipv6=True)
    daemon.create("open", enable_ipv6=True)
    daemon.connect(ONE, site.one, f"8080:80/{protocol}")
    servers.append(site.one.serve(protocol, 80))

    async def asked(mode: str, container_id: str) -> str | None:
        ask, machine = Ask(mode), Machine()
        sandbox = await daemon.service.connect(container_id, [ask], name=mode, publishing=Publishing())
        network = daemon.service._host.firewall.networks[sandbox.endpoints[0].interface.parent]
        (gateway,) = [text.partition("/")[0] for text in network.addresses if ":" in text]
        try:
            await asyncio.to_thread(machine.plug, sandbox.endpoints[0].interface, InThread())
            silence = {"inner": SILENCE_S}.get(mode, WAIT_S)
            return await asyncio.to_thread(machine.ask, protocol, gateway, 8080, silence)
        finally:
            await daemon.service.release(container_id)
            machine.close()

    assert daemon.do(asked("inner", TWO)) is None
    assert daemon.do(asked("open", "3" * 64)) == "172.17.0.1"
