"""The two sides of `pier cp` on this machine: a file or tree as an archive, an archive as files.

What comes from a container is not trusted: nothing is written through a link that leads out of the destination, and no
name with `..` is taken.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile

from pier.cli.copying import End, renamed, split_entry
from pier.cli.errors import Failure, reason
from pier.kernel.paths import mkdir_in_root, open_in_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Rename = tuple[str, str] | None

_CHUNK = 1 << 18
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_XATTR = "SCHILY.xattr."


def pack(source: End, rename: Rename) -> Iterator[bytes]:
    """The archive of a file or directory, its names renamed. Failure for what cannot be read."""
    directory, base = split_entry(source.path)
    links: dict[tuple[int, int], str] = {}
    try:
        for path, name in _tree(f"{directory}/{base}" if base != "." else directory, source.rebase_name or base):
            yield from entry_chunks(path, renamed(name, rename), links)
    except OSError as error:
        raise Failure(f"{error.filename or source.path}: {reason(error)}") from None
    yield bytes(2 * tarfile.BLOCKSIZE)


def _tree(path: str, name: str) -> Iterator[tuple[str, str]]:
    """(path, name) of everything, a directory before what is in it."""
    yield path, name
    if stat.S_ISDIR(os.lstat(path).st_mode):
        for below in sorted(os.listdir(path)):
            yield from _tree(f"{path}/{below}", f"{name}/{below}")


def entry_chunks(
    path: str, name: str, links: dict[tuple[int, int], str], owner: tuple[int, int] | None = None
) -> Iterator[bytes]:
    """One entry of an archive with its content; `links` is what has been packed by inode, `owner` whose it becomes.

    Raises OSError.
    """
    info = os.lstat(path)
    entry = tarfile.TarInfo(name)
    entry.mode, (entry.uid, entry.gid) = stat.S_IMODE(info.st_mode), owner or (info.st_uid, info.st_gid)
    seconds, rest = divmod(info.st_mtime_ns, 10**9)
    entry.mtime = seconds
    pax = {"mtime": f"{seconds}.{rest:09}"} if rest else {}
    inode = info.st_dev, info.st_ino
    if stat.S_ISDIR(info.st_mode):
        entry.type = tarfile.DIRTYPE
    elif inode in links:
        entry.type, entry.linkname = tarfile.LNKTYPE, links[inode]
    elif stat.S_ISLNK(info.st_mode):
        entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(path)
    elif stat.S_ISFIFO(info.st_mode):
        entry.type = tarfile.FIFOTYPE
    elif stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
        entry.type = tarfile.CHRTYPE if stat.S_ISCHR(info.st_mode) else tarfile.BLKTYPE
        entry.devmajor, entry.devminor = os.major(info.st_rdev), os.minor(info.st_rdev)
    elif stat.S_ISREG(info.st_mode):
        entry.size = info.st_size
    else:
        return  # a socket: no archive can hold it
    if info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode):
        links.setdefault(inode, name)
    with contextlib.suppress(OSError):
        capability = os.getxattr(path, "security.capability", follow_symlinks=False)
        pax[f"{_XATTR}security.capability"] = capability.decode("utf-8", "surrogateescape")
    entry.pax_headers = pax
    yield entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    if entry.isreg():
        yield from _content(path, entry.size)


def _content(path: str, size: int) -> Iterator[bytes]:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        left = size
        while left:
            data = os.read(fd, min(left, _CHUNK)) or bytes(min(left, _CHUNK))  # zeros: it has shrunk meanwhile
            left -= len(data)
            yield data
    finally:
        os.close(fd)
    yield bytes(-size % tarfile.BLOCKSIZE)


class ChunkFile:
    """Chunks as a file to read."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""
        self.count = 0

    def read(self, size: int) -> bytes:
        while len(self._rest) < size:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            self.count += len(chunk)
            self._rest += chunk
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


