"""Checks of a create request before anything is made, in Docker's words where clients match on them. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from pier.containers import (
    cdi,
    log_config,
    own_annotations,
    signals,
    spec_mounts,
    spec_resources,
    spec_security,
    userns,
)
from pier.containers.health import check_of
from pier.errors import InvalidParameter
from pier.model.container import ContainerConfig, HealthConfig
from pier.model.host_config import HostConfig, RestartPolicy
from pier.runtime.systemd.units import is_slice
from pier.storage.quota_size import parse_size

MIN_MEMORY = 6 << 20
NS_PER_MS = 1_000_000
ID_MAX = 2**31 - 1
WINSIZE_MAX = 2**16 - 1

_ENV_NAME = re.compile(r"[^=\0]+")
_NUMERIC = re.compile(r"[+-]?\d+", re.ASCII)


class BadUser(InvalidParameter):
    """uids and gids must be in range 0-2147483647: {text}"""


def check(
    config: ContainerConfig, host: HostConfig, *, cpus: int, cpuset: str, nodes: str, systemd: bool = False
) -> list[str]:
    """Everything that can be refused without looking at the world; returns Docker's warnings.

    `cpus` is how many CPUs there are, `cpuset` those that may be used (`0-3`), `nodes` the memory nodes; `systemd` says
    that it keeps the cgroups. Raises InvalidParameter and subclasses.
    """
    check_config(config)
    if host.memory == 0 and host.memory_swap > 0:
        raise InvalidParameter("You should always set the Memory limit when using Memoryswap limit, see usage")
    warnings = check_memory(host)
    check_cpu(host, cpus=cpus, available=cpuset, nodes=nodes)
    check_block_io(host)
    check_modes(config, host)
    check_cgroup_parent(host.cgroup_parent, systemd=systemd)
    check_restart_policy(host.restart_policy, auto_remove=host.auto_remove)
    check_ports(host)
    log_config.check(host.log_config)
    warnings += check_health_action(config, host)
    check_dns(host)
    warnings += check_security(host)
    for limit in host.ulimits or ():
        spec_resources.check_ulimit(limit)
    for rule in host.device_cgroup_rules or ():
        spec_resources.device_rule(rule)
    check_console_size(host.console_size)
    root_size_bytes(host)
    spec_mounts.user_mounts(host)
    spec_mounts.tmpfs_mounts(host)
    if host.network_mode == "host" and (host.port_bindings or host.publish_all_ports):
        warnings.append("Published ports are discarded when using host network mode")
    return warnings


def check_update(host: HostConfig, *, cpus: int, cpuset: str, nodes: str) -> list[str]:
    """As `check`, for what an update may change, before it is held against what the container has."""
    warnings = check_memory(host)
    check_cpu(host, cpus=cpus, available=cpuset, nodes=nodes)
    check_block_io(host)
    if host.restart_policy.name:
        check_restart_policy(host.restart_policy, auto_remove=False)
    return warnings


def root_size_bytes(host: HostConfig) -> int:
    """What `--storage-opt size=` allows the container to write to its root; 0: no bound. Raises InvalidParameter."""
    size_bytes = 0
    for key, value in (host.storage_opt or {}).items():
        if key.lower() != "size":
            raise InvalidParameter(f"Unknown option {key}")
        size_bytes = parse_size(value)
    return size_bytes


def check_config(config: ContainerConfig) -> None:
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidParameter(
            f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path"
        )
    if "\0" in config.working_dir:
        raise InvalidParameter("the working directory holds a NUL byte")
    for entry in config.env or ():
        if not _ENV_NAME.match(entry) or "\0" in entry:
            raise InvalidParameter(f"invalid environment variable: {entry}")
    if config.stop_signal:
        signals.parse(config.stop_signal)
    if config.healthcheck:
        check_health(config.healthcheck)
    check_user(config.user)
    if any("\0" in word for word in (*(config.entrypoint or ()), *(config.cmd or ()))):
        raise InvalidParameter("an argument of the command holds a NUL byte")
    for port in config.exposed_ports or ():
        parse_port(port)


def check_user(user: str) -> None:
    """Numbers out of range are refused here already; names are looked up in the container. Raises BadUser."""
    for part in user.split(":", 1):
        if _NUMERIC.fullmatch(part) and not 0 <= int(part[:20]) <= ID_MAX:
            raise BadUser(text=part[:40])


def check_health(health: HealthConfig) -> None:
    for label, value in (
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ):
        if value != 0 and value < NS_PER_MS:
            raise InvalidParameter(f"{label} in Healthcheck cannot be less than 1ms")
    if health.retries < 0:
        raise InvalidParameter("Retries in Healthcheck cannot be negative")


def check_health_action(config: ContainerConfig, host: HostConfig) -> list[str]:
    """Warn of a check that nobody can run, and of an action that nothing will set off. Raises InvalidAnnotation."""
    own_annotations.check(host.annotations)
    test = (config.healthcheck.test if config.healthcheck else None) or ["NONE"]
    if test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        return [f"Unknown health check type '{test[0][:40]}' (expected CMD or CMD-SHELL). It is not run."]
    if own_annotations.health_action(host.annotations) != "none" and check_of(config) is None:
        return [f"The container has no health check: {own_annotations.HEALTH_ON_FAILURE} has no effect."]
    return []


def check_memory(host: HostConfig) -> list[str]:
    warnings: list[str] = []
    if host.memory and host.memory < MIN_MEMORY:
        raise InvalidParameter("Minimum memory limit allowed is 6MB")
    if host.memory_reservation < -1 or host.memory_swap < -1:
        raise InvalidParameter("Invalid value for a memory limit: only -1, for none, may be negative")
    if host.memory > 0 and 0 < host.memory_swap < host.memory:
        raise InvalidParameter("Minimum memoryswap limit should be larger than memory limit, see usage")
    if host.memory_swappiness is not None and not -1 <= host.memory_swappiness <= 100:
        raise InvalidParameter(f"Invalid value: {host.memory_swappiness}, valid memory swappiness range is 0-100")
    if 0 < host.memory_reservation < MIN_MEMORY:
        raise InvalidParameter("Minimum memory reservation allowed is 6MB")
    if 0 < host.memory < host.memory_reservation:
        raise InvalidParameter("Minimum memory limit can not be less than memory reservation limit, see usage")
    if host.oom_kill_disable and host.memory == 0:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system "
            "running out of resources."
        )
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidParameter(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    if host.shm_size < 0:
        raise InvalidParameter("SHM size can not be less than 0")
    return warnings


def check_cpu(host: HostConfig, *, cpus: int, available: str, nodes: str) -> None:
    if host.nano_cpus:
        if host.cpu_period > 0:
            raise InvalidParameter("Conflicting options: Nano CPUs and CPU Period cannot both be set")
        if host.cpu_quota > 0:
            raise InvalidParameter("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
        if not 10_000_000 <= host.nano_cpus <= cpus * 1_000_000_000:
            raise InvalidParameter(f"range of CPUs is from 0.01 to {cpus:.2f}, as there are only {cpus} CPUs available")
    if host.cpu_period and not 1_000 <= host.cpu_period <= 1_000_000:
        raise InvalidParameter("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < host.cpu_quota < 1_000:
        raise InvalidParameter("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if host.cpu_shares < 0:
        raise InvalidParameter(f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer")
    asked = parse_cpuset(host.cpuset_cpus, "cpus")
    if not asked <= parse_cpuset(available, "cpus"):
        raise InvalidParameter(
            f"Requested CPUs are not available - requested {host.cpuset_cpus}, available: {available}"
        )
    if not parse_cpuset(host.cpuset_mems, "mems") <= parse_cpuset(nodes, "mems"):
        raise InvalidParameter(
            f"Requested memory nodes are not available - requested {host.cpuset_mems}, available: {nodes}"
        )
    if 0 < host.cpu_realtime_period < host.cpu_realtime_runtime:
        raise InvalidParameter("cpu real-time runtime cannot be higher than cpu real-time period")


def parse_cpuset(text: str, kind: str) -> set[int]:
    """`0-2,7` as {0, 1, 2, 7} (cpuset(7), List Format). Raises InvalidParameter."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, dash, last = part.partition("-")
        if not (first.isdigit() and (not dash or last.isdigit())) or len(part) > 12:
            raise InvalidParameter(f"Invalid value {text} for cpuset {kind}: invalid format: {text}")
        if int(last or first) > 8191:
            raise InvalidParameter(f"Invalid value {text} for cpuset {kind}: value out of range, maximum is 8191")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def check_block_io(host: HostConfig) -> None:
    if host.blkio_weight and not 10 <= host.blkio_weight <= 1000:
        raise InvalidParameter("Range of blkio weight is from 10 to 1000")


