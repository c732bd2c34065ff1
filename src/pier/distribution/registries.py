"""All registries under one configuration: the entry to this room, one for each daemon."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from pier.distribution.credentials import ANONYMOUS, Credentials
from pier.distribution.download import Backoff
from pier.distribution.endpoints import RegistryConfig
from pier.distribution.login import Login, log_in
from pier.distribution.remote_file import RemoteFile, remote_file
from pier.distribution.repository import Repository
from pier.distribution.search import SearchResult, search
from pier.distribution.transport import Transport
from pier.oci import Reference


class Registries:
    """Makes repositories; lives as long as the daemon."""

    def __init__(self, config: RegistryConfig, *, backoff: Backoff | None = None) -> None:
        self._backoff = backoff or Backoff()
        self._transport = Transport(config)

    @property
    def config(self) -> RegistryConfig:
        return self._transport.config

    def reconfigure(self, config: RegistryConfig, backoff: Backoff) -> None:
        """From the next pull or push on; those that run finish with the endpoints they have."""
        self._backoff = backoff
        self._transport.reconfigure(config)

    def repository(
        self,
        reference: Reference,
        credentials: Credentials = ANONYMOUS,
        *,
        push: bool = False,
        insecure: bool = False,
    ) -> Repository:
        """A handle for one pull or push; needs no closing. `insecure`: as if the registry were listed as that."""
        transport = self._transport.trusting(reference.domain) if insecure else self._transport
        return Repository(transport, reference, credentials, backoff=self._backoff, push=push)

    async def log_in(self, server: str, credentials: Credentials) -> Login:
        """Try credentials at a registry. Raises RegistryError."""
        return await log_in(self._transport, server, credentials)

    async def search(self, term: str, *, limit: int, credentials: Credentials = ANONYMOUS) -> list[SearchResult]:
        """Ask an index (v1) for names. Raises RegistryError."""
        return await search(self._transport, term, limit=limit, credentials=credentials)

    def file(self, url: str) -> AbstractAsyncContextManager[RemoteFile]:
        """Open a file that is no registry's, while the block runs. Raises BadSource, NotThere, RegistryError."""
        return remote_file(self._transport, url)

    async def close(self) -> None:
        await self._transport.close()
