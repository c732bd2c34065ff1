"""The name servers of all containers: their sockets, made by the runtime in their network namespaces, served here."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial

from pier.errors import PierError
from pier.networks.dns.answer import Settings, answer
from pier.networks.dns.message import (
    REFUSED,
    SERVFAIL,
    TCP_MAX,
    UDP_OURS,
    Malformed,
    Query,
    parse_query,
    refusal,
    reply,
    truncated,
)
from pier.networks.dns.names import NameTable
from pier.networks.dns.sockets import Sockets
from pier.networks.dns.upstream import Exchange, ask_over_tcp, receive_message, send_message
from pier.networks.resolv import Upstream

__all__ = ["DnsServer", "NotNameServerSockets"]

log = logging.getLogger("pier.dns")

SERVERS_MAX = 3
"""So many are asked (resolv.conf(5), MAXNS)."""
UNDER_WAY_MAX = 256
"""Questions of one container that other servers have not answered yet; each holds a socket."""
UNDER_WAY_OF_ALL_MAX = 4096
CONNECTIONS_MAX = 32
"""TCP connections of one container."""
IDLE_S = 10.0
"""A TCP connection that says nothing is closed after this."""

OUT_OF_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
PAUSE_S = 1.0
"""How long a container's connections wait when there is no room for one more."""
REFRESH_S = 2.0
TELL_S = 10.0
"""So often the log says at most that questions are refused."""


class NotNameServerSockets(PierError):
    """the container's monitor has handed over what is no name server's socket: {reason}"""


class Served:
    """One container's name server."""

    __slots__ = ("connections", "container_id", "exchanges", "settings", "tcp", "udp", "under_way")

    def __init__(self, container_id: str, udp: socket.socket, tcp: socket.socket, settings: Settings) -> None:
        self.container_id = container_id
        self.udp = udp
        self.tcp = tcp
        self.settings = settings
        self.exchanges: set[Exchange] | None = None
        """Over UDP."""
        self.connections: set[asyncio.Task[None]] | None = None
        self.under_way = 0

    @property
    def servers(self) -> Sequence[Upstream]:
        """Those that may be asked for this container."""
        settings = self.settings
        # What the container's own namespace cannot reach is not reached for it: an internal network's container may ask
        # a server on that network, nobody else (CVE-2024-29018).
        return [item for item in settings.servers if settings.forwards or not item.from_host][:SERVERS_MAX]


