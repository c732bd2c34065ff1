"""A long blocking job (load, import, cp) in a worker thread, between an asynchronous body and asynchronous messages."""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from typing import Any, Final, TypeVar

from pier.storage.stream import Reader

Message = dict[str, Any]
Report = Callable[[Message], None]
T = TypeVar("T")

CHUNKS_AHEAD: Final = 32
"""Pieces of the body that may wait for the thread; a piece is what the HTTP server hands over, 64 KiB or so."""


class TransferCancelled(Exception):
    """The client has gone; raised in the worker thread by its next read."""


class Feed:
    """The body, read by the worker thread as it comes in; filled on the event loop, which waits when it is ahead."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(CHUNKS_AHEAD)
        self._chunks: queue.SimpleQueue[bytes | BaseException] = queue.SimpleQueue()
        self._rest = b""
        self._end: BaseException | None = None
        self._ended = False

    async def fill(self, source: AsyncIterator[bytes]) -> None:
        """Pass on everything `source` gives, then its end or its error."""
        try:
            async for chunk in source:
                if chunk:
                    await self._room.acquire()
                    self._chunks.put(bytes(chunk))
        except Exception as error:
            self._chunks.put(error)
        else:
            self._chunks.put(b"")

    def cancel(self) -> None:
        """Make the thread's reads fail from now on."""
        self._end = TransferCancelled()
        self._chunks.put(self._end)

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            return b"".join(iter(lambda: self.read(1 << 20), b""))
        if not self._rest and not self._ended:
            self._rest = self._next()
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def _next(self) -> bytes:
        if self._end is not None:
            raise self._end
        chunk = self._chunks.get()
        if isinstance(chunk, BaseException):
            self._end = chunk
            raise chunk
        if chunk:
            self._loop.call_soon_threadsafe(self._room.release)
        else:
            self._ended = True
        return chunk


@contextlib.asynccontextmanager
async def fed(source: AsyncIterator[bytes], *, name: str) -> AsyncIterator[Feed]:
    """What `source` gives, for a thread that the block waits for; an error of the block's makes its reads fail."""
    feed = Feed()
    filling = asyncio.create_task(feed.fill(source), name=name)
    try:
        yield feed
    except BaseException:
        feed.cancel()
        raise
    finally:
        filling.cancel()
        await asyncio.gather(filling, return_exceptions=True)


class Transfer(AsyncIterator[Message]):
    """Run `work(body, report)` in a thread: iterate over what it reports, then take its `result`.

    Use as an asynchronous context manager; leaving it early stops the thread at its next read, and waits for it.
    """

    def __init__(self, executor: Executor, source: AsyncIterator[bytes], work: Callable[[Reader, Report], T]) -> None:
        self._loop = asyncio.get_running_loop()
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue()
        self._feed = Feed()
        self._source = source
        self._executor = executor
        self._work = work
        self._tasks: list[asyncio.Future[Any]] = []

    async def __aenter__(self) -> Transfer:
        worker = self._loop.run_in_executor(self._executor, self._work, self._feed, self._report)
        worker.add_done_callback(lambda _: self._messages.put_nowait(None))
        self._tasks = [worker, asyncio.create_task(self._feed.fill(self._source))]
        return self

    async def __aexit__(self, *_: object) -> None:
        worker, filler = self._tasks
        self._feed.cancel()
        filler.cancel()
        await asyncio.gather(worker, filler, return_exceptions=True)

    def _report(self, message: Message) -> None:
        self._loop.call_soon_threadsafe(self._messages.put_nowait, message)

    async def __anext__(self) -> Message:
        message = await self._messages.get()
        if message is None:
            raise StopAsyncIteration
        return message

    async def result(self) -> Any:
        """What `work` returned; raises what it raised."""
        return await self._tasks[0]
