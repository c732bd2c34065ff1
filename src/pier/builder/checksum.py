"""What files hold, as a digest: names, kinds, modes, owners, links' targets, capabilities and contents, never times.

So a file that was only touched is the same (BuildKit's contenthash has the same rule).
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Final

from pier.builder import layers, wildcard
from pier.builder.choosing import Wanted, chooser
from pier.builder.entries import Entry
from pier.builder.ground import Ground
from pier.builder.keys import Selection
from pier.builder.steps.copying import DIRECTORY, READ
from pier.builder.tree import Folder, Result
from pier.kernel.paths import closing, open_in_root
from pier.storage.tree_tar import DEPTH_MAX, TreeTooDeep

KEPT: Final = 4096
"""Checksums that are remembered."""
CAPABILITY: Final = "security.capability"
CHUNK: Final = 1 << 20
Contents = Mapping[str, tuple[Entry, str]]
"""`Folder.contents`"""
NOTHING_KNOWN: Final[Contents] = {}


class Checksums:
    """Of results; a tree's are remembered, for trees do not change."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._known: OrderedDict[tuple[str, tuple[Selection, ...]], str] = OrderedDict()

    async def __call__(self, result: Result, usage: tuple[Selection, ...]) -> str:
        """The digest of what a step takes of a result. Raises TreeTooDeep, OSError."""
        key = result.key, usage
        if key not in self._known:
            self._known[key] = await self._ground.in_thread(self._compute, result, usage)
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        return self._known[key]

    def _compute(self, result: Result, usage: tuple[Selection, ...]) -> str:
        contents = result.contents() if isinstance(result, Folder) and result.contents is not None else {}
        with layers.shown(self._ground, result) as fd:
            return digest_of(fd, usage, contents)


def digest_of(root_fd: int, usage: tuple[Selection, ...], contents: Contents = NOTHING_KNOWN) -> str:
    """The digest of selected files below a root; what a selection names and is not there counts as that.

    Files that are in `contents` are not read.
    """
    state = hashlib.sha256()
    for selection in usage:
        wanted = chooser(selection.include, selection.exclude)
        for path in wildcard.matches(root_fd, selection):
            for line in _lines(root_fd, path, selection, wanted, contents):
                state.update(line)
        state.update(b"\0\0")
    return f"sha256:{state.hexdigest()}"


def digest_of_tree(root_fd: int) -> str:
    """The digest of everything below a root."""
    return digest_of(root_fd, (Selection("/"),))


def _lines(root_fd: int, path: str, selection: Selection, wanted: Wanted | None, contents: Contents) -> Iterator[bytes]:
    name = path.rstrip("/").rpartition("/")[2]
    try:
        if selection.follow:
            fd = open_in_root(root_fd, path, os.O_PATH)
        else:
            parent = path.rstrip("/").rpartition("/")[0]
            with closing(open_in_root(root_fd, parent or "/", DIRECTORY)) as above:
                fd = os.open(name or ".", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    except (FileNotFoundError, NotADirectoryError):
        yield b"absent\0" + os.fsencode(path)
        return
    with closing(fd):
        info = os.fstat(fd)
        known = _Known(contents, _place(root_fd, fd)) if contents else None
        yield os.fsencode(name) + b"\0"
        if stat.S_ISDIR(info.st_mode):
            yield _header(info)
            with closing(os.open(f"/proc/self/fd/{fd}", DIRECTORY)) as directory:
                yield from _tree(directory, "", wanted, 0, known)
        elif stat.S_ISREG(info.st_mode):
            digest = known.digest("", info) if known is not None else b""
            if not digest:
                with closing(os.open(f"/proc/self/fd/{fd}", READ & ~os.O_NOFOLLOW)) as file:
                    digest = _content(file, info)
            yield _header(info) + digest
        else:
            yield _header(info)
            if stat.S_ISLNK(info.st_mode):
                yield os.fsencode(os.readlink("", dir_fd=fd))


def _tree(fd: int, at: str, wanted: Wanted | None, depth: int, known: _Known | None) -> Iterator[bytes]:
    if depth == DEPTH_MAX:
        raise TreeTooDeep(path=at[:200], depth=DEPTH_MAX)
    with os.scandir(fd) as entries:
        names = sorted(entry.name for entry in entries)
    for name in names:
        info = os.stat(name, dir_fd=fd, follow_symlinks=False)
        path = f"{at}{name}"
        is_dir = stat.S_ISDIR(info.st_mode)
        if wanted is None or wanted(path, is_dir):
            head = os.fsencode(path) + b"\0" + _header(info)
            if stat.S_ISREG(info.st_mode):
                digest = known.digest(path, info) if known is not None else b""
                if not digest:
                    with closing(os.open(name, READ, dir_fd=fd)) as file:
                        digest = _content(file, info)
                head += digest
            elif stat.S_ISLNK(info.st_mode):
                head += os.fsencode(os.readlink(name, dir_fd=fd))
            yield head
        if is_dir:
            with closing(os.open(name, DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)) as below:
                yield from _tree(below, f"{path}/", wanted, depth + 1, known)


class _Known:
    """What is known of the files below a place in a client's folder."""

    def __init__(self, contents: Contents, place: str) -> None:
        self._contents = contents
        self._place = place

    def digest(self, path: str, info: os.stat_result) -> bytes:
        """As of `_content`; empty: it is to be read."""
        found = self._contents.get(f"{self._place}/{path}".strip("/"))
        if found is None:
            return b""
        entry, content = found
        same = (entry.size_bytes, entry.mtime_ns) == (info.st_size, info.st_mtime_ns) and not entry.xattrs
        return bytes.fromhex(content) if same else b""


def _place(root_fd: int, fd: int) -> str:
    """Where something stands below a root, links resolved."""
    return os.readlink(f"/proc/self/fd/{fd}").removeprefix(os.readlink(f"/proc/self/fd/{root_fd}"))


def _header(info: os.stat_result) -> bytes:
    device = info.st_rdev if stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode) else 0
    return b"%o %d %d %d\0" % (info.st_mode, info.st_uid, info.st_gid, device)


def _content(fd: int, info: os.stat_result) -> bytes:
    """Digest of a file's content, and its capabilities."""
    if info.st_size <= CHUNK:
        digest = hashlib.sha256(os.read(fd, info.st_size + 1)).digest()
    else:
        state = hashlib.sha256()
        while data := os.read(fd, CHUNK):
            state.update(data)
        digest = state.digest()
    try:
        return digest + os.getxattr(fd, CAPABILITY)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOTSUP):
            raise
        return digest


__all__ = ["Checksums", "Folder", "digest_of", "digest_of_tree"]
