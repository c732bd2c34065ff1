"""What a program prints, cut as a log takes it: runs of whole lines, and parts of lines that are too long to wait for.

A line ends at `\\n` and nowhere else (U+2028 and \\x85 are text). All work is done by searches over whole chunks, so
its cost is that of the chunks and not of the lines in them.
"""

from __future__ import annotations

PARTIAL_MAX = 16 * 1024
"""Docker's copier splits longer lines here; readers join them again."""


def cut(text: bytes, run_max: int) -> tuple[list[bytes], bytes]:
    """The pieces that can be logged now, and the rest, which waits for the end of its line.

    A piece is either whole lines, in all at most `run_max` (at least PARTIAL_MAX) bytes, or one part without a newline
    of a line that is longer than PARTIAL_MAX. Longer lines than that may stand in a run where `run_max` lets them.
    """
    pieces: list[bytes] = []
    at = 0
    while True:
        end = text.rfind(b"\n", at, at + run_max) + 1
        if not end:
            if len(text) - at <= PARTIAL_MAX:
                return pieces, text[at:]
            end = character_start(text, at + PARTIAL_MAX)
        pieces.append(text[at:end])
        at = end


def character_start(text: bytes, at: int) -> int:
    """`at`, or up to three bytes before it where that is inside a UTF-8 character: a part ends with a whole one."""
    for start in range(at, at - 4, -1):
        if text[start] & 0xC0 != 0x80:
            return start
    return at


def single(piece: bytes) -> list[bytes]:
    """The lines of a piece, each with its newline."""
    return [line + b"\n" for line in piece[:-1].split(b"\n")] if piece.endswith(b"\n") else [piece]
