"""What a build has made, sent to its client: an archive as a stream of bytes, or a tree of files (fsutil's DiffCopy).

For a tree the roles are those of `filesync` turned round: we list and send, the client asks for what it wants.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import islice
from typing import Final

from pier.builder.exports import NothingToReceiveIt
from pier.buildkit.grpc import ClientCall, Failed
from pier.buildkit.http2 import Headers
from pier.buildkit.pb.session_pb2 import DATA, ERR, FIN, REQ, STAT, Bytes, Packet, Stat
from pier.buildkit.session import Session
from pier.errors import PierError, first_of
from pier.kernel.paths import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, closing, openat2
from pier.storage.go_mode import go_mode
from pier.storage.tree_tar import Node, walk

__all__ = ["METHOD", "send_bytes", "send_tree"]

METHOD: Final = "/moby.filesync.v1.FileSend/DiffCopy"
CHUNK_BYTES: Final = 256 << 10
LISTED_AT_ONCE: Final = 256
VERDICT_S: Final = 5.0


class CannotSend(PierError):
    """the client has not taken what was built: {reason}"""


def _begin(session: Session, headers: Headers) -> ClientCall:
    if METHOD not in session.methods:
        raise NothingToReceiveIt
    return session.client.call(METHOD, headers)


async def send_bytes(session: Session, headers: Headers, pieces: AsyncIterator[bytes]) -> int:
    """Send an archive; returns its size. Raises NothingToReceiveIt, CannotSend, and what `pieces` raises."""
    call = _begin(session, headers)
    sent = 0
    try:
        async for piece in pieces:
            await call.send(Bytes(data=piece))
            sent += len(piece)
        await call.end()
        while await call.receive(Bytes) is not None:
            pass
    except Failed as error:
        raise CannotSend(reason=error.message) from None
    finally:
        call.close()
    return sent


async def send_tree(
    session: Session,
    headers: Headers,
    folder: str,
    root_fd: int,
    told: Callable[[int], None],
    *,
    time_ns: int | None = None,
) -> None:
    """Send all files below a descriptor, put into a folder (`linux_amd64`, or none).

    `told` is called with the bytes that have gone since the last call; `time_ns`: of every file. Raises
    NothingToReceiveIt, CannotSend, TreeTooDeep, OSError.
    """
    call = _begin(session, headers)
    try:
        async with asyncio.TaskGroup() as group:
            files: list[bytes] = []
            listing = group.create_task(_list(call, _stats(folder, root_fd, files, time_ns)))
            await _serve(call, root_fd, files, told)
            await listing
    except BaseExceptionGroup as errors:
        first = first_of(errors)
        raise CannotSend(reason=first.message) if isinstance(first, Failed) else first from None
    finally:
        call.close()


async def _list(call: ClientCall, stats: Iterator[Stat]) -> None:
    """Tell of every file."""
    while some := await asyncio.to_thread(list, islice(stats, LISTED_AT_ONCE)):
        for each in some:
            await call.send(Packet(type=STAT, stat=each))
    await call.send(Packet(type=STAT))


def _stats(folder: str, root_fd: int, files: list[bytes], time_ns: int | None) -> Iterator[Stat]:
    """`files` gets the paths below the descriptor, by number."""
    if folder:
        files.append(b".")
        made_ns = time.time_ns() if time_ns is None else time_ns
        yield Stat(path=folder, mode=go_mode(stat.S_IFDIR | 0o755), mod_time=made_ns)
    links: dict[tuple[int, int], str] = {}
    for node in walk(root_fd):
        files.append(node.path)
        found = _stat(f"{folder}/" if folder else "", node, links)
        if time_ns is not None:
            found.mod_time = time_ns
        yield found


def _stat(folder: str, node: Node, links: dict[tuple[int, int], str]) -> Stat:
    info, path = node.info, folder + os.fsdecode(node.path)
    link = ""
    if stat.S_ISLNK(info.st_mode):
        link = os.readlink(node.name, dir_fd=node.dir_fd).decode("utf-8", "surrogateescape")
    elif stat.S_ISREG(info.st_mode) and info.st_nlink > 1:
        first = links.setdefault((info.st_dev, info.st_ino), path)
        link = "" if first == path else first
    return Stat(
        path=path,
        mode=go_mode(info.st_mode),
        uid=info.st_uid,
        gid=info.st_gid,
        size=info.st_size if stat.S_ISREG(info.st_mode) and not link else 0,
        mod_time=info.st_mtime_ns,
        linkname=link,
        dev_major=os.major(info.st_rdev),
        dev_minor=os.minor(info.st_rdev),
        xattrs={name.decode(): value for name, value in node.xattrs().items()},
    )


async def _serve(call: ClientCall, root_fd: int, files: list[bytes], told: Callable[[int], None]) -> None:
    """Answer what the client asks for, until it has all."""
    while (packet := await call.receive(Packet)) is not None:
        if packet.type == REQ:
            if packet.id >= len(files):
                raise CannotSend(reason=f"it has asked for a file that there is not ({packet.id})")
            await _send_file(call, packet.id, root_fd, files[packet.id], told)
        elif packet.type == ERR:
            raise CannotSend(reason=await _verdict(call) or packet.data.decode(errors="replace"))
        elif packet.type == FIN:
            await call.send(Packet(type=FIN), end=True)
            while await call.receive(Packet) is not None:
                pass  # until it has written all and says how that went
            return
    raise CannotSend(reason="it has ended the transfer too early")


async def _verdict(call: ClientCall) -> str:
    """What the call ends with: the packet before may only say that one part of the client has stopped for another."""
    try:
        async with asyncio.timeout(VERDICT_S):
            while await call.receive(Packet) is not None:
                pass
    except Failed as error:
        return error.message
    except TimeoutError:
        pass
    return ""


async def _send_file(call: ClientCall, number: int, root_fd: int, path: bytes, told: Callable[[int], None]) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with closing(openat2(root_fd, path, flags, resolve=RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)) as fd:
        while data := await asyncio.to_thread(os.read, fd, CHUNK_BYTES):
            await call.send(Packet(type=DATA, id=number, data=data))
            told(len(data))
    await call.send(Packet(type=DATA, id=number))
