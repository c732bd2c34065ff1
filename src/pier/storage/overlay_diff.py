"""What stands in an overlay's upper directory, as a layer archive or a list of changes (image-spec, layer.md).

Only the upper directory is walked: what a container did not touch costs nothing. overlayfs' own forms (kernel,
Documentation/filesystems/overlayfs.rst) become those of the archive:

    character device 0:0, or an empty file with `overlay.whiteout`      .wh.NAME
    directory with `overlay.opaque` = y                                 .wh..wh..opq in it
    directory with `overlay.redirect`, file with `overlay.metacopy`     taken whole from the merged tree, since parts of
                                                                        them are still in a layer below
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from pier.kernel.paths import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, closing, open_in_root
from pier.storage.changes import Change, Diffed, Kind
from pier.storage.faults import point
from pier.storage.layer import OPAQUE_MARKER, WHITEOUT_PREFIX
from pier.storage.mount_points import lookup, mount_points
from pier.storage.tar_writer import TarWriter
from pier.storage.tree_tar import DIRECTORY_FLAGS, Node, TreeTar, walk

PREFIXES: Final = (b"trusted.overlay.", b"user.overlay.")

View = Callable[[], contextlib.AbstractContextManager[int]]
"""A tree, mounted when it is needed: a descriptor of its root while the block runs."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What overlayfs was told about one name in an upper directory, by its xattrs."""

    whiteout: bool = False
    opaque: bool = False
    redirect: bool = False
    metacopy: bool = False

    @classmethod
    def of(cls, node: Node) -> Orders:
        info = node.info
        if stat.S_ISCHR(info.st_mode):
            return cls(whiteout=info.st_rdev == 0)
        if not (stat.S_ISDIR(info.st_mode) or stat.S_ISREG(info.st_mode)):
            return cls()
        xattrs = node.all_xattrs()
        if not xattrs:
            return NO_ORDERS
        found = {
            key.removeprefix(prefix): value
            for prefix in PREFIXES
            for key, value in xattrs.items()
            if key.startswith(prefix)
        }
        return cls(
            whiteout=b"whiteout" in found and stat.S_ISREG(info.st_mode) and not info.st_size,
            opaque=found.get(b"opaque") == b"y",
            redirect=b"redirect" in found and stat.S_ISDIR(info.st_mode),
            metacopy=b"metacopy" in found and stat.S_ISREG(info.st_mode),
        )


NO_ORDERS: Final = Orders()


def write_layer(
    upper_fd: int, out: TarWriter, merged: View, lower: View, *, below: os.stat_result | None = None
) -> Diffed:
    """Write the layer that `upper_fd` holds, its end included. `merged` is the container's tree, `lower` that of the
    layers below, `below` the root directory of those: the root gets an entry where it is not the same any more.

    Raises TreeTooDeep, OSError.
    """
    tar = TreeTar(out)
    with contextlib.ExitStack() as stack:
        source = _Merged(merged, stack)
        orders: dict[bytes, Orders] = {}
        plain = True
        if below is not None:
            _root(upper_fd, below, tar)
        hidden = _hidden(upper_fd, _Merged(lower, stack))
        for node in walk(upper_fd, enter=lambda node: node.path not in hidden and not orders[node.path].redirect):
            if node.path in hidden:
                continue
            orders.clear()  # only the last one is asked for
            if stat.S_ISREG(node.info.st_mode):
                node.hold()
            order = orders[node.path] = Orders.of(node)
            plain = plain and not (order.redirect or order.metacopy)
            parent, _, name = node.path.rpartition(b"/")
            if order.whiteout:
                tar.mark(_join(parent, WHITEOUT_PREFIX + name))
            elif order.redirect:
                _whole(source, node.path, tar)
            elif order.metacopy:
                with source.node(node.path) as whole:
                    tar.add(whole)
            else:
                tar.add(node)
                if order.opaque:
                    tar.mark(_join(node.path, OPAQUE_MARKER))
    out.finish()
    point("diff-written")
    return Diffed(tar.size_bytes, out.entries, tuple(tar.skipped), plain=plain and not tar.skipped)


