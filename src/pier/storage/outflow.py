"""What a blocking writer writes in a thread of its own: asynchronous pieces for a client, bytes for another thread."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Final

from pier.storage.tar_writer import Sink

PIECES_AHEAD: Final = 4
"""Pieces that may wait for the reader; the writer decides how large they are, 1 MiB at most where it is an archive."""


PIPE_BYTES: Final = 1 << 20


class OutflowCancelled(Exception):
    """The reader has gone; raised in the worker thread by its next write."""


async def outflow(work: Callable[[Sink], object], *, name: str) -> AsyncGenerator[bytes, None]:
    """Run `work(sink)` in a thread of its own: what it writes, as fast as that is taken; raises what it raises.

    A reader who is slow holds up nobody else's work. Closing the generator makes the next write fail, and waits until
    the thread has ended.
    """
    pipe = _Pipe()
    with ThreadPoolExecutor(1, thread_name_prefix=name) as executor:
        worker = asyncio.get_running_loop().run_in_executor(executor, work, pipe)
        worker.add_done_callback(lambda _: pipe.pieces.put_nowait(None))
        try:
            while (piece := await pipe.pieces.get()) is not None:
                pipe.room.release()
                yield piece
            await worker
        finally:
            pipe.cancel()
            worker.add_done_callback(_seen)
            await asyncio.wait({worker})


def _seen(worker: asyncio.Future[object]) -> None:
    """A reader who has gone is told nothing, not even where this is cancelled before the thread has heard of it."""
    worker.cancelled() or worker.exception()


@contextlib.contextmanager
def outpour(work: Callable[[Sink], object]) -> Iterator[IO[bytes]]:
    """What `work(sink)` writes, to be read by the thread that this blocks; its error is raised at the block's end.

    A reader who leaves early makes the next write fail, which is no error then.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def pour() -> None:
        with open(writing, "wb") as sink:
            work(sink)

    with ThreadPoolExecutor(1, thread_name_prefix="outpour") as executor:
        worker = executor.submit(pour)
        try:
            with open(reading, "rb") as source:
                yield source
        except BaseException:
            with contextlib.suppress(BaseException):
                worker.result()
            raise
        with contextlib.suppress(BrokenPipeError):
            worker.result()


class _Pipe:
    """The sink, and where its pieces wait."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._cancelled = False
        self.room = threading.Semaphore(PIECES_AHEAD)
        self.pieces: asyncio.Queue[bytes | None] = asyncio.Queue()

    def write(self, data: bytes | bytearray | memoryview, /) -> int:
        self.room.acquire()
        if self._cancelled:
            raise OutflowCancelled
        self._loop.call_soon_threadsafe(self.pieces.put_nowait, bytes(data))
        return len(data)

    def cancel(self) -> None:
        self._cancelled = True
        self.room.release()