def check_modes(config: ContainerConfig, host: HostConfig) -> None:
    """Namespaces, runtime and isolation: the words Docker knows, and the pairs that exclude each other."""
    _one_of("PID", host.pid_mode, ("", "host"), container=True)
    _one_of("IPC", host.ipc_mode, ("", "none", "private", "shareable", "host"), container=True)
    _one_of("UTS", host.uts_mode, ("", "host"), container=False)
    _one_of("cgroup namespace", host.cgroupns_mode, ("", "private", "host"), container=False)
    userns.parse_mode(host.userns_mode)
    if host.uts_mode == "host" and (config.hostname or config.domainname):
        raise InvalidParameter("conflicting options: hostname and the UTS mode")
    if host.network_mode in ("container", "container:"):
        raise InvalidParameter("invalid network mode: invalid container format container:<name|id>")
    if host.network_mode.startswith("container:"):
        check_joined_network(config, host)
    if host.isolation not in ("", "default"):
        raise InvalidParameter(f"invalid isolation ({host.isolation}): linux only supports 'default'")
    check_host_names(config)
    for request in host.device_requests or ():
        if request.driver == cdi.DRIVER:  # looked for when it starts
            continue
        wanted = "[" + " ".join(f"[{' '.join(group)}]" for group in request.capabilities or ()) + "]"
        raise InvalidParameter(f'could not select device driver "{request.driver}" with capabilities: {wanted}')


