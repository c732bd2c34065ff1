"""Marked points at which a test kills the daemon or fills its disk (attack 26).

`PIER_FAULT=NAME:kill`, `NAME:ENOSPC` or any other errno's name, with `:N` for the N-th time the point is passed. The
variable is read once, when this module is loaded; without it a point is a call of an empty function.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from typing import Final

POINTS: Final = frozenset(
    """
    blob-begun blob-written blob-flushed blob-named blob-durable blob-swept
    index-written index-flushed index-named
    layer-begun layer-entry layer-unpacked layer-recorded layer-flushed layer-named layer-swept
    layer-adopting layer-adopted
    container-begun container-claimed container-made
    tree-trashed tree-deleting
    diff-begun diff-entry diff-written
    recipe-written recipe-named blob-dropped
    copy-entry volume-begun volume-made volume-leaving volume-gone
    fill-begun fill-copied fill-filled fill-moved
    """.split()
)


def _armed(text: str) -> Callable[[str], None]:
    """The function that a point calls while `text`, in the form above, is asked for. Raises ValueError."""
    name, deed, *count = text.split(":")
    if name not in POINTS:
        raise ValueError(f"PIER_FAULT: no point is called {name!r}")
    number = 0 if deed == "kill" else getattr(errno, deed, None)
    if number is None:
        raise ValueError(f"PIER_FAULT: {deed!r} is neither `kill` nor the name of an errno")
    left = int(count[0]) if count else 1

    def point(passed: str) -> None:
        nonlocal left
        if passed != name:
            return
        left -= 1
        if left:
            return
        if not number:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(number, os.strerror(number))

    return point


def _nothing(_: str) -> None:
    pass


point: Final[Callable[[str], None]] = _armed(os.environ["PIER_FAULT"]) if os.environ.get("PIER_FAULT") else _nothing
"""Pass a point. Raises OSError where a fault is armed for it."""
