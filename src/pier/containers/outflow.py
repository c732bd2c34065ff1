"""Bytes that a worker thread writes, as an asynchronous stream: the thread waits when the reader is behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor
from typing import Final

from pier.storage.tar_writer import Sink

CHUNKS_AHEAD: Final = 8
"""Pieces that may wait for the reader; a piece is what the thread writes at once, 256 KiB or so."""


class ReaderGone(Exception):
    """The reader has left; raised in the worker thread by its next write."""


class _Pipe:
    """Between one thread that writes and the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.chunks: asyncio.Queue[bytes | None] = asyncio.Queue(CHUNKS_AHEAD)
        self.closed = False
        self._ending: asyncio.Future[None] | None = None

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        """In the thread. Raises ReaderGone."""
        if self.closed:
            raise ReaderGone
        asyncio.run_coroutine_threadsafe(self.chunks.put(bytes(data)), self._loop).result()
        return len(data)

    def end(self) -> None:
        """Nothing follows; called on the event loop once the thread is done."""
        if not self.closed:
            self._ending = asyncio.ensure_future(self.chunks.put(None))

    def close(self) -> None:
        """Let the thread's writes fail from now on."""
        self.closed = True
        while not self.chunks.empty():
            self.chunks.get_nowait()


async def outflow(executor: Executor, work: Callable[[Sink], None]) -> AsyncGenerator[bytes, None]:
    """What `work` writes in a thread; raises what it raises. A reader that stops early stops it at its next write."""
    pipe = _Pipe()
    worker = asyncio.get_running_loop().run_in_executor(executor, work, pipe)
    worker.add_done_callback(lambda _: pipe.end())
    try:
        while (chunk := await pipe.chunks.get()) is not None:
            yield chunk
        await worker
    finally:
        while not worker.done():
            pipe.close()
            await asyncio.wait({worker}, timeout=0.05)
        if not worker.cancelled():
            worker.exception()  # of a reader that has left, nobody wants to hear
