"""The values of every day as flags give them: bool, int, filter, environment variable; and Go's way of quoting them."""

from __future__ import annotations

_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))


def parse_bool(text: str) -> bool:
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f"strconv.ParseBool: parsing {quote(text)}: invalid syntax")


def parse_int(text: str, *, bits: int = 64, signed: bool = True) -> int:
    """Go's strconv.ParseInt(text, 0, bits): decimal, 0x, 0o, 0b, underscores between digits."""
    function = "ParseInt" if signed else "ParseUint"
    try:
        if text != text.strip() or (not signed and text[:1] in "+-"):
            raise ValueError
        digits = text.lstrip("+-")
        octal = len(digits) > 1 and digits[0] == "0" and digits[1:].isdigit()
        value = int(text, 8 if octal else 0)
    except ValueError:
        raise ValueError(f"strconv.{function}: parsing {quote(text)}: invalid syntax") from None
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if not low <= value <= high:
        raise ValueError(f"strconv.{function}: parsing {quote(text)}: value out of range")
    return value


def parse_filter(text: str) -> tuple[str, str]:
    """`name=value` -> (name, value), both trimmed and the name in lower case."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError("bad format of filter (expected name=value)")
    return name.strip().lower(), value.strip()


def parse_label(text: str) -> str:
    """`key=value`, or `key` alone."""
    key = text.partition("=")[0]
    if not key:
        raise ValueError(f"invalid label '{text}': empty name")
    if " " in key or "\t" in key:
        raise ValueError(f"label '{key}' contains whitespaces")
    return text


def parse_environment_variable(text: str) -> str:
    if not text.partition("=")[0]:
        raise ValueError(f"invalid environment variable: {text}")
    return text


def quote(text: str) -> str:
    """Go's %q for the characters that matter in a message."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t") + '"'
