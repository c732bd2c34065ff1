"""A client's files, fetched over its session: only what has changed since they were fetched last (fsutil's DiffCopy).

The client sends a STAT for each file, parents first, the last one empty; we ask by REQ and the number of the STAT for
the content of those we have not; it answers with DATA, an empty one at each file's end; FIN from us and then from it
ends the exchange. An ERR from either side ends it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import posixpath
import stat
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import quote_plus

from pier.builder.session import Told
from pier.buildkit.contexts import Context, Index
from pier.buildkit.grpc import Client, ClientCall, Failed
from pier.buildkit.pb.session_pb2 import DATA, ERR, FIN, REQ, STAT, Packet
from pier.buildkit.stat import BadEntry, Entry, entry_of
from pier.errors import PierError
from pier.kernel.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, closing, openat2
from pier.storage.trees import remove_tree

__all__ = ["METHOD", "TransferFailed", "metadata_of", "receive"]

METHOD: Final = "/moby.filesync.v1.FileSync/DiffCopy"
BATCH_BYTES: Final = 1 << 20
"""Of content that is written at once, in a thread."""
BATCH_DEEDS: Final = 512
BENEATH: Final = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
LISTS = {
    "local.includepattern": "include-patterns",
    "local.excludepatterns": "exclude-patterns",
    "local.followpaths": "followpaths",
}


class TransferFailed(PierError):
    """the client's files could not be fetched: {reason}"""


def metadata_of(name: str, attrs: Mapping[str, str]) -> list[tuple[str, str]]:
    """The headers that say which files are meant: those of a folder of the client's, by a source's attributes."""
    wanted = {"dir-name": [name]}
    for attribute, header in LISTS.items():
        if attribute in attrs:
            wanted[header] = [str(each) for each in json.loads(attrs[attribute])]
    found = []
    for header, values in wanted.items():
        if all(value.isascii() and value.isprintable() for value in values):
            found += [(header, value) for value in values]
        else:
            found += [(f"{header}-encoded", "1"), *((header, quote_plus(value)) for value in values)]
    return found


async def receive(client: Client, headers: list[tuple[str, str]], context: Context, told: Told) -> int:
    """Make a context what the client has; returns the bytes that came over.

    Raises TransferFailed, BadEntry, OSError; the context is then half.
    """
    call = client.call(METHOD, headers)
    receiver = _Receiver(call, context, told)
    try:
        await receiver.run()
        return receiver.received
    except Failed as error:
        raise TransferFailed(reason=error.message) from None
    finally:
        call.close()


