"""What a container may do: capabilities, seccomp, masked paths, security options (runtime-spec config-linux.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pier.errors import InvalidParameter
from pier.kernel import capabilities
from pier.model.host_config import HostConfig

DEFAULT_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)
"""Docker's fourteen."""

MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


class InvalidCapability(InvalidParameter):
    """invalid {option}: unknown capability: "{name}\""""


class InvalidSecurityOpt(InvalidParameter):
    """invalid --security-opt {number}: "{text}\""""

    remedy = (
        "known are seccomp=, apparmor=, label=, no-new-privileges, systempaths=unconfined, writable-cgroups, userns="
    )


@dataclass(frozen=True, slots=True)
class SecurityOptions:
    """`--security-opt`, sorted."""

    seccomp: str = ""
    """Empty: the daemon's profile; `unconfined`, `builtin`, or a profile as JSON text."""
    apparmor: str = ""
    labels: tuple[str, ...] = ()
    no_new_privileges: bool | None = None
    """None: as the daemon's default."""
    system_paths_unconfined: bool = False
    writable_cgroups: bool | None = None
    userns: str = ""
    """As `--userns`, whose values the docker command judges itself, this one's it does not."""


def parse_security_opts(texts: Sequence[str]) -> SecurityOptions:
    """Sort `key=value` (or `key:value`, the old form) options. Raises InvalidSecurityOpt."""
    found: dict[str, Any] = {}
    labels: list[str] = []
    for text in texts:
        separator = "=" if "=" in text else ":"
        key, _, value = text.partition(separator)
        match key:
            case "no-new-privileges":
                found["no_new_privileges"] = _boolean(value or "true", text)
            case "writable-cgroups":
                found["writable_cgroups"] = _boolean(value or "true", text)
            case "seccomp" if value:
                found["seccomp"] = value
            case "apparmor" if value:
                found["apparmor"] = value
            case "label" if value:
                labels.append(value)
            case "userns" if value:
                found["userns"] = value
            case "systempaths" if value == "unconfined":
                found["system_paths_unconfined"] = True
            case _:
                raise InvalidSecurityOpt(number=2 if value else 1, text=text[:200])
    return SecurityOptions(labels=tuple(labels), **found)


def _boolean(text: str, option: str) -> bool:
    if text.lower() in ("1", "t", "true"):
        return True
    if text.lower() in ("0", "f", "false"):
        return False
    raise InvalidSecurityOpt(number=2, text=option[:200])


@cache
def available_capabilities() -> tuple[str, ...]:
    """What this daemon can give away: every capability of the kernel that its own bounding set still holds."""
    return tuple(capabilities.names(capabilities.capget().bounding))


def capability_names(names: Sequence[str] | None, option: str) -> list[str]:
    """Names as the kernel writes them, `ALL` kept. Raises InvalidCapability in Docker's words."""
    try:
        return [capabilities.parse(name) for name in names or ()]
    except capabilities.UnknownCapability as error:
        name = str(error.fields["name"]).upper()
        raise InvalidCapability(option=option, name="CAP_" + name.removeprefix("CAP_")) from error


def effective_capabilities(host: HostConfig, available: Sequence[str]) -> list[str]:
    """Docker's rules: privileged has all; `--cap-drop ALL` starts from none, `--cap-add ALL` from all.

    Capabilities this daemon does not have are left out of ALL and of the default set; one asked for by name stays, so
    that the start fails rather than gives less than was asked. Raises InvalidCapability.
    """
    add = capability_names(host.cap_add, "CapAdd")
    drop = capability_names(host.cap_drop, "CapDrop")
    if host.privileged:
        return list(available)
    if "ALL" in add:
        return [name for name in available if name not in drop]
    kept = [] if "ALL" in drop else [name for name in DEFAULT_CAPABILITIES if name not in drop and name in available]
    return kept + [name for name in add if name not in kept]


def capability_sets(names: Sequence[str]) -> dict[str, list[str]]:
    """OCI `process.capabilities`: never anything inheritable or ambient (CVE-2022-24769)."""
    return {"bounding": list(names), "effective": list(names), "permitted": list(names)}


def protected_paths(host: HostConfig) -> dict[str, list[str]]:
    """OCI `linux.maskedPaths` and `linux.readonlyPaths`; a privileged container has neither."""
    if host.privileged:
        return {}
    masked = MASKED_PATHS if host.masked_paths is None else host.masked_paths
    readonly = READONLY_PATHS if host.readonly_paths is None else host.readonly_paths
    return {"maskedPaths": list(masked), "readonlyPaths": list(readonly)}
