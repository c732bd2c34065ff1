"""The functions of `--format` templates: Go's own and those Docker adds; and how Go prints a value."""

from __future__ import annotations

from pier.cli.jsontext import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class FunctionError(Exception):
    """A function that cannot do what it is asked; the text is Go's."""


def show(value: Any) -> str:  # noqa: PLR0911 - one return a type
    """As fmt.Print writes it: true, [a b], map[k:v], {a b}, <nil>, and <no value> for a key that is not there."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "<nil>"
    if isinstance(value, float):
        return f"{value:g}" if abs(value) >= 1e21 or not value.is_integer() else str(int(value))
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return "[" + " ".join(map(show, value)) + "]"
    if isinstance(value, dict):
        if type(value) is dict:
            return "{" + " ".join(map(show, value.values())) + "}"
        return "map[" + " ".join(f"{key}:{show(value[key])}" for key in sorted(value)) + "]"
    if hasattr(value, "as_dict"):
        return "{" + " ".join(map(show, value.as_dict().values())) + "}"
    return "<no value>"


def truth(value: Any) -> bool:
    """Go's idea of true: not zero, not empty, not nil; a struct always."""
    if value is None or type(value).__name__ == "Missing":
        return False
    return True if type(value) is dict else bool(value)


def _json(value: Any) -> str:
    """As Docker's command line: <, > and & stay, but for a whole row of a list, which Go encodes by itself."""
    row = hasattr(value, "as_dict")
    if row:
        value = value.as_dict()
    elif type(value).__name__ == "Missing":
        value = None
    return dumps(_with_nulls(value), escape_html=row)


