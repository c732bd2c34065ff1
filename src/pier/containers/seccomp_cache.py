"""Compiled seccomp filters: one file for each (profile, capabilities), made once, kept under the exec root.

The name is the digest of what went in, so a file that is there is the right one, and one process's work serves all.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Sequence
from typing import Any

from pier.containers.record import Record
from pier.containers.spec_security import DEFAULT_CAPABILITIES, parse_security_opts
from pier.containers.world import log
from pier.errors import PierError
from pier.kernel.seccomp_compiler import compile_profile
from pier.oci import seccomp_default

UNCONFINED, BUILTIN = "unconfined", "builtin"
FORMAT = b"1"
"""Counted up when the compiler's output changes."""


class SeccompCache:
    """Hands out paths of filters; compiles in a thread what is not there yet, each filter once."""

    def __init__(self, folder: str, daemon_profile: str = BUILTIN) -> None:
        """`daemon_profile`: `builtin`, `unconfined`, or the path of a profile in Docker's format."""
        self._folder = folder
        self._daemon_profile = daemon_profile
        self._paths: dict[tuple[str, tuple[str, ...]], asyncio.Task[str | None]] = {}

    async def warm(self) -> None:
        """Compile the filter that most containers want, so that the first start need not."""
        try:
            await self._path(self._daemon_profile, DEFAULT_CAPABILITIES)
        except (PierError, OSError) as error:
            log.error("the default seccomp profile cannot be compiled: %s", error)

    async def path_for(self, record: Record, capabilities: Sequence[str]) -> str | None:
        """The filter of a container with these capabilities; None: unconfined. Raises BadSeccompProfile, OSError."""
        chosen = self._chosen(record)
        return None if chosen == UNCONFINED else await self._path(chosen, capabilities)

    async def profile_for(self, record: Record, capabilities: Sequence[str]) -> dict[str, Any] | None:
        """The same, not compiled: OCI's `linux.seccomp`. Raises BadSeccompProfile, OSError."""
        chosen = self._chosen(record)
        return None if chosen == UNCONFINED else await asyncio.to_thread(oci_profile, chosen, capabilities)

    def _chosen(self, record: Record) -> str:
        chosen = parse_security_opts(record.host_config.security_opt or ()).seccomp
        return chosen or (UNCONFINED if record.host_config.privileged else self._daemon_profile)

    async def _path(self, profile: str, capabilities: Sequence[str]) -> str | None:
        key = (profile, tuple(sorted(capabilities)))
        task = self._paths.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = asyncio.create_task(asyncio.to_thread(make_filter, self._folder, profile, key[1]))
            self._paths[key] = task
        return await asyncio.shield(task)


def make_filter(folder: str, profile: str, capabilities: Sequence[str]) -> str | None:
    """The filter's file, compiled if it is not there; None for a profile that says nothing. Blocking, some 30 ms.

    `profile` is `builtin`, JSON text, or a path. Raises BadSeccompProfile, BadProfile, OSError.
    """
    if profile == UNCONFINED:
        return None
    text = _text(profile)
    digest = hashlib.sha256(b"\0".join([FORMAT, text, *(name.encode() for name in capabilities)])).hexdigest()
    path = f"{folder}/{digest}.bpf"
    if os.path.exists(path):
        return path
    resolved = _resolve(profile, text, capabilities)
    if resolved is None:
        return None
    _write_whole(path, compile_profile(resolved))
    return path


def oci_profile(profile: str, capabilities: Sequence[str]) -> dict[str, Any] | None:
    """OCI's `linux.seccomp` of what `make_filter` would compile. Blocking. Raises BadSeccompProfile, OSError."""
    return _resolve(profile, _text(profile), capabilities)


def _resolve(profile: str, text: bytes, capabilities: Sequence[str]) -> dict[str, Any] | None:
    source = seccomp_default.default_profile() if profile == BUILTIN else seccomp_default.load(text)
    return seccomp_default.resolve(source, capabilities)


def _text(profile: str) -> bytes:
    if profile == BUILTIN:
        return repr(seccomp_default.default_profile()).encode()
    if profile.lstrip().startswith("{"):
        return profile.encode()
    with open(profile, "rb") as file:
        return file.read(seccomp_default.MAX_PROFILE_BYTES + 1)


def _write_whole(path: str, data: bytes) -> None:
    """All of it or nothing, so that a file that is there can be trusted."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    partial = f"{path}.{os.getpid()}.{id(data)}"
    with open(partial, "wb") as file:
        file.write(data)
    os.replace(partial, path)
