"""The command line's modules from one file, where `tools/pack.py` has made it: a read for a verb, no search for each.

The file is made for one interpreter and one set of sources, as compiled modules are, and lies beside them:

    sys.version, NUL
    marshal   (code of this module, path of the file, stamps, members, {root: (offset, size)}); ends before HEAD_MAX
    marshal   (stamps, members), for each root

A root is a module whose import brings its members with it: what it needs, in the order in which they can run, itself
last. Stamps are (path, mtime_ns, size) of the sources; where one differs nothing is taken from here, and `import`
finds the module where it always does. Members are (name, kind, content): CODE (path of the package or None, code),
BUILT_IN, EXTENSION its file.

The launcher calls `start` before anything else is imported, so there is not even `os` here.
"""

from __future__ import annotations

import _imp
import posix
import sys
from _frozen_importlib import ModuleSpec
from marshal import loads

TYPE_CHECKING = False
if TYPE_CHECKING:  # type checkers know the name wherever it comes from
    from types import ModuleType
    from typing import Any

    Member = tuple[str, int, Any]
    Stamp = tuple[str, int, int]

HEAD_MAX = 65536
CODE, BUILT_IN, EXTENSION = range(3)

_Module = type(sys)


def start(module: ModuleType, path: str, stamps: list[Stamp], members: list[Member], roots: dict[str, Any]) -> None:
    """Take modules from the file `path` from now on, its head's at once. `module` is this one, not yet known to import.

    Where a source of the head's has changed, nothing happens.
    """
    if not _unchanged(stamps):
        return
    module.__file__ = start.__code__.co_filename
    sys.modules[module.__name__] = module
    _run(members)
    sys.meta_path.insert(0, _Finder(path, roots))


class _Finder:
    """A finder and loader (importlib.abc) of roots."""

    def __init__(self, path: str, roots: dict[str, tuple[int, int]]) -> None:
        self._path = path
        self._roots = roots
        self._identity = _identity(posix.stat(path))

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        place = self._roots.pop(name, None)
        if place is None:
            return None
        stamps, members = self._read(*place)
        if not stamps or not _unchanged(stamps):
            return None
        return ModuleSpec(name, self, loader_state=members)  # type: ignore[arg-type]

    def _read(self, offset: int, size: int) -> tuple[list[Stamp], list[Member]]:
        # Opened for each: a descriptor that stays open could be taken for one that the program is to inherit.
        fd = posix.open(self._path, posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            if _identity(posix.fstat(fd)) != self._identity:
                return [], []
            found: tuple[list[Stamp], list[Member]] = loads(posix.pread(fd, size, offset))  # noqa: S302 - ours, as __pycache__ is
            return found
        finally:
            posix.close(fd)

    def create_module(self, spec: Any) -> Any:
        _run(spec.loader_state)
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """It has run."""


def _identity(info: posix.stat_result) -> tuple[int, int, int]:
    return info.st_dev, info.st_ino, info.st_mtime_ns


def _unchanged(stamps: list[Stamp]) -> bool:
    try:
        for path, mtime_ns, size in stamps:
            info = posix.stat(path)
            if info.st_mtime_ns != mtime_ns or info.st_size != size:
                return False
    except OSError:
        return False
    return True


def _run(members: list[Member]) -> None:
    modules = sys.modules
    for name, kind, content in members:
        if name in modules:
            continue
        parent, _, last = name.rpartition(".")
        if kind == CODE:
            folder, code = content
            module = modules[name] = _Module(name)
            room = module.__dict__
            room["__file__"] = code.co_filename
            room["__package__"] = parent
            if folder is not None:
                room["__package__"] = name
                room["__path__"] = [folder]
            try:
                exec(code, room)  # noqa: S102
            except BaseException:
                del modules[name]
                raise
        elif kind == BUILT_IN:
            module = _imp.create_builtin(ModuleSpec(name, None))
            _imp.exec_builtin(module)
            modules[name] = module
        else:
            module = _imp.create_dynamic(ModuleSpec(name, None, origin=content))
            _imp.exec_dynamic(module)
            modules[name] = module
        if parent:
            setattr(modules[parent], last, module)
