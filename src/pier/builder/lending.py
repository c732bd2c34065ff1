"""Further folders of a client's for one build (`--build-context name=PATH`), each lent over a connection of its own."""

from __future__ import annotations

from pier.builder.session import NoSuchContext
from pier.builder.tree import Folder
from pier.errors import Conflict

__all__ = ["Lending", "source_of"]

PREFIX = "context:"


class LentAlready(Conflict):
    """the build {build} has a context called {name} already"""


def source_of(name: str) -> str:
    """What the local source of a named context is called: not as the build's own folder may be."""
    return f"{PREFIX}{name}"


class Lending:
    """Folders that are here, by build and name; one per daemon."""

    def __init__(self) -> None:
        self._folders: dict[tuple[str, str], Folder] = {}

    def lend(self, build: str, name: str, folder: Folder) -> None:
        """Until `take_back`. Raises LentAlready."""
        if (build, name) in self._folders:
            raise LentAlready(build=build, name=name)
        self._folders[build, name] = folder

    def take_back(self, build: str, name: str) -> None:
        self._folders.pop((build, name), None)

    def folders(self, build: str, names: list[str]) -> dict[str, Folder]:
        """Those a build says it has, by their local sources. Raises NoSuchContext."""
        found = {}
        for name in names:
            if (build, name) not in self._folders:
                raise NoSuchContext(name=name)
            found[source_of(name)] = self._folders[build, name]
        return found
