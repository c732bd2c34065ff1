"""What the client of a build provides while it runs: files, secrets, an ssh agent, credentials of registries."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from pier.builder.agents import Forward, agent_socket
from pier.builder.tree import Folder
from pier.errors import InvalidParameter, NotFound


class NoSuchSecret(NotFound):
    """secret {id}: not found"""

    remedy = "give it with `--secret id={id},src=FILE` or `env=NAME`"


class NoSuchContext(NotFound):
    """no local source {name!r} in this build"""


class NoSshAgent(InvalidParameter):
    """unset ssh forward key {id}"""

    remedy = "give it with `--ssh {id}`"


Told = Callable[[int], None]
"""Takes a number of bytes."""


def nobody(_: int) -> None:
    """Nobody wants to know."""


class Session(Protocol):
    """One client's connection, as far as the solver needs it."""

    async def local(self, name: str, attrs: Mapping[str, str], told: Told = nobody) -> Folder:
        """The client's files under a name (`context`, `dockerfile`), here as long as the build runs.

        `attrs` are those of the source; `told` is given the bytes that have come in so far. Raises NoSuchContext,
        PierError.
        """
        ...

    def upload(self, path: str) -> AsyncIterator[bytes]:
        """A stream of the client's, such as its standard input, in pieces. Raises NoSuchContext, PierError."""
        ...

    async def secret(self, id: str) -> bytes | None:
        """The secret's content; None: the client has none of that name."""
        ...

    def ssh(self, id: str) -> AbstractAsyncContextManager[str | None]:
        """Path of a socket that leads to the client's agent while the block runs; None: there is none."""
        ...

    async def auth(self, host: str) -> Mapping[str, Any] | None:
        """The Engine API's AuthConfig for a registry; None: go as nobody."""
        ...


class Given:
    """A session of what came with the request itself: contexts that are here already, secrets, credentials, agents."""

    def __init__(
        self,
        *,
        locals: Mapping[str, Folder] | None = None,
        secrets: Mapping[str, bytes] | None = None,
        auths: Mapping[str, Mapping[str, Any]] | None = None,
        agents: Mapping[str, Forward] | None = None,
    ) -> None:
        """`agents`: what carries connections to each of the client's ssh agents."""
        self._locals = locals or {}
        self._secrets = secrets or {}
        self._auths = auths or {}
        self._agents = agents or {}

    async def local(self, name: str, attrs: Mapping[str, str], told: Told = nobody) -> Folder:
        if name not in self._locals:
            raise NoSuchContext(name=name)
        return self._locals[name]

    async def upload(self, path: str) -> AsyncIterator[bytes]:
        raise NoSuchContext(name=path)
        yield b""

    async def secret(self, id: str) -> bytes | None:
        return self._secrets.get(id)

    @contextlib.asynccontextmanager
    async def ssh(self, id: str) -> AsyncIterator[str | None]:
        if id not in self._agents:
            yield None
            return
        async with agent_socket(self._agents[id]) as path:
            yield path

    async def auth(self, host: str) -> Mapping[str, Any] | None:
        return self._auths.get(host)
