"""Light stand-ins for `typing`, `dataclasses`, `collections`, `contextlib`, `functools`, `operator`, `socket`,
`signal`, `json` and `ctypes` in the zygote and in `pier-runtime`.

A monitor shares the zygote's memory with all others, but copies a page when it touches one object on it (a reference
count is a write). So what is loaded there is small and does little: the real modules bring `inspect`, `re`, `enum` and
generated methods for every class, 4 MB in all, and turn each signal number and socket type into an enum member. Here
are the parts of them that modules in the zygote use; a name that is missing is an ImportError or AttributeError there.
Structs behave as the real ones do, but nothing guards a frozen field, and two of them do not compare.
The command line, which loads all of it anew each time, starts in two thirds of the time for them.
"""

from __future__ import annotations

import _collections  # type: ignore[import-not-found]
import _functools  # type: ignore[import-not-found]
import _json
import _operator
import _signal  # type: ignore[import-not-found]
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # type checkers know the name wherever it comes from
    from collections.abc import Callable
    from types import ModuleType, SimpleNamespace
    from typing import Any
else:
    ModuleType, SimpleNamespace = type(sys), type(sys.implementation)


def install(*, late: bool = False) -> None:
    """Put the stand-ins where `import` looks, before any other module of Pier is loaded; in a process of Pier's alone.

    With `late`, those that not everybody needs are made when something of them is wanted. Where not even `os` is
    loaded, it gets a light `collections.abc` too.
    """
    plain = (_typing(), _dataclasses(), _functions(), _operators(), _contexts(), _signals())
    abstract = sys.modules.get("_collections_abc") or _abstract_collections()
    for module in (*plain, *_json_modules(), _collections_module(abstract)):
        sys.modules[module.__name__] = module
    sys.modules["_collections_abc"] = sys.modules["collections.abc"] = abstract
    for name, make in (("socket", _sockets), ("ctypes", _foreign_functions)):
        sys.modules[name] = _late(name, make) if late else make()


def _module(name: str, **content: Any) -> ModuleType:
    module = ModuleType(name)
    module.__dict__.update(content)
    return module


def _late(name: str, make: Callable[[], ModuleType]) -> ModuleType:
    """A module that is filled when something in it is looked for (PEP 562)."""
    module = ModuleType(name)

    def attribute(wanted: str) -> Any:
        if wanted.startswith("__"):
            raise AttributeError(wanted)
        del module.__getattr__
        module.__dict__.update(make().__dict__)
        return getattr(module, wanted)

    module.__getattr__ = attribute  # type: ignore[method-assign]
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


class _NamedTupleType(type):
    """Makes a tuple's subclass of the fields in a class's body, with the body's methods."""

    def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
        fields = tuple(body.get("__annotations__", ()))
        defaults = {field: body.pop(field) for field in fields if field in body}
        getters = {field: _collections._tuplegetter(index, None) for index, field in enumerate(fields)}
        made = {"_fields": fields, "__match_args__": fields, "_replace": _replaced, "__slots__": ()}
        return type(name, (tuple,), body | getters | made | {"__new__": _tuple_maker(fields, defaults)})


def _tuple_maker(fields: tuple[str, ...], defaults: dict[str, Any]) -> Callable[..., Any]:
    count, new = len(fields), tuple.__new__
    last = tuple(defaults.values())
    """Of the last fields: after one that has a default, Python wants all to have one."""
    least = count - len(last)

    def make(cls: type, *values: object, **named: object) -> Any:
        if named or not least <= len(values) <= count:
            values = tuple(_bound(cls, fields, defaults, values, named))
        elif len(values) < count:
            values += last[len(values) - least :]
        return new(cls, values)

    return make


def _replaced(self: Any, **changes: object) -> Any:
    return type(self)(**(dict(zip(self._fields, self, strict=True)) | changes))


def _bound(
    cls: type, fields: tuple[str, ...], defaults: dict[str, Any], values: tuple[object, ...], named: dict[str, object]
) -> list[Any]:
    """The value of each field from a call's arguments. Raises TypeError."""
    given = dict(zip(fields, values, strict=False))
    if len(values) > len(fields) or not set(fields).issuperset(named) or not given.keys().isdisjoint(named):
        raise TypeError(f"{cls.__name__} has the fields {', '.join(fields)}")
    found = defaults | given | named
    lacking = [field for field in fields if field not in found]
    if lacking:
        raise TypeError(f"{cls.__name__} lacks the field {lacking[0]}")
    return [found[field] for field in fields]


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


def _with_init(cls: type) -> type:
    """`cls` with an `__init__` over its fields; one function's code serves all classes."""
    names = tuple(cls.__annotations__)
    defaults = {name: getattr(cls, name) for name in names if hasattr(cls, name)}

    def initialise(self: object, *values: object, **named: object) -> None:
        for name, value in zip(names, _bound(cls, names, defaults, values, named), strict=True):
            setattr(self, name, value.make() if isinstance(value, _Factory) else value)

    cls.__init__ = initialise  # type: ignore[misc]
    return cls


# --- collections, functools, operator --------------------------------------------------------------------------------


