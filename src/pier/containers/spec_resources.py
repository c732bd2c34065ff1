"""How much a container may have: cgroup limits, devices, rlimits (runtime-spec config-linux.md#control-groups)."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from typing import Any

from pier.errors import InvalidParameter, PierError
from pier.kernel.process import RLIM_INFINITY
from pier.model.host_config import DeviceMapping, HostConfig, ThrottleDevice, Ulimit

CPU_PERIOD_US = 100_000

RLIMITS = frozenset(
    "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
)

_DEVICE_RULE = re.compile(r"([acb]) (\d+|\*):(\d+|\*) ([rwm]{1,3})")


class InvalidDeviceRule(InvalidParameter):
    """invalid device cgroup format '{rule}'"""

    remedy = "the form is TYPE MAJOR:MINOR ACCESS, such as c 1:3 rwm"


class InvalidDeviceMode(InvalidParameter):
    """invalid device mode: {mode}"""

    remedy = "letters of r, w and m"


class DeviceMissing(PierError):
    """error gathering device information while adding custom device "{path}": {reason}"""


class InvalidUlimit(InvalidParameter):
    """invalid ulimit {name}: {reason}"""


def _rule(
    allow: bool, kind: str = "a", major: int | None = None, minor: int | None = None, access: str = "rwm"
) -> dict[str, Any]:
    rule: dict[str, Any] = {"allow": allow, "access": access}
    if kind != "a":
        rule["type"] = kind
    if major is not None:
        rule["major"] = major
    if minor is not None:
        rule["minor"] = minor
    return rule


def allow_rule(kind: str, major: int, minor: int, access: str) -> dict[str, Any]:
    """An entry of OCI `linux.resources.devices` that lets one device through."""
    return _rule(True, kind, major, minor, access)


DENY_ALL = _rule(False)
DEFAULT_DEVICE_RULES = (
    DENY_ALL,
    _rule(True, "c", access="m"),
    _rule(True, "b", access="m"),
    _rule(True, "c", 1, 3),  # null
    _rule(True, "c", 1, 5),  # zero
    _rule(True, "c", 1, 7),  # full
    _rule(True, "c", 1, 8),  # random
    _rule(True, "c", 1, 9),  # urandom
    _rule(True, "c", 5, 0),  # tty
    _rule(True, "c", 5, 1),  # console
    _rule(True, "c", 5, 2),  # ptmx
    _rule(True, "c", 136),  # pts/*
)
"""What runc makes of Docker's defaults: nodes may be made, only the harmless ones opened."""


def device_rule(text: str) -> dict[str, Any]:
    """`c 1:* rwm` of `--device-cgroup-rule`. Raises InvalidDeviceRule."""
    match = _DEVICE_RULE.fullmatch(text)
    if match is None:
        raise InvalidDeviceRule(rule=text)
    kind, major, minor, access = match.groups()
    return _rule(True, kind, None if major == "*" else int(major), None if minor == "*" else int(minor), access)


def device_node(mapping: DeviceMapping) -> list[dict[str, Any]]:
    """OCI devices of a `--device`: the node, or every node below a directory.

    Raises DeviceMissing, InvalidDeviceMode.
    """
    access = mapping.cgroup_permissions or "rwm"
    if not set(access) <= set("rwm"):
        raise InvalidDeviceMode(mode=access)
    source = mapping.path_on_host
    target = mapping.path_in_container or source
    try:
        if os.path.isdir(source):
            found = [
                device_at(os.path.join(folder, name), os.path.join(target, os.path.relpath(folder, source), name))
                for folder, _, names in os.walk(source)
                for name in names
            ]
            nodes = [node for node in found if node]
        else:
            nodes = [node for node in [device_at(source, target)] if node]
    except OSError as error:
        raise DeviceMissing(path=source, reason=os.strerror(error.errno or 0).lower()) from error
    if not nodes:
        raise DeviceMissing(path=source, reason="not a device node")
    return nodes


def device_at(source: str, target: str) -> dict[str, Any] | None:
    """An OCI device for the node at `source` (a link is followed); None for what is no device."""
    info = os.stat(source)
    if not (stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)):
        return None
    return {
        "path": os.path.normpath(target),
        "type": "c" if stat.S_ISCHR(info.st_mode) else "b",
        "major": os.major(info.st_rdev),
        "minor": os.minor(info.st_rdev),
        "fileMode": stat.S_IMODE(info.st_mode),
        "uid": info.st_uid,
        "gid": info.st_gid,
    }


HOST_DEV_SKIPPED = frozenset({"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev", "console"})


def host_devices(root: str = "/dev") -> list[dict[str, Any]]:
    """Every device node of the host, for a privileged container. Blocking, some milliseconds."""
    found: list[dict[str, Any]] = []
    for folder, folders, names in os.walk(root):
        if folder == root:
            folders[:] = [name for name in folders if name not in HOST_DEV_SKIPPED]
            names = [name for name in names if name not in HOST_DEV_SKIPPED]  # noqa: PLW2901
        for name in sorted(names):
            path = os.path.join(folder, name)
            if os.path.islink(path):
                continue
            try:
                node = device_at(path, path)
            except OSError:  # gone meanwhile
                continue
            if node:
                found.append(node)
    return found