def clear_mount_points(upper_fd: int, lower: View) -> None:
    """Remove what the engine made in an upper directory only to mount on; the times of what held it stay."""
    with contextlib.ExitStack() as stack:
        hidden = _hidden(upper_fd, _Merged(lower, stack))
    for path in sorted(hidden, key=len, reverse=True):  # what is in a folder before the folder
        parent, _, name = path.rpartition(b"/")
        with closing(open_in_root(upper_fd, parent or b".", DIRECTORY_FLAGS)) as fd:
            info = os.fstat(fd)
            if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                os.rmdir(name, dir_fd=fd)
            else:
                os.unlink(name, dir_fd=fd)
            os.utime(fd, ns=(info.st_atime_ns, info.st_mtime_ns))


def changes(upper_fd: int, lower: View) -> Iterator[Change]:
    """What the container changed, sorted; `lower` is the tree of the layers below it."""
    with contextlib.ExitStack() as stack:
        below = _Merged(lower, stack)
        orders: dict[bytes, Orders] = {}
        unmade = _hidden(upper_fd, below)
        for node in walk(upper_fd, enter=lambda node: node.path not in unmade):
            if node.path in unmade:
                continue
            order = Orders.of(node)
            orders = {path: kept for path, kept in orders.items() if node.path.startswith(path + b"/")}
            behind = any(kept.opaque for kept in orders.values())
            path = b"/" + node.path
            if order.whiteout:
                yield Change(path, Kind.DELETED)
                continue
            existed = not behind and below.has(node.path)
            yield Change(path, Kind.MODIFIED if existed else Kind.ADDED)
            if node.is_dir:
                orders[node.path] = order
                if order.opaque and existed:
                    yield from _hidden_below(below, node)


def _hidden(upper_fd: int, below: _Merged) -> frozenset[bytes]:
    """The engine's mount points; a directory that took the place of another was made by the container."""

    def stands_below(path: bytes) -> os.stat_result | None:
        info = lookup(below.fd, path)
        if info is None or not stat.S_ISDIR(info.st_mode):
            return info
        parent, _, name = path.rpartition(b"/")
        with closing(open_in_root(upper_fd, parent or b".", DIRECTORY_FLAGS)) as fd:
            order = Orders.of(Node(path, fd, name, os.stat(name, dir_fd=fd, follow_symlinks=False)))
        return REPLACED if order.opaque or order.redirect else info

    return mount_points(upper_fd, stands_below)


REPLACED: Final = os.stat_result((0,) * 10)
"""Of a directory that is no longer the one below: like no other."""


def _hidden_below(below: _Merged, node: Node) -> Iterator[Change]:
    """What an opaque directory hides and has no successor of."""
    with closing(below.open(node.path)) as lower_fd, closing(node.open()) as upper_fd:
        gone = set(os.listdir(lower_fd)) - set(os.listdir(upper_fd))
    for name in sorted(map(os.fsencode, gone)):
        yield Change(b"/" + node.path + b"/" + name, Kind.DELETED)


def _root(upper_fd: int, below: os.stat_result, tar: TreeTar) -> None:
    """The root's own entry, where its mode or owner was changed."""
    info = os.fstat(upper_fd)
    if (info.st_mode, info.st_uid, info.st_gid) != (below.st_mode, below.st_uid, below.st_gid):
        tar.add(Node(b".", upper_fd, b".", info))


def _whole(source: _Merged, path: bytes, tar: TreeTar) -> None:
    """A directory with all that is in it, replacing the one below."""
    with source.node(path) as node:
        tar.add(node)
        tar.mark(_join(path, OPAQUE_MARKER))
        with closing(node.open()) as fd:
            for inner in walk(fd, prefix=path + b"/"):
                tar.add(inner)


class _Merged:
    """A view that is opened at the first question."""

    def __init__(self, view: View, stack: contextlib.ExitStack) -> None:
        self._view = view
        self._stack = stack
        self._fd = -1

    @property
    def fd(self) -> int:
        if self._fd < 0:
            self._fd = self._stack.enter_context(self._view())
        return self._fd

    def open(self, path: bytes) -> int:
        return open_in_root(self.fd, path or b".", DIRECTORY_FLAGS, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)

    def has(self, path: bytes) -> bool:
        """Whether there is such a name; no link is followed on the way."""
        try:
            with self.node(path):
                return True
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            if error.errno == 40:  # ELOOP: a link where the upper has a directory
                return False
            raise

    @contextlib.contextmanager
    def node(self, path: bytes) -> Iterator[Node]:
        parent, _, name = path.rpartition(b"/")
        with closing(self.open(parent)) as fd:
            yield Node(path, fd, name, os.stat(name, dir_fd=fd, follow_symlinks=False))


def _join(parent: bytes, name: bytes) -> bytes:
    return parent + b"/" + name if parent else name
