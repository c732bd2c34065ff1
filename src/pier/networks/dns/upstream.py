"""Asking other name servers: the host's, or those of `--dns`.

A question is sent from a new socket, so from a port nobody can guess, under an id of our own; what comes back counts
only from the server asked, with that id and that question. A server that says nothing is not waited for alone: the next
one is asked too, and the first good answer is taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import ipaddress
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from pier.kernel.namespaces import CLONE_NEWNET, setns
from pier.networks.dns.message import REFUSED, SERVFAIL, Query, is_reply_to, rcode_of, with_id
from pier.networks.dns.sockets import Sockets
from pier.networks.resolv import Upstream

__all__ = ["Exchange", "ask_over_tcp", "new_socket"]

PORT = 53
PATIENCE_S = 1.5
"""After so long without an answer the next server is asked as well. Clients of libc give up after 5 s."""
TIMEOUT_S = 4.0
"""How long the last server has, and each one over TCP (Docker's)."""
MESSAGE_MAX = 65535
SIOCGSKNS = 0x894C
"""Linux 4.10: a descriptor of a socket's network namespace."""
FAILURES = (SERVFAIL, REFUSED)
"""The next server may know better."""

Done = Callable[[bytes | None], None]


@contextlib.contextmanager
def in_network_of(sock: socket.socket) -> Iterator[None]:
    """Have this thread be in a socket's network namespace: for no more than making another one. Raises OSError."""
    theirs = fcntl.ioctl(sock.fileno(), SIOCGSKNS)
    try:
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(theirs, CLONE_NEWNET)
            try:
                yield
            finally:
                try:
                    setns(own, CLONE_NEWNET)
                except OSError:
                    os.abort()  # what this thread did next it would do to a container's network
        finally:
            os.close(own)
    finally:
        os.close(theirs)


def new_socket(server: Upstream, kind: int, inside: socket.socket) -> socket.socket:
    """A socket to ask `server` from; `inside` is one in the container's network namespace. Raises OSError."""
    address = ipaddress.ip_address(server.address)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with contextlib.nullcontext() if server.from_host else in_network_of(inside):
        return socket.socket(family, kind | socket.SOCK_NONBLOCK)


def place_of(server: Upstream) -> tuple[str, int] | tuple[str, int, int, int]:
    """Where to connect to. Raises OSError for an interface that is not there."""
    address, _, zone = server.address.partition("%")
    if ":" not in address:
        return address, PORT
    return address, PORT, 0, socket.if_nametoindex(zone) if zone else 0


class Exchange:
    """One question over UDP, until it is answered or no server is left."""

    __slots__ = ("_done", "_inside", "_left", "_open", "_query", "_sockets", "_timer")

    def __init__(
        self, query: Query, servers: Sequence[Upstream], *, inside: socket.socket, sockets: Sockets, done: Done
    ) -> None:
        """`done` is told the reply, under the query's own id, or None; not before `start`, and not after `close`."""
        self._query = query
        self._left = list(servers)
        self._inside = inside
        self._sockets = sockets
        self._done = done
        self._open: list[socket.socket] = []
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Ask the next server that can be asked; without one, wait for those that were."""
        self._stop_timer()
        while self._left:
            server = self._left.pop(0)
            with contextlib.suppress(OSError):
                self._ask(server)
                delay = PATIENCE_S if self._left else TIMEOUT_S
                self._timer = asyncio.get_running_loop().call_later(delay, self.start if self._left else self._give_up)
                return
        if not self._open:
            self._end(None)
        else:
            self._timer = asyncio.get_running_loop().call_later(TIMEOUT_S, self._give_up)

    def close(self) -> None:
        """Forget the question; nobody is told."""
        self._stop_timer()
        for sock in self._open:
            self._sockets.forget(sock)
            sock.close()
        self._open = []
        self._left = []

    def _ask(self, server: Upstream) -> None:
        sock = new_socket(server, socket.SOCK_DGRAM, self._inside)
        try:
            sock.connect(place_of(server))  # from here on the kernel drops what others send
            ident = int.from_bytes(os.urandom(2), "big")
            sock.send(with_id(self._query.data, ident))
            self._sockets.watch(sock, partial(self._receive, sock, ident))
        except BaseException:
            sock.close()
            raise
        self._open.append(sock)

    def _receive(self, sock: socket.socket, ident: int) -> None:
        try:
            data = sock.recv(MESSAGE_MAX)
        except BlockingIOError:
            return
        except OSError:  # no server there: the kernel was told so
            data = b""
        else:
            if not is_reply_to(self._query, ident, data):
                return
        if data and rcode_of(data) not in FAILURES:
            self._end(with_id(data, self._query.id))
            return
        self._sockets.forget(sock)
        sock.close()
        self._open.remove(sock)
        if self._left or not self._open:
            self.start()

    def _give_up(self) -> None:
        self._end(None)

    def _end(self, data: bytes | None) -> None:
        self.close()
        self._done(data)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def ask_over_tcp(query: Query, servers: Sequence[Upstream], inside: socket.socket) -> bytes | None:
    """Ask one server after the other; the reply under the query's own id, None where none has one."""
    for server in servers:
        with contextlib.suppress(OSError, TimeoutError, EOFError):
            async with asyncio.timeout(TIMEOUT_S):
                data = await _exchange(query, server, inside)
            if data is not None:
                return data
    return None


async def _exchange(query: Query, server: Upstream, inside: socket.socket) -> bytes | None:
    """Raises OSError, EOFError."""
    loop = asyncio.get_running_loop()
    with new_socket(server, socket.SOCK_STREAM, inside) as sock:
        await loop.sock_connect(sock, place_of(server))
        ident = int.from_bytes(os.urandom(2), "big")
        await send_message(sock, with_id(query.data, ident))
        data = await receive_message(sock)
        if not is_reply_to(query, ident, data) or rcode_of(data) in FAILURES:
            return None
        return with_id(data, query.id)


async def send_message(sock: socket.socket, data: bytes) -> None:
    """A message with its length before it (RFC 1035 section 4.2.2). Raises OSError."""
    await asyncio.get_running_loop().sock_sendall(sock, len(data).to_bytes(2, "big") + data)


async def receive_message(sock: socket.socket) -> bytes:
    """Raises EOFError at the end of the stream, OSError."""
    length = int.from_bytes(await receive_exactly(sock, 2), "big")
    return await receive_exactly(sock, length)


async def receive_exactly(sock: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < count:
        more = await loop.sock_recv(sock, count - len(data))
        if not more:
            raise EOFError
        data += more
    return data
