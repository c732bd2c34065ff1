"""A connection inside a call: bytes both ways in messages (`Control.Session`), for clients that have no other."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from pier.buildkit.grpc import Call
from pier.buildkit.pb.control_pb2 import BytesMessage

HIGH_BYTES: Final = 256 << 10
"""Of output that waits: then the connection is to write no more for a while."""
CHUNK_BYTES: Final = 32 << 10


class Tunnel(asyncio.Transport):
    """The transport of a protocol, over a call."""

    def __init__(self, call: Call, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._call = call
        self._protocol = protocol
        self._buffer = bytearray()
        self._news = asyncio.Event()
        self._closing = False
        self._paused = False
        protocol.connection_made(self)  # now: whoever learns of the connection may use it before `run` is scheduled

    async def run(self) -> None:
        """Carry bytes until either side has had enough."""
        writing = asyncio.create_task(self._write())
        reading = asyncio.create_task(self._read())
        try:
            await asyncio.wait({writing, reading}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (writing, reading):
                task.cancel()
            await asyncio.gather(writing, reading, return_exceptions=True)
            self._closing = True
            self._protocol.connection_lost(None)

    async def _read(self) -> None:
        while (message := await self._call.receive(BytesMessage)) is not None:
            self._protocol.data_received(message.data)

    async def _write(self) -> None:
        while self._buffer or not self._closing:
            if not self._buffer:
                self._news.clear()
                await self._news.wait()
                continue
            piece = bytes(self._buffer[:CHUNK_BYTES])
            del self._buffer[:CHUNK_BYTES]
            await self._call.send(BytesMessage(data=piece))
            if self._paused and len(self._buffer) < HIGH_BYTES // 2:
                self._paused = False
                self._protocol.resume_writing()

    # --- asyncio.Transport

    def write(self, data: Any) -> None:
        self._buffer += data
        self._news.set()
        if len(self._buffer) > HIGH_BYTES and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True
        self._news.set()

    def abort(self) -> None:
        self.close()
