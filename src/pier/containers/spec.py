"""A container's record as an OCI runtime configuration (runtime-spec 1.2, config.md). Pure: no file is read here.

What depends on the host (its devices, capabilities, name, the namespaces of other containers) comes in as `Facts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pier.containers import spec_mounts, spec_resources, spec_security
from pier.containers.inherited import mounts_of
from pier.containers.record import Record
from pier.containers.timezone import ZONEINFO
from pier.model.container import ContainerConfig
from pier.model.host_config import HostConfig, Ulimit
from pier.storage.ids import IdMap

OCI_VERSION = "1.2.1"
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

PING_GROUPS = "net.ipv4.ping_group_range"
NETWORK_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0", PING_GROUPS: "0 2147483647"}
"""Ports below 1024 and ping without privileges, in a network namespace of the container's own."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a configuration depends on besides the record."""

    capabilities: Sequence[str]
    """Those this daemon can give away."""
    host_name: str
    cgroups_path: str
    """`<parent>/<id>`."""
    etc: Mapping[str, str]
    """`hosts`, `hostname`, `resolv.conf` -> the file on the host."""
    joined: Mapping[str, str] = field(default_factory=dict)
    """`network`, `pid` or `user` -> path of another container's namespace."""
    joined_hostname: str = ""
    """Of the container whose network is joined."""
    devices: Sequence[dict[str, Any]] = ()
    """Every device node of the host, filled in for a privileged container only."""
    default_ulimits: Sequence[Ulimit] = ()
    no_new_privileges: bool = False
    linked: Sequence[str] = ()
    """Variables of links."""
    shm: str = ""
    """Path of another container's /dev/shm, a detached mount, where its IPC namespace is joined."""
    ready: Mapping[str, str] = field(default_factory=dict)
    """Target of a mount -> path of a detached mount, of images."""
    zoneinfo: str = ""
    """The host's folder of zone data, where the image lacks the container's time zone."""


def runtime_spec(record: Record, facts: Facts) -> dict[str, Any]:
    """The OCI configuration of a container; `root.path` and `process.user` are the runtime's to fill in."""
    config, host = record.config, record.host_config
    return {
        "ociVersion": OCI_VERSION,
        "process": process(record, facts),
        "root": {"path": "rootfs", **({"readonly": True} if host.readonly_rootfs else {})},
        **host_names(config, host, facts),
        "mounts": mounts(record, facts),
        "annotations": dict(host.annotations or {}),
        "linux": linux(record, facts),
    }


def process(record: Record, facts: Facts) -> dict[str, Any]:
    """OCI `process`."""
    config, host = record.config, record.host_config
    options = spec_security.parse_security_opts(host.security_opt or ())
    no_new = facts.no_new_privileges if options.no_new_privileges is None else options.no_new_privileges
    found: dict[str, Any] = {
        "terminal": config.tty,
        "args": [record.path, *record.args],
        "env": environment(config, hostname(config, host, facts), facts.linked),
        "cwd": config.working_dir or "/",
        "capabilities": spec_security.capability_sets(spec_security.effective_capabilities(host, facts.capabilities)),
        "rlimits": spec_resources.rlimits(host.ulimits or (), facts.default_ulimits),
        "noNewPrivileges": no_new,
        "oomScoreAdj": host.oom_score_adj,
    }
    height, width = (host.console_size or [0, 0])[:2]
    if config.tty and height and width:
        found["consoleSize"] = {"height": height, "width": width}
    return found


def environment(config: ContainerConfig, name: str, linked: Sequence[str] = ()) -> list[str]:
    """Docker's own variables first, so that the user's win; `NAME` alone takes a variable away."""
    base = [DEFAULT_PATH, f"HOSTNAME={name}", *(["TERM=xterm"] if config.tty else []), *linked]
    return merge_env(base, config.env or ())


def merge_env(base: Sequence[str], over: Sequence[str]) -> list[str]:
    """`base` with the entries of `over` in place of those of the same name; one without `=` removes its name."""
    merged = {entry.partition("=")[0]: entry for entry in base}
    for entry in over:
        name, equals, _ = entry.partition("=")
        if equals:
            merged[name] = entry
        else:
            merged.pop(name, None)
    return list(merged.values())


