"""Names on user-defined networks: who finds whom at 127.0.0.11, over changes of networks and of the daemon."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dns_wire import AAAA, PTR, TXT, A, Reply, ask, question, read
from netlab import stop
from pier.networks.inside import run_inside

from .client import Client
from .conftest import Daemon, poll

pytestmark = pytest.mark.root
SLEEP = ["sleep", "1000"]


def resolver_of(docker: Client, name: str, kind: int = socket.SOCK_DGRAM) -> socket.socket:
    """A client's socket in a container's network namespace."""
    pid = docker.field(name, "{{.State.Pid}}")
    netns = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return run_inside(netns, lambda: socket.socket(socket.AF_INET, kind))
    finally:
        os.close(netns)


def looked_up(docker: Client, name: str, wanted: str, kind: int = A, *, tcp: bool = False) -> Reply:
    """What container `name` is answered."""
    with resolver_of(docker, name, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as sock:
        return read(ask(question(wanted, kind), sock))


def found(docker: Client, name: str, wanted: str, kind: int = A, *, tcp: bool = False) -> list[str]:
    """The addresses, or names, that it is answered; empty for none, and where there is no such name."""
    return sorted(item[3] for item in looked_up(docker, name, wanted, kind, tcp=tcp).answers)


def address(docker: Client, name: str, network: str) -> str:
    return docker.field(name, f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}')


class OtherServer:
    """A name server on the host that knows every name, at one address."""

    def __init__(self, place: str) -> None:
        self.asked = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((place, 53))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # closed meanwhile
            while True:
                data, peer = self._socket.recvfrom(4096)
                if not peer:
                    return
                self.asked += 1
                answer = b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4\xc0\0\2\1"
                self._socket.sendto(data[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + data[12:] + answer, peer)

    def close(self) -> None:
        stop(self._socket)


@pytest.fixture
def front(docker: Client) -> Iterator[str]:
    """A network with `t-a` and `t-b` on it, which share the alias `web`."""
    before = docker.ids()
    docker.ok("network", "create", "t-front")
    try:
        docker.run(
            "--network", "t-front", "--network-alias", "web", "--hostname", "hosta", docker.image, *SLEEP, name="t-a"
        )
        docker.run(
            "--network", "t-front", "--network-alias", "web", "--link", "t-a:lnk", docker.image, *SLEEP, name="t-b"
        )
        yield "t-front"
    finally:
        docker.ok("rm", "--force", *(docker.ids() - before))
        docker.ok("network", "rm", "t-front")


def gateway(docker: Client, network: str) -> str:
    return docker.ok("network", "inspect", "--format", "{{(index .IPAM.Config 0).Gateway}}", network)


def test_who_finds_whom(docker: Client, front: str) -> None:
    a, b = address(docker, "t-a", front), address(docker, "t-b", front)
    backwards = ".".join(reversed(a.split("."))) + ".in-addr.arpa"
    short_id = docker.field("t-a", "{{.Id}}")[:12]
    for name, kind, expected in (
        ("t-a", A, [a]),
        ("T-A.", A, [a]),
        ("hosta", A, [a]),
        (short_id, A, [a]),
        ("web", A, sorted([a, b])),
        ("web.t-front", A, sorted([a, b])),
        ("lnk", A, [a]),
        ("t-a", AAAA, []),
        ("t-a", TXT, []),
        (backwards, PTR, ["t-a.t-front"]),
    ):
        for tcp in (False, True):
            reply = looked_up(docker, "t-b", name, kind, tcp=tcp)
            assert (reply.rcode, sorted(item[3] for item in reply.answers)) == (0, expected), name
    assert found(docker, "t-a", "lnk") == []  # it is t-b's alone
    assert docker.ok("exec", "t-b", "ping", "-c", "1", "-w", "5", "web")
    assert f"Address: {a}" in docker.ok("exec", "t-b", "nslookup", "-type=a", "t-a")


def test_trap_27_the_host_is_found_by_who_asks_the_name_server(docker: Client, front: str) -> None:
    for name in ("host.docker.internal", "gateway.docker.internal", "host.containers.internal"):
        assert found(docker, "t-a", name) == [gateway(docker, front)]
        assert looked_up(docker, "t-a", name, AAAA).rcode == 0
        assert docker.ok("exec", "t-a", "ping", "-c", "1", "-w", "5", name)


def test_resolv_conf(docker: Client, front: str) -> None:
    words = ["--dns", "192.0.2.53", "--dns", "127.0.0.5", "--dns-search", "a.test", "--dns-option", "timeout:1"]
    text = docker.ok("run", "--rm", "--network", front, *words, docker.image, "cat", "/etc/resolv.conf")
    assert text.splitlines()[1:] == [
        "",
        "nameserver 127.0.0.11",
        "search a.test",
        "options timeout:1 ndots:0",
        "",
        "# Based on host file: '/etc/resolv.conf' (internal resolver)",
        "# ExtServers: [192.0.2.53 127.0.0.5]",
        "# Overrides: [nameservers search options]",
        "# Option ndots from: internal",
    ]


def test_names_come_and_go_with_networks_and_containers(docker: Client, front: str) -> None:
    docker.ok("network", "create", "t-back")
    try:
        docker.run("--network", "t-back", docker.image, *SLEEP, name="t-c")
        assert found(docker, "t-a", "t-c") == found(docker, "t-c", "t-a") == []
        docker.ok("network", "connect", "--alias", "late", front, "t-c")
        assert found(docker, "t-a", "late") == found(docker, "t-a", "t-c") == [address(docker, "t-c", front)]
        assert found(docker, "t-c", "t-a") == [address(docker, "t-a", front)]
        docker.ok("rename", "t-c", "t-d")
        assert found(docker, "t-a", "t-c") == []
        assert found(docker, "t-a", "t-d.t-front") == [address(docker, "t-d", front)]
        docker.ok("network", "disconnect", front, "t-d")
        assert found(docker, "t-a", "t-d") == found(docker, "t-d", "t-a") == []
        docker.ok("network", "connect", front, "t-d")
        docker.ok("stop", "-t", "0", "t-d")
        assert found(docker, "t-a", "t-d") == []
        docker.ok("start", "t-d")
        assert found(docker, "t-a", "t-d") == [address(docker, "t-d", front)]
    finally:
        docker("rm", "--force", "t-c", "t-d")
        docker.ok("network", "rm", "t-back")


def test_a_container_of_the_default_bridge_gets_a_name_server(docker: Client, front: str) -> None:
    for name, edit in (("t-plain", ""), ("t-edited", "echo nameserver 192.0.2.9 >/etc/resolv.conf;")):
        docker.run(docker.image, "sh", "-c", f"{edit} echo ready; exec sleep 1000", name=name)
        poll(lambda name=name: "ready" in docker("logs", name).out, "the file to be edited")
        before = docker.ok("exec", name, "cat", "/etc/resolv.conf")
        assert "127.0.0.11" not in before
        docker.ok("network", "connect", front, name)
        text = docker.ok("exec", name, "cat", "/etc/resolv.conf")
        assert ("nameserver 127.0.0.11" in text) == (not edit)
        assert found(docker, name, "t-a") == [address(docker, "t-a", front)]


def test_a_shared_namespace_shares_the_name_server(docker: Client, front: str) -> None:
    joined = ["--network", "container:t-a", docker.image]
    assert f"Address: {address(docker, 't-b', front)}" in docker.ok("run", "--rm", *joined, "nslookup", "t-b")


def test_a_build_finds_the_containers_of_its_network(docker: Client, front: str) -> None:
    steps = b"FROM busybox\nRUN nslookup -type=a t-b && nslookup -type=a host.docker.internal\n"
    plain = replace(docker, environment={**docker.environment, "DOCKER_BUILDKIT": "0"}, sessions=[])
    built = plain.ok("build", "--network", front, "--no-cache", "-", stdin=steps)
    assert f"Address: {address(docker, 't-b', front)}" in built
    assert f"Address: {gateway(docker, front)}" in built


def test_a_server_of_the_containers_own(docker: Client, front: str) -> None:
    """Its program has port 53 of every address but 127.0.0.11."""
    with resolver_of(docker, "t-a") as own, resolver_of(docker, "t-a", socket.SOCK_STREAM) as stream:
        own.bind(("0.0.0.0", 53))
        stream.bind(("0.0.0.0", 53))
        stream.listen()
        assert found(docker, "t-a", "t-b") == [address(docker, "t-b", front)]
        assert found(docker, "t-a", "t-b", tcp=True) == [address(docker, "t-b", front)]


def test_other_names_are_asked_of_other_servers(docker: Client, front: str) -> None:
    other = OtherServer(gateway(docker, front))
    try:
        docker.run("--network", front, "--dns", gateway(docker, front), docker.image, *SLEEP, name="t-asks")
        assert found(docker, "t-asks", "example.test") == ["192.0.2.1"]
        assert found(docker, "t-asks", "single") == ["192.0.2.1"]
        assert found(docker, "t-asks", "t-a") == [address(docker, "t-a", front)]
        assert other.asked == 2
    finally:
        other.close()


def test_attack_21_names_do_not_leave_an_internal_network(docker: Client, front: str) -> None:
    """CVE-2024-29018: a question that is passed on is a way out."""
    other = OtherServer(gateway(docker, front))
    docker.ok("network", "create", "--internal", "t-inner")
    try:
        words = ["--network", "t-inner", "--dns", gateway(docker, front)]
        docker.run(*words, docker.image, *SLEEP, name="t-inside")
        for tcp in (False, True):
            assert looked_up(docker, "t-inside", "secret.evil.test", tcp=tcp).rcode == 2
            assert found(docker, "t-inside", "t-inside", tcp=tcp) == [address(docker, "t-inside", "t-inner")]
        assert other.asked == 0
    finally:
        other.close()
        docker("rm", "--force", "t-inside")
        docker.ok("network", "rm", "t-inner")


def test_a_killed_daemon_owes_the_answers(own_docker: Client, own_daemon: Daemon) -> None:
    docker = own_docker
    docker.ok("network", "create", "t-kept")
    for name in ("t-one", "t-two"):
        docker.ok("run", "-d", "--network", "t-kept", "--name", name, docker.image, *SLEEP)
    docker.ok("run", "-d", "--name", "t-late", docker.image, *SLEEP)
    docker.ok("network", "connect", "t-kept", "t-late")
    two = address(docker, "t-two", "t-kept")
    sockets = [resolver_of(docker, name) for name in ("t-one", "t-late")]
    own_daemon.kill()
    for sock in sockets:
        sock.settimeout(20)
        sock.connect(("127.0.0.11", 53))
        sock.send(question("t-two"))
    own_daemon.start()
    for sock in sockets:
        with sock:
            assert [item[3] for item in read(sock.recv(512)).answers] == [two]
    assert found(docker, "t-two", "t-one") == [address(docker, "t-one", "t-kept")]
    docker.ok("rm", "--force", "t-one", "t-two", "t-late")
    docker.ok("network", "rm", "t-kept")
