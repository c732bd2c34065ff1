"""SIGHUP: what of the configuration may change while the daemon runs, and what needs a restart."""

from __future__ import annotations

from typing import Final

import msgspec

from pier.engine.config import DaemonConfig, keys

RELOADABLE: Final = (
    "debug",
    "default_runtime",
    "insecure_registries",
    "labels",
    "live_restore",
    "log_level",
    "max_concurrent_downloads",
    "max_concurrent_uploads",
    "max_download_attempts",
    "proxies",
    "registry_mirrors",
    "runtimes",
)
"""Fields of `DaemonConfig`."""


def merge(before: DaemonConfig, wanted: DaemonConfig) -> tuple[DaemonConfig, list[str]]:
    """What is in force after a reload, and the keys whose change waits for a restart."""
    changed = [name for name in DaemonConfig.__struct_fields__ if getattr(before, name) != getattr(wanted, name)]
    taken = {name: getattr(wanted, name) for name in changed if name in RELOADABLE}
    names = keys()
    waiting = sorted(names[name] for name in changed if name not in RELOADABLE)
    return msgspec.structs.replace(before, **taken), waiting


def attributes(config: DaemonConfig) -> dict[str, str]:
    """What the event of a reload says is in force, by key."""
    names = keys()  # without the proxies, which may hold a password
    return {names[name]: _text(getattr(config, name)) for name in RELOADABLE if name in names}


def _text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
