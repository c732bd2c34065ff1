"""Files into and out of containers: what `docker cp` asks of the daemon (Engine API, /containers/{id}/archive)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
from collections.abc import AsyncIterator
from functools import partial
from typing import NamedTuple

from pier.containers.file_view import FileView, file_view
from pier.containers.world import Container, World
from pier.errors import InvalidParameter, NotFound, PierError
from pier.kernel.mount_roots import on_kernel_fs
from pier.kernel.paths import closing, open_in_root
from pier.runtime.process.users import UserError, identify
from pier.storage import archive_paths
from pier.storage.archive_paths import PathStat
from pier.storage.compression import decompressed
from pier.storage.copy_in import Owners, copy_in
from pier.storage.copy_out import CopyOut
from pier.storage.outflow import outflow
from pier.storage.stream import Reader
from pier.storage.tar_writer import Sink
from pier.storage.threads import Transfer


class NoSuchFile(NotFound):
    """Could not find the file {path} in container {ref}"""


class BadPath(PierError):
    """lstat {path}: {reason}"""


class NotADirectory(InvalidParameter):
    """extraction point is not a directory"""


class ReadOnlyRoot(InvalidParameter):
    """container rootfs is marked read-only"""


class ReadOnlyVolume(InvalidParameter):
    """mounted volume is marked read-only"""


class CannotUnpack(PierError):
    """the archive cannot be unpacked: {reason}"""


class NoSuchUser(InvalidParameter):
    """failed to look up user "{user}" in container: {reason}"""


class _Found(NamedTuple):
    """A file in a view: `fd` is O_PATH and the caller's."""

    path: str
    fd: int
    stat: PathStat


class Archive(NamedTuple):
    """What is at a path, and its archive, which must be read to its end or closed."""

    stat: PathStat
    chunks: AsyncIterator[bytes]


async def path_stat(world: World, container: Container, ref: str, path: str) -> PathStat:
    """What is at a path. Raises NoSuchFile, BadPath."""
    async with file_view(world, container) as view:
        found = await asyncio.to_thread(_find, view, ref, path)
        os.close(found.fd)
        return found.stat


@contextlib.asynccontextmanager
async def archive(world: World, container: Container, ref: str, path: str) -> AsyncIterator[Archive]:
    """The archive of a file or tree, while the block runs. Raises NoSuchFile, BadPath."""
    async with file_view(world, container) as view:
        found = await asyncio.to_thread(_find, view, ref, path)
        with closing(found.fd):
            chunks = outflow(partial(_write, view, found), name="copy")
            world.publish(container, "archive-path")
            async with contextlib.aclosing(chunks):
                yield Archive(found.stat, chunks)


async def extract(
    world: World,
    container: Container,
    ref: str,
    path: str,
    source: AsyncIterator[bytes],
    *,
    keep_kinds: bool,
    copy_owner: bool,
) -> None:
    """Unpack an archive, compressed or not, into a directory; `copy_owner` gives what is in it to the container's user.

    Raises NoSuchFile, BadPath, NotADirectory, ReadOnlyRoot, ReadOnlyVolume, NoSuchUser, and what `copy_in` raises.
    """
    async with file_view(world, container) as view:
        place = archive_paths.clean(path)
        fd = await asyncio.to_thread(_open_place, view, ref, place)
        with closing(fd):
            user = container.record.config.user if copy_owner else ""
            owners, root_owner = await asyncio.to_thread(_owners, view, user)

            def work(body: Reader, _: object) -> None:
                _, plain = decompressed(body)
                copy_in(plain, fd, owners=owners, root_owner=root_owner, keep_kinds=keep_kinds, place=place)

            async with Transfer(world.copies, source, work) as transfer:
                try:
                    await transfer.result()
                except OSError as error:
                    raise _why_not(view, fd, error) from error
    world.publish(container, "extract-to-dir")


def _find(view: FileView, ref: str, path: str) -> _Found:
    """The file at a path, its last component not followed. Blocking."""
    place = archive_paths.clean(path)
    fd = _open(view, ref, place, os.O_PATH | os.O_NOFOLLOW)
    try:
        info = os.fstat(fd)
        if _hidden(view, fd, info):
            raise NoSuchFile(path=path, ref=ref)
        target = archive_paths.link_target(view.root_fd, place) if stat.S_ISLNK(info.st_mode) else ""
        return _Found(place, fd, archive_paths.path_stat(place, info, target))
    except BaseException:
        os.close(fd)
        raise


def _hidden(view: FileView, fd: int, info: os.stat_result) -> bool:
    """Whether it is a thing of the kernel's rather than a file: below /proc and its like, or a node of /dev."""
    if stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
        return info.st_dev == view.device_dev
    if not on_kernel_fs(fd):
        return False
    if not stat.S_ISDIR(info.st_mode):
        return True
    with closing(os.open("..", os.O_PATH | os.O_CLOEXEC, dir_fd=fd)) as above:  # of the root of a mount: outside it
        return on_kernel_fs(above)


def _open(view: FileView, ref: str, place: str, flags: int) -> int:
    """Open a clean path. Raises NoSuchFile, BadPath."""
    try:
        return open_in_root(view.root_fd, place, flags)
    except FileNotFoundError:
        raise NoSuchFile(path=place, ref=ref) from None
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else "invalid argument"
        raise BadPath(path=place, reason=reason) from error


def _write(view: FileView, found: _Found, out: Sink) -> None:
    """The archive of what was found. Blocking; in a thread."""
    copy = CopyOut(view.id_map, view.device_dev)
    name = os.fsencode(archive_paths.base_name(found.path))
    info = os.fstat(found.fd)
    if stat.S_ISDIR(info.st_mode):
        with closing(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=found.fd)) as dir_fd:
            copy.tree(dir_fd, name, out)
        return
    parent = os.path.dirname(found.path)
    with closing(open_in_root(view.root_fd, parent, os.O_PATH | os.O_DIRECTORY)) as parent_fd:
        copy.file(parent_fd, name, out)


def _open_place(view: FileView, ref: str, place: str) -> int:
    """The directory to unpack into, links followed. Blocking."""
    with closing(_open(view, ref, place, os.O_PATH)) as fd:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            raise NotADirectory
        if os.fstatvfs(fd).f_flag & os.ST_RDONLY or (view.read_only_root and view.on_root_mount(fd)):
            raise ReadOnlyRoot if view.on_root_mount(fd) else ReadOnlyVolume
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)


def _owners(view: FileView, user: str) -> tuple[Owners, tuple[int, int]]:
    """How ids of the archive become the host's, and those of the container's root. Blocking. Raises NoSuchUser."""
    outside = view.id_map.outside if view.id_map is not None else _same
    root_owner = outside(0, 0)
    if not user:
        return outside, root_owner
    try:
        identity = identify(view.root_fd, user, [])
    except UserError as error:
        raise NoSuchUser(user=user, reason=str(error).rpartition(": ")[2]) from error
    owner = outside(identity.uid, identity.gid)
    return (lambda uid, gid: owner), root_owner


def _same(uid: int, gid: int) -> tuple[int, int]:
    return uid, gid


def _why_not(view: FileView, fd: int, error: OSError) -> Exception:
    """A refusal of the file system in Docker's words, where it has any."""
    if error.errno == errno.EROFS:
        return ReadOnlyRoot() if view.on_root_mount(fd) else ReadOnlyVolume()
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return error
    return CannotUnpack(reason=(error.strerror or str(error)).lower())
