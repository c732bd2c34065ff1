"""File modes as chmod(1) writes them: `0755`, `u=rwX,go-w` (POSIX.1-2017, chmod, "EXTENDED DESCRIPTION")."""

from __future__ import annotations

import re
from typing import Final

from pier.errors import InvalidParameter

_CLAUSE: Final = re.compile(r"([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)")
_ACTION: Final = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
_SHIFT: Final = {"u": 6, "g": 3, "o": 0}


class BadMode(InvalidParameter):
    """invalid mode: {text!r}"""

    remedy = "octal digits, or as of chmod: u=rwX,go=rX"


def changed(mode: int, text: str, *, is_dir: bool) -> int:
    """The permission bits that `text` makes of `mode`'s. Raises BadMode."""
    if re.fullmatch(r"[0-7]{1,4}", text):
        return int(text, 8)
    bits = mode & 0o7777
    for clause in text.split(","):
        shape = _CLAUSE.fullmatch(clause)
        if shape is None:
            raise BadMode(text=text)
        who = set(shape[1]) - {"a"} if "a" not in shape[1] and shape[1] else {"u", "g", "o"}
        for operator, letters in _ACTION.findall(shape[2]):
            bits = _applied(bits, who, operator, letters, is_dir=is_dir)
    return bits


def _applied(bits: int, who: set[str], operator: str, letters: str, *, is_dir: bool) -> int:
    if letters in ("u", "g", "o"):
        rwx = bits >> _SHIFT[letters] & 7
    else:
        rwx = sum({"r": 4, "w": 2, "x": 1}.get(letter, 0) for letter in set(letters))
        if "X" in letters and (is_dir or bits & 0o111):
            rwx |= 1
    value = sum(rwx << _SHIFT[one] for one in who)
    mask = sum(7 << _SHIFT[one] for one in who)
    if "s" in letters:
        value |= (0o4000 if "u" in who else 0) | (0o2000 if "g" in who else 0)
    if "t" in letters:
        value |= 0o1000
    if operator == "+":
        return bits | value
    if operator == "-":
        return bits & ~value
    keep = 0 if not is_dir else bits & 0o6000  # as GNU chmod: a directory's set-id bits stay
    special = (0o4000 if "u" in who else 0) | (0o2000 if "g" in who else 0)
    return bits & ~(mask | special) | value | (keep & special)
