"""Light stand-ins for `typing`, `dataclasses`, `socket`, `signal` and `json` in the zygote.

A monitor shares the zygote's memory with all others, but copies a page when it touches one object on it (a reference
count is a write). So what is loaded there is small and does little: the real modules bring `inspect`, `re`, `enum` and
generated methods for every class, 4 MB in all, and turn each signal number and socket type into an enum member. Here
are the parts of them that modules in the zygote use; a name that is missing is an ImportError or AttributeError there.
Structs behave as the real ones do, but nothing guards a frozen field, and two of them do not compare.
"""

from __future__ import annotations

import _json
import _signal  # type: ignore[import-not-found]
import _socket
import sys
from collections import namedtuple
from types import ModuleType, SimpleNamespace

TYPE_CHECKING = False
if TYPE_CHECKING:  # type checkers know the name wherever it comes from
    from collections.abc import Callable
    from typing import Any


def install() -> None:
    """Put the stand-ins where `import` looks. Before any other module of Pier is loaded, and in the zygote only."""
    for module in (_typing(), _dataclasses(), _sockets(), _signals(), *_json_modules()):
        sys.modules[module.__name__] = module


def _module(name: str, **content: Any) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(content)
    return module


# --- typing, dataclasses ---------------------------------------------------------------------------------------------


def _typing() -> ModuleType:
    return _module(
        "typing",
        TYPE_CHECKING=False,
        Any=object,
        NoReturn=object,
        Protocol=type("Protocol", (), {}),
        TypeVar=lambda name, **bounds: object,
        NamedTuple=_NamedTupleBase(),
    )


_namedtuple: Callable[..., type] = namedtuple
"""Under a name that mypy does not want to evaluate."""


class _NamedTupleType(type):
    """Makes a `collections.namedtuple` of the fields in a class's body, with the body's methods."""

    def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
        fields = list(body.pop("__annotations__", {}))
        defaults = [body.pop(field) for field in fields if field in body]
        made = _namedtuple(name, fields, defaults=defaults, module=body.pop("__module__"))
        for key, value in body.items():
            setattr(made, key, value)
        return made


class _NamedTupleBase:
    """`NamedTuple` in `class X(NamedTuple)`: a base that hands the making of X to its metaclass (PEP 560)."""

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type]:
        return (type.__new__(_NamedTupleType, "NamedTuple", (), {}),)


def _dataclasses() -> ModuleType:
    return _module("dataclasses", dataclass=lambda **options: _with_init, field=_Factory)


class _Factory:
    """`field(default_factory=…)` in a class's body."""

    def __init__(self, *, default_factory: Callable[[], object]) -> None:
        self.make = default_factory


_MISSING = object()


def _with_init(cls: type) -> type:
    """`cls` with an `__init__` over its fields; one function's code serves all classes."""
    names = tuple(cls.__annotations__)
    known = frozenset(names)
    defaults = {name: getattr(cls, name, _MISSING) for name in names}

    def initialise(self: object, *values: object, **named: object) -> None:
        given = dict(zip(names, values, strict=False))
        if len(values) > len(names) or not known.issuperset(named) or not given.keys().isdisjoint(named):
            raise TypeError(f"{cls.__name__} has the fields {', '.join(names)}")
        given.update(named)
        for name in names:
            value = given.get(name, defaults[name])
            if value is _MISSING:
                raise TypeError(f"{cls.__name__} lacks the field {name}")
            setattr(self, name, value.make() if isinstance(value, _Factory) else value)

    cls.__init__ = initialise  # type: ignore[misc]
    return cls


# --- socket, signal --------------------------------------------------------------------------------------------------


class _Socket(_socket.socket):
    __slots__ = ()

    def __enter__(self) -> _Socket:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def accept(self) -> tuple[_Socket, Any]:
        fd, address = self._accept()  # type: ignore[attr-defined]
        return _Socket(fileno=fd), address


def _socketpair(family: int, kind: int) -> tuple[_Socket, _Socket]:
    one, other = _socket.socketpair(family, kind)
    return _Socket(fileno=one.detach()), _Socket(fileno=other.detach())


def _sockets() -> ModuleType:
    return _module("socket", **_public(_socket) | {"socket": _Socket, "socketpair": _socketpair})


def _signals() -> ModuleType:
    return _module("signal", **_public(_signal))


def _public(module: ModuleType) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if not name.startswith("__")}


# --- json ------------------------------------------------------------------------------------------------------------


class _JSONDecodeError(ValueError):
    """Where a text is no JSON; `_json` looks for it in `json.decoder`."""

    def __init__(self, message: str, text: str, position: int) -> None:
        super().__init__(f"{message}: char {position}")


def _json_modules() -> tuple[ModuleType, ModuleType, ModuleType]:
    parser = SimpleNamespace(
        strict=True,
        object_hook=None,
        object_pairs_hook=None,
        parse_float=float,
        parse_int=int,
        parse_constant=float,
    )
    scan = _json.make_scanner(parser)  # type: ignore[arg-type]

    def loads(text: str | bytes) -> Any:
        if isinstance(text, bytes):
            text = text.decode()
        try:
            value, end = scan(text, 0)
        except StopIteration as error:
            raise _JSONDecodeError("no value", text, error.value) from None
        if end != len(text):
            raise _JSONDecodeError("extra data", text, end)
        return value

    def no_json(value: object) -> Any:
        raise TypeError(f"{type(value).__name__} is no JSON")

    def dumps(value: Any, *, separators: tuple[str, str], default: Callable[[Any], Any] = no_json) -> str:
        item, key = separators
        encode = _json.make_encoder(None, default, _json.encode_basestring_ascii, None, key, item, False, False, False)
        return "".join(encode(value, 0))

    return (
        _module("json", loads=loads, dumps=dumps, JSONDecodeError=_JSONDecodeError),
        _module("json.decoder", JSONDecodeError=_JSONDecodeError),
        _module("json.encoder", encode_basestring=_json.encode_basestring),
    )
