"""DATA frames that follow one another are one."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pier.buildkit.http2 import FRAME_BYTES, FRAME_HEAD, Joiner

DATA, HEADERS = 0, 1
Frame = tuple[int, int, int, bytes]
"""Type, flags, stream, what it holds."""

frames = st.tuples(
    st.sampled_from([DATA, DATA, DATA, HEADERS]),
    st.sampled_from([0, 0, 0, 1, 8]),
    st.sampled_from([1, 1, 3]),
    st.one_of(st.binary(max_size=20), st.sampled_from([b"x" * FRAME_BYTES, b"y" * (FRAME_BYTES - 5)])),
)


def encoded(sent: list[Frame]) -> bytes:
    return b"".join(FRAME_HEAD.pack(0, len(held), kind, flags, stream) + held for kind, flags, stream, held in sent)


def decoded(data: bytes) -> list[Frame]:
    found = []
    while data:
        high, size, kind, flags, stream = FRAME_HEAD.unpack_from(data)
        assert high == 0
        assert size <= FRAME_BYTES
        assert len(data) >= FRAME_HEAD.size + size
        found.append((kind, flags, stream, data[FRAME_HEAD.size : FRAME_HEAD.size + size]))
        data = data[FRAME_HEAD.size + size :]
    return found


def meaning(sent: list[Frame]) -> list[Frame]:
    """The frames with plain DATA of the same stream that follow one another as one, however long."""
    found: list[Frame] = []
    for frame in sent:
        if found and frame[:2] == (DATA, 0) and found[-1][:3] == frame[:3]:
            found[-1] = (*frame[:3], found[-1][3] + frame[3])
        else:
            found.append(frame)
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(frames, max_size=8), st.lists(st.integers(0, 200), max_size=12))
def test_joined_frames_say_the_same_however_they_come(sent: list[Frame], cuts: list[int]) -> None:
    data, joiner, joined = encoded(sent), Joiner(), b""
    for cut in cuts:
        joined += joiner.join(data[:cut])
        data = data[cut:]
    joined += joiner.join(data)
    assert meaning(decoded(joined)) == meaning(sent)


def test_many_small_frames_are_few() -> None:
    joined = decoded(Joiner().join(encoded([(DATA, 0, 1, bytes(80))] * 1000)))
    assert sum(len(frame[3]) for frame in joined) == 80_000
    assert len(joined) == 80_000 // FRAME_BYTES + 1


def test_a_frame_that_is_too_long_is_not_waited_for() -> None:
    head = FRAME_HEAD.pack(255, 0, DATA, 0, 1) + b"abc"
    assert Joiner().join(head) == head
