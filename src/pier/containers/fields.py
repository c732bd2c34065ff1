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
    """Honoured; `where` names the module that does it."""

    where: str


@dataclass(frozen=True, slots=True)
class Noted:
    """Kept and shown, for clients to read; the engine has nothing to do."""


@dataclass(frozen=True, slots=True)
class Later:
    """Refused with 501 when it is set: a later version of Pier brings it."""

    what: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Refused with 400 when it is set: it has no meaning on this platform."""

    why: str


@dataclass(frozen=True, slots=True)
class Warned:
    """Accepted without effect, and the answer says so."""

    text: str


Rule = Acts | Noted | Later | Refused | Warned

CONFIG: dict[str, Rule] = {
    "hostname": Acts("spec"),
    "domainname": Acts("spec"),
    "user": Acts("lifecycle"),
    "attach_stdin": Noted(),
    "attach_stdout": Noted(),
    "attach_stderr": Noted(),
    "exposed_ports": Acts("lifecycle"),
    "tty": Acts("spec"),
    "open_stdin": Acts("lifecycle"),
    "stdin_once": Acts("lifecycle"),
    "env": Acts("spec"),
    "cmd": Acts("create"),
    "healthcheck": Warned("Pier does not run health checks yet. The container's health will not be known."),
    "args_escaped": Noted(),
    "image": Acts("create"),
    "volumes": Acts("create"),
    "working_dir": Acts("spec"),
    "entrypoint": Acts("create"),
    "network_disabled": Acts("create"),
    "on_build": Noted(),
    "labels": Acts("create"),
    "stop_signal": Acts("signals"),
    "stop_timeout": Acts("signals"),
    "shell": Noted(),
}

_WINDOWS = Refused("Windows containers only")

HOST_CONFIG: dict[str, Rule] = {
    "cpu_shares": Acts("spec_resources"),
    "memory": Acts("spec_resources"),
    "nano_cpus": Acts("spec_resources"),
    "cgroup_parent": Acts("lifecycle"),
    "blkio_weight": Acts("spec_resources"),
    "blkio_weight_device": Acts("spec_resources"),
    "blkio_device_read_bps": Acts("spec_resources"),
    "blkio_device_write_bps": Acts("spec_resources"),
    "blkio_device_read_iops": Acts("spec_resources"),
    "blkio_device_write_iops": Acts("spec_resources"),
    "cpu_period": Acts("spec_resources"),
    "cpu_quota": Acts("spec_resources"),
    "cpu_realtime_period": Acts("spec_resources"),
    "cpu_realtime_runtime": Acts("spec_resources"),
    "cpuset_cpus": Acts("spec_resources"),
    "cpuset_mems": Acts("spec_resources"),
    "devices": Acts("spec_resources"),
    "device_cgroup_rules": Acts("spec_resources"),
    "device_requests": Acts("validate"),
    "kernel_memory": Warned("Kernel memory limits are deprecated and have no effect: the kernel no longer has them."),
    "kernel_memory_tcp": Warned("Kernel memory TCP limits have no effect with Pier."),
    "memory_reservation": Acts("spec_resources"),
    "memory_swap": Acts("spec_resources"),
    "memory_swappiness": Acts("spec_resources"),
    "oom_kill_disable": Acts("spec_resources"),
    "pids_limit": Acts("spec_resources"),
    "ulimits": Acts("spec_resources"),
    "cpu_count": _WINDOWS,
    "cpu_percent": _WINDOWS,
    "io_maximum_iops": _WINDOWS,
    "io_maximum_bandwidth": _WINDOWS,
    "binds": Acts("spec_mounts"),
    "container_id_file": Noted(),
    "log_config": Acts("validate"),
    "network_mode": Acts("lifecycle"),
    "port_bindings": Acts("lifecycle"),
    "restart_policy": Acts("lifecycle"),
    "auto_remove": Acts("lifecycle"),
    "volume_driver": Later("a volume driver (--volume-driver)"),
    "volumes_from": Later("--volumes-from"),
    "console_size": Acts("spec"),
    "annotations": Acts("spec"),
    "cap_add": Acts("spec_security"),
    "cap_drop": Acts("spec_security"),
    "cgroupns_mode": Acts("spec"),
    "dns": Acts("etc_files"),
    "dns_options": Acts("etc_files"),
    "dns_search": Acts("etc_files"),
    "extra_hosts": Acts("etc_files"),
    "group_add": Acts("lifecycle"),
    "ipc_mode": Acts("spec"),
    "cgroup": Noted(),
    "links": Later("a link to another container (--link)"),
    "oom_score_adj": Acts("spec"),
    "pid_mode": Acts("spec"),
    "privileged": Acts("spec_security"),
    "publish_all_ports": Acts("lifecycle"),
    "readonly_rootfs": Acts("spec"),
    "security_opt": Acts("spec_security"),
    "storage_opt": Refused("--storage-opt is supported only for overlay over xfs with 'pquota' mount option"),
    "tmpfs": Acts("spec_mounts"),
    "uts_mode": Acts("spec"),
    "userns_mode": Acts("validate"),
    "shm_size": Acts("spec_mounts"),
    "sysctls": Acts("spec"),
    "runtime": Acts("validate"),
    "isolation": Acts("validate"),
    "mounts": Acts("spec_mounts"),
    "masked_paths": Acts("spec_security"),
    "readonly_paths": Acts("spec_security"),
    "init": Acts("lifecycle"),
}


def judge(config: ContainerConfig, host: HostConfig) -> list[str]:
    """The warnings that the tables ask for. Raises NotImplementedYet or InvalidParameter for what is refused."""
    warnings: list[str] = []
    for struct, table in ((config, CONFIG), (host, HOST_CONFIG)):
        for name, rule in table.items():
            value = getattr(struct, name)
            if isinstance(rule, Acts | Noted) or not is_set(value):
                continue
            if isinstance(rule, Later):
                raise NotImplementedYet(what=rule.what)
            if isinstance(rule, Refused):
                raise InvalidParameter(f"invalid option {wire_name(struct, name)}: {rule.why}")
            warnings.append(rule.text)
    return warnings


def is_set(value: Any) -> bool:
    """Does the value differ from Docker's zero values, nil and empty being one? `["NONE"]` turns a health check off."""
    if isinstance(value, msgspec.Struct):
        test = getattr(value, "test", None)
        if test is not None and list(test[:1]) == ["NONE"]:
            return False
        return any(is_set(getattr(value, name)) for name in value.__struct_fields__)
    return bool(value)


def wire_name(struct: msgspec.Struct, attribute: str) -> str:
    """The JSON key of an attribute."""
    fields = struct.__struct_fields__
    return struct.__struct_encode_fields__[fields.index(attribute)]