def hostname(config: ContainerConfig, host: HostConfig, facts: Facts) -> str:
    """The name the container sees for itself."""
    if host.uts_mode == "host":
        return facts.host_name
    if host.network_mode.startswith("container:"):
        return facts.joined_hostname
    return config.hostname


def host_names(config: ContainerConfig, host: HostConfig, facts: Facts) -> dict[str, str]:
    """OCI `hostname` and `domainname`; neither without a UTS namespace of the container's own."""
    if host.uts_mode == "host":
        return {}
    found = {"hostname": hostname(config, host, facts), "domainname": config.domainname}
    return {key: value for key, value in found.items() if value}


def mounts(record: Record, facts: Facts) -> list[dict[str, Any]]:
    """OCI `mounts`, in the order in which they are made. Raises InvalidIdMap."""
    host = record.host_config
    defaults = spec_mounts.default_mounts(
        shm_size=host.shm_size,
        privileged=host.privileged,
        ipc_mode=host.ipc_mode,
        writable_cgroups=bool(spec_security.parse_security_opts(host.security_opt or ()).writable_cgroups),
        shm=facts.shm,
    )
    flags = ["rbind", "rprivate", *(["ro"] if host.readonly_rootfs else [])]
    etc = [
        {"destination": f"/etc/{name}", "type": "bind", "source": facts.etc[name], "options": flags}
        for name in ("resolv.conf", "hostname", "hosts")
        if name in facts.etc
    ]
    if facts.zoneinfo:
        etc.append(
            {"destination": ZONEINFO, "type": "bind", "source": facts.zoneinfo, "options": ["rbind", "ro", "rprivate"]}
        )
    users = [*spec_mounts.tmpfs_mounts(host), *mounts_of(record)]
    return spec_mounts.assemble(defaults, etc, users, record.id_map, facts.ready)


def linux(record: Record, facts: Facts) -> dict[str, Any]:
    """OCI `linux`, save the seccomp profile, which goes to the runtime compiled."""
    host, id_map = record.host_config, record.id_map
    nodes, rules = spec_resources.devices(host, facts.devices)
    found: dict[str, Any] = {
        "namespaces": namespaces(host, facts.joined, user=id_map is not None),
        "cgroupsPath": facts.cgroups_path,
        "resources": spec_resources.resources(host, rules),
        "sysctl": sysctls(host, id_map),
        "devices": nodes,
        **spec_security.protected_paths(host),
        **(id_map.oci() if id_map is not None else {}),
    }
    propagation = spec_mounts.root_propagation(mounts_of(record))
    if propagation:
        found["rootfsPropagation"] = propagation
    return found


def namespaces(host: HostConfig, joined: Mapping[str, str], *, user: bool = False) -> list[dict[str, str]]:
    """OCI `linux.namespaces`: one is missing where the host's is used, has a path where another container's is."""
    modes = (
        ("user", "" if user else "host"),
        ("network", host.network_mode),
        ("uts", host.uts_mode),
        ("pid", host.pid_mode),
        ("ipc", host.ipc_mode),
        ("cgroup", host.cgroupns_mode),
    )
    found = [{"type": "mount"}]
    for type_, mode in modes:
        if mode == "host":
            continue
        found.append({"type": type_, **({"path": joined[type_]} if type_ in joined else {})})
    return found


def sysctls(host: HostConfig, id_map: IdMap | None) -> dict[str, str]:
    """OCI `linux.sysctl`. The domain name has its own key in OCI, so it is not among them."""
    own_network = host.network_mode != "host" and not host.network_mode.startswith("container:")
    base = dict(NETWORK_SYSCTLS) if own_network else {}
    if base and id_map is not None:  # ids that are not mapped are no ids to the kernel
        base[PING_GROUPS] = f"0 {sum(item.size for item in id_map.gids) - 1}"
    return {**base, **(host.sysctls or {})}


def requested(host: HostConfig) -> list[str]:
    """What the user asked for by name, so that its failure is an error (`StartRequest.requested`)."""
    found = [f"process.rlimits.RLIMIT_{limit.name.upper()}" for limit in host.ulimits or ()]
    if host.oom_score_adj:
        found.append("process.oomScoreAdj")
    return found