def devices(host: HostConfig, every: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """OCI `linux.devices` and `linux.resources.devices`; `every` are the host's nodes, used when privileged.

    Raises DeviceMissing, InvalidDeviceMode, InvalidDeviceRule.
    """
    if host.privileged:
        there = {node["path"] for node in every}
        named = (node for mapping in host.devices or () for node in device_node(mapping))
        return [*every, *(node for node in named if node["path"] not in there)], [_rule(True)]
    nodes: list[dict[str, Any]] = []
    rules = list(DEFAULT_DEVICE_RULES)
    for mapping in host.devices or ():
        made = device_node(mapping)
        nodes += made
        access = mapping.cgroup_permissions or "rwm"
        rules += [_rule(True, node["type"], node["major"], node["minor"], access) for node in made]
    rules += [device_rule(text) for text in host.device_cgroup_rules or ()]
    return nodes, rules


def cpu(host: HostConfig) -> dict[str, Any]:
    """OCI `linux.resources.cpu`; `--cpus` becomes a quota of the usual period."""
    found: dict[str, Any] = {
        "shares": host.cpu_shares,
        "quota": host.cpu_quota,
        "period": host.cpu_period,
        "realtimeRuntime": host.cpu_realtime_runtime,
        "realtimePeriod": host.cpu_realtime_period,
        "cpus": host.cpuset_cpus,
        "mems": host.cpuset_mems,
    }
    if host.nano_cpus:
        found["quota"] = host.nano_cpus * CPU_PERIOD_US // 1_000_000_000
        found["period"] = CPU_PERIOD_US
    return {key: value for key, value in found.items() if value}


def memory(host: HostConfig) -> dict[str, Any]:
    """OCI `linux.resources.memory`; `swap` counts memory and swap together, -1: unlimited."""
    found: dict[str, Any] = {
        "limit": host.memory,
        "reservation": host.memory_reservation,
        "swap": host.memory_swap,
    }
    found = {key: value for key, value in found.items() if value}
    if host.memory_swappiness is not None and host.memory_swappiness != -1:
        found["swappiness"] = host.memory_swappiness
    if host.oom_kill_disable:
        found["disableOOMKiller"] = True
    return found


def block_io(host: HostConfig) -> dict[str, Any]:
    """OCI `linux.resources.blockIO`. Raises DeviceMissing."""
    found: dict[str, Any] = {}
    if host.blkio_weight:
        found["weight"] = host.blkio_weight
    if host.blkio_weight_device:
        found["weightDevice"] = [{**_numbers(item.path), "weight": item.weight} for item in host.blkio_weight_device]
    for key, limits in (
        ("throttleReadBpsDevice", host.blkio_device_read_bps),
        ("throttleWriteBpsDevice", host.blkio_device_write_bps),
        ("throttleReadIOPSDevice", host.blkio_device_read_iops),
        ("throttleWriteIOPSDevice", host.blkio_device_write_iops),
    ):
        if limits:
            found[key] = [_throttle(item) for item in limits]
    return found


def _throttle(item: ThrottleDevice) -> dict[str, int]:
    return {**_numbers(item.path), "rate": item.rate}


def _numbers(path: str) -> dict[str, int]:
    try:
        info = os.stat(path)
    except OSError as error:
        raise DeviceMissing(path=path, reason=os.strerror(error.errno or 0).lower()) from error
    if not stat.S_ISBLK(info.st_mode):
        raise DeviceMissing(path=path, reason="not a block device")
    return {"major": os.major(info.st_rdev), "minor": os.minor(info.st_rdev)}


def resources(host: HostConfig, device_rules: list[dict[str, Any]]) -> dict[str, Any]:
    """OCI `linux.resources`; a controller without a limit is left out, so that nothing is written to it."""
    found: dict[str, Any] = {"devices": device_rules}
    parts = {"cpu": cpu(host), "memory": memory(host), "blockIO": block_io(host)}
    found.update({key: part for key, part in parts.items() if part})
    if host.pids_limit is not None and host.pids_limit > 0:
        found["pids"] = {"limit": host.pids_limit}
    return found


def rlimits(asked: Sequence[Ulimit], defaults: Sequence[Ulimit]) -> list[dict[str, Any]]:
    """OCI `process.rlimits`: the container's own, and the daemon's defaults where it has none. Raises InvalidUlimit."""
    merged = {limit.name: limit for limit in (*defaults, *asked)}
    return [
        {
            "type": f"RLIMIT_{limit.name.upper()}",
            "hard": RLIM_INFINITY if limit.hard == -1 else limit.hard,
            "soft": RLIM_INFINITY if limit.soft == -1 else limit.soft,
        }
        for limit in sorted(map(check_ulimit, merged.values()), key=lambda limit: limit.name)
    ]


def check_ulimit(limit: Ulimit) -> Ulimit:
    """The limit itself. Raises InvalidUlimit."""
    if limit.name not in RLIMITS:
        raise InvalidUlimit(name=limit.name, reason="unknown resource")
    if limit.hard != -1 and (limit.soft == -1 or limit.soft > limit.hard):
        reason = f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}"
        raise InvalidUlimit(name=limit.name, reason=reason)
    return limit
