"""The parts of `ctypes` that Pier's bindings to the kernel use, over its C half (see `stand_ins`).

As the real one on every 64-bit Linux; a library is told apart from it by having no names with two leading underscores.
"""

from __future__ import annotations

from _ctypes import (
    FUNCFLAG_CDECL,
    FUNCFLAG_PYTHONAPI,
    FUNCFLAG_USE_ERRNO,
    POINTER,
    CFuncPtr,
    Structure,
    _SimpleCData,
    addressof,
    byref,
    dlopen,
    get_errno,
    sizeof,
)

__all__ = [
    "CDLL",
    "CFUNCTYPE",
    "POINTER",
    "PyDLL",
    "Structure",
    "addressof",
    "byref",
    "c_char",
    "c_char_p",
    "c_int",
    "c_int32",
    "c_int64",
    "c_long",
    "c_size_t",
    "c_uint",
    "c_uint32",
    "c_uint64",
    "c_ulong",
    "c_ushort",
    "c_void_p",
    "create_string_buffer",
    "get_errno",
    "pythonapi",
    "sizeof",
]

TYPE_CHECKING = False
if TYPE_CHECKING:  # type checkers know the name wherever it comes from
    from typing import Any


def _simple(name: str, code: str) -> Any:
    metaclass: Any = type(_SimpleCData)
    return metaclass(name, (_SimpleCData,), {"_type_": code})


c_char, c_char_p, c_void_p = _simple("c_char", "c"), _simple("c_char_p", "z"), _simple("c_void_p", "P")
c_ushort = _simple("c_ushort", "H")
c_int = c_int32 = _simple("c_int", "i")
c_uint = c_uint32 = _simple("c_uint", "I")
c_long = c_int64 = _simple("c_long", "l")
c_ulong = c_uint64 = c_size_t = _simple("c_ulong", "L")


def _function_type(flags: int, restype: Any, use_errno: bool, **body: Any) -> Any:
    flags |= FUNCFLAG_USE_ERRNO if use_errno else 0
    metaclass: Any = type(CFuncPtr)
    return metaclass("CFunctionType", (CFuncPtr,), {"_flags_": flags, "_restype_": restype, **body})


def CFUNCTYPE(restype: Any, *argtypes: Any, use_errno: bool = False) -> Any:  # noqa: N802
    """A C function's type."""
    return _function_type(FUNCFLAG_CDECL, restype, use_errno, _argtypes_=argtypes)


class CDLL:
    """A shared library, None for the program itself; its functions are attributes. Raises OSError."""

    _flags = FUNCFLAG_CDECL

    def __init__(self, name: str | None, *, use_errno: bool = False) -> None:
        self._function = _function_type(self._flags, c_int, use_errno)
        self._handle = dlopen(name, 0)  # type: ignore[arg-type] # where _function looks a name up

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        function = self._function((name, self))
        setattr(self, name, function)
        return function


class PyDLL(CDLL):
    """A library whose functions keep the interpreter's lock and may raise."""

    _flags = FUNCFLAG_CDECL | FUNCFLAG_PYTHONAPI


pythonapi = PyDLL(None)


def create_string_buffer(init: int | bytes, size: int | None = None) -> Any:
    """An array of characters: of a size, or bytes with a NUL after them, or bytes in a `size` of their own."""
    if isinstance(init, int):
        return (c_char * init)()
    made = (c_char * (len(init) + 1 if size is None else size))()
    made.value = init
    return made