def check_cgroup_parent(parent: str, *, systemd: bool) -> None:
    """A slice where systemd keeps the cgroups, elsewhere a path."""
    if systemd and parent and not is_slice(parent):
        raise InvalidParameter('cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"')
    if ".." in parent.split("/") or "\0" in parent:
        raise InvalidParameter(f"invalid cgroup parent {parent!r}: an absolute path below the cgroup root is wanted")


def check_joined_network(config: ContainerConfig, host: HostConfig) -> None:
    """What belongs to the network cannot be changed by one who joins another's."""
    if config.hostname:
        raise InvalidParameter("conflicting options: hostname and the network mode")
    if host.dns:
        raise InvalidParameter("conflicting options: dns and the network mode")
    if host.extra_hosts:
        raise InvalidParameter("conflicting options: custom host-to-IP mapping and the network mode")
    if host.port_bindings or host.publish_all_ports:
        raise InvalidParameter("conflicting options: port publishing and the container type network mode")
    if config.exposed_ports:
        raise InvalidParameter("conflicting options: port exposing and the container type network mode")


def check_host_names(config: ContainerConfig) -> None:
    if len(config.hostname) > 63 or not re.fullmatch(r"[^/\0\n]*", config.hostname):
        raise InvalidParameter(f"invalid hostname: {config.hostname[:80]!r}")
    if len(config.domainname) > 63 or not re.fullmatch(r"[^/\0\n]*", config.domainname):
        raise InvalidParameter(f"invalid domainname: {config.domainname[:80]!r}")


def _one_of(kind: str, mode: str, words: Sequence[str], *, container: bool) -> None:
    if mode in words or (container and mode.startswith("container:") and mode != "container:"):
        return
    raise InvalidParameter(f"invalid {kind} mode: {mode}")


def check_restart_policy(policy: RestartPolicy, *, auto_remove: bool) -> None:
    if policy.name not in ("", "no", "always", "unless-stopped", "on-failure"):
        raise InvalidParameter(
            f"invalid restart policy: unknown policy '{policy.name}'; use one of 'no', 'always', 'on-failure', or "
            "'unless-stopped'"
        )
    if policy.name != "on-failure" and policy.maximum_retry_count:
        raise InvalidParameter("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if policy.maximum_retry_count < 0:
        raise InvalidParameter("invalid restart policy: maximum retry count cannot be negative")
    if auto_remove and policy.name not in ("", "no"):
        raise InvalidParameter("can't create 'AutoRemove' container with restart policy")


def parse_port(text: str) -> tuple[int, str]:
    """`80/tcp` as (80, "tcp"); no protocol means tcp. Raises InvalidParameter."""
    number, slash, protocol = text.partition("/")
    if not number.isascii() or not number.isdigit() or not 1 <= int(number[:6]) <= 65535:
        raise InvalidParameter(f'invalid port specification: "{text}"')
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in ("tcp", "udp", "sctp"):
        raise InvalidParameter(f'invalid port specification: "{text}"')
    return int(number), protocol


def check_ports(host: HostConfig) -> None:
    for port, bindings in (host.port_bindings or {}).items():
        parse_port(port)
        for binding in bindings or ():
            first, _, last = binding.host_port.partition("-")
            for part in filter(None, (first, last)):
                if not part.isascii() or not part.isdigit() or int(part[:6]) > 65535:
                    raise InvalidParameter(f'invalid port specification: "{binding.host_port}"')
            if binding.host_ip:
                _check_address(binding.host_ip)


def check_dns(host: HostConfig) -> None:
    for server in host.dns or ():
        _check_address(server)
    for entry in host.extra_hosts or ():
        name, separator, address = entry.partition("=") if "=" in entry else entry.partition(":")
        if not name or not separator:
            raise InvalidParameter(f'bad format for add-host: "{entry}"')
        if address != "host-gateway":
            try:
                _check_address(address.strip("[]"))
            except InvalidParameter as error:
                raise InvalidParameter(f'invalid IP address in add-host: "{address}"') from error


def _check_address(text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError as error:
        raise InvalidParameter(f"invalid IP address: {text}") from error


def check_console_size(size: Sequence[int] | None) -> None:
    """Height and width in characters, as the terminal's ioctl takes them (ioctl_tty(2), struct winsize)."""
    if size and (len(size) != 2 or not all(0 <= number <= WINSIZE_MAX for number in size)):
        raise InvalidParameter(f"invalid ConsoleSize {list(size)[:4]}: height and width in characters are wanted")


def check_security(host: HostConfig) -> list[str]:
    spec_security.capability_names(host.cap_add, "CapAdd")
    spec_security.capability_names(host.cap_drop, "CapDrop")
    options = spec_security.parse_security_opts(host.security_opt or ())
    warnings = []
    if options.apparmor not in ("", "unconfined"):
        warnings.append(f"Pier does not load AppArmor profiles yet. The profile {options.apparmor!r} is not applied.")
    if any(label != "disable" for label in options.labels):
        warnings.append("Pier does not set SELinux labels yet. The label options are not applied.")
    return warnings