def _with_nulls(value: Any) -> Any:
    """A value with null for each map and list that Go has as nil."""
    if type(value).__name__ in ("NilMap", "NilList"):
        return None
    if isinstance(value, dict):
        return {name: _with_nulls(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_with_nulls(member) for member in value]
    return value


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if value is None:
            raise FunctionError("index of untyped nil")
        if isinstance(value, dict):
            value = value.get(key, "")
        elif isinstance(value, list | str):
            if isinstance(key, bool) or not isinstance(key, int):
                raise FunctionError(f"cannot index slice/array with type {_type_name(key)}")
            if not 0 <= key < len(value):
                raise FunctionError(f"index out of range: {key}")
            value = value[key] if isinstance(value, list) else ord(value[key])
        else:
            raise FunctionError(f"can't index item of type {_type_name(value)}")
    return value


def _type_name(value: Any) -> str:
    return {bool: "bool", int: "int", float: "float64", str: "string"}.get(type(value), "interface {}")


def _slice(value: Any, *bounds: int) -> Any:
    if not isinstance(value, list | str):
        raise FunctionError(f"can't slice item of type {_type_name(value)}")
    start = bounds[0] if bounds else 0
    end = bounds[1] if len(bounds) > 1 else len(value)
    if not 0 <= start <= end <= len(value):
        raise FunctionError(f"invalid slice index: {start} > {end}" if start > end else f"index out of range: {end}")
    return value[start:end]


def _len(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogateescape"))
    if isinstance(value, list | dict):
        return len(value)
    raise FunctionError(f"len of type {_type_name(value)}" if value is not None else "len of nil pointer")


def _eq(first: Any, *others: Any) -> bool:
    if not others:
        raise FunctionError("missing argument for comparison")
    for other in others:
        comparable = type(first) is type(other) or first is None or other is None
        if not comparable:
            raise FunctionError("incompatible types for comparison")
        if first == other:
            return True
    return False


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def ordered(a: Any, b: Any) -> bool:
        if type(a) is not type(b) or not isinstance(a, int | float | str) or isinstance(a, bool):
            raise FunctionError("incompatible types for comparison")
        return compare(a, b)

    return ordered


def _print(*values: Any) -> str:
    """fmt.Sprint: a space between two operands when neither is a string."""
    out: list[str] = []
    previous: Any = ""
    for value in values:
        if out and not isinstance(value, str) and not isinstance(previous, str):
            out.append(" ")
        out.append(show(value))
        previous = value
    return "".join(out)


def _println(*values: Any) -> str:
    return " ".join(map(show, values)) + "\n"


def _printf(layout: str, *values: Any) -> str:
    """fmt.Sprintf for %v %s %d %q %t %x %X %o %b %c %e %f %g %U-less, with flags, width and precision."""
    out: list[str] = []
    rest = list(values)
    at = 0
    while (percent := layout.find("%", at)) >= 0:
        out.append(layout[at:percent])
        end = percent + 1
        while end < len(layout) and layout[end] in "+-# 0123456789.":
            end += 1
        if end >= len(layout):
            out.append("%!(NOVERB)")
            at = end
            break
        verb = layout[end]
        at = end + 1
        if verb == "%":
            out.append("%")
        elif not rest:
            out.append(f"%!{verb}(MISSING)")
        else:
            out.append(_formatted(layout[percent + 1 : end], verb, rest.pop(0)))
    out.append(layout[at:])
    if rest:
        out.append("%!(EXTRA " + ", ".join(f"{_type_name(value)}={show(value)}" for value in rest) + ")")
    return "".join(out)


def _formatted(flags: str, verb: str, value: Any) -> str:  # noqa: PLR0911 - one return a verb
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if verb in "sv":
        return f"%{flags.replace('0', '', 1) if flags[:1] == '0' else flags}s" % show(value)
    if verb == "q":
        return f"%{flags}s" % dumps(show(value))
    if verb == "t" and isinstance(value, bool):
        return f"%{flags}s" % show(value)
    if verb in "xX" and isinstance(value, str):
        text = value.encode("utf-8", "surrogateescape").hex()
        return f"%{flags}s" % (text.upper() if verb == "X" else text)
    if verb in "dxXoc" and isinstance(value, int) and number:
        return f"%{flags}{verb}" % value
    if verb == "b" and isinstance(value, int) and number:
        return f"%{flags}s" % format(value, "b")
    if verb in "eEfFgG" and isinstance(value, float):
        return f"%{flags}{verb}" % value
    return f"%!{verb}({_type_name(value)}={show(value)})"


def _html(*values: Any) -> str:
    text = _print(*values)
    for char, entity in (("&", "&amp;"), ("'", "&#39;"), ('"', "&#34;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(char, entity)
    return text


def _urlquery(*values: Any) -> str:
    from pier.cli.http import quote  # noqa: PLC0415 - rare

    return quote(_print(*values), safe=b" ").replace(" ", "+")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise FunctionError(f"wrong type for value; expected string; got {_type_name(value)}")
    return value


def _join(items: Any, separator: str) -> str:
    if not isinstance(items, list):
        raise FunctionError(f"wrong type for value; expected []string; got {_type_name(items)}")
    return separator.join(map(show, items))


def _title(text: Any) -> str:
    """The first letter of every word in upper case, the rest as it is."""
    out: list[str] = []
    previous = " "
    for char in _text(text):
        out.append(char.upper() if not (previous.isalnum() or previous in "_'") else char)
        previous = char
    return "".join(out)


def _pad(text: Any, before: int, after: int) -> str:
    return " " * before + _text(text) + " " * after if text else text


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "and": lambda *values: values[-1],
    "or": lambda *values: values[-1],
    "not": lambda value: not truth(value),
    "eq": _eq,
    "ne": lambda a, b: not _eq(a, b),
    "lt": _ordered(lambda a, b: bool(a < b)),
    "le": _ordered(lambda a, b: bool(a <= b)),
    "gt": _ordered(lambda a, b: bool(a > b)),
    "ge": _ordered(lambda a, b: bool(a >= b)),
    "index": _index,
    "slice": _slice,
    "len": _len,
    "print": _print,
    "printf": _printf,
    "println": _println,
    "html": _html,
    "urlquery": _urlquery,
    "json": _json,
    "split": lambda text, separator: _text(text).split(_text(separator)),
    "join": _join,
    "title": _title,
    "lower": lambda text: _text(text).lower(),
    "upper": lambda text: _text(text).upper(),
    "pad": _pad,
    "truncate": lambda text, length: _text(text)[:length],
}
"""Name -> function; `and` and `or` are evaluated by the template itself, which stops at the first that decides."""


def arity(name: str) -> tuple[int, int | None]:
    """(fewest, most) arguments of a function; most is None when there is no limit."""
    if name in ("and", "or"):
        return 1, None
    function = FUNCTIONS[name]
    code = function.__code__
    fewest = code.co_argcount - len(function.__defaults__ or ())
    takes_more = code.co_flags & 0x04  # CO_VARARGS
    return fewest, None if takes_more else code.co_argcount
