"""Who takes what a build has made, where that is not this machine's store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Protocol

from pier.errors import InvalidParameter
from pier.oci import Descriptor

__all__ = ["Client", "NothingToReceiveIt"]


class NothingToReceiveIt(InvalidParameter):
    """the client of this build takes no files"""


class Client(Protocol):
    """A build's client. `number` is the export's; each method raises NothingToReceiveIt, PierError, OSError."""

    async def take_archive(self, number: int, pieces: AsyncIterator[bytes], facts: Mapping[str, str]) -> None:
        """A file. `facts`: what the client will be told of the export at its end."""
        ...

    async def take_files(
        self, number: int, folder: str, root_fd: int, told: Callable[[int], None], *, time_ns: int | None = None
    ) -> None:
        """All files below a descriptor, put into a folder (`linux_amd64`; empty: the place itself).

        `told` is called with the bytes that have gone since its last call; `time_ns`: of every file.
        """
        ...

    async def take_blobs(self, number: int, blobs: Sequence[Descriptor], told: Callable[[Descriptor], None]) -> None:
        """Blobs of the store for an OCI layout, whose index the client writes; `told` of each that has gone."""
        ...
