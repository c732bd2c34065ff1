"""A daemon on a LAN of network namespaces: who reaches whom, over IPv4 and IPv6, whatever happens to daemon and rules.

peer, second ── host (the daemon) ── router ── far
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lan import Lan, Probe, expect, lan
from netlab import Machine, stop

from .client import Client, Done
from .conftest import FIRST, Daemon, made_daemon

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="Docker's command line is not installed"),
]
ECHO = ("nc", "-ll", "-p", "80", "-e", "cat")
SUBNET, SUBNET6 = "10.213.99.0/24", "fd00:213:99::/64"


@dataclass
class House:
    lan: Lan
    daemon: Daemon
    docker: Client
    pier: Client

    def start(self) -> None:
        self.lan.host.run(self.daemon.start)

    def restart(self, *, killed: bool = False) -> None:
        if killed:
            self.daemon.kill()
        else:
            self.daemon.stop()
        self.start()

    @contextlib.contextmanager
    def inside(self, name: str) -> Iterator[Machine]:
        """A running container as a machine."""
        machine = Machine(f"/proc/{self.docker.field(name, '{{.State.Pid}}')}/ns/net")
        try:
            yield machine
        finally:
            machine.close()

    def address(self, name: str, network: str, member: str = "IPAddress") -> str:
        return self.docker.field(name, f'{{{{(index .NetworkSettings.Networks "{network}").{member}}}}}')

    def update(self, *words: str) -> Done:
        return self.pier("update", *words)


@pytest.fixture(scope="module")
def house(starter_images: list[Path]) -> Iterator[House]:
    with lan() as wires, made_daemon(FIRST + 2) as daemon:
        found = House(wires, daemon, Client(daemon.environment, "busybox"), Client(daemon.environment, "", "pier"))
        found.start()
        found.pier.ok("import", "--change", 'CMD ["sh"]', str(starter_images[0]), "busybox:latest")
        found.pier.ok("network", "create", "--ipv6", "--subnet", SUBNET, "--subnet", SUBNET6, "two")
        yield found


@pytest.fixture(autouse=True)
def cleared(house: House) -> Iterator[None]:
    yield
    if house.daemon.has_ended():
        house.start()
    if ids := house.docker.ids():
        house.docker.ok("rm", "-f", *ids)


@dataclass
class Line:
    """A connection from a machine that stays open."""

    sock: socket.socket

    @classmethod
    def to(cls, machine: Machine, address: str, port: int) -> Line:
        return cls(machine.run(lambda: socket.create_connection((address, port), timeout=10)))

    def echoes(self) -> bool:
        self.sock.send(b"still there?")
        return self.sock.recv(100) == b"still there?"


@contextlib.contextmanager
def line(machine: Machine, address: str, port: int) -> Iterator[Line]:
    made = Line.to(machine, address, port)
    with made.sock:
        yield made


# --- W1: published ports change while the container runs


def open_ports(house: House, *ports: int, on: str = "") -> list[Probe]:
    return [Probe(house.lan.peer, "tcp", on or house.lan.host_address, port) for port in ports]


def test_wish_01_ports_come_and_go_while_connections_by_others_stay(house: House) -> None:
    house.docker.run("-p", "8080:80", "-p", "9090:80", house.docker.image, *ECHO, name="t-w1")
    before = house.docker.field("t-w1", "{{.State.StartedAt}}")
    expect(reached=open_ports(house, 8080, 9090))
    with line(house.lan.peer, house.lan.host_address, 8080) as stays:
        assert stays.echoes()
        done = house.update(
            "--publish-add", "8081:80", "--publish-add", "127.0.0.1:8082:80", "--publish-rm", "9090", "t-w1"
        )
        assert (done.status, done.out, done.err) == (0, "t-w1\n", "")
        expect(
            reached=[
                *open_ports(house, 8080, 8081),
                Probe(house.lan.far, "tcp", house.lan.host_address, 8081),
                Probe(house.lan.second, "tcp", house.lan.host_address6, 8081),
                Probe(house.lan.host, "tcp", "127.0.0.1", 8082),
            ],
            silent=open_ports(house, 9090, 8082),
        )
        assert stays.echoes()
        assert house.docker.field("t-w1", "{{.State.StartedAt}}") == before
    assert house.docker.ok("port", "t-w1").splitlines() == [
        "80/tcp -> 0.0.0.0:8080",
        "80/tcp -> 0.0.0.0:8081",
        "80/tcp -> 127.0.0.1:8082",
        "80/tcp -> [::]:8080",
        "80/tcp -> [::]:8081",
    ]
    assert "8081->80/tcp" in house.docker.ok("ps", "--format", "{{.Ports}}")
    wanted = json.loads(house.docker.field("t-w1", "{{json .HostConfig.PortBindings}}"))
    assert [binding["HostPort"] for binding in wanted["80/tcp"]] == ["8080", "8081", "8082"]
    events = house.docker.events("--filter", "container=t-w1", "--filter", "event=update")
    assert len(events) == 1


def test_wish_01_changes_outlive_restarts_of_container_and_daemon(house: House) -> None:
    house.docker.run("-p", "8080:80", house.docker.image, *ECHO, name="t-w1")
    assert house.update("--publish-add", "8081:80", "--publish-rm", "8080", "t-w1").status == 0
    house.restart(killed=True)
    expect(reached=open_ports(house, 8081), silent=open_ports(house, 8080))
    house.docker.ok("restart", "-t", "0", "t-w1")
    expect(reached=open_ports(house, 8081), silent=open_ports(house, 8080))
    assert house.update("--publish-rm", "8081", "--publish-add", "8081:80/udp", "t-w1").status == 0
    house.restart()
    assert house.docker.ok("port", "t-w1").splitlines()[0] == "80/udp -> 0.0.0.0:8081"


def test_wish_01_a_stopped_container_publishes_at_its_next_start(house: House) -> None:
    house.docker.ok("create", "--name", "t-w1", "-p", "8080:80", house.docker.image, *ECHO)
    assert house.update("--publish-add", "8081:80", "--publish-rm", "8080", "t-w1").status == 0
    house.docker.ok("start", "t-w1")
    expect(reached=open_ports(house, 8081), silent=open_ports(house, 8080))


def test_wish_01_conflicts_change_nothing(house: House) -> None:
    house.docker.run("-p", "7070:80", house.docker.image, "sleep", "1000", name="t-other")
    house.docker.run("-p", "8080:80", house.docker.image, *ECHO, name="t-w1")
    expect(reached=open_ports(house, 8080))
    with line(house.lan.peer, house.lan.host_address, 8080) as stays:
        for words, error in (
            (
                ("--publish-add", "7070:80"),
                r"Bind for 0\.0\.0\.0:7070 failed: port is already allocated \(published by co",
            ),
            (
                ("--publish-add", "8085:80", "--publish-add", "8080:81"),
                r"Bind for 0\.0\.0\.0:8080 failed: port is already",
            ),
            (
                ("--publish-add", "8085:80", "--publish-rm", "1"),
                r"container t-w1 publishes no port 1 \(`pier port t-w1`",
            ),
            (
                ("--publish-rm", "8080", "--publish-add", "7070:80"),
                r"Bind for 0\.0\.0\.0:7070 failed: port is already all",
            ),
            (("--publish-add", "x:80"), r"invalid hostPort: x"),
            (("--publish-rm", "x"), r'invalid port specification: "x"'),
        ):
            done = house.update(*words, "t-w1")
            assert done.status == 1
            assert re.search(error, done.err), done.err
        taken = house.lan.host.run(lambda: socket.create_server(("0.0.0.0", 7171)))
        with taken:
            assert "address already in use" in house.update("--publish-add", "7171:80", "t-w1").err
        assert stays.echoes()
    expect(reached=open_ports(house, 8080), silent=open_ports(house, 8085, 1))
    assert house.docker.ok("port", "t-w1").splitlines() == ["80/tcp -> 0.0.0.0:8080", "80/tcp -> [::]:8080"]
    assert house.update("--publish-rm", "8080", "--publish-add", "8080:81", "t-w1").status == 0, "a port changes hands"


def test_wish_01_where_nothing_can_be_published(house: House) -> None:
    house.docker.run("--network", "none", house.docker.image, "sleep", "1000", name="t-none")
    house.docker.run("--network", "container:t-none", house.docker.image, "sleep", "1000", name="t-guest")
    done = house.update("--publish-add", "8080:80", "t-none")
    assert (done.status, done.err) == (
        0,
        "Its ports are published once a bridge network gives the container its default route.\n",
    )
    refused = house.update("--publish-add", "8080:80", "t-guest")
    assert "conflicting options: port publishing and the container type network mode" in refused.err
    house.docker.ok("network", "disconnect", "none", "t-none")
    house.docker.ok("network", "connect", "two", "t-none")
    assert house.docker.ok("port", "t-none").splitlines()[0] == "80/tcp -> 0.0.0.0:8080"


# --- reachability


def test_who_reaches_whom_before_and_after_flush_kill_restart_and_reconnect(house: House) -> None:
    wires = house.lan
    house.docker.run("-p", "8080:80", "-p", "5353:53/udp", house.docker.image, "sleep", "1000", name="t-one")
    house.docker.run("--network", "two", "-p", "9090:80", house.docker.image, "sleep", "1000", name="t-two")
    house.docker.run("--network", "two", house.docker.image, "sleep", "1000", name="t-three")
    one, two, two6 = (
        house.address("t-one", "bridge"),
        house.address("t-two", "two"),
        house.address("t-two", "two", "GlobalIPv6Address"),
    )

    def check() -> None:
        with house.inside("t-one") as first, house.inside("t-two") as second, house.inside("t-three") as third:
            servers = [second.serve("tcp", 80, "::"), second.serve("tcp", 80), first.serve("tcp", 80)]
            servers += [first.serve("udp", 53), wires.far.serve("tcp", 81), wires.far.serve("tcp", 81, "::")]
            try:
                expect(
                    reached=[
                        Probe(wires.peer, "tcp", wires.host_address, 8080, seen_as=wires.peer_address),
                        Probe(wires.far, "udp", wires.host_address, 5353, seen_as=wires.far_address),
                        Probe(wires.peer, "tcp", wires.host_address, 9090, seen_as=wires.peer_address),
                        Probe(wires.far, "tcp", wires.host_address6, 9090, seen_as=wires.far_address6),
                        Probe(wires.host, "tcp", "127.0.0.1", 8080),
                        Probe(wires.host, "tcp", "::1", 9090),
                        Probe(wires.host, "icmp", two6),
                        Probe(first, "tcp", wires.host_address, 9090),
                        Probe(first, "tcp", wires.far_address, 81, seen_as=wires.host_address),
                        Probe(third, "tcp", wires.far_address6, 81, seen_as=wires.host_address6),
                        Probe(third, "tcp", two, 80, seen_as=house.address("t-three", "two")),
                        Probe(third, "tcp", two6, 80),
                    ],
                    silent=[
                        Probe(first, "tcp", two, 80),
                        Probe(third, "icmp", one),
                        Probe(wires.router, "tcp", one, 80),
                        Probe(wires.router, "tcp", two6, 80),
                        Probe(wires.router, "icmp", two),
                        Probe(wires.peer, "tcp", wires.host_address, 80),
                    ],
                )
            finally:
                for server in servers:
                    stop(server)

    # a neighbour that routes around the published ports
    wires.router.route(SUBNET, wires.host_address)
    wires.router.route(SUBNET6, wires.host_address6)
    wires.router.route(f"10.213.{house.daemon.number}.0/24", wires.host_address)
    check()
    wires.host.run(lambda: subprocess.run(["nft", "flush", "ruleset"], check=True))
    check()
    house.restart(killed=True)
    check()
    house.restart()
    check()
    house.docker.ok("network", "disconnect", "two", "t-three")
    house.docker.ok("network", "connect", "two", "t-three")
    check()


def frames(machine: Machine, protocol: int) -> socket.socket:
    """All packets of a protocol that reach a machine, without their link headers."""

    def listen() -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(protocol))
        sock.settimeout(10)
        return sock

    return machine.run(listen)


def test_neighbours_hear_of_an_address_with_another_mac(house: House) -> None:
    """At a start and at a connect; where the MAC is made of the address there is nothing to tell."""
    words = ["--network", "two", "--ip", "10.213.99.50", "--mac-address", "02:42:00:00:00:50", house.docker.image]
    with frames(house.lan.host, 0x0806) as arp:
        house.docker.run(*words, "sleep", "1000", name="t-told")
        while arp.recv(100)[8:18] != bytes.fromhex("024200000050") + socket.inet_aton("10.213.99.50"):
            pass
    house.docker.run(house.docker.image, "sleep", "1000", name="t-late")
    with frames(house.lan.host, 0x86DD) as ipv6:
        house.docker.ok("network", "connect", "--ip6", "fd00:213:99::51", "two", "t-late")
        target = socket.inet_pton(socket.AF_INET6, "fd00:213:99::51")
        while (packet := ipv6.recv(2000))[40:41] != b"\x88" or packet[48:64] != target:
            pass


# --- macvlan


def test_a_macvlan_network_from_its_making_to_its_end(house: House) -> None:
    wires = house.lan
    subnets = ["--subnet", "192.0.2.0/24", "--ip-range", "192.0.2.64/26", "--gateway", wires.router_address]
    subnets += ["--ipv6", "--subnet", "2001:db8:1::/64", "--gateway", wires.router_address6]
    house.docker.ok("network", "create", "-d", "macvlan", "-o", "parent=eth0", *subnets, "t-lan")
    try:
        image = house.docker.image
        house.docker.run(
            "--network", "t-lan", "--ip", "192.0.2.77", "--ip6", "2001:db8:1::77", image, "sleep", "1000", name="t-mac"
        )
        house.docker.run(image, "sleep", "1000", name="t-late")
        house.docker.ok("network", "connect", "--ip", "192.0.2.78", "t-lan", "t-late")
        mac = house.address("t-mac", "t-lan", "MacAddress")

        def check() -> None:
            with house.inside("t-mac") as container, house.inside("t-late") as late:
                servers = [container.serve("tcp", 80), container.serve("tcp", 80, "::"), late.serve("tcp", 80)]
                expect(
                    reached=[
                        Probe(wires.peer, "tcp", "192.0.2.77", 80, seen_as=wires.peer_address),
                        Probe(wires.far, "tcp", "2001:db8:1::77", 80, seen_as=wires.far_address6),
                        Probe(wires.peer, "tcp", "192.0.2.78", 80),
                        Probe(late, "tcp", "192.0.2.77", 80, seen_as="192.0.2.78"),
                        Probe(container, "icmp", wires.far_address),
                    ],
                    silent=[Probe(wires.host, "icmp", "192.0.2.77"), Probe(container, "icmp", wires.host_address)],
                )
                for server in servers:
                    stop(server)

        check()
        house.restart(killed=True)
        check()
        assert house.address("t-mac", "t-lan", "MacAddress") == mac
        house.docker.ok("network", "disconnect", "t-lan", "t-late")
        assert house.docker.ok("exec", "t-late", "ls", "/sys/class/net") == "eth0\nlo"
        refused = house.docker("network", "create", "-d", "macvlan", "-o", "parent=nosuch", "t-wrong")
        assert "invalid subinterface vlan name nosuch, example formatting is eth0.10" in refused.err
    finally:
        house.docker.ok("rm", "-f", "t-mac", "t-late")
        house.docker.ok("network", "rm", "t-lan")
