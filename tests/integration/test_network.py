"""The default bridge from inside and outside: published ports, name resolution, the way out, the modes."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from netlab import Machine, machines, stop
from pier.kernel.netlink import NetlinkSocket
from pier.kernel.nftables import Nftables

from .client import Client
from .conftest import Daemon, poll

pytestmark = pytest.mark.root

WEB = "echo served >/var/www/index.html; exec httpd -f -p 80 -h /var/www"
ECHO = """
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("", 53))
while True:
    data, peer = sock.recvfrom(100)
    sock.sendto(data, peer)
"""
PORT, UDP_PORT = 18231, 18232


def fetched(port: int, address: str = "127.0.0.1") -> bytes:
    """What a web server says; empty where there is none."""
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with connection.makefile("rb") as file:
            return file.read().rpartition(b"\r\n\r\n")[2]
    return b""


def echoed(port: int, address: str = "127.0.0.1") -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(1)
        with contextlib.suppress(OSError):
            sock.connect((address, port))
            sock.send(b"ping")
            return sock.recv(100)
    return b""


def gateway(docker: Client, name: str) -> str:
    return docker.field(name, "{{.NetworkSettings.Gateway}}")


def address(docker: Client, name: str) -> str:
    return docker.field(name, "{{.NetworkSettings.IPAddress}}")


# --- published ports


def test_tcp_from_the_host_and_from_a_container(docker: Client) -> None:
    docker.run("-p", f"{PORT}:80", docker.image, "sh", "-c", WEB, name="t-web")
    poll(lambda: fetched(PORT) == b"served\n", "the page from 127.0.0.1")
    host = gateway(docker, "t-web")
    assert fetched(PORT, host) == b"served\n", "by another address of the host"
    wget = ["wget", "-q", "-O", "-", f"http://{host}:{PORT}/"]
    assert docker.ok("run", "--rm", docker.image, *wget) == "served", "from another container"
    assert docker.ok("exec", "t-web", *wget) == "served", "from itself (hairpin)"
    assert docker.ok("port", "t-web", "80") == f"0.0.0.0:{PORT}\n[::]:{PORT}"
    docker.ok("rm", "-f", "t-web")
    assert fetched(PORT) == b""


def test_udp(docker: Client) -> None:
    python = ["chroot", "/host", os.path.realpath(sys.executable), "-IS", "-c", ECHO]  # the image has none
    docker.run("-p", f"{UDP_PORT}:53/udp", "-v", "/:/host:ro", docker.image, *python, name="t-udp")
    poll(lambda: echoed(UDP_PORT) == b"ping", "the echo")


def test_on_one_address_only(docker: Client) -> None:
    docker.run("-p", f"127.0.0.1:{PORT}:80", docker.image, "sh", "-c", WEB, name="t-local")
    poll(lambda: fetched(PORT) == b"served\n", "the page")
    assert fetched(PORT, gateway(docker, "t-local")) == b""


def test_a_port_of_the_daemons_choice(docker: Client) -> None:
    docker.run("-p", "80", "--expose", "99", "-P", docker.image, "sh", "-c", WEB, name="t-any")
    port = docker.field("t-any", '{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}')
    assert 32768 <= int(port) <= 60999
    poll(lambda: fetched(int(port)) == b"served\n", "the page")
    assert len(docker.ok("port", "t-any", "99").splitlines()) == 2


def test_a_range(docker: Client) -> None:
    docker.run("-p", "18241-18243:80-82", docker.image, "sleep", "1000", name="t-range")
    assert docker.ok("port", "t-range", "82").splitlines()[0] == "0.0.0.0:18243"


def test_a_port_twice(docker: Client) -> None:
    docker.run("-p", f"{PORT}:80", docker.image, "sleep", "1000", name="t-first")
    done = docker("run", "--name", "t-second", "-p", f"{PORT}:80", docker.image, "true")
    assert done.status == 125
    assert f"Bind for 0.0.0.0:{PORT} failed: port is already allocated" in done.err
    assert docker.state("t-second") == "created"
    docker.ok("rm", "-f", "t-first")
    docker.ok("start", "t-second")


def test_a_port_that_a_program_of_the_host_has(docker: Client) -> None:
    with socket.create_server(("0.0.0.0", PORT)):
        done = docker("run", "--rm", "-p", f"{PORT}:80", docker.image, "true")
    assert done.status == 125
    assert f"{PORT}" in done.err
    assert "address already in use" in done.err


# --- inside


def test_containers_reach_each_other(docker: Client) -> None:
    docker.run(docker.image, "sh", "-c", WEB, name="t-one")
    url = f"http://{address(docker, 't-one')}/"
    script = f"until wget -q -O - {url}; do sleep 0.05; done"
    assert docker.ok("run", "--rm", docker.image, "sh", "-c", script) == "served"


def test_its_own_names(docker: Client) -> None:
    docker.run("-h", "box", "--add-host", "db:192.0.2.7", docker.image, "sleep", "1000", name="t-names")
    hosts = docker.ok("exec", "t-names", "cat", "/etc/hosts").splitlines()
    assert f"{address(docker, 't-names')}\tbox" in hosts
    assert "192.0.2.7\tdb" in hosts
    assert "127.0.0.1\tlocalhost" in hosts
    assert docker.ok("exec", "t-names", "hostname") == "box"
    assert docker.ok("exec", "t-names", "cat", "/etc/hostname") == "box"


def test_trap_27_the_host_has_a_name(docker: Client) -> None:
    docker.run(docker.image, "sleep", "1000", name="t-host")
    hosts = docker.ok("exec", "t-host", "cat", "/etc/hosts")
    for name in ("host.docker.internal", "gateway.docker.internal", "host.containers.internal"):
        assert name in hosts
    assert gateway(docker, "t-host") in hosts
    for network in ("host", "none"):
        words = ["--network", network, "--add-host", "h:host-gateway", docker.image, "cat", "/etc/hosts"]
        assert docker.ok("run", "--rm", *words).endswith(f"{gateway(docker, 't-host')}\th")


def test_dns_settings(docker: Client) -> None:
    words = ["--dns", "192.0.2.53", "--dns-search", "example.test", "--dns-option", "ndots:2"]
    text = docker.ok("run", "--rm", *words, docker.image, "cat", "/etc/resolv.conf")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines == ["nameserver 192.0.2.53", "search example.test", "options ndots:2"]


def test_dns_of_the_host(docker: Client) -> None:
    ours = servers(Path("/etc/resolv.conf").read_text())
    theirs = servers(docker.ok("run", "--rm", docker.image, "cat", "/etc/resolv.conf"))
    reachable = [server for server in ours if not server.startswith("127.")]
    assert theirs == (reachable or theirs)
    assert theirs, "a container has a name server"


def servers(text: str) -> list[str]:
    return [line.split()[1] for line in text.splitlines() if line.startswith("nameserver")]


def test_modes(docker: Client) -> None:
    ours = {name for _, name in socket.if_nameindex() if not name.startswith(("veth", "br-", "piert"))}
    inside = "ls /sys/class/net"
    assert docker.ok("run", "--rm", "--network", "none", docker.image, "sh", "-c", inside) == "lo"
    seen = docker.ok("run", "--rm", "--network", "host", docker.image, "sh", "-c", inside).split()
    assert ours <= set(seen), "all but what other tests make and remove meanwhile"
    docker.run(docker.image, "sleep", "1000", name="t-shared")
    joined = ["--network", "container:t-shared", docker.image, "hostname", "-i"]
    assert docker.ok("run", "--rm", *joined) == address(docker, "t-shared")


def test_a_mac_address(docker: Client) -> None:
    mac = "02:42:c0:00:02:0a"
    shown = docker.ok("run", "--rm", "--mac-address", mac, docker.image, "cat", "/sys/class/net/eth0/address")
    assert shown == mac


# --- the way out


@pytest.fixture
def outside() -> Iterator[tuple[Machine, str]]:
    """A machine on another network of the host, and its address. It knows no way back but to the host itself."""
    with machines(1) as (machine,):
        subprocess.run(
            [
                "ip",
                "link",
                "add",
                "t-out",
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                f"/proc/self/fd/{machine.fd}",
            ],
            pass_fds=[machine.fd],
            check=True,
        )
        try:
            subprocess.run(["ip", "address", "add", "198.51.100.1/24", "dev", "t-out"], check=True)
            subprocess.run(["ip", "link", "set", "t-out", "up"], check=True)

            def settle() -> None:
                with NetlinkSocket() as netlink:
                    index = netlink.link_index("eth0")
                    netlink.add_address(index, "198.51.100.2/24")
                    netlink.set_up(index)

            machine.run(settle)
            yield machine, "198.51.100.2"
        finally:
            subprocess.run(["ip", "link", "delete", "t-out"], check=True)  # and its other end


def test_nat_hides_containers_behind_the_host(docker: Client, daemon: Daemon, outside: tuple[Machine, str]) -> None:
    machine, there = outside
    server = machine.serve("tcp", 8080)
    try:
        script = f"until nc -w 5 {there} 8080; do sleep 0.05; done"
        assert docker.ok("run", "--rm", docker.image, "sh", "-c", script) == "198.51.100.1"
    finally:
        stop(server)


def test_a_port_is_reached_from_outside(docker: Client, daemon: Daemon, outside: tuple[Machine, str]) -> None:
    machine, _ = outside
    docker.run("-p", f"{PORT}:80", docker.image, "sh", "-c", WEB, name="t-lan")
    poll(lambda: fetched(PORT) == b"served\n", "the page")

    def ask() -> bytes:
        with socket.create_connection(("198.51.100.1", PORT), timeout=5) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with connection.makefile("rb") as file:
                return file.read().rpartition(b"\r\n\r\n")[2]

    assert machine.run(ask) == b"served\n"


def test_attack_21_what_is_published_on_127_is_not_reached_from_outside(
    docker: Client, daemon: Daemon, outside: tuple[Machine, str]
) -> None:
    machine, _ = outside
    docker.run("-p", f"127.0.0.1:{PORT}:80", docker.image, "sh", "-c", WEB, name="t-closed")
    poll(lambda: fetched(PORT) == b"served\n", "the page on the host")
    assert machine.ask("tcp", "198.51.100.1", PORT, timeout_s=0.5) is None
    assert machine.ask("tcp", address(docker, "t-closed"), 80, timeout_s=0.5) is None


# --- a daemon told of IPv6


def test_ipv6_by_one_flag_and_a_firewall_that_comes_back(own_daemon: Daemon, starter_images: list[Path]) -> None:
    """Published in both families, and again after somebody has removed the table (attack 21, trap 11)."""
    options = ["--default-network-opt", "bridge=com.docker.network.driver.mtu=1400"]
    own_daemon.flags += ["--ipv6", *options]
    own_daemon.start()
    assert own_daemon.pier("import", "--change", 'CMD ["sh"]', str(starter_images[0]), "busybox:latest").status == 0
    docker = Client(own_daemon.environment, "busybox")
    docker.run("-p", f"{PORT}:80", docker.image, "sh", "-c", WEB, name="t-six")
    six = docker.field("t-six", "{{.NetworkSettings.Networks.bridge.GlobalIPv6Address}}")
    gateway6 = docker.field("t-six", "{{.NetworkSettings.Networks.bridge.IPv6Gateway}}")
    assert six.startswith("fd")
    poll(lambda: fetched(PORT) == b"served\n", "the page")
    for target in (gateway6, "::1"):
        assert fetched(PORT, target) == b"served\n"
    docker.ok("network", "create", "t-small")
    show = ["cat", "/sys/class/net/eth0/mtu"]
    assert docker.ok("run", "--rm", "--network", "t-small", docker.image, *show) == "1400"
    events = docker.start("events", "--since", "1s", "--filter", "type=daemon")
    nft = Nftables()
    nft.run(f"delete table inet pier-{own_daemon.bridge}")
    nft.close()
    events.read_until("put in place again")
    assert fetched(PORT, gateway6) == b"served\n"
    docker.close()
