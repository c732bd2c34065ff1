"""The other side of a session in tests: a client that offers a folder, as fsutil's sender does."""

import os
import stat
from pathlib import Path

from pier.buildkit.filesync import METHOD
from pier.buildkit.grpc import Call, Code, Failed, Method
from pier.buildkit.pb.session_pb2 import DATA, FIN, REQ, STAT, Packet, Stat
from pier.storage.go_mode import go_mode


class OfferedFolder:
    """A folder, and a note of what was asked for."""

    def __init__(self, root: Path, name: str = "context") -> None:
        self.root = root
        self.name = name
        self.asked: list[str] = []
        self.headers: dict[str, list[str]] = {}

    @property
    def methods(self) -> dict[str, Method]:
        return {METHOD: self.send}

    def stats(self) -> list[Stat]:
        """Of every file, parents first; owners are nobody's, as docker's client makes them."""
        found = []
        seen: dict[tuple[int, int], str] = {}
        for path in sorted(self.root.rglob("*")):
            info, name = path.lstat(), str(path.relative_to(self.root))
            link = os.readlink(path) if path.is_symlink() else ""
            if stat.S_ISREG(info.st_mode) and info.st_nlink > 1:
                link = seen.setdefault((info.st_dev, info.st_ino), name)
                link = "" if link == name else link
            found.append(
                Stat(
                    path=name,
                    mode=go_mode(info.st_mode),
                    size=info.st_size if path.is_file() and not link else 0,
                    mod_time=info.st_mtime_ns,
                    linkname=link,
                )
            )
        return found

    async def send(self, call: Call) -> None:
        self.headers = {key: value for key, value in call.metadata.items() if not key.startswith("te")}
        if self.headers["dir-name"] != [self.name]:
            raise Failed(Code.NOT_FOUND, f'no access allowed to dir "{self.headers["dir-name"][0]}"')
        await self.say(call, self.stats())

    async def say(self, call: Call, stats: list[Stat]) -> None:
        for each in stats:
            await call.send(Packet(type=STAT, stat=each))
        await call.send(Packet(type=STAT))
        while (packet := await call.receive(Packet)) is not None:
            if packet.type == REQ:
                path = stats[packet.id].path
                self.asked.append(path)
                data = (self.root / path).read_bytes()
                for at in range(0, len(data), 32 << 10):
                    await call.send(Packet(type=DATA, id=packet.id, data=data[at : at + (32 << 10)]))
                await call.send(Packet(type=DATA, id=packet.id))
            elif packet.type == FIN:
                await call.send(Packet(type=FIN))
                return
