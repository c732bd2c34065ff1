"""All that BuildKit's clients reach: sessions they open, and the services they call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pier.buildkit.contexts import Contexts
from pier.buildkit.grpc import Method, Server
from pier.buildkit.http2 import Connection
from pier.buildkit.session import Session, Sessions

__all__ = ["Door"]


class Door:
    """One per daemon."""

    def __init__(self, folder: str) -> None:
        """`folder`: where clients' files are kept."""
        self.sessions = Sessions()
        self.contexts = Contexts(folder)
        self._methods: Mapping[str, Method] = {}

    def server(self) -> Server:
        """The services, for one connection."""
        return Server(self._methods)

    def session(self, id: str, *, shared_key: str, methods: Sequence[str]) -> Session:
        """A session to be served on its `connection`."""
        return Session(id, shared_key, frozenset(methods), Connection())
