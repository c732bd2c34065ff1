"""A blocking writer read asynchronously: order, pressure, errors, a reader who goes away."""

from __future__ import annotations

import asyncio
import gc
import threading
from contextlib import aclosing

import pytest

from pier.storage.outflow import PIECES_AHEAD, OutflowCancelled, outflow
from pier.storage.tar_writer import Sink


async def test_everything_in_order() -> None:
    def work(sink: Sink) -> None:
        for number in range(100):
            sink.write(b"%d," % number)

    pieces = [piece async for piece in outflow(work, name="test")]
    assert b"".join(pieces) == b"".join(b"%d," % number for number in range(100))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("test")]


async def test_a_writer_is_no_further_ahead_than_allowed() -> None:
    written = []
    stalled = asyncio.Event()
    loop = asyncio.get_running_loop()

    def work(sink: Sink) -> None:
        for number in range(50):
            if number == PIECES_AHEAD + 1:  # one was taken
                loop.call_soon_threadsafe(stalled.set)
            sink.write(b"x")
            written.append(number)

    async with aclosing(outflow(work, name="test")) as pieces:
        assert await anext(pieces) == b"x"
        await stalled.wait()
        assert len(written) <= PIECES_AHEAD + 1
        assert len([piece async for piece in pieces]) == 49


async def test_the_writer_s_error_comes_after_what_it_wrote() -> None:
    def work(sink: Sink) -> None:
        sink.write(b"first")
        raise OSError("the disk")

    pieces = outflow(work, name="test")
    assert await anext(pieces) == b"first"
    with pytest.raises(OSError, match="the disk"):
        await anext(pieces)


async def test_a_reader_who_goes_away_ends_the_thread() -> None:
    ended: list[BaseException] = []

    def work(sink: Sink) -> None:
        try:
            while True:
                sink.write(b"x")
        except OutflowCancelled as error:
            ended.append(error)
            raise

    async with aclosing(outflow(work, name="test")) as pieces:
        await anext(pieces)
    assert len(ended) == 1


async def test_a_reader_who_is_cancelled_while_waiting() -> None:
    go_on = threading.Event()

    def work(sink: Sink) -> None:
        go_on.wait(10)
        sink.write(b"x")

    async def read() -> None:
        async for _ in outflow(work, name="test"):
            pass

    task = asyncio.create_task(read())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    asyncio.get_running_loop().call_soon(go_on.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("test")]


async def test_a_reader_who_is_cancelled_while_he_leaves_is_told_nothing() -> None:
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    may_end = threading.Event()

    def work(sink: Sink) -> None:
        sink.write(b"x")
        may_end.wait()
        sink.write(b"y")

    pieces = outflow(work, name="test")
    await anext(pieces)
    leaving = asyncio.create_task(pieces.aclose())
    await asyncio.sleep(0)
    leaving.cancel()
    threading.Timer(0.05, may_end.set).start()  # the cancelled one blocks until the thread has ended
    await asyncio.gather(leaving, return_exceptions=True)
    del leaving, pieces
    await asyncio.sleep(0)
    gc.collect()
    assert told == []
