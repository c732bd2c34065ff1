"""The JSON stream of pull, load and import, on a terminal and elsewhere."""

from __future__ import annotations

import contextlib
import os
import pty
from typing import Any

import pytest

from pier.cli.errors import Failure
from pier.cli.progress import bar, plain_text, show


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"status": "Pulling from library/busybox", "id": "latest"}, "latest: Pulling from library/busybox\n"),
        ({"status": "Downloading", "progressDetail": {"current": 5, "total": 10}, "id": "a1"}, ""),
        ({"status": "Pull complete", "progressDetail": {}, "id": "a1"}, "a1: Pull complete\n"),
        ({"stream": "Loaded image: busybox:latest\n"}, "Loaded image: busybox:latest\n"),
        ({"status": "sha256:1"}, "sha256:1\n"),
    ],
)
def test_plain_lines(message: dict[str, Any], text: str) -> None:
    assert plain_text(message) == text


@pytest.mark.parametrize(
    ("detail", "columns", "text"),
    [
        ({}, 200, ""),
        ({"current": 1500}, 200, "1.5kB"),
        ({"current": 1500000, "total": 3000000}, 80, "   1.5MB/3MB"),
        ({"current": 1, "total": 2}, 200, "[" + "=" * 25 + ">" + " " * 24 + "]        1B/2B"),
        ({"current": 9, "total": 2}, 200, "[" + "=" * 50 + "]        2B/2B"),
    ],
)
def test_bars(detail: dict[str, int], columns: int, text: str) -> None:
    assert bar(detail, columns) == text


def test_an_error_in_the_stream_ends_it(tmp_path: Any) -> None:
    fd = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    aux: list[Any] = []
    lines = [
        b'{"status":"a"}',
        b'{"aux":{"ID":"x"}}',
        b'{"errorDetail":{"message":"no room"},"error":"no room"}',
        b'{"status":"b"}',
    ]
    with pytest.raises(Failure, match=r"^no room$"):
        show(lines, fd, aux.append)
    os.close(fd)
    assert ((tmp_path / "out").read_text(), aux) == ("a\n", [{"ID": "x"}])


def read_to_the_end(terminal: int) -> str:
    """All that was written to a terminal whose other end is closed (EIO), however many reads that takes."""
    data = b""
    with contextlib.suppress(OSError):
        while piece := os.read(terminal, 65536):
            data += piece
    os.close(terminal)
    return data.decode()


def test_a_terminal_has_one_line_a_layer() -> None:
    ours, theirs = pty.openpty()
    layer = b'{"status":"%s","progressDetail":{"current":%d,"total":10},"id":"%s"}'
    show(
        [layer % (b"Downloading", 5, b"a"), layer % (b"Downloading", 1, b"b"), layer % (b"Extracting", 9, b"a")], theirs
    )
    os.close(theirs)
    text = read_to_the_end(ours)
    assert text.count("\r\n") == 2  # a new line for each layer, none for its progress
    assert "\x1b[1A\x1b[2K\ra: Downloading" in text
    assert "\x1b[2A\x1b[2K\ra: Extracting" in text
