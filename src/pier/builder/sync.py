"""A client's files, of which only what has changed comes over: `POST /build` as `pier build` sends it, on a raw stream.

    client   the head: a line of JSON
             the listing: its length in decimal, a line; then for each file, folders first, three fields that end in
             NUL: path; `MODE SIZE MTIME[ MAJOR MINOR[ CAPABILITY]]` (octal, bytes, nanoseconds, hexadecimal); what a
             link says
    daemon   the numbers of the files whose content it wants, in the listing's order, as a line of JSON
    client   the content of each: pieces with their length in four bytes before them, an empty one at the end
    daemon   what the build tells, a line of JSON each

A listing that is the last one's is not even read: the files are those that are here.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import msgspec

from pier.builder import asked_outputs
from pier.builder.contexts import Context, Index
from pier.builder.entries import BadEntry, Entry, check_link, check_path, check_place
from pier.builder.mirror import Deeds, Mirror
from pier.builder.tree import Folder
from pier.errors import InvalidParameter, PierError
from pier.kernel.paths import closing

HEAD_MAX_BYTES: Final = 16 << 20
LISTING_MAX_BYTES: Final = 256 << 20
"""Some four million files."""
PIECE_MAX_BYTES: Final = 1 << 20
CAPABILITY: Final = "security.capability"
KINDS: Final = frozenset({stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK})


class Head(asked_outputs.Head, kw_only=True):
    """What of a build has no place in an address, and the two files that are read before the others."""

    folder: str
    """What the client calls its folder, on its machine: the same from build to build."""
    dockerfile: bytes
    ignore: bytes | None = None
    """The ignore file that counts; None: there is none."""
    ignore_name: str = ""


class BadStream(InvalidParameter):
    """the client's files cannot be read: {reason}"""


class TooManyFiles(InvalidParameter):
    """the build context's listing has {size} bytes, more than the {limit} allowed"""

    remedy = "a .dockerignore file leaves out what the build does not need"


class ClientGone(PierError):
    """the client has gone"""


async def read_head(stream: asyncio.StreamReader) -> Head:
    """Raises BadStream, ClientGone."""
    line = await _line(stream, HEAD_MAX_BYTES)
    try:
        return msgspec.json.decode(line, type=Head)
    except msgspec.MsgspecError as error:
        raise BadStream(reason=str(error)) from None


async def read_listing(stream: asyncio.StreamReader) -> bytes:
    """Raises BadStream, TooManyFiles, ClientGone."""
    text = await _line(stream, 100)
    if not text.strip().isdigit():
        raise BadStream(reason="the listing has no length")
    size = int(text)
    if size > LISTING_MAX_BYTES:
        raise TooManyFiles(size=size, limit=LISTING_MAX_BYTES)
    return await _exactly(stream, size)


async def receive(
    stream: asyncio.StreamReader, listing: bytes, context: Context, want: Callable[[list[int]], None]
) -> Folder:
    """Make a context what a listing says; `want` is called, once, with what has to come over.

    Raises BadStream, BadEntry, ClientGone, OSError; the context is then half.
    """
    digest = await asyncio.to_thread(_digest, listing)
    if await asyncio.to_thread(context.is_listed, digest):
        want([])
        return Folder(context.tree, await asyncio.to_thread(lambda: context.key), contents=lambda: context.index)
    plan = await asyncio.to_thread(_plan, listing, context)
    want([change.number for change in plan.changes if change.entry.has_content])
    received = await _carry_out(stream, plan, context)
    await asyncio.to_thread(context.finish, plan.after, digest)
    return Folder(context.tree, context.key, received, lambda: context.index)


def _digest(listing: bytes) -> str:
    return hashlib.sha256(listing).hexdigest()


@dataclass(frozen=True, slots=True)
class _Change:
    number: int
    path: str
    entry: Entry


@dataclass(slots=True)
class _Plan:
    """What there is to do; `after` has no checksums yet of what is to come."""

    after: Index = field(default_factory=dict)
    changes: list[_Change] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)


