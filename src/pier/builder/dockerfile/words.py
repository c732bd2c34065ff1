"""An instruction's arguments split into words; quotes and escapes stay, expansion takes them away."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any, Final, NoReturn

from pier.builder.dockerfile.gotext import SPACE
from pier.builder.dockerfile.source import Fault

BLANK: Final = re.compile(r"[\t\v\f\r ]+")
"""What separates the words of instructions that know no quotes."""
MAX_WORDS: Final = 20_000


def blank_separated(text: str) -> list[tuple[str, int]]:
    """(word, offset) of each word between blanks; quotes mean nothing. Raises Fault for too many."""
    return _bounded([(match[0], match.start()) for match in re.finditer(r"[^\t\v\f\r ]+", text)])


def quoted_words(text: str, escape: str) -> list[tuple[str, int]]:
    """(word, offset) of each word; spaces inside quotes or after an escape do not separate.

    A quote that is not closed goes on to the end, which expansion will complain of; an escape at the very end is
    dropped. Raises Fault for too many.
    """
    found = [(match[0], match.start()) for match in _word(escape).finditer(text)]
    if found and _ends_escaped(found[-1][0], escape):
        last, offset = found[-1]
        found[-1] = (last[:-1], offset)
    return _bounded([(word, offset) for word, offset in found if word])


def _bounded(words: list[tuple[str, int]]) -> list[tuple[str, int]]:
    if len(words) > MAX_WORDS:
        raise Fault(f"more than the {MAX_WORDS} words an instruction may have", words[MAX_WORDS][1])
    return words


@cache
def _word(escape: str) -> re.Pattern[str]:
    token = re.escape(escape)
    return re.compile(
        rf"""(?:{token}.|'[^']*+(?:'|\Z)|"(?:{token}.|[^"{token}])*+(?:"|{token}?\Z)|[^{SPACE}'"{token}]|{token}\Z)++""",
        re.DOTALL,
    )


def _ends_escaped(word: str, escape: str) -> bool:
    """Whether the last character is an escape with nothing to escape."""
    inside = re.sub(r"'[^']*+(?:'|\Z)", "", word)
    return (len(inside) - len(inside.rstrip(escape))) % 2 == 1


def exec_form(text: str) -> list[str] | None:
    """The words of a JSON array of strings; None where the text is none: then it is a shell command.

    Raises Fault for an array of anything but strings.
    """
    if not text.startswith("["):
        return None
    try:
        found = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    if len(found) > MAX_WORDS:
        raise Fault(f"more than the {MAX_WORDS} words an instruction may have")
    if not all(isinstance(word, str) for word in found):
        raise Fault("when using JSON array syntax, arrays must be comprised of strings only")
    return [_without_surrogates(word) for word in found]


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _without_surrogates(word: Any) -> str:
    r"""A lone `\ud800` becomes U+FFFD, as Go's decoder makes of it."""
    return re.sub("[\ud800-\udfff]", "\ufffd", word)
