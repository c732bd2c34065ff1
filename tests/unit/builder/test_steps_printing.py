"""What a step's process prints, in whole lines."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from pier.builder.steps.printing import HELD_MAX_BYTES, Printing


class Told(list[tuple[int, bytes]]):
    def say(self, stream: int, data: bytes) -> None:
        self.append((stream, data))


async def test_pieces_of_a_line_are_told_as_one() -> None:
    told = Told()
    printing = Printing(told.say)
    printing.take(2, b"/bin/sh: ")
    printing.take(2, b"x: ")
    assert told == []
    printing.take(2, b"not found\nnext")
    assert told == [(2, b"/bin/sh: x: not found\n")]
    printing.flush()
    assert told[1:] == [(2, b"next")]


async def test_what_comes_first_is_told_first() -> None:
    told = Told()
    printing = Printing(told.say)
    printing.take(1, b"out")
    printing.take(2, b"err\n")
    printing.take(1, b"put\n")
    assert told == [(1, b"out"), (2, b"err\n"), (1, b"put\n")]


async def test_a_prompt_is_told_after_a_while() -> None:
    said: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    printing = Printing(lambda stream, data: said.set_result(data))
    printing.take(1, b"password: ")
    assert await asyncio.wait_for(said, 20) == b"password: "


async def test_a_line_without_end_is_not_held_for_ever() -> None:
    told = Told()
    Printing(told.say).take(1, b"x" * (HELD_MAX_BYTES + 1))
    assert told == [(1, b"x" * (HELD_MAX_BYTES + 1))]


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(min_size=1, max_size=8) | st.just(b"\n"))))
def test_nothing_is_lost_or_told_twice(pieces: list[tuple[int, bytes]]) -> None:
    async def printed() -> Told:
        told = Told()
        printing = Printing(told.say)
        for stream, data in pieces:
            printing.take(stream, data)
        printing.flush()
        return told

    told = asyncio.run(printed())
    for wanted in (1, 2):
        assert b"".join(d for s, d in told if s == wanted) == b"".join(d for s, d in pieces if s == wanted)
