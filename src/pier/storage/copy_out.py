"""A file or a tree of a container's as an archive, while its programs may go on changing it (`docker cp`, GET archive).

Names are walked by descriptor and nothing is followed; what is not a regular file is never opened, whatever it turns
into meanwhile. File systems that only talk to the kernel are shown as the empty directories they are mounted on.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from pier.kernel.mount_roots import on_kernel_fs
from pier.kernel.paths import closing
from pier.storage.ids import IdMap
from pier.storage.tar_header import Entry
from pier.storage.tar_writer import Sink, TarWriter
from pier.storage.tree_tar import DIRECTORY_FLAGS, FILE_FLAGS, Node, TreeTar, walk

KEPT_XATTRS: Final = (b"security.capability", b"user.")
GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.ESTALE})
"""What the kernel says of a name that is another kind of thing by now, or none."""


@dataclass(slots=True)
class LiveNode(Node):
    """A node of a tree that others write to."""

    kept: tuple[bytes, ...] = KEPT_XATTRS
    """How the extended attributes begin that are part of the archive."""

    def open(self) -> int:
        """As Node.open; raises FileNotFoundError where something else than a regular file stands there by now."""
        if self.is_dir:
            return os.open(self.name, DIRECTORY_FLAGS, dir_fd=self.dir_fd)
        with closing(os.open(self.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.dir_fd)) as fd:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise FileNotFoundError(errno.ENOENT, "no regular file any more", os.fsdecode(self.path))
            return os.open(f"/proc/self/fd/{fd}", FILE_FLAGS & ~os.O_NOFOLLOW)

    def xattrs(self) -> dict[bytes, bytes]:
        return {key: value for key, value in Node.xattrs(self).items() if key.startswith(self.kept)}


class _Writer(TarWriter):
    """Shows owners as the container's user namespace does."""

    def __init__(self, out: Sink, id_map: IdMap | None) -> None:
        super().__init__(out)
        self._id_map = id_map

    def add(self, entry: Entry) -> None:
        if self._id_map is not None:
            uid, gid = self._id_map.inside(entry.uid, entry.gid)
            entry = replace(entry, uid=uid, gid=gid)
        super().add(entry)


@dataclass(slots=True)
class CopyOut:
    """What to copy out of a container's tree."""

    id_map: IdMap | None = None
    """The ids of the container's user namespace, as the tree has them."""
    device_dev: int | None = None
    """`st_dev` of the file system with the container's own device nodes, which are left out: whoever unpacks the
    archive could not make them."""
    kept_xattrs: tuple[bytes, ...] = KEPT_XATTRS
    _kernel: dict[int, bool] = field(default_factory=dict)

    def tree(self, dir_fd: int, name: bytes, out: Sink) -> None:
        """The directory `dir_fd` and all below it, as `name`. Raises TreeTooDeep, OSError."""
        top = LiveNode(name, dir_fd, b".", os.fstat(dir_fd), self.kept_xattrs)
        prefix = name.rstrip(b"/") + b"/"
        inside = () if on_kernel_fs(dir_fd) else walk(dir_fd, prefix=prefix, enter=self._enter)
        self._write(top, inside, out)

    def file(self, parent_fd: int, base: bytes, out: Sink) -> None:
        """One name in a directory, whatever it is but a directory. Raises OSError."""
        info = os.stat(base, dir_fd=parent_fd, follow_symlinks=False)
        self._write(LiveNode(base, parent_fd, base, info, self.kept_xattrs), (), out)

    def _write(self, top: LiveNode, rest: Iterator[Node] | tuple[()], out: Sink) -> None:
        writer = _Writer(out, self.id_map)
        tar = TreeTar(writer)
        tar.add(top)
        for node in rest:
            if self._left_out(node.info):
                continue
            try:
                tar.add(LiveNode(node.path, node.dir_fd, node.name, node.info, self.kept_xattrs))
            except OSError as error:
                if error.errno not in GONE:
                    raise
                tar.forget(node)
        writer.finish()

    def _left_out(self, info: os.stat_result) -> bool:
        is_device = stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)
        return is_device and info.st_dev == self.device_dev

    def _enter(self, node: Node) -> bool:
        device = node.info.st_dev
        if device not in self._kernel:
            with closing(os.open(node.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=node.dir_fd)) as fd:
                self._kernel[device] = on_kernel_fs(fd)
        return not self._kernel[device]
