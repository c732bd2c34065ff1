"""What differs between two directory trees: the diff of the drivers whose containers have a whole tree of their own.

A file counts as changed as Docker counts it: type, mode, owner, size, time of change of its content, device numbers,
link target, xattrs. A program that writes as many bytes and sets the time back by hand is not noticed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Container, Iterator
from dataclasses import dataclass

from pier.kernel.paths import closing
from pier.storage.changes import Change, Diffed, Kind
from pier.storage.faults import point
from pier.storage.layer import WHITEOUT_PREFIX
from pier.storage.mount_points import lookup, mount_points
from pier.storage.tar_writer import TarWriter
from pier.storage.tree_tar import DEPTH_MAX, Node, TreeTar, TreeTooDeep
from pier.storage.trees import size_on_disk


@dataclass(frozen=True, slots=True)
class Difference:
    """One name that differs; `node` is the new one, None where it is gone."""

    path: bytes
    kind: Kind
    node: Node | None


def compare(
    old_fd: int | None, new_fd: int, at: bytes = b"", depth: int = 0, *, hidden: Container[bytes] = ()
) -> Iterator[Difference]:
    """Every name below `new_fd` that is not as below `old_fd` (None: nothing was there), sorted, but those in `hidden`.

    A directory in which something differs comes before that, modified or not: a layer needs its entry. Nodes are good
    until the next one is asked for. Raises TreeTooDeep.
    """
    if depth == DEPTH_MAX:
        raise TreeTooDeep(path=os.fsdecode(at[:200]), depth=DEPTH_MAX)
    old_names = set(map(os.fsencode, os.listdir(old_fd))) if old_fd is not None else set()
    new_names = set(map(os.fsencode, os.listdir(new_fd)))
    for name in sorted(old_names | new_names):
        path = at + name
        if path in hidden:
            continue
        if name not in new_names:
            yield Difference(path, Kind.DELETED, None)
            continue
        node = Node(path, new_fd, name, os.stat(name, dir_fd=new_fd, follow_symlinks=False))
        old = None
        if name in old_names:
            assert old_fd is not None
            old = Node(path, old_fd, name, os.stat(name, dir_fd=old_fd, follow_symlinks=False))
        yield from _compare_one(old, node, depth, hidden)


def _compare_one(old: Node | None, node: Node, depth: int, hidden: Container[bytes]) -> Iterator[Difference]:
    if old is not None and _same_inode(old.info, node.info) and not node.is_dir:
        return
    kind = Kind.ADDED if old is None else Kind.MODIFIED
    differs = old is None or not _equal(old, node)
    if not node.is_dir:
        if differs:
            yield Difference(node.path, kind, node)
        return
    if differs:
        yield Difference(node.path, kind, node)
    with closing(node.open()) as new_fd:
        if old is None or not old.is_dir:
            yield from compare(None, new_fd, node.path + b"/", depth + 1, hidden=hidden)
            return
        with closing(old.open()) as old_fd:
            for difference in compare(old_fd, new_fd, node.path + b"/", depth + 1, hidden=hidden):
                if not differs:
                    differs = True
                    yield Difference(node.path, kind, node)
                yield difference


def _same_inode(old: os.stat_result, new: os.stat_result) -> bool:
    """A snapshot's file keeps inode number and change time until something touches it."""
    return old.st_ino == new.st_ino and old.st_ctime_ns == new.st_ctime_ns and old.st_size == new.st_size


def _equal(old: Node, new: Node) -> bool:
    one, two = old.info, new.info
    kind = stat.S_IFMT(one.st_mode)
    if (one.st_mode, one.st_uid, one.st_gid) != (two.st_mode, two.st_uid, two.st_gid):
        return False
    if kind in (stat.S_IFCHR, stat.S_IFBLK) and one.st_rdev != two.st_rdev:
        return False
    if kind == stat.S_IFREG and (one.st_size, one.st_mtime_ns) != (two.st_size, two.st_mtime_ns):
        return False
    if kind == stat.S_IFLNK and os.readlink(old.name, dir_fd=old.dir_fd) != os.readlink(new.name, dir_fd=new.dir_fd):
        return False
    return old.xattrs() == new.xattrs()


def _hidden(old_fd: int, new_fd: int) -> frozenset[bytes]:
    return mount_points(new_fd, lambda path: lookup(old_fd, path))


def write_layer(old_fd: int, new_fd: int, out: TarWriter) -> Diffed:
    """Write the layer that leads from one tree to the other, its end included. Raises TreeTooDeep, OSError."""
    tar = TreeTar(out)
    one, two = os.fstat(old_fd), os.fstat(new_fd)
    if (one.st_mode, one.st_uid, one.st_gid) != (two.st_mode, two.st_uid, two.st_gid):
        tar.add(Node(b".", new_fd, b".", two))
    for difference in compare(old_fd, new_fd, hidden=_hidden(old_fd, new_fd)):
        if difference.node is not None:
            tar.add(difference.node)
        else:
            parent, _, name = difference.path.rpartition(b"/")
            tar.mark(parent + b"/" + WHITEOUT_PREFIX + name if parent else WHITEOUT_PREFIX + name)
    out.finish()
    point("diff-written")
    return Diffed(tar.size_bytes, out.entries, tuple(tar.skipped))


def changes(old_fd: int, new_fd: int) -> Iterator[Change]:
    """The same as a list, sorted."""
    for difference in compare(old_fd, new_fd, hidden=_hidden(old_fd, new_fd)):
        yield Change(b"/" + difference.path, difference.kind)


def changed_bytes(old_fd: int, new_fd: int) -> int:
    """Bytes of what was added and modified, holes not counted."""
    total = 0
    for difference in compare(old_fd, new_fd):
        node = difference.node
        if node is not None and not node.is_dir:
            total += size_on_disk(node.info)
    return total
