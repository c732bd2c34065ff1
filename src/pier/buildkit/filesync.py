"""A client's files, fetched over its session: only what has changed since they were fetched last (fsutil's DiffCopy).

The client sends a STAT for each file, parents first, the last one empty; we ask by REQ and the number of the STAT for
the content of those we have not; it answers with DATA, an empty one at each file's end; FIN from us and then from it
ends the exchange. An ERR from either side ends it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote_plus

from pier.builder.contexts import Context, Index
from pier.builder.entries import Entry, check_place
from pier.builder.mirror import Deeds, Mirror
from pier.builder.session import Told
from pier.buildkit.grpc import Client, ClientCall, Failed
from pier.buildkit.pb.session_pb2 import DATA, ERR, FIN, REQ, STAT, Packet
from pier.buildkit.stat import entry_of
from pier.errors import PierError
from pier.kernel.paths import closing

__all__ = ["METHOD", "TransferFailed", "metadata_of", "receive"]

METHOD: Final = "/moby.filesync.v1.FileSync/DiffCopy"
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
        self._before: Index = {}
        self._after: Index = {}
        self._waiting: dict[int, tuple[str, Entry]] = {}
        """Number of the STAT -> file whose content is on its way."""
        self._deeds = Deeds()
        self.received = 0
        self._begun = False

    async def run(self) -> None:
        self._before = await asyncio.to_thread(lambda: self._context.index)
        if not self._before:
            await self._begin()
        with closing(os.open(self._context.tree, os.O_PATH | os.O_DIRECTORY)) as root:
            writer = Mirror(root)
            try:
                await self._exchange(writer)
                gone = [path for path in self._before if path not in self._after]
                if gone or self._begun:
                    await self._begin()
                    await asyncio.to_thread(writer.finish, gone, self._after)
            finally:
                with contextlib.suppress(Exception):  # the first error is the one that counts
                    await self._deeds.done()
                writer.close()
        await self._say_goodbye()
        if self._begun:
            await asyncio.to_thread(self._context.finish, self._after)

    async def _begin(self) -> None:
        """Something is different: what the index says holds no longer."""
        if not self._begun:
            self._begun = True
            await asyncio.to_thread(self._context.begin)

    async def _exchange(self, writer: Mirror) -> None:
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
            if self._deeds.many:
                await self._flush()
        await self._flush()
        await self._deeds.done()
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

    async def _file(self, writer: Mirror, number: int, packet: Packet) -> None:
        path, entry = entry_of(packet.stat)
        check_place(path, entry, self._after)
        known = self._before.get(path)
        is_hard_link = bool(entry.link) and stat.S_ISREG(entry.mode)
        if known is not None and known[0] == entry and not (is_hard_link and self._is_new(entry.link)):
            self._after[path] = known
            return
        self._after[path] = entry, ""
        if entry.has_content:
            self._waiting[number] = path, entry
            await self._call.send(Packet(type=REQ, id=number))
            self._deeds.add(lambda: writer.begin_file(number, path, entry))
        elif stat.S_ISREG(entry.mode):
            self._deeds.add(lambda: writer.make_link(path, entry))
        else:
            self._deeds.add(lambda: writer.make(path, entry))

    def _is_new(self, path: str) -> bool:
        """Whether a file that was sent is not the one we have: links to it are made anew too."""
        return self._after[path] is not self._before.get(path)

    def _content(self, writer: Mirror, packet: Packet) -> None:
        if packet.id not in self._waiting:
            raise TransferFailed(reason=f"content nobody asked for (file {packet.id})")
        number, data = packet.id, packet.data
        if data:
            self._deeds.add(lambda: writer.write(number, data), len(data))
            self.received += len(data)
            self._told(self.received)
            return
        path, entry = self._waiting.pop(number)
        self._deeds.add(lambda: self._after.__setitem__(path, (entry, writer.end_file(number, path, entry))))

    async def _flush(self) -> None:
        if self._deeds.waiting:
            await self._begin()
        await self._deeds.begin()

    async def _say_goodbye(self) -> None:
        await self._call.send(Packet(type=FIN))
        while (packet := await self._call.receive(Packet)) is not None:
            if packet.type == FIN:
                return
            if packet.type == ERR:
                raise TransferFailed(reason=packet.data.decode(errors="replace"))
