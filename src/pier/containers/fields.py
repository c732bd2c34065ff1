"""What becomes of every field of a create request: it acts, is refused with a reason, or is answered by a warning.

The tables name each attribute of `ContainerConfig` and `HostConfig`; a test holds them against the structs, so a field
that is added to the API cannot be ignored in silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from pier.errors import InvalidParameter, NotImplementedYet
from pier.model.container import ContainerConfig
from pier.model.host_config import HostConfig


@dataclass(frozen=True, slots=True)
class Acts:
    """Honoured."""


@dataclass(frozen=True, slots=True)
class Noted:
    """Kept and shown, for clients to read; the engine has nothing to do."""


@dataclass(frozen=True, slots=True)
class Later:
    """Refused with 501 when it is set: a later version of Pier brings it."""

    what: str


@dataclass(frozen=True, slots=True)
class Answered:
    """Judged by a module of its own, which refuses it or warns about it; `how` says which."""

    how: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Refused with 400 when it is set: it has no meaning on this platform."""

    why: str


@dataclass(frozen=True, slots=True)
class Warned:
    """Accepted without effect, and the answer says so."""

    text: str


Rule = Acts | Answered | Noted | Later | Refused | Warned

CONFIG: dict[str, Rule] = {
    "hostname": Acts(),
    "domainname": Acts(),
    "user": Acts(),
    "attach_stdin": Noted(),
    "attach_stdout": Noted(),
    "attach_stderr": Noted(),
    "exposed_ports": Acts(),
    "tty": Acts(),
    "open_stdin": Acts(),
    "stdin_once": Acts(),
    "env": Acts(),
    "cmd": Acts(),
    "healthcheck": Acts(),
    "args_escaped": Noted(),
    "image": Acts(),
    "volumes": Acts(),
    "working_dir": Acts(),
    "entrypoint": Acts(),
    "network_disabled": Acts(),
    "on_build": Noted(),
    "labels": Acts(),
    "stop_signal": Acts(),
    "stop_timeout": Acts(),
    "shell": Noted(),
}

_WINDOWS = Refused("Windows containers only")

HOST_CONFIG: dict[str, Rule] = {
    "cpu_shares": Acts(),
    "memory": Acts(),
    "nano_cpus": Acts(),
    "cgroup_parent": Acts(),
    "blkio_weight": Acts(),
    "blkio_weight_device": Acts(),
    "blkio_device_read_bps": Acts(),
    "blkio_device_write_bps": Acts(),
    "blkio_device_read_iops": Acts(),
    "blkio_device_write_iops": Acts(),
    "cpu_period": Acts(),
    "cpu_quota": Acts(),
    "cpu_realtime_period": Acts(),
    "cpu_realtime_runtime": Acts(),
    "cpuset_cpus": Acts(),
    "cpuset_mems": Acts(),
    "devices": Acts(),
    "device_cgroup_rules": Acts(),
    "device_requests": Answered("CDI devices; any other driver is refused by its name"),
    "kernel_memory": Warned("Kernel memory limits are deprecated and have no effect: the kernel no longer has them."),
    "kernel_memory_tcp": Warned("Kernel memory TCP limits have no effect with Pier."),
    "memory_reservation": Acts(),
    "memory_swap": Acts(),
    "memory_swappiness": Acts(),
    "oom_kill_disable": Acts(),
    "pids_limit": Acts(),
    "ulimits": Acts(),
    "cpu_count": _WINDOWS,
    "cpu_percent": _WINDOWS,
    "io_maximum_iops": _WINDOWS,
    "io_maximum_bandwidth": _WINDOWS,
    "binds": Acts(),
    "container_id_file": Noted(),
    "log_config": Acts(),
    "network_mode": Acts(),
    "port_bindings": Acts(),
    "restart_policy": Acts(),
    "auto_remove": Acts(),
    "volume_driver": Answered("`local`; any other driver is refused by its name"),
    "volumes_from": Acts(),
    "console_size": Acts(),
    "annotations": Acts(),
    "cap_add": Acts(),
    "cap_drop": Acts(),
    "cgroupns_mode": Acts(),
    "dns": Acts(),
    "dns_options": Acts(),
    "dns_search": Acts(),
    "extra_hosts": Acts(),
    "group_add": Acts(),
    "ipc_mode": Acts(),
    "cgroup": Noted(),
    "links": Acts(),
    "oom_score_adj": Acts(),
    "pid_mode": Acts(),
    "privileged": Acts(),
    "publish_all_ports": Acts(),
    "readonly_rootfs": Acts(),
    "security_opt": Acts(),
    "storage_opt": Acts(),
    "tmpfs": Acts(),
    "uts_mode": Acts(),
    "userns_mode": Acts(),
    "shm_size": Acts(),
    "sysctls": Acts(),
    "runtime": Acts(),
    "isolation": Acts(),
    "mounts": Acts(),
    "masked_paths": Acts(),
    "readonly_paths": Acts(),
    "init": Acts(),
}


def judge(config: ContainerConfig, host: HostConfig) -> list[str]:
    """The warnings that the tables ask for. Raises NotImplementedYet or InvalidParameter for what is refused."""
    warnings: list[str] = []
    for struct, table in ((config, CONFIG), (host, HOST_CONFIG)):
        for name, rule in table.items():
            value = getattr(struct, name)
            if isinstance(rule, Acts | Answered | Noted) or not is_set(value):
                continue
            if isinstance(rule, Later):
                raise NotImplementedYet(what=rule.what)
            if isinstance(rule, Refused):
                raise InvalidParameter(f"invalid option {wire_name(struct, name)}: {rule.why}")
            warnings.append(rule.text)
    return warnings


def is_set(value: Any) -> bool:
    """Does the value differ from Docker's zero values, nil and empty being one?"""
    if isinstance(value, msgspec.Struct):
        return any(is_set(getattr(value, name)) for name in value.__struct_fields__)
    return bool(value)


def wire_name(struct: msgspec.Struct, attribute: str) -> str:
    """The JSON key of an attribute."""
    fields = struct.__struct_fields__
    return struct.__struct_encode_fields__[fields.index(attribute)]
