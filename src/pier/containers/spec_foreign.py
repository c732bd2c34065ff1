"""What another OCI runtime finds in its configuration where Pier's own is told otherwise: seccomp profile, init."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from typing import Any

from pier.errors import PierError

OCI_VERSION = "1.0.2"
"""crun before 1.9 refuses a newer one. What later versions added, a runtime that does not know it passes over
(config.md, "Extensibility")."""
INIT_PLACE = "/sbin/docker-init"
"""Where Docker, too, shows the init program in the container."""
INIT_NAMES = ("docker-init", "tini-static", "catatonit")
"""Static programs that take `-- PROGRAM ARGUMENTS`."""


class NoInit(PierError):
    """the runtime {runtime} cannot run an init in the container (--init): none of {names} is in the daemon's PATH"""

    status = 400
    remedy = "install one of them, or use the runtime pier, whose init is its own"


def find_init(runtime: str, which: Callable[[str], str | None] = shutil.which) -> str:
    """The path of an init program on the host. Raises NoInit."""
    found = next(filter(None, map(which, INIT_NAMES)), None)
    if found is None:
        raise NoInit(runtime=runtime, names=", ".join(INIT_NAMES))
    return found


def adapt(spec: Mapping[str, Any], *, seccomp: Mapping[str, Any] | None, init: str) -> dict[str, Any]:
    """`spec` for another runtime. Pure.

    `seccomp` is OCI's `linux.seccomp`, None for unconfined; `init` the path of an init program on the host, empty for
    none.
    """
    linux = {**spec["linux"], **({"seccomp": seccomp} if seccomp else {})}
    adapted = {**spec, "ociVersion": OCI_VERSION, "linux": linux}
    if init:
        process = spec["process"]
        adapted["process"] = {**process, "args": [INIT_PLACE, "--", *process["args"]]}
        bind = {"destination": INIT_PLACE, "type": "bind", "source": init, "options": ["bind", "ro"]}
        adapted["mounts"] = [*spec["mounts"], bind]
    return adapted
