"""Clients' files on this side, kept from build to build so that only what has changed is sent again.

    <folder>/<name>/tree     the files
    <folder>/<name>/index    what is in there: path -> (file, sha256 of its content), msgpack

The index is taken away before the tree is touched and written when the tree is whole again, so a tree without one is
half of something and begun anew. A tree is one build's at a time: a second build with the same files gets a copy of its
own, which goes when it is done.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from pier.buildkit.stat import Entry, tree_key
from pier.storage.durable import write_file

__all__ = ["Context", "Contexts", "Index"]

Index = dict[str, tuple[Entry, str]]
"""Path -> (file, sha256 of its content in hexadecimal; empty where it has none)."""
IDLE_MAX: Final = 16
"""Trees that are kept for builds to come; the one that was used longest ago goes first."""

_decoder = msgspec.msgpack.Decoder(Index)


@dataclass(slots=True)
class Context:
    """One client's files, while a build has them."""

    folder: str
    lasting: bool
    index: Index = field(default_factory=dict)

    @property
    def tree(self) -> str:
        return os.path.join(self.folder, "tree")

    @property
    def key(self) -> str:
        """Of the content."""
        return tree_key((path, entry, content) for path, (entry, content) in self.index.items())

    def begin(self) -> None:
        """The tree will change now. Blocking."""
        try:
            os.unlink(os.path.join(self.folder, "index"))
        except FileNotFoundError:
            self.index = {}
            shutil.rmtree(self.tree, ignore_errors=True)
        os.makedirs(self.tree, mode=0o755, exist_ok=True)

    def finish(self, index: Index) -> None:
        """The tree is what `index` says. Blocking."""
        self.index = index
        if self.lasting:
            write_file(os.path.join(self.folder, "index"), msgspec.msgpack.encode(index), durable=False)


class Contexts:
    """All of a daemon. One thread at a time."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._in_use: set[str] = set()

    def take(self, origin: str) -> Context:
        """Files for a build whose client calls them `origin` (host, folder and name of its own). Blocking."""
        name = hashlib.sha256(origin.encode()).hexdigest()[:32]
        lasting = bool(origin) and name not in self._in_use
        if not lasting:
            name = f"once-{secrets.token_hex(8)}"
        self._in_use.add(name)
        context = Context(os.path.join(self._folder, name), lasting)
        os.makedirs(context.folder, mode=0o700, exist_ok=True)
        context.index = _read(os.path.join(context.folder, "index")) if lasting else {}
        return context

    def give_back(self, context: Context) -> None:
        """A build is done with it. Blocking."""
        name = os.path.basename(context.folder)
        if context.lasting:
            os.utime(context.folder)
        else:
            shutil.rmtree(context.folder, ignore_errors=True)
        self._in_use.discard(name)
        self._sweep()

    def prune(self, *, unused_for_s: float = 0.0) -> int:
        """Remove what no build has now; returns the bytes that were freed. Blocking."""
        before = time.time() - unused_for_s
        return sum(self._remove(name) for name, used in self._idle() if used <= before)

    def usage(self) -> Mapping[str, tuple[int, float]]:
        """Name -> (bytes, seconds since the epoch of its last use). Blocking."""
        return {name: (_size(os.path.join(self._folder, name)), used) for name, used in self._idle()}

    def _sweep(self) -> None:
        idle = self._idle()
        for name, _ in idle[: max(0, len(idle) - IDLE_MAX)]:
            self._remove(name)

    def _idle(self) -> list[tuple[str, float]]:
        """Those that no build has, the one used longest ago first."""
        try:
            with os.scandir(self._folder) as entries:
                found = [(each.name, each.stat().st_mtime) for each in entries if each.name not in self._in_use]
        except FileNotFoundError:
            return []
        return sorted(found, key=lambda pair: pair[1])

    def _remove(self, name: str) -> int:
        path = os.path.join(self._folder, name)
        size = _size(path)
        shutil.rmtree(path, ignore_errors=True)
        return size


def _read(path: str) -> Index:
    try:
        with open(path, "rb") as file:
            return _decoder.decode(file.read())
    except (FileNotFoundError, msgspec.DecodeError):
        return {}


def _size(path: str) -> int:
    index = _read(os.path.join(path, "index"))
    return sum(entry.size_bytes for entry, _ in index.values())
