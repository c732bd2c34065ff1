"""The sockets of a container's name server: where they come from, and what a container sees of them."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pier.kernel import nfnetlink
from pier.kernel.namespaces import CLONE_NEWNET, setns
from pier.kernel.nftables import Nftables
from pier.kernel.paths import closing
from pier.runtime.client import MonitorError
from pier.runtime.process import resolver
from pier.runtime.request import StartRequest

from ....netlab import Machine, machines
from ..bundles import BOOT
from ..conftest import Container, Lab, unframe
from .test_remap import remapped

ASK = "busybox nslookup -type=a web 127.0.0.11; echo asked | busybox nc -w 5 127.0.0.11 53"
RECORD = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 5, 4) + bytes([10, 9, 8, 7])


@pytest.fixture
def machine() -> Iterator[Machine]:
    with machines(1) as (made,):
        yield made


def test_rules_differ_in_their_port_alone() -> None:
    for number in (1024, 32768, 64206, 65535):
        port = struct.pack("!H", number)
        assert resolver.TEMPLATE.replace(resolver.PLACEHOLDER, port) == resolver.rules(port)


@pytest.mark.root
def test_rules_as_nft_reads_them(machine: Machine) -> None:
    sockets = machine.run(resolver.open_sockets)
    port = sockets.tcp.getsockname()[1]

    def listed() -> str:
        nft = Nftables()
        try:
            return nft.run(f"list table ip {resolver.TABLE}")
        finally:
            nft.close()

    assert [line.strip() for line in machine.run(listed).splitlines() if "port" in line] == [
        f'iif "lo" ip daddr 127.0.0.11 udp dport 53 udp dport set {port}',
        f'iif "lo" ip daddr 127.0.0.11 tcp dport 53 tcp dport set {port}',
        f"ip saddr 127.0.0.11 udp sport {port} udp sport set 53",
        f"ip saddr 127.0.0.11 tcp sport {port} tcp sport set 53",
    ]
    assert sockets.udp.getsockname() == sockets.tcp.getsockname()
    sockets.close()


@pytest.mark.root
def test_a_refusal_of_the_kernels_is_an_error(machine: Machine) -> None:
    table = nfnetlink.Filter("there")
    table.chain("in", 9, 0)  # no such hook
    with pytest.raises(OSError, match="make a table: ") as caught:
        machine.run(lambda: nfnetlink.commit(table.batch(), "make a table"))
    assert caught.value.errno in (errno.EINVAL, errno.EOPNOTSUPP)


@pytest.mark.root
def test_without_nf_tables_port_53_itself_is_taken(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(batch: bytes, what: str) -> None:
        raise OSError(errno.EPROTONOSUPPORT, f"{what}: Protocol not supported")

    monkeypatch.setattr(nfnetlink, "commit", refuse)
    sockets = machine.run(resolver.open_sockets)
    assert sockets.udp.getsockname() == sockets.tcp.getsockname() == ("127.0.0.11", 53)
    assert sockets.warning.endswith("Protocol not supported; a server of the container's own cannot bind port 53")
    sockets.close()


@pytest.mark.root
def test_only_the_loopback_device_leads_there(machine: Machine) -> None:
    sockets = machine.run(resolver.open_sockets)
    for sock in (sockets.udp, sockets.tcp):
        device = sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16)
        assert device.rstrip(b"\0") == b"lo"
    sockets.close()


async def check(container: Container) -> None:
    """Answer what the container asks, over UDP and then over TCP."""
    loop, (udp_fd, tcp_fd) = asyncio.get_running_loop(), container.running.resolver
    container.running.resolver = []
    with socket.socket(fileno=udp_fd) as udp, socket.socket(fileno=tcp_fd) as tcp:
        udp.setblocking(False)
        tcp.setblocking(False)
        assert udp.getsockname()[1] != resolver.PORT  # which is left to the container
        async with asyncio.timeout(20):
            data, peer = await loop.sock_recvfrom(udp, 512)
            assert (peer[0], data[12:]) == ("127.0.0.1", b"\3web\0\0\1\0\1")
            await loop.sock_sendto(udp, data[:2] + struct.pack("!5H", 0x8180, 1, 1, 0, 0) + data[12:] + RECORD, peer)
            stream, peer = await loop.sock_accept(tcp)
            with stream:
                assert (peer[0], await loop.sock_recv(stream, 100)) == ("127.0.0.1", b"asked\n")
                await loop.sock_sendall(stream, b"by tcp\n")
    output = unframe(await container.read())
    assert "Address: 10.9.8.7" in output
    assert output.endswith("by tcp\n")
    await container.running.wait()


@pytest.fixture(params=["own", "remapped", "foreign"])
async def request_of(request: pytest.FixtureRequest, lab: Lab) -> StartRequest:
    args = ["sh", "-c", ASK]
    if request.param == "remapped":
        return remapped(lab, args, resolver=True)
    if request.param == "foreign":
        return lab.request(args, resolver=True, oci_runtime=[sys.executable, "-I", "-S", "-c", BOOT])
    return lab.request(args, resolver=True)


@pytest.mark.root
async def test_container_with_a_name_server(lab: Lab, request_of: StartRequest) -> None:
    await check(await lab.start(request_of))


@pytest.mark.root
async def test_a_running_container_gets_one(lab: Lab) -> None:
    request = lab.request(["sh", "-c", f"cat; {ASK}"], open_stdin=True, stdin_once=True)
    container = await lab.start(request, stdin=True)
    monitor = container.running
    assert monitor.resolver == []
    with closing(os.open(f"/proc/{monitor.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as netns:
        for _ in range(2):  # the second takes the place of the first
            sockets = inside(netns, resolver.open_sockets)
            await monitor.keep_resolver(sockets.filenos())
            port = sockets.tcp.getsockname()[1]
            sockets.close()
    with pytest.raises(MonitorError, match="a name server has 2 sockets, not 1"):
        await monitor.keep_resolver([0])
    monitor.close()
    container.monitor = await lab.runtime.reconnect(container.request.exec_dir)
    assert {resolver_port(fd) for fd in container.running.resolver} == {port}
    assert container.client is not None
    container.client.shutdown(socket.SHUT_WR)
    await check(container)


def inside(netns: int, deed: Callable[[], resolver.Sockets]) -> resolver.Sockets:
    """Do it in a thread that enters the network namespace and ends there."""

    def work() -> resolver.Sockets:
        setns(netns, CLONE_NEWNET)
        return deed()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


def resolver_port(fd: int) -> int:
    with socket.socket(fileno=os.dup(fd)) as sock:
        port: int = sock.getsockname()[1]
        return port


@pytest.mark.root
async def test_another_daemon_gets_the_same_sockets(lab: Lab) -> None:
    container = await lab.start(lab.request(["sh", "-c", ASK], resolver=True))
    container.running.close()
    container.monitor = await lab.runtime.reconnect(container.request.exec_dir)
    await check(container)


@pytest.mark.root
async def test_a_container_without_one_has_none(lab: Lab) -> None:
    container = await lab.start(lab.request(["sh", "-c", "busybox nc -w 1 127.0.0.11 53 </dev/null || echo none"]))
    assert container.running.resolver == []
    assert "none" in unframe(await container.read())
    await container.running.wait()