def unpack(file: ChunkFile, directory: str, rename: Rename) -> None:
    """Unpack an archive below a directory, its names renamed, owned by the caller. Failure where that cannot be."""
    root_fd = os.open(directory, _DIRECTORY)
    directories: list[tuple[str, tarfile.TarInfo]] = []
    try:
        with tarfile.open(fileobj=file, mode="r|") as tar:  # type: ignore[call-overload]
            for entry in tar:
                name = _checked(renamed(entry.name, rename))
                if not name:
                    continue
                if entry.islnk():
                    entry.linkname = renamed(entry.linkname, rename)
                _make(root_fd, tar, entry, name, directory)
                if entry.isdir():
                    directories.append((name, entry))
        for name, entry in reversed(directories):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                fd = open_in_root(root_fd, name, _DIRECTORY | os.O_NOFOLLOW)
                os.utime(fd, (entry.mtime, entry.mtime))
                os.fchmod(fd, entry.mode)
                os.close(fd)
        while file.read(_CHUNK):
            pass
    except tarfile.TarError as error:
        raise Failure(f"the daemon's archive cannot be read: {error}") from None
    except OSError as error:
        raise Failure(f"{error.filename or directory}: {reason(error)}") from None
    finally:
        os.close(root_fd)


def _checked(name: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Failure(f"the archive has the name {name!r}, which leads out of the destination: refused")
    return "/".join(parts)


def _make(root_fd: int, tar: tarfile.TarFile, entry: tarfile.TarInfo, name: str, place: str) -> None:
    """One entry; what stands in its place is replaced, but no directory by something else."""
    parent, _, base = name.rpartition("/")
    dir_fd = mkdir_in_root(root_fd, parent)
    try:
        _make_room(dir_fd, entry, base, f"{place.rstrip('/')}/{name}")
        if entry.isdir():
            with contextlib.suppress(FileExistsError):
                os.mkdir(base, 0o700, dir_fd=dir_fd)
        elif entry.issym():
            os.symlink(entry.linkname, base, dir_fd=dir_fd)
        elif entry.islnk():
            target_parent, _, target = _checked(entry.linkname).rpartition("/")
            target_fd = open_in_root(root_fd, target_parent or ".", os.O_PATH | os.O_DIRECTORY)
            try:
                os.link(target, base, src_dir_fd=target_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
            finally:
                os.close(target_fd)
        elif entry.isreg():
            _regular(dir_fd, tar, entry, base)
        else:
            kind = stat.S_IFIFO if entry.isfifo() else stat.S_IFCHR if entry.ischr() else stat.S_IFBLK
            os.mknod(base, kind | entry.mode, os.makedev(entry.devmajor, entry.devminor), dir_fd=dir_fd)
    finally:
        os.close(dir_fd)


def _make_room(dir_fd: int, entry: tarfile.TarInfo, base: str, place: str) -> None:
    try:
        is_dir = stat.S_ISDIR(os.lstat(base, dir_fd=dir_fd).st_mode)
    except FileNotFoundError:
        return
    if is_dir and not entry.isdir():
        raise Failure(f'cannot overwrite directory "{place}" with non-directory')
    if not is_dir:
        if entry.isdir():
            raise Failure(f'cannot overwrite non-directory "{place}" with directory')
        os.unlink(base, dir_fd=dir_fd)


def _regular(dir_fd: int, tar: tarfile.TarFile, entry: tarfile.TarInfo, base: str) -> None:
    content = tar.extractfile(entry)
    assert content is not None
    fd = os.open(base, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=dir_fd)
    try:
        while data := content.read(_CHUNK):
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
        os.fchmod(fd, entry.mode)
        capability = entry.pax_headers.get(f"{_XATTR}security.capability")
        if capability:
            with contextlib.suppress(OSError):  # only root may give it
                os.setxattr(fd, "security.capability", capability.encode("utf-8", "surrogateescape"))
        os.utime(fd, (entry.mtime, entry.mtime))
    finally:
        os.close(fd)
