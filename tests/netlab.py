"""Hosts made of network namespaces, for tests: a thread that left the host's namespace is a machine of its own.

Sockets, netlink, nftables and /proc/sys/net of what runs in the thread belong to it, and so do threads it starts.
Nothing has to be cleaned up: the namespace goes with the thread and its sockets.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

from pier.kernel.namespaces import CLONE_NEWNET, setns, unshare
from pier.kernel.netlink import NetlinkSocket
from pier.kernel.nlmsg import NLM_F_CREATE, attribute
from pier.kernel.routes import address_bytes
from pier.runtime.process.network import add_interface
from pier.runtime.request import Interface

T = TypeVar("T")
NDMSG = struct.Struct("=BxxxiHBB")  # linux/neighbour.h: family, ifindex, state, flags, type
RTM_NEWNEIGH, NDA_DST, NDA_LLADDR, NUD_PERMANENT = 28, 1, 2, 0x80
WAIT_S = 10.0
"""For what must come; nothing waits this long when it works."""


class Machine:
    """One network namespace with loopback up."""

    def __init__(self, joins: str = "") -> None:
        """A new one, or the namespace that the file `joins` names: `/proc/PID/ns/net` of a container."""
        self._thread = ThreadPoolExecutor(1)
        try:
            self.fd = self.run(lambda: self._join(joins) if joins else self._leave())
        except BaseException:
            self._thread.shutdown()
            raise

    def run(self, deed: Callable[[], T]) -> T:
        """Do something on this machine; sockets made there may be used anywhere."""
        return self._thread.submit(deed).result(60)

    def close(self) -> None:
        os.close(self.fd)
        self._thread.shutdown()

    def plug(self, interface: Interface, host: Machine) -> None:
        """Give this machine an interface on one of `host`'s bridges, as a container's init does."""
        with host.run(NetlinkSocket) as outside, self.run(NetlinkSocket) as inside:
            self.run(lambda: add_interface(outside, inside, netns_fd=self.fd, interface=interface))

    def route(self, destination: str, gateway: str, device: str = "eth0") -> None:
        """Reach `destination`, a network with prefix length, by `gateway`."""
        with self.run(NetlinkSocket) as sock:
            sock.add_route(sock.link_index(device), destination, gateway)

    def neighbour(self, address: str, mac: str, device: str = "eth0") -> None:
        """Take `address` for a neighbour's who has this MAC, without asking for it (RTM_NEWNEIGH, rtnetlink(7))."""
        family, packed = address_bytes(address)
        with self.run(NetlinkSocket) as sock:
            head = NDMSG.pack(family, sock.link_index(device), NUD_PERMANENT, 0, 0)
            body = head + attribute(NDA_DST, packed) + attribute(NDA_LLADDR, bytes.fromhex(mac.replace(":", "")))
            sock.do(RTM_NEWNEIGH, NLM_F_CREATE, body, f"take {address} for {mac}")

    def set(self, key: str, value: str) -> None:
        """Write a kernel setting of this machine, below /proc/sys/net: `ipv4/ip_forward`."""

        def write() -> None:
            with open(f"/proc/sys/net/{key}", "w") as setting:
                setting.write(value)

        self.run(write)

    def serve(self, protocol: str, port: int, address: str = "0.0.0.0") -> socket.socket:
        """A server that answers every connection or datagram with its peer's address, until it is closed."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        if protocol == "tcp":
            server = self.run(lambda: socket.create_server((address, port), family=family))
            deed = accept_all
        else:
            server = self.run(lambda: bound_datagram(family, address, port))
            deed = answer_all
        threading.Thread(target=deed, args=(server,), daemon=True).start()
        return server

    def ask(self, protocol: str, address: str, port: int, timeout_s: float = WAIT_S) -> str | None:
        """The peer's address as the server at `address` saw it; None when nobody answers within the time."""
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        client = self.run(lambda: socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind))
        with client:
            client.settimeout(timeout_s)
            try:
                client.connect((address, port))
                client.send(b"?")
                return client.recv(100).decode() or None
            except OSError:
                return None

    def ping(self, address: str, timeout_s: float = WAIT_S) -> bool:
        """Whether an ICMP echo request to `address` is answered within the time."""
        ipv6 = ":" in address
        family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if ipv6 else (socket.AF_INET, socket.IPPROTO_ICMP)
        # RFC 4443 and RFC 792. A raw socket hears every answer that this machine gets: ours has our token.
        token = os.urandom(4)
        request, reply = (echo(0x80, 0, token), 0x81) if ipv6 else (echo(8, checksum(echo(8, 0, token)), token), 0)
        deadline = time.monotonic() + timeout_s
        with self.run(lambda: socket.socket(family, socket.SOCK_RAW, protocol)) as sock, suppress(OSError):
            sock.connect((address, 0))
            sock.send(request)
            while (left := deadline - time.monotonic()) > 0:
                sock.settimeout(left)
                packet = sock.recv(1000)
                message = packet if ipv6 else packet[(packet[0] & 15) * 4 :]
                if message[0] == reply and message[4:8] == token:
                    return True
        return False

    @staticmethod
    def _join(path: str) -> int:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        setns(fd, CLONE_NEWNET)
        return fd

    @staticmethod
    def _leave() -> int:
        unshare(CLONE_NEWNET)
        with NetlinkSocket() as netlink:
            netlink.set_loopback_up()
        with open("/proc/sys/net/ipv4/ip_forward", "w") as setting:
            setting.write("0")  # a new namespace has the first one's settings
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def echo(kind: int, check: int, token: bytes) -> bytes:
    """An ICMP echo message; of IPv6's the kernel fills in the checksum."""
    return struct.pack("!BBH", kind, 0, check) + token


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def bound_datagram(family: int, address: str, port: int) -> socket.socket:
    server = socket.socket(family, socket.SOCK_DGRAM)
    server.bind((address, port))
    return server


def accept_all(server: socket.socket) -> None:
    while True:
        try:
            connection, peer = server.accept()
        except OSError:
            return
        with connection, suppress(OSError):
            connection.settimeout(1)
            connection.send(peer[0].encode())
            connection.shutdown(socket.SHUT_WR)
            connection.recv(100)  # what is unread at the close would make it a reset, which may overtake the answer


def answer_all(server: socket.socket) -> None:
    while True:
        try:
            _, peer = server.recvfrom(100)
            if not peer:  # shut down
                return
            server.sendto(peer[0].encode(), peer)
        except OSError:
            return


@contextmanager
def machines(count: int) -> Iterator[list[Machine]]:
    made: list[Machine] = []
    try:
        for _ in range(count):
            made.append(Machine())
        yield made
    finally:
        for machine in made:
            machine.close()


def stop(server: socket.socket) -> None:
    """End a server of `serve`: a thread that waits in a closed socket would wait on."""
    with suppress(OSError):
        server.shutdown(socket.SHUT_RDWR)
    server.close()