def _collections_module(abstract: ModuleType) -> ModuleType:
    # A package, as `import collections.abc` wants it.
    return _module("collections", abc=abstract, deque=_collections.deque, __path__=[])


class _Mapping:
    """What `os.environ` is made of."""

    def get(self, key: Any, default: Any = None) -> Any:
        try:
            return self[key]  # type: ignore[index]
        except KeyError:
            return default

    def __contains__(self, key: Any) -> bool:
        return self.get(key) is not None

    def keys(self) -> list[Any]:
        return list(self)  # type: ignore[call-overload,no-any-return]

    def values(self) -> list[Any]:
        return [self[key] for key in self]  # type: ignore[attr-defined,index]

    def items(self) -> list[tuple[Any, Any]]:
        return [(key, self[key]) for key in self]  # type: ignore[attr-defined,index]


def _abstract_collections() -> ModuleType:
    """`collections.abc` for annotations; it tells nothing about an object's kind."""
    body = {"__class_getitem__": classmethod(type(list[int])), "register": classmethod(lambda cls, kind: kind)}
    names = "Callable Collection Hashable Iterable Iterator MutableSequence Sequence Set".split()
    kinds = {name: type(name, (), body) for name in names}
    mapping = type("Mapping", (_Mapping,), body)

    def check_methods(kind: type, *methods: str) -> Any:
        return all(hasattr(kind, method) for method in methods) or NotImplemented

    return _module("_collections_abc", Mapping=mapping, MutableMapping=mapping, _check_methods=check_methods, **kinds)


def _functions() -> ModuleType:
    def cache(function: Callable[..., Any]) -> Any:
        return _functools._lru_cache_wrapper(function, None, False, tuple)

    return _module("functools", cache=cache, partial=_functools.partial)


def _operators() -> ModuleType:
    return _module("operator", **_public(_operator))


# --- contextlib ------------------------------------------------------------------------------------------------------


class _Suppress:
    def __init__(self, *kinds: type[BaseException]) -> None:
        self._kinds = kinds

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> bool:
        return kind is not None and issubclass(kind, self._kinds)


class _Closing:
    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def __enter__(self) -> Any:
        return self._thing

    def __exit__(self, *error: object) -> None:
        self._thing.close()


class _Managed:
    """A generator that yields once, as a context manager."""

    def __init__(self, generator: Any) -> None:
        self._generator = generator

    def __enter__(self) -> Any:
        return next(self._generator)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: Any) -> bool:
        if error is None:
            for _ in self._generator:
                raise RuntimeError("generator didn't stop")
            return False
        try:
            self._generator.throw(error)
        except StopIteration:
            return True
        except BaseException as raised:
            if raised is error:
                return False
            raise
        raise RuntimeError("generator didn't stop after throw()")


def _contextmanager(function: Callable[..., Any]) -> Callable[..., _Managed]:
    return lambda *values, **named: _Managed(function(*values, **named))


class _Callback:
    def __init__(self, function: Callable[..., object], args: tuple[object, ...]) -> None:
        self._function, self._args = function, args

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        self._function(*self._args)


class _ExitStack:
    def __init__(self) -> None:
        self._entered: list[Any] = []

    def enter_context(self, manager: Any) -> Any:
        entered = manager.__enter__()
        self._entered.append(manager)
        return entered

    def callback(self, function: Callable[..., object], *args: object) -> None:
        self.enter_context(_Callback(function, args))

    def __enter__(self) -> _ExitStack:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: Any) -> bool:
        left = error
        while self._entered:
            try:
                if self._entered.pop().__exit__(type(left) if left else None, left, left and left.__traceback__):
                    left = None
            except BaseException as raised:
                left = raised
        if left is not None and left is not error:
            raise left
        return left is None and error is not None


def _contexts() -> ModuleType:
    return _module(
        "contextlib", suppress=_Suppress, closing=_Closing, contextmanager=_contextmanager, ExitStack=_ExitStack
    )


# --- socket, signal --------------------------------------------------------------------------------------------------


def _sockets() -> ModuleType:
    import _socket  # noqa: PLC0415 - brings hundreds of constants, and not everybody needs it

    class Socket(_socket.socket):
        __slots__ = ()

        def __enter__(self) -> Socket:
            return self

        def __exit__(self, *error: object) -> None:
            self.close()

        def accept(self) -> tuple[Socket, Any]:
            fd, address = self._accept()  # type: ignore[attr-defined]
            return Socket(fileno=fd), address

    def socketpair(family: int, kind: int) -> tuple[Socket, Socket]:
        one, other = _socket.socketpair(family, kind)
        return Socket(fileno=one.detach()), Socket(fileno=other.detach())

    return _module("socket", **_public(_socket) | {"socket": Socket, "socketpair": socketpair})


def _signals() -> ModuleType:
    return _module("signal", **_public(_signal))


def _public(module: ModuleType) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if not name.startswith("__")}


def _foreign_functions() -> ModuleType:
    from pier.runtime import stand_in_ctypes  # noqa: PLC0415 - loads a library

    return _module("ctypes", **{name: getattr(stand_in_ctypes, name) for name in stand_in_ctypes.__all__})


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
