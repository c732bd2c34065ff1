"""What BuildKit's clients want of a result, done by `pier.builder.exports`; what they take over their session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pier.builder import exports
from pier.builder.epoch import parse_epoch
from pier.builder.exports import Export, PlatformResult, Results
from pier.builder.ground import Ground
from pier.builder.tree import Result
from pier.buildkit import sending
from pier.buildkit.client_store import ClientStore
from pier.buildkit.http2 import Headers
from pier.buildkit.results import EPOCH_KEY, Outcome
from pier.buildkit.runs import Run
from pier.buildkit.session import View
from pier.oci import Descriptor

__all__ = ["export", "results_of"]

NUMBER_HEADER: Final = "buildkit-attachable-exporter-id"
FACT_HEADER: Final = "exporter-md-"
NAME_KEY: Final = "image.name"
EXPORT_STORE: Final = "export"
"""What clients call the folder of an OCI layout that they want."""


@dataclass(frozen=True, slots=True)
class _SessionClient:
    """The `Client` of a build that has a session."""

    view: View
    ground: Ground

    async def take_archive(self, number: int, pieces: AsyncIterator[bytes], facts: Mapping[str, str]) -> None:
        told = [(f"{FACT_HEADER}{key}", value) for key, value in facts.items()]
        await sending.send_bytes(self.view.session, [*_headers(number), *told], pieces)

    async def take_files(
        self, number: int, folder: str, root_fd: int, told: Callable[[int], None], *, time_ns: int | None = None
    ) -> None:
        await sending.send_tree(self.view.session, _headers(number), folder, root_fd, told, time_ns=time_ns)

    async def take_blobs(self, number: int, blobs: Sequence[Descriptor], told: Callable[[Descriptor], None]) -> None:
        store = ClientStore(self.view.session, "of the output", self.ground, id=EXPORT_STORE)
        for blob in blobs:
            await store.put(blob)
            told(blob)


def _headers(number: int) -> Headers:
    """Which of the client's places it is for."""
    return [(NUMBER_HEADER, str(number))]


async def export(run: Run, view: View | None, wish: Export, results: Results) -> dict[str, str]:
    """Returns what the client is told of it (`SolveResponse.exporter_response`). Raises PierError, OSError."""
    client = _SessionClient(view, run.service.ground) if view is not None else None
    return await exports.export(exports.Job(run.service, run.build, results, client), wish)


def results_of(outcome: Outcome, trees: Mapping[str, Result], *, carry_cache: bool = False) -> Results:
    """A build's outcome with its trees. Raises BadEpoch."""
    return Results(
        {key: PlatformResult(trees[key], part.image, part.platform) for key, part in outcome.parts.items()},
        epoch_s=parse_epoch(outcome.metadata.get(EPOCH_KEY, b"").decode(errors="replace")),
        name=outcome.metadata.get(NAME_KEY, b"").decode(errors="replace"),
        carry_cache=carry_cache,
    )
