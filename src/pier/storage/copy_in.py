"""An archive into a directory of a container's, while its programs may go on changing it (`docker cp`, PUT archive).

The extractor's rules hold: every name is resolved as if the directory were the root, existing files are never opened
but replaced. On top of that: a whiteout's name is a name like any other, and nothing is made or changed on a file
system that only talks to the kernel.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from dataclasses import replace

from pier.errors import PierError
from pier.kernel.mount_roots import on_kernel_fs
from pier.kernel.paths import open_in_root
from pier.storage.layer import DIRECTORY_FLAGS, Extractor, LayerLimits, components
from pier.storage.stream import Reader
from pier.storage.tar import TarReader
from pier.storage.tar_header import DIRECTORY, Entry

Owners = Callable[[int, int], tuple[int, int]]
"""(uid, gid) of an entry -> those to give to the file on this host."""


class CannotOverwrite(PierError):
    """cannot overwrite {old} "{name}" with {new} "{place}\""""


class KernelFileSystem(PierError):
    """{name} is not a place for files: the kernel's own file system is mounted there"""


def copy_in(
    stream: Reader,
    dir_fd: int,
    *,
    owners: Owners,
    root_owner: tuple[int, int] = (0, 0),
    keep_kinds: bool = False,
    place: str = "/",
    root_too: bool = False,
) -> None:
    """Unpack a plain archive into the directory behind `dir_fd`, which itself stays as it is unless `root_too`.

    What an entry's name implies and the archive does not have belongs to `root_owner`. `keep_kinds`: a directory is not
    replaced by something else, nor the other way round; `place` names the directory in that error. Raises
    CannotOverwrite, KernelFileSystem, BadArchive and its kinds, OSError (ENOSPC, EROFS, …).
    """
    if on_kernel_fs(dir_fd):
        raise KernelFileSystem(name=place)
    limits = LayerLimits()
    archive = TarReader(stream, limits.tar)
    copy = _CopyIn(dir_fd, archive, limits, owners, root_owner, keep_kinds=keep_kinds, place=place)
    copy.root_too = root_too
    with copy:
        copy.run()


class _CopyIn(Extractor):
    def __init__(
        self,
        dir_fd: int,
        archive: TarReader,
        limits: LayerLimits,
        owners: Owners,
        root_owner: tuple[int, int],
        *,
        keep_kinds: bool,
        place: str,
    ) -> None:
        super().__init__(dir_fd, archive, limits)
        self._owners = owners
        self._root_owner = root_owner
        self._keep_kinds = keep_kinds
        self._place = place
        self.root_too = False

    def extract(self, entry: Entry) -> None:
        """As with layers, but for the directory itself, which stays as it is, and for whiteouts."""
        parts = components(entry, entry.name)
        uid, gid = self._owners(entry.uid, entry.gid)
        entry = replace(entry, uid=uid, gid=gid)
        if not parts:
            if self.root_too:
                self._set_root(entry)
            return
        *parents, base = parts
        dir_fd = self._parent(entry, parents)
        self._check_kind(entry, dir_fd, base)
        self._put(entry, dir_fd, base)
        if entry.type == DIRECTORY:
            self._dir_times[tuple(parts)] = entry.mtime_ns

    def _check_kind(self, entry: Entry, dir_fd: int, base: bytes) -> None:
        if not self._keep_kinds:
            return
        with contextlib.suppress(FileNotFoundError):
            is_dir = stat.S_ISDIR(os.stat(base, dir_fd=dir_fd, follow_symlinks=False).st_mode)
            if is_dir == (entry.type == DIRECTORY):
                return
            old, new = ("directory", "non-directory") if is_dir else ("non-directory", "directory")
            raise CannotOverwrite(old=old, new=new, name=entry.shown, place=self._place)

    def _parent(self, entry: Entry, parents: list[bytes]) -> int:
        if tuple(parents) not in self._open_dirs:
            self._make_parents(parents)
        fd = super()._parent(entry, parents)
        if on_kernel_fs(fd):
            raise KernelFileSystem(name=entry.shown)
        return fd

    def _make_parents(self, parents: list[bytes]) -> None:
        """Make what is missing of a path, as the container's root would own it."""
        for depth in range(len(parents), -1, -1):
            try:
                fd = open_in_root(self._root_fd, b"/".join(parents[:depth]) or b".", DIRECTORY_FLAGS)
                break
            except OSError as error:
                if error.errno != errno.ENOENT:
                    return  # said by whoever opens the whole path
        for name in parents[depth:]:
            try:
                fd = self._make_directory(fd, name)
            except OSError:
                return  # a link to nothing, for one: the extractor knows what to do
        os.close(fd)

    def _make_directory(self, above: int, name: bytes) -> int:
        """A descriptor of a directory that is made where it is not there; `above` is closed."""
        try:
            made = True
            try:
                os.mkdir(name, 0o755, dir_fd=above)
            except FileExistsError:
                made = False
            fd = open_in_root(above, name, DIRECTORY_FLAGS | os.O_NOFOLLOW)
        finally:
            os.close(above)
        if made:
            os.fchown(fd, *self._root_owner)
        return fd
