"""The client's own files as a source: what its session has under a name."""

from __future__ import annotations

from pier.builder.graph import Source, Vertex
from pier.builder.progress import Broadcast
from pier.builder.solver import Build, Found, Work
from pier.builder.tree import Result


class LocalSource:
    """The kind `local`."""

    type = ""

    async def find(self, vertex: Vertex, build: Build, say: Broadcast) -> Found:
        """Raises NoSuchContext, PierError."""
        assert isinstance(vertex.op, Source)
        folder = await build.session.local(vertex.op.rest, vertex.op.attrs)
        return Found(folder.key, folder)

    async def fetch(self, work: Work, found: Found) -> Result:
        folder: Result = found.pinned
        return folder
