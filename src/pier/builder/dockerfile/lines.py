"""The text of a Dockerfile as logical lines: byte order mark, directives, comments, continuations, heredocs' bodies.

Dockerfile reference, "Format" and "Parser directives".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from pier.builder.dockerfile.gotext import SPACE
from pier.builder.dockerfile.source import DockerfileError, SourceRange

MAX_BYTES: Final = 4 << 20
MAX_LINES: Final = 100_000
DIRECTIVES: Final = frozenset({"check", "escape", "syntax"})
_DIRECTIVE: Final = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(\S.*)", re.DOTALL)
_BYTE_ORDER_MARK: Final = "\ufeff"


class Directive(msgspec.Struct, frozen=True):
    """`# name=value` at the top of the file."""

    name: str
    value: str
    line: int


class Piece(msgspec.Struct, frozen=True):
    """Where a part of a logical line came from."""

    offset: int
    line: int
    column: int


class LogicalLine(msgspec.Struct, frozen=True):
    """One instruction's text, its continuations joined."""

    file: str
    text: str
    first_line: int
    last_line: int
    pieces: tuple[Piece, ...]
    comments: tuple[str, ...] = ()
    """The lines of comments above, without `#`; an empty line is an empty comment."""
    empty_continuations: tuple[int, ...] = ()
    """Lines that continued it with nothing."""

    def range(self, last_line: int) -> SourceRange:
        """Its place, with the heredocs that go on to `last_line`."""
        return SourceRange(self.file, self.first_line, max(self.last_line, last_line), self.pieces[0].column)

    def place(self, offset: int) -> SourceRange:
        """The one physical line and column where the character at `offset` stands."""
        piece = max((each for each in self.pieces if each.offset <= offset), key=lambda each: each.offset)
        return SourceRange(self.file, piece.line, max(self.last_line, piece.line), piece.column + offset - piece.offset)


def decode(data: bytes, file: str) -> str:
    """The file's text without a byte order mark. Raises DockerfileError for what is no Dockerfile at all.

    Bytes that are not UTF-8 become surrogates, since a heredoc may hold them; outside heredocs they are refused later.
    """
    if len(data) > MAX_BYTES:
        raise DockerfileError(f"{file} has {len(data)} bytes, more than the {MAX_BYTES} a Dockerfile may have")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DockerfileError(f"{file} is encoded in UTF-16; save it as UTF-8")
    if data.count(b"\n") > MAX_LINES:
        raise DockerfileError(f"{file} has more than the {MAX_LINES} lines a Dockerfile may have")
    return data.decode("utf-8", "surrogateescape").removeprefix(_BYTE_ORDER_MARK)


def find_directives(text: str, file: str) -> tuple[dict[str, Directive], int]:
    """The directives by name, and how many lines they take. Raises DockerfileError for one that is given twice."""
    found: dict[str, Directive] = {}
    lines = text.split("\n", len(DIRECTIVES) + 2)
    number = 0
    for number, line in enumerate(lines, 1):
        match = _DIRECTIVE.fullmatch(line.strip(SPACE))
        if not match:
            if number == 1 and line.startswith("#!"):
                continue
            return found, number - 1
        name = match[1].lower()
        if name not in DIRECTIVES:
            return found, number - 1
        if name in found:
            at = SourceRange(file, number, number)
            raise DockerfileError(f"only one {name} parser directive can be used", at=[at])
        found[name] = Directive(name, match[2], number)
    return found, number


def escape_token(directives: Mapping[str, Directive], file: str) -> str:
    """The character of `# escape=`. Raises DockerfileError."""
    directive = directives.get("escape")
    if directive is None:
        return "\\"
    if directive.value not in ("\\", "`"):
        at = SourceRange(file, directive.line, directive.line)
        raise DockerfileError(f"invalid escape token '{directive.value}' does not match ` or \\", at=[at])
    return directive.value


class LineReader:
    """Gives out logical lines one by one; between two of them the bodies of heredocs can be taken."""

    def __init__(self, text: str, file: str, *, escape: str, skip: int = 0) -> None:
        """`skip`: lines at the top that are directives."""
        self._lines = text.split("\n")
        if not self._lines[-1]:
            self._lines.pop()
        self._file = file
        self._at = skip
        token = re.escape(escape)
        self._continued = re.compile(rf"(?:^|(?<!{token})){token}[ \t]*$")

    @property
    def line(self) -> int:
        """The number of the line that was read last."""
        return self._at

    def __iter__(self) -> Iterator[LogicalLine]:
        comments: list[str] = []
        while self._at < len(self._lines):
            raw = self._lines[self._at].rstrip("\r")
            stripped = raw.lstrip(SPACE)
            if stripped.startswith("#"):
                comments.append(stripped[1:].strip(SPACE))
                self._at += 1
            elif not stripped:
                comments.append("")
                self._at += 1
            else:
                line = self._logical(raw, stripped, tuple(comments))
                comments = []
                if line is not None:
                    yield line

    def _logical(self, raw: str, stripped: str, comments: tuple[str, ...]) -> LogicalLine | None:
        first = self._at + 1
        pieces = [Piece(0, first, len(raw) - len(stripped) + 1)]
        empty: list[int] = []
        text, continues = self._without_continuation(stripped)
        self._at += 1
        made = [text]
        size = len(text)
        while continues and self._at < len(self._lines):
            raw = self._lines[self._at].rstrip("\r")
            self._at += 1
            inside = raw.lstrip(SPACE)
            if inside.startswith("#"):
                continue
            if not inside:
                empty.append(self._at)
                continue
            text, continues = self._without_continuation(raw)
            pieces.append(Piece(size, self._at, 1))
            made.append(text)
            size += len(text)
        whole = "".join(made)
        if not whole.strip(SPACE):
            return None
        line = LogicalLine(self._file, whole, first, self._at, tuple(pieces), comments, tuple(empty))
        self._refuse_binary(line)
        return line

    def _without_continuation(self, text: str) -> tuple[str, bool]:
        cut = self._continued.sub("", text)
        return cut, cut != text

    def _refuse_binary(self, line: LogicalLine) -> None:
        bad = re.search("[\0\udc80-\udcff]", line.text)
        if bad:
            what = "a NUL byte" if bad[0] == "\0" else "a byte that is not UTF-8"
            raise DockerfileError(f"the line contains {what}", at=[line.place(bad.start())])

    def heredoc(self, name: str, *, chomp: bool) -> str | None:
        """The lines up to the one that is `name`, with their ends; None where there is none.

        With `chomp` tabs before `name` do not count; those of the body stay.
        """
        body: list[str] = []
        while self._at < len(self._lines):
            line = self._lines[self._at]
            self._at += 1
            end = line.rstrip("\r")
            if (end.lstrip("\t") if chomp else end) == name:
                return "".join(body)
            body.append(line + "\n")
        return None