class _Receiver:
    """One exchange."""

    def __init__(self, call: ClientCall, context: Context, told: Told) -> None:
        self._call = call
        self._context = context
        self._told = told
        self._before = context.index
        self._after: Index = {}
        self._waiting: dict[int, tuple[str, Entry]] = {}
        """Number of the STAT -> file whose content is on its way."""
        self._deeds: list[Callable[[], None]] = []
        self._deeds_bytes = 0
        self.received = 0
        self._begun = False
        self._writing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        if not self._before:
            await self._begin()
        with closing(os.open(self._context.tree, os.O_PATH | os.O_DIRECTORY)) as root:
            writer = _Writer(root)
            try:
                await self._exchange(writer)
                gone = [path for path in self._before if path not in self._after]
                if gone or self._begun:
                    await self._begin()
                    await asyncio.to_thread(writer.finish, gone, self._after)
            finally:
                with contextlib.suppress(Exception):  # the first error is the one that counts
                    await self._flushed()
                writer.close()
        await self._say_goodbye()
        if self._begun:
            await asyncio.to_thread(self._context.finish, self._after)

    async def _begin(self) -> None:
        """Something is different: what the index says holds no longer."""
        if not self._begun:
            self._begun = True
            await asyncio.to_thread(self._context.begin)

    async def _exchange(self, writer: _Writer) -> None:
        number, listed = 0, False
        while not listed or self._waiting:
            packet = await self._next()
            if packet.type == STAT and packet.HasField("stat"):
                await self._file(writer, number, packet)
                number += 1
            elif packet.type == STAT:
                listed = True
            elif packet.type == DATA:
                self._content(writer, packet)
            if self._deeds_bytes >= BATCH_BYTES or len(self._deeds) >= BATCH_DEEDS:
                await self._flush()
        await self._flush()
        await self._flushed()
        for path, (entry, _) in self._after.items():
            if stat.S_ISREG(entry.mode) and entry.link:
                self._after[path] = entry, self._after[entry.link][1]

    async def _next(self) -> Packet:
        packet = await self._call.receive(Packet)
        if packet is None or packet.type == FIN:
            raise TransferFailed(reason="the client ended it too early")
        if packet.type == ERR:
            raise TransferFailed(reason=packet.data.decode(errors="replace"))
        return packet

    async def _file(self, writer: _Writer, number: int, packet: Packet) -> None:
        path, entry = entry_of(packet.stat)
        parent = posixpath.dirname(path)
        if parent and (parent not in self._after or not stat.S_ISDIR(self._after[parent][0].mode)):
            raise BadEntry(path=path, reason="its folder was not sent before it")
        if path in self._after:
            raise BadEntry(path=path, reason="it was sent twice")
        if stat.S_ISREG(entry.mode) and entry.link and entry.link not in self._after:
            raise BadEntry(path=path, reason="a hard link to a file that was not sent before it")
        known = self._before.get(path)
        is_hard_link = bool(entry.link) and stat.S_ISREG(entry.mode)
        if known is not None and known[0] == entry and not (is_hard_link and self._is_new(entry.link)):
            self._after[path] = known
            return
        self._after[path] = entry, ""
        if entry.has_content:
            self._waiting[number] = path, entry
            await self._call.send(Packet(type=REQ, id=number))
            self._deeds.append(lambda: writer.begin_file(number, path, entry))
        elif stat.S_ISREG(entry.mode):
            self._deeds.append(lambda: writer.make_link(path, entry))
        else:
            self._deeds.append(lambda: writer.make(path, entry))

    def _is_new(self, path: str) -> bool:
        """Whether a file that was sent is not the one we have: links to it are made anew too."""
        return self._after[path] is not self._before.get(path)

    def _content(self, writer: _Writer, packet: Packet) -> None:
        if packet.id not in self._waiting:
            raise TransferFailed(reason=f"content nobody asked for (file {packet.id})")
        number, data = packet.id, packet.data
        if data:
            self._deeds.append(lambda: writer.write(number, data))
            self._deeds_bytes += len(data)
            self.received += len(data)
            self._told(self.received)
            return
        path, entry = self._waiting.pop(number)
        self._deeds.append(lambda: self._after.__setitem__(path, (entry, writer.end_file(number, path, entry))))

    async def _flush(self) -> None:
        """Have a thread do what has gathered, after what it was given before; reading goes on meanwhile."""
        await self._flushed()
        deeds, self._deeds, self._deeds_bytes = self._deeds, [], 0
        if deeds:
            await self._begin()
            self._writing = asyncio.create_task(asyncio.to_thread(_do_all, deeds))

    async def _flushed(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            await writing

    async def _say_goodbye(self) -> None:
        await self._call.send(Packet(type=FIN))
        while (packet := await self._call.receive(Packet)) is not None:
            if packet.type == FIN:
                return
            if packet.type == ERR:
                raise TransferFailed(reason=packet.data.decode(errors="replace"))


def _do_all(deeds: list[Callable[[], None]]) -> None:
    for deed in deeds:
        deed()


class _Writer:
    """Makes files below a root, whose folders are reached by descriptor and never through a link."""

    def __init__(self, root_fd: int) -> None:
        self._root = root_fd
        self._open: dict[int, tuple[int, hashlib._Hash]] = {}
        self._parent = ("", os.dup(root_fd))

    def close(self) -> None:
        for fd, _ in self._open.values():
            os.close(fd)
        self._open.clear()
        os.close(self._parent[1])

    def begin_file(self, number: int, path: str, entry: Entry) -> None:
        parent, name = self._place(path)
        _clear(parent, name)
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
        self._open[number] = fd, hashlib.sha256()

    def write(self, number: int, data: bytes) -> None:
        fd, digest = self._open[number]
        digest.update(data)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]

    def end_file(self, number: int, path: str, entry: Entry) -> str:
        """The sha256 of what was written."""
        fd, digest = self._open.pop(number)
        try:
            os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, stat.S_IMODE(entry.mode))
            _set_xattrs(fd, entry)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)
        return digest.hexdigest()

    def make_link(self, path: str, entry: Entry) -> None:
        with closing(self._folder(posixpath.dirname(entry.link))) as origin:
            parent, name = self._place(path)
            _clear(parent, name)
            os.link(posixpath.basename(entry.link), name, src_dir_fd=origin, dst_dir_fd=parent, follow_symlinks=False)

    def make(self, path: str, entry: Entry) -> None:
        """A folder, a symbolic link, a fifo, a device; a socket is left out, as nothing could be done with it."""
        parent, name = self._place(path)
        if stat.S_ISDIR(entry.mode):
            self._make_folder(parent, name, entry)
            return
        _clear(parent, name)
        if stat.S_ISLNK(entry.mode):
            os.symlink(entry.link, name, dir_fd=parent)
        elif stat.S_ISSOCK(entry.mode):
            return
        else:
            os.mknod(name, entry.mode, os.makedev(*entry.device), dir_fd=parent)
            os.chmod(name, stat.S_IMODE(entry.mode), dir_fd=parent)
        os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def _make_folder(self, parent: int, name: str, entry: Entry) -> None:
        try:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                _clear(parent, name)
                os.mkdir(name, 0o700, dir_fd=parent)
        except FileNotFoundError:
            os.mkdir(name, 0o700, dir_fd=parent)
        with closing(os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)) as fd:
            os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, stat.S_IMODE(entry.mode))
            _set_xattrs(fd, entry)

    def finish(self, gone: list[str], after: Index) -> None:
        """Take away what the client has no longer; give folders their times, which their files' coming has changed."""
        for path in gone:
            parent = posixpath.dirname(path)
            if parent and (parent not in after or not stat.S_ISDIR(after[parent][0].mode)):
                continue  # it went, or goes, with its folder
            fd, name = self._place(path)
            _clear(fd, name)
        for path, (entry, _) in after.items():
            if stat.S_ISDIR(entry.mode):
                fd, name = self._place(path)
                os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=fd, follow_symlinks=False)

    def _place(self, path: str) -> tuple[int, str]:
        """(descriptor of its folder, name); the descriptor is ours until the next call."""
        folder, _, name = path.rpartition("/")
        if folder != self._parent[0]:
            fd = self._folder(folder)
            os.close(self._parent[1])
            self._parent = folder, fd
        return self._parent[1], name

    def _folder(self, path: str) -> int:
        return openat2(self._root, path or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, resolve=BENEATH)


def _clear(parent: int, name: str) -> None:
    """Nothing has this name any more."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except IsADirectoryError:
        with closing(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)) as fd:
            remove_tree(fd, os.fsencode(name))


def _set_xattrs(fd: int, entry: Entry) -> None:
    for name, value in entry.xattrs:
        os.setxattr(fd, name, value)
