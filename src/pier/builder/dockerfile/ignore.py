"""`.dockerignore` and `<Dockerfile>.dockerignore`: lines -> patterns (Docker's documentation, "Build context")."""

from __future__ import annotations

from typing import Final

from pier.builder.dockerfile.gotext import SPACE
from pier.builder.patterns import BadPattern, PatternMatcher, clean
from pier.errors import InvalidParameter

MAX_IGNORE_BYTES: Final = 4 << 20
DEFAULT_IGNORE_FILE: Final = ".dockerignore"


class BadIgnoreFile(InvalidParameter):
    """{file}:{line}: {reason}"""


def ignore_files(dockerfile: str) -> tuple[str, str]:
    """The files to look for, the first that is there counts. `dockerfile`: its path in the context."""
    return f"{dockerfile}{DEFAULT_IGNORE_FILE}", DEFAULT_IGNORE_FILE


def read_ignore_file(data: bytes, file: str = DEFAULT_IGNORE_FILE) -> list[str]:
    """The patterns, cleaned, each checked. Raises BadIgnoreFile."""
    if len(data) > MAX_IGNORE_BYTES:
        raise BadIgnoreFile(file=file, line=1, reason=f"the file is larger than {MAX_IGNORE_BYTES} bytes")
    patterns = []
    for number, line in enumerate(data.decode("utf-8", "surrogateescape").removeprefix("\ufeff").split("\n"), 1):
        if line.startswith("#"):
            continue
        text = line.strip(SPACE)
        if not text:
            continue
        negation = "!" if text.startswith("!") else ""
        text = text.removeprefix("!").strip(SPACE)
        if text:
            text = clean(text)
            if len(text) > 1:
                text = text.removeprefix("/")
        try:
            PatternMatcher([negation + text])
        except BadPattern as error:
            raise BadIgnoreFile(file=file, line=number, reason=error.message) from None
        patterns.append(negation + text)
    return patterns


def keep_for_daemon(patterns: list[str], dockerfile: str) -> list[str]:
    """The patterns with which a client packs a context for a daemon that reads these two files out of it itself."""
    matcher = PatternMatcher(patterns)
    needed = [name for name in (DEFAULT_IGNORE_FILE, dockerfile) if matcher.matches(name)]
    return [*patterns, *(f"!{name}" for name in needed)]
