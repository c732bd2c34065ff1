"""The OCI runtimes that make containers, by name: Pier's own, runc where it is installed, those registered."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from typing import NamedTuple

from pier.errors import InvalidParameter, PierError

OWN = "pier"
"""The runtime that starts containers from the zygote, with no other program."""
STOCK = "runc"
STOCK_SHIM = "io.containerd.runc.v2"
"""Docker's other name for its stock runtime."""


class UnknownRuntime(InvalidParameter):
    """unknown or invalid runtime name: {name}"""

    remedy = (
        "Pier's own is called pier; runc is known where the daemon finds it in its PATH; others by "
        "`pierd --add-runtime NAME=PATH` or by `runtimes` in daemon.json"
    )


class RuntimeMissing(PierError):
    """error while looking up the specified runtime path: exec: "{path}": {problem}"""

    remedy = "install the runtime {name} there, or create the container with another one"


class OciRuntime(NamedTuple):
    """One as it was registered."""

    path: str
    """Of its binary; a name without a slash is looked for in $PATH."""
    args: tuple[str, ...] = ()
    """What comes before all other arguments."""


class OciRuntimes:
    """Which there are; replaced as a whole when the daemon's configuration is read again."""

    def __init__(
        self,
        default: str = OWN,
        registered: Mapping[str, OciRuntime] | None = None,
        which: Callable[[str], str | None] = shutil.which,
    ) -> None:
        self._which = which
        self.replace(default, registered or {})

    def replace(self, default: str, registered: Mapping[str, OciRuntime]) -> None:
        """From now on; containers that exist keep their runtime's name."""
        self.default = default
        self._registered = dict(registered)

    def others(self) -> dict[str, OciRuntime]:
        """Those that are not Pier's own, by name."""
        stock = {name: OciRuntime(STOCK) for name in (STOCK_SHIM, STOCK)} if self._which(STOCK) else {}
        return {**stock, **self._registered}

    def name_for(self, asked: str) -> str:
        """The runtime of a container that is to be made, the default for "". Raises UnknownRuntime."""
        name = asked or self.default
        if name != OWN and name not in self.others():
            raise UnknownRuntime(name=name)
        return name

    def command(self, name: str) -> list[str]:
        """What calls a runtime: absolute path and first arguments; empty for Pier's own, which "" means as well.

        Raises UnknownRuntime, RuntimeMissing.
        """
        if name in ("", OWN):
            return []
        found = self.others().get(name)
        if found is None:
            raise UnknownRuntime(name=name)
        path = self._which(found.path)
        if path is None:
            raise RuntimeMissing(name=name, path=found.path, problem=_why_not(found.path))
        return [os.path.abspath(path), *found.args]


def _why_not(path: str) -> str:
    """Why there is no binary, as Go's LookPath says it."""
    if "/" not in path:
        return "executable file not found in $PATH"
    if not os.path.exists(path):
        return f"stat {path}: no such file or directory"
    return "is a directory" if os.path.isdir(path) else "permission denied"