class DnsServer:
    """One per daemon; all its work is done on the event loop, none of it blocks."""

    def __init__(self, names: NameTable) -> None:
        """`names` are those of all networks."""
        self.refresh: Callable[[], None] = lambda: None
        """Called before a question is passed on, at most once in REFRESH_S: settings may be out of date."""
        self._names = names
        self._refreshed_at = -REFRESH_S
        self._told_at = -TELL_S
        self._sockets = Sockets()
        self._served: dict[str, Served] = {}
        self._under_way = 0

    def serve(self, container_id: str, fds: Sequence[int], settings: Settings) -> None:
        """Serve a container by its sockets, `Monitor.resolver`; the descriptors belong to this from now on.

        One that is served already goes on with the new sockets. Raises NotNameServerSockets.
        """
        self.stop(container_id)
        udp, tcp = take_sockets(fds)
        served = Served(container_id, udp, tcp, settings)
        self._served[container_id] = served
        self._sockets.watch(udp, partial(self._datagram, served))
        self._listen(served)

    def serves(self, container_id: str) -> bool:
        return container_id in self._served

    def configure(self, container_id: str, settings: Settings) -> None:
        """New settings from the next question on; for a container that is not served nothing is done."""
        if container_id in self._served:
            self._served[container_id].settings = settings

    def stop(self, container_id: str) -> None:
        """Let go of a container that has ended; its network namespace goes with the last socket in it."""
        served = self._served.pop(container_id, None)
        if served is None:
            return
        for exchange in served.exchanges or ():
            exchange.close()
        self._finished(served, len(served.exchanges or ()))
        served.exchanges = None
        for task in served.connections or ():
            task.cancel()
        for sock in (served.udp, served.tcp):
            self._sockets.forget(sock)
            sock.close()

    async def close(self) -> None:
        """Let go of all; questions wait in the sockets that the monitors keep, for the next daemon."""
        tasks = [task for served in self._served.values() for task in served.connections or ()]
        for container_id in list(self._served):
            self.stop(container_id)
        await asyncio.gather(*tasks, return_exceptions=True)
        self._sockets.close()

    def _servers(self, served: Served) -> Sequence[Upstream]:
        now = time.monotonic()
        if now - self._refreshed_at >= REFRESH_S:
            self._refreshed_at = now
            self.refresh()
        return served.servers

    # --- UDP

    def _datagram(self, served: Served) -> None:
        try:
            data, client = served.udp.recvfrom(UDP_OURS)
        except OSError:  # taken by an earlier daemon that is not gone yet, or the namespace is being taken down
            return
        try:
            query = parse_query(data)
        except Malformed as error:
            if error.rcode is not None:
                send(served.udp, refusal(data, error.rcode), client)
            return
        found = answer(self._names, served.container_id, served.settings, query, limit=query.udp_max)
        if found is not None:
            send(served.udp, found, client)
        else:
            self._pass_on(served, query, client)

    def _pass_on(self, served: Served, query: Query, client: tuple[str, int]) -> None:
        servers = self._servers(served)
        if not servers:
            send(served.udp, reply(query, SERVFAIL), client)
            return
        if not self._may_start(served):
            send(served.udp, reply(query, REFUSED), client)
            return

        def done(data: bytes | None) -> None:
            assert served.exchanges is not None
            served.exchanges.discard(exchange)
            self._finished(served, 1)
            if data is None:
                data = reply(query, SERVFAIL)
            send(served.udp, data if len(data) <= query.udp_max else truncated(query), client)

        exchange = Exchange(query, servers, inside=served.udp, sockets=self._sockets, done=done)
        if served.exchanges is None:
            served.exchanges = set()
        served.exchanges.add(exchange)
        exchange.start()

    def _may_start(self, served: Served) -> bool:
        if served.under_way >= UNDER_WAY_MAX or self._under_way >= UNDER_WAY_OF_ALL_MAX:
            self._tell_refused(served)
            return False
        served.under_way += 1
        self._under_way += 1
        return True

    def _tell_refused(self, served: Served) -> None:
        now = time.monotonic()
        if now - self._told_at >= TELL_S:
            self._told_at = now
            text = "container %s: %d questions for names wait for other servers, more are refused"
            log.warning(text, served.container_id[:12], served.under_way)

    def _finished(self, served: Served, count: int) -> None:
        served.under_way -= count
        self._under_way -= count

    # --- TCP

    def _connection(self, served: Served) -> None:
        try:
            sock, _ = served.tcp.accept()
        except OSError as error:
            if error.errno in OUT_OF_ROOM:  # the connection stays, and would be told of again at once
                self._sockets.forget(served.tcp)
                asyncio.get_running_loop().call_later(PAUSE_S, self._listen, served)
            return
        if served.connections is None:
            served.connections = set()
        if len(served.connections) >= CONNECTIONS_MAX:
            sock.close()
            return
        sock.setblocking(False)
        task = asyncio.ensure_future(self._converse(served, sock))
        served.connections.add(task)
        task.add_done_callback(served.connections.discard)

    def _listen(self, served: Served) -> None:
        if self._served.get(served.container_id) is served:
            self._sockets.watch(served.tcp, partial(self._connection, served))

    async def _converse(self, served: Served, sock: socket.socket) -> None:
        """One question after the other, until the client has no more."""
        with sock, contextlib.suppress(OSError, EOFError, TimeoutError):
            while True:
                async with asyncio.timeout(IDLE_S):
                    data = await receive_message(sock)
                answered = await self._answer_over_tcp(served, data)
                if answered is None:
                    return
                async with asyncio.timeout(IDLE_S):
                    await send_message(sock, answered)

    async def _answer_over_tcp(self, served: Served, data: bytes) -> bytes | None:
        try:
            query = parse_query(data)
        except Malformed as error:
            return None if error.rcode is None else refusal(data, error.rcode)
        found = answer(self._names, served.container_id, served.settings, query, limit=TCP_MAX)
        if found is not None:
            return found
        if not self._may_start(served):
            return reply(query, REFUSED)
        try:
            passed_on = await ask_over_tcp(query, self._servers(served), served.udp)
        finally:
            self._finished(served, 1)
        return passed_on or reply(query, SERVFAIL)


def send(sock: socket.socket, data: bytes, client: tuple[str, int]) -> None:
    """A client that takes nothing asks again, or does not."""
    with contextlib.suppress(OSError):
        sock.sendto(data, client)


def take_sockets(fds: Sequence[int]) -> tuple[socket.socket, socket.socket]:
    """The UDP and the listening TCP socket, not blocking. Raises NotNameServerSockets, with all of `fds` closed."""
    taken: list[socket.socket] = []
    try:
        for fd, kind in zip(fds, (socket.SOCK_DGRAM, socket.SOCK_STREAM), strict=True):
            sock = socket.socket(fileno=fd)
            taken.append(sock)
            if (sock.family, sock.type) != (socket.AF_INET, kind):
                raise ValueError(f"{sock.family.name} {sock.type.name}")
            sock.setblocking(False)
        if not taken[1].getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ValueError("it does not listen")
    except (OSError, ValueError) as error:
        for sock in taken:
            sock.close()
        for fd in fds[len(taken) :]:
            os.close(fd)
        raise NotNameServerSockets(reason=str(error)) from error
    udp, tcp = taken
    return udp, tcp
