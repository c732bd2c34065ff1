"""What every export of one build works with."""

from __future__ import annotations

from dataclasses import dataclass

from pier.builder.exports.clients import Client, NothingToReceiveIt
from pier.builder.exports.results import Results
from pier.builder.exports.telling import Telling
from pier.builder.ground import Ground
from pier.builder.service import BuildService
from pier.builder.solver import Build

__all__ = ["Job"]


@dataclass(frozen=True, slots=True)
class Job:
    """One per build, when it has gone well."""

    service: BuildService
    build: Build
    results: Results
    client: Client | None = None
    """None: it takes no files."""

    @property
    def ground(self) -> Ground:
        return self.service.ground

    def require_client(self) -> Client:
        """Raises NothingToReceiveIt."""
        if self.client is None:
            raise NothingToReceiveIt
        return self.client

    def telling(self, name: str) -> Telling:
        """One export as a step of the build."""
        return Telling(self.build, name)
