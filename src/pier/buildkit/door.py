"""All that BuildKit's clients reach: sessions they open, and the services they call."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pier.builder.service import BuildService
from pier.buildkit.bridge import Bridge
from pier.buildkit.control import Control
from pier.buildkit.grpc import Server
from pier.buildkit.history import History
from pier.buildkit.http2 import Connection
from pier.buildkit.runs import Runs
from pier.buildkit.session import Session, Sessions

__all__ = ["Door"]


class Door:
    """One per daemon."""

    def __init__(self, service: BuildService, folder: str, worker_id: str) -> None:
        """`folder`: the builder's, where clients' files are kept from build to build, and builds of the past."""
        self.sessions = Sessions()
        self.contexts = service.contexts
        runs = Runs()
        history = History(os.path.join(folder, "history"))
        control = Control(service, self.sessions, self.contexts, runs, history, worker_id)
        self._methods = control.methods | Bridge(service, runs, worker_id).methods

    def server(self) -> Server:
        """The services, for one connection."""
        return Server(self._methods)

    def session(self, id: str, *, shared_key: str, methods: Sequence[str]) -> Session:
        """A session to be served on its `connection`."""
        return Session(id, shared_key, frozenset(methods), Connection())
