"""Text as Go's fmt prints it: history entries and messages that tools compare are made of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

SPACE: Final = (
    "\t\n\v\f\r \x85\xa0\u1680"
    "\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
"""The characters of unicode.IsSpace; str.strip() without them takes away more."""
_ESCAPES: Final = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
    '"': '\\"',
}


def trim(text: str) -> str:
    """strings.TrimSpace."""
    return text.strip(SPACE)


def quote(text: str) -> str:
    """`%q` of a string."""
    return '"' + "".join(map(_quoted, text)) + '"'


def quote_list(words: Iterable[str]) -> str:
    """`%q` of a list of strings: `["a" "b"]`."""
    return "[" + " ".join(map(quote, words)) + "]"


def plain_list(words: Iterable[str]) -> str:
    """`%v` of a list of strings: `[a b]`."""
    return "[" + " ".join(words) + "]"


def _quoted(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char == " " or char.isprintable():
        return char
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def quote_number(number: int) -> str:
    """`%q` of an integer: a character in single quotes."""
    if number == ord("'"):
        return "'\\''"
    try:
        return f"'{chr(number)}'" if number == ord('"') else f"'{_quoted(chr(number))}'"
    except (ValueError, OverflowError):
        return "'\ufffd'"


_PARTS: Final = ((3_600_000_000_000, "h"), (60_000_000_000, "m"))


def duration(ns: int) -> str:
    """time.Duration.String: `1m0s`, `1.5s`, `20ms`, `0s`."""
    sign, ns = ("-", -ns) if ns < 0 else ("", ns)
    for unit_ns, unit in ((1, "ns"), (1_000, "µs"), (1_000_000, "ms")):
        if 0 < ns < unit_ns * 1000:
            return f"{sign}{_fraction(ns, unit_ns)}{unit}"
    made = ""
    for unit_ns, unit in _PARTS:
        if ns >= unit_ns or made:
            made += f"{ns // unit_ns}{unit}"
            ns %= unit_ns
    return f"{sign}{made}{_fraction(ns, 1_000_000_000)}s"


def _fraction(ns: int, unit_ns: int) -> str:
    whole, rest = divmod(ns, unit_ns)
    digits = f"{rest:0{len(str(unit_ns)) - 1}d}".rstrip("0") if rest else ""
    return f"{whole}.{digits}" if digits else str(whole)
