"""The client's own files as a source: what its session has under a name."""

from __future__ import annotations

from typing import Final

from pier.builder.graph import Source, Vertex
from pier.builder.progress import Broadcast
from pier.builder.solver import Build, Found, Work
from pier.builder.tree import Result

TELL_BYTES: Final = 1 << 20


class LocalSource:
    """The kind `local`."""

    type = ""

    async def find(self, vertex: Vertex, build: Build, say: Broadcast) -> Found:
        """Raises NoSuchContext, PierError."""
        assert isinstance(vertex.op, Source)
        what, received = f"transferring {vertex.op.rest}:", 0

        def told(size: int) -> None:
            nonlocal received
            if size - received >= TELL_BYTES:
                received = size
                say.counted(what, "", size)

        folder = await build.session.local(vertex.op.rest, vertex.op.attrs, told)
        say.counted(what, "", folder.received_bytes, done=True)
        return Found(folder.key, folder)

    async def fetch(self, work: Work, found: Found) -> Result:
        folder: Result = found.pinned
        return folder