def _plan(listing: bytes, context: Context) -> _Plan:
    plan, before = _Plan(), context.index
    fields = listing.split(b"\0")
    if fields.pop() or len(fields) % 3:
        raise BadStream(reason="the listing ends within a file")
    for number in range(len(fields) // 3):
        try:
            path, facts, link = (text.decode() for text in fields[3 * number : 3 * number + 3])
        except UnicodeDecodeError:
            raise BadEntry(path=os.fsdecode(fields[3 * number])[:200], reason="its name is not UTF-8") from None
        entry = _entry(path, facts, link)
        check_place(path, entry, plan.after)
        known = before.get(path)
        origin = entry.link if stat.S_ISREG(entry.mode) else ""
        is_new = bool(origin) and plan.after[origin] is not before.get(origin)
        if known is not None and known[0] == entry and not is_new:
            plan.after[path] = known
        else:
            plan.after[path] = entry, ""
            plan.changes.append(_Change(number, path, entry))
    plan.gone = [path for path in before if path not in plan.after]
    context.begin()
    return plan


def _entry(path: str, facts: str, link: str) -> Entry:
    """Raises BadEntry. Everything belongs to root, as Docker has it."""
    check_path(path)
    try:
        mode_text, size, mtime, *more = facts.split(" ")
        mode, size_bytes, mtime_ns = int(mode_text, 8), int(size), int(mtime)
        device = (int(more[0]), int(more[1])) if more else (0, 0)
        xattrs = ((CAPABILITY, bytes.fromhex(more[2])),) if len(more) > 2 else ()
    except (ValueError, IndexError):
        raise BadEntry(path=path, reason="the listing has no mode, size and time of it") from None
    kind = stat.S_IFMT(mode)
    if kind not in KINDS or not 0 <= size_bytes < 1 << 63 or not -(1 << 63) <= mtime_ns < 1 << 63:
        raise BadEntry(path=path, reason="the listing says what no file is")
    if kind == stat.S_IFREG and link:
        check_link(path, link)
    return Entry(mode, 0, 0, size_bytes if kind == stat.S_IFREG else 0, mtime_ns, link, device, xattrs)


async def _carry_out(stream: asyncio.StreamReader, plan: _Plan, context: Context) -> int:
    """Change the tree; returns the bytes that came over."""
    received, deeds = 0, Deeds()
    with closing(os.open(context.tree, os.O_PATH | os.O_DIRECTORY)) as root:
        mirror = Mirror(root)
        try:
            for change in plan.changes:
                if change.entry.has_content:
                    received += await _content(stream, change, mirror, deeds, plan.after)
                elif stat.S_ISREG(change.entry.mode):
                    deeds.add(partial(mirror.make_link, change.path, change.entry))
                else:
                    deeds.add(partial(mirror.make, change.path, change.entry))
                if deeds.many:
                    await deeds.begin()
            await deeds.begin()
            await deeds.done()
            for change in plan.changes:
                if stat.S_ISREG(change.entry.mode) and change.entry.link:
                    plan.after[change.path] = change.entry, plan.after[change.entry.link][1]
            if plan.gone or plan.changes:
                await asyncio.to_thread(mirror.finish, plan.gone, plan.after)
        finally:
            with contextlib.suppress(Exception):  # the first error is the one that counts
                await deeds.done()
            mirror.close()
    return received


async def _content(stream: asyncio.StreamReader, change: _Change, mirror: Mirror, deeds: Deeds, after: Index) -> int:
    number, path, entry = change.number, change.path, change.entry
    deeds.add(partial(mirror.begin_file, number, path, entry))
    received = 0
    while size := int.from_bytes(await _exactly(stream, 4)):
        if size > PIECE_MAX_BYTES:
            raise BadStream(reason=f"a piece of {size} bytes, more than {PIECE_MAX_BYTES}")
        deeds.add(partial(mirror.write, number, await _exactly(stream, size)), size)
        received += size
        if deeds.many:
            await deeds.begin()

    def end() -> None:
        after[path] = entry, mirror.end_file(number, path, entry)

    deeds.add(end)
    return received


async def _line(stream: asyncio.StreamReader, limit: int) -> bytes:
    """Raises BadStream for one that is longer."""
    line = b""
    while not line.endswith(b"\n"):
        try:
            piece = await stream.readuntil(b"\n")
        except asyncio.LimitOverrunError as error:
            piece = await stream.readexactly(error.consumed)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise ClientGone from None
        line += piece
        if len(line) > limit:
            raise BadStream(reason=f"a line of more than {limit} bytes")
    return line


async def _exactly(stream: asyncio.StreamReader, size: int) -> bytes:
    try:
        return await stream.readexactly(size)
    except (asyncio.IncompleteReadError, ConnectionError):
        raise ClientGone from None
