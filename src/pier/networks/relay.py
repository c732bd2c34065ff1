"""Published ports that the kernel does not translate: between IPv6 and IPv4, and from ::1 to a container.

The daemon carries those connections itself, through the sockets that hold the ports. They end with the daemon; all
others are the kernel's and go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterable

from pier.networks.carriage import Carriage, Peer
from pier.networks.ports import HeldPort

__all__ = ["Relay", "start_relays"]

CHUNK_BYTES = 65536
CONNECT_TIMEOUT_S = 10.0
UDP_IDLE_S = 90.0
"""As docker-proxy: a client that was silent this long gets a new port towards the container."""
UDP_CLIENTS = 4096
"""Of one published port; datagrams of more are dropped."""


class Relay:
    """Carries what arrives at one held socket to a container. Made and closed on the event loop."""

    def __init__(
        self,
        held: socket.socket,
        container_ip: str,
        container_port: int,
        refuses: Callable[[Peer], bool] = lambda _: False,
    ) -> None:
        self._held = held
        self._refuses = refuses
        self._target = (container_ip, container_port)
        self._connections: set[asyncio.Task[None]] = set()
        self._close: Callable[[], None] = lambda: None

    @property
    def held(self) -> socket.socket:
        """The socket that holds the port."""
        return self._held

    async def start(self) -> None:
        """Begin; raises OSError when the port cannot be listened on."""
        loop = asyncio.get_running_loop()
        own = self._held.dup()  # the port table closes its own
        own.setblocking(False)
        try:
            if own.type == socket.SOCK_STREAM:
                # Connections inherit it: what is left of them when the daemon is killed must not keep the next from
                # binding. Where somebody listens nobody else binds, whatever he asks for.
                own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                server = await asyncio.start_server(self._carry, sock=own, limit=CHUNK_BYTES)
                self._close = server.close
            else:
                transport, _ = await loop.create_datagram_endpoint(
                    lambda: Datagrams(self._target, self._refuses), sock=own
                )
                self._close = transport.close
        except BaseException:
            own.close()
            raise

    def close(self) -> None:
        """Stop listening and cut what is under way."""
        self._close()
        for task in self._connections:
            task.cancel()

    async def _carry(self, client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        with contextlib.closing(client_writer), contextlib.suppress(OSError, asyncio.CancelledError):
            if self._refuses(client_writer.get_extra_info("peername")):
                return
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(*self._target, limit=CHUNK_BYTES)
            with contextlib.closing(writer):
                await asyncio.gather(pump(client_reader, writer), pump(reader, client_writer))


async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Copy to the end of file and pass that on; raises OSError."""
    while data := await source.read(CHUNK_BYTES):
        sink.write(data)
        await sink.drain()
    if sink.can_write_eof():
        sink.write_eof()


class Datagrams(asyncio.DatagramProtocol):
    """The host's side of a UDP port: one socket towards the container for every client."""

    def __init__(self, target: tuple[str, int], refuses: Callable[[Peer], bool]) -> None:
        self._target, self._refuses = target, refuses
        self._clients: dict[tuple[object, ...], Answers] = {}
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # asyncio types it by its base

    def datagram_received(self, data: bytes, addr: tuple[object, ...]) -> None:
        client = self._clients.get(addr)
        if client is None:
            if len(self._clients) >= UDP_CLIENTS or self._transport is None or self._refuses(addr):
                return
            client = self._clients[addr] = Answers(self._transport, addr, self._target, self._forget)
        client.send(data)

    def connection_lost(self, exc: Exception | None) -> None:
        for client in list(self._clients.values()):
            client.close()

    def _forget(self, addr: tuple[object, ...]) -> None:
        self._clients.pop(addr, None)


class Answers:
    """The container's side for one client: connected, closed after UDP_IDLE_S without a datagram from the client."""

    def __init__(
        self,
        host: asyncio.DatagramTransport,
        client: tuple[object, ...],
        target: tuple[str, int],
        forget: Callable[[tuple[object, ...]], None],
    ) -> None:
        self._host, self._client, self._forget = host, client, forget
        family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.connect(target)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._receive)
        self._idle = self._loop.call_later(UDP_IDLE_S, self.close)

    def send(self, data: bytes) -> None:
        self._idle.cancel()
        self._idle = self._loop.call_later(UDP_IDLE_S, self.close)
        with contextlib.suppress(OSError):  # full, or refused by the container: datagrams may be lost
            self._socket.send(data)

    def close(self) -> None:
        self._idle.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._forget(self._client)

    def _receive(self) -> None:
        with contextlib.suppress(OSError):
            self._host.sendto(self._socket.recv(CHUNK_BYTES), self._client)


async def start_relays(held: Iterable[HeldPort], carriage: Carriage) -> list[Relay]:
    """Relays for those ports that need one; raises OSError, with none left."""
    relays: list[Relay] = []
    try:
        for port in held:
            if port.socket is not None and carriage.relayed(port.forward):
                forward = port.forward
                relay = Relay(port.socket, forward.container_ip, forward.container_port, carriage.refuses)
                await relay.start()
                relays.append(relay)
    except BaseException:
        for relay in relays:
            relay.close()
        raise
    return relays
