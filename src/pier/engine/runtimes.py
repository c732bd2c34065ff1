"""`runtimes` and `default-runtime` of daemon.json: other OCI runtimes, in Docker's words where they are refused."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from pier.containers.oci_runtimes import OWN, STOCK, STOCK_SHIM, OciRuntime, OciRuntimes
from pier.engine.values import BadValue
from pier.errors import PierError
from pier.model.system import Runtime

log = logging.getLogger("pier.engine")

FEATURES_S = 5.0
FEATURES_MAX = 1 << 20
FEATURES_KEY = "org.opencontainers.runtime-spec.features"
"""Of `Status` in Docker's answer: the runtime's `features` document as text."""
BINARY_OPTION = "BinaryName"
"""Of the runc shim's options: the one that says what Pier has to know."""


class RuntimeEntry(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """A value of `runtimes`."""

    path: str = ""
    runtime_args: list[str] = []
    runtime_type: str = ""
    options: dict[str, Any] = {}


def parse_runtime(text: str) -> tuple[str, dict[str, str]]:
    """`NAME=PATH` of --add-runtime as the name and the entry `daemon.json` would hold. Raises BadValue."""
    name, _, path = (part.strip() for part in text.partition("="))
    if not name or not path:
        raise BadValue(reason=f'invalid argument "{text}" for "--add-runtime" flag: invalid runtime argument: {text}')
    return name.lower(), {"path": path}


def parse_runtimes(given: list[str]) -> dict[str, dict[str, str]]:
    """Every --add-runtime. Raises BadValue."""
    found: dict[str, dict[str, str]] = {}
    for text in given:
        name, entry = parse_runtime(text)
        if name in found:
            reason = f'invalid argument "{text}" for "--add-runtime" flag: runtime \'{name}\' was already defined'
            raise BadValue(reason=reason)
        found[name] = entry
    return found


def problem(runtimes: Mapping[str, RuntimeEntry], default: str) -> str:
    """What is wrong with the two keys, empty for nothing."""
    for name, entry in runtimes.items():
        if found := _problem_of(name, entry):
            return found
    try:
        registered(default, runtimes).name_for(default)
    except PierError:
        hint = " (install runc, or leave the key out: Pier's own runtime is called pier)" if default == STOCK else ""
        return f"specified default runtime '{default}' does not exist{hint}"
    return ""


def _problem_of(name: str, entry: RuntimeEntry) -> str:
    reserved = name in (OWN, STOCK, STOCK_SHIM)
    wrong = (
        (reserved, f"runtime name '{name}' is reserved"),
        (
            not entry.path and not entry.runtime_type,
            f"runtime {name}: either a runtimeType or a path must be configured",
        ),
        (
            bool(entry.path and entry.runtime_type),
            f"runtime {name}: cannot configure both path and runtimeType for the same runtime",
        ),
        (bool(entry.path and entry.options), f"runtime {name}: options cannot be used with a path runtime"),
        (
            bool(entry.runtime_type and entry.runtime_args),
            f"runtime {name}: args cannot be used with a runtimeType runtime",
        ),
    )
    found = [text for is_wrong, text in wrong if is_wrong]
    return found[0] if found else _problem_of_shim(name, entry)


def _problem_of_shim(name: str, entry: RuntimeEntry) -> str:
    """Pier plays the part of one shim itself, of the one for runc."""
    if entry.runtime_type not in ("", STOCK_SHIM):
        return (
            f"runtime {name}: the runtimeType {entry.runtime_type} is a containerd shim, and Pier has no containerd: "
            "configure the runtime's own binary as its path"
        )
    unknown = sorted(set(entry.options) - {BINARY_OPTION})
    if unknown:
        return f"runtime {name}: of the options of {STOCK_SHIM} Pier knows {BINARY_OPTION} alone, not {unknown[0]}"
    if not isinstance(entry.options.get(BINARY_OPTION, ""), str):
        return f"runtime {name}: {BINARY_OPTION} must be a path"
    return ""


def registered(default: str, runtimes: Mapping[str, RuntimeEntry]) -> OciRuntimes:
    """The runtimes of a configuration."""
    return OciRuntimes(default, entries(runtimes))


def entries(runtimes: Mapping[str, RuntimeEntry]) -> dict[str, OciRuntime]:
    """What each entry means."""
    return {
        name: OciRuntime(entry.path or entry.options.get(BINARY_OPTION) or STOCK, tuple(entry.runtime_args))
        for name, entry in runtimes.items()
    }


class About:
    """What `info` says of the runtimes; each is asked once for its features."""

    def __init__(self, runtimes: OciRuntimes) -> None:
        self._runtimes = runtimes
        self._features: dict[tuple[str, ...], str | None] = {}

    @property
    def default(self) -> str:
        return self._runtimes.default

    async def all(self) -> dict[str, Runtime]:
        """By name."""
        others = self._runtimes.others()
        texts = await asyncio.gather(*(self._of(name) for name in others))
        from pier.runtime.command.about import document  # noqa: PLC0415 - with it comes much of the command

        found = {OWN: Runtime(path="pierd", status={FEATURES_KEY: json.dumps(document(), separators=(",", ":"))})}
        for (name, entry), text in zip(others.items(), texts, strict=True):
            status = {FEATURES_KEY: text} if text else None
            found[name] = Runtime(path=entry.path, runtime_args=list(entry.args) or None, status=status)
        return found

    async def _of(self, name: str) -> str | None:
        try:
            command = tuple(self._runtimes.command(name))
        except PierError:
            return None
        if command not in self._features:
            self._features[command] = await features(command)
        return self._features[command]


async def features(command: tuple[str, ...]) -> str | None:
    """A runtime's `features` document, compact; None where it has no such verb, or answers what is no JSON object."""
    null = asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(
            *command, "features", stdin=null, stdout=asyncio.subprocess.PIPE, stderr=null, limit=FEATURES_MAX
        )
    except OSError as error:
        log.warning("runtime %s: %s", command[0], error.strerror)
        return None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(FEATURES_S):
            output = await process.stdout.read(FEATURES_MAX)
            parsed = json.loads(output) if await process.wait() == 0 else None
    except (TimeoutError, ValueError):
        parsed = None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return json.dumps(parsed, separators=(",", ":")) if isinstance(parsed, dict) else None
