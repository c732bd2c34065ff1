"""From the flags of `run` and `create` to the body of POST /containers/create. Pure, but for the files that flags name.

Only what was asked for is sent: an absent member is the daemon's default, as it is for every other client.
"""

from __future__ import annotations

import os

from pier.cli.container_devices import devices
from pier.cli.container_health import health_check
from pier.cli.errors import Failure, reason, with_program
from pier.cli.ports import expose, publish
from pier.cli.words import parse_int, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.flags import Options

EXIT_CLIENT = 125
_RENAMED = {
    "cap-add": "CapAdd",
    "cap-drop": "CapDrop",
    "cgroup-parent": "CgroupParent",
    "cgroupns": "CgroupnsMode",
    "cidfile": "ContainerIDFile",
    "blkio-weight": "BlkioWeight",
    "blkio-weight-device": "BlkioWeightDevice",
    "cpu-count": "CpuCount",
    "cpu-percent": "CpuPercent",
    "cpu-period": "CpuPeriod",
    "cpu-quota": "CpuQuota",
    "cpu-rt-period": "CpuRealtimePeriod",
    "cpu-rt-runtime": "CpuRealtimeRuntime",
    "cpu-shares": "CpuShares",
    "cpus": "NanoCpus",
    "cpuset-cpus": "CpusetCpus",
    "cpuset-mems": "CpusetMems",
    "device-cgroup-rule": "DeviceCgroupRules",
    "device-read-bps": "BlkioDeviceReadBps",
    "device-read-iops": "BlkioDeviceReadIOps",
    "device-write-bps": "BlkioDeviceWriteBps",
    "device-write-iops": "BlkioDeviceWriteIOps",
    "dns": "Dns",
    "dns-search": "DnsSearch",
    "add-host": "ExtraHosts",
    "annotation": "Annotations",
    "group-add": "GroupAdd",
    "io-maxbandwidth": "IOMaximumBandwidth",
    "io-maxiops": "IOMaximumIOps",
    "ipc": "IpcMode",
    "isolation": "Isolation",
    "kernel-memory": "KernelMemory",
    "link": "Links",
    "memory": "Memory",
    "memory-reservation": "MemoryReservation",
    "memory-swap": "MemorySwap",
    "mount": "Mounts",
    "oom-kill-disable": "OomKillDisable",
    "oom-score-adj": "OomScoreAdj",
    "pid": "PidMode",
    "pids-limit": "PidsLimit",
    "privileged": "Privileged",
    "publish-all": "PublishAllPorts",
    "read-only": "ReadonlyRootfs",
    "rm": "AutoRemove",
    "runtime": "Runtime",
    "shm-size": "ShmSize",
    "sysctl": "Sysctls",
    "userns": "UsernsMode",
    "uts": "UTSMode",
    "volume-driver": "VolumeDriver",
    "volumes-from": "VolumesFrom",
}
"""Flags whose parsed value is a member of HostConfig as it is."""

UPDATABLE = {
    flag: _RENAMED[flag]
    for flag in (
        "blkio-weight cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus cpuset-cpus cpuset-mems "
        "kernel-memory memory memory-reservation memory-swap"
    ).split()
}
"""Those of them that `update` has too."""

_CONFIG = {
    "domainname": "Domainname",
    "hostname": "Hostname",
    "stop-signal": "StopSignal",
    "user": "User",
    "workdir": "WorkingDir",
}
"""Flags whose value is a member of the container's own configuration as it is."""


_OWN_ANNOTATIONS = {"health-on-failure": "pier.health-on-failure", "timezone": "pier.timezone"}
"""Flags that Docker's API has no member for: Pier's daemon reads these annotations."""


class Conflict(Failure):
    """Flags that are wrong together or whose value only shows as wrong when all are known."""

    def __init__(self, problem: str, path: str) -> None:
        name = with_program(path)
        super().__init__(f"{name.partition(' ')[0]}: {problem}\n\nRun '{name} --help' for more information", 125)


def build(opts: Options, args: list[str], *, detach: bool, console: tuple[int, int] | None) -> dict[str, Any]:
    """The body for an image and its command (`args`). ValueError in Docker's words when something does not fit.

    `console` is (rows, columns) of the terminal the container will write to, when there is one.
    """
    streams = attached_streams(opts, detach=detach)
    interactive, tty = opts["interactive"], opts["tty"]
    config: dict[str, Any] = {
        "Image": args[0],
        "AttachStdin": "stdin" in streams,
        "AttachStdout": "stdout" in streams,
        "AttachStderr": "stderr" in streams,
        "Tty": tty,
        "OpenStdin": interactive,
        "StdinOnce": interactive and "stdin" in streams,
    }
    config.update({member: opts[flag] for flag, member in _CONFIG.items() if opts[flag]})
    if len(args) > 1:
        config["Cmd"] = args[1:]
    if opts.given("entrypoint"):
        config["Entrypoint"] = [opts["entrypoint"]]
    if opts.given("stop-timeout"):
        config["StopTimeout"] = opts["stop-timeout"]
    if environment := read_environment(opts):
        config["Env"] = environment
    if labels := read_labels(opts):
        config["Labels"] = labels
    if health := health_check(opts):
        config["Healthcheck"] = health
    bindings = publish(opts["publish"])
    exposed: dict[str, dict[str, str]] = {port: {} for port in (*expose(opts["expose"]), *bindings)}
    if exposed:
        config["ExposedPorts"] = exposed
    host = host_config(opts)
    if bindings:
        host["PortBindings"] = bindings
    if tty and console:
        host["ConsoleSize"] = list(console)
    volumes, binds = split_volumes(opts["volume"])
    if volumes:
        config["Volumes"] = {path: {} for path in volumes}
    if binds:
        host["Binds"] = binds
    networks = opts["network"] + opts["net"]
    host["NetworkMode"], endpoints = join_networks(networks, opts)
    body = {**config, "HostConfig": host}
    if endpoints:
        body["NetworkingConfig"] = {"EndpointsConfig": endpoints}
    return body


def attached_streams(opts: Options, *, detach: bool) -> list[str]:
    """Which of stdin, stdout, stderr the client attaches to."""
    if opts["attach"]:
        return list(opts["attach"])
    if detach:
        return []
    return ["stdin", "stdout", "stderr"] if opts["interactive"] else ["stdout", "stderr"]


def host_config(opts: Options) -> dict[str, Any]:
    host: dict[str, Any] = {member: opts[flag] for flag, member in _RENAMED.items() if opts[flag]}
    _check_modes(opts)
    own = {key: opts[flag] for flag, key in _OWN_ANNOTATIONS.items() if opts[flag]}
    if own:
        host["Annotations"] = {**opts["annotation"], **own}
    if opts.given("init"):
        host["Init"] = opts["init"]
    if options := opts["dns-option"] + opts["dns-opt"]:
        host["DnsOptions"] = options
    if opts.given("memory-swappiness"):
        swappiness = opts["memory-swappiness"]
        if swappiness != -1 and not 0 <= swappiness <= 100:
            raise ValueError(f"invalid value: {swappiness}. Valid memory swappiness range is 0-100")
        host["MemorySwappiness"] = swappiness
    host.update(devices(opts))
    if opts["ulimit"]:
        last_of_name = {limit["Name"]: limit for limit in opts["ulimit"]}
        host["Ulimits"] = [last_of_name[name] for name in sorted(last_of_name)]
    if opts["tmpfs"]:
        host["Tmpfs"] = dict(_cut(text, ":") for text in opts["tmpfs"])
    if opts["storage-opt"]:
        host["StorageOpt"] = dict(_storage_option(text) for text in opts["storage-opt"])
    if opts["log-driver"] or opts["log-opt"]:
        host["LogConfig"] = log_config(opts["log-driver"], opts["log-opt"])
    host.update(security(opts["security-opt"]))
    if opts["restart"]:
        host["RestartPolicy"] = restart_policy(opts["restart"])
        if opts["rm"] and host["RestartPolicy"]["Name"] not in ("", "no"):
            raise ValueError("conflicting options: cannot specify both --restart and --rm")
    return host


def _check_modes(opts: Options) -> None:
    pid: str = opts["pid"]
    if pid and pid != "host" and not (pid.startswith("container:") and pid != "container:"):
        raise ValueError("--pid: invalid PID mode")
    if opts["uts"] not in ("", "host"):
        raise ValueError("--uts: invalid UTS mode")
    if opts["userns"] not in ("", "host") and opts["userns"].partition(":")[0] != "auto":
        raise ValueError("--userns: invalid USER mode")
    if opts["cgroupns"] not in ("", "host", "private"):
        raise ValueError("--cgroupns: invalid CGROUP mode")


def _cut(text: str, separator: str) -> tuple[str, str]:
    head, _, tail = text.partition(separator)
    return head, tail


def _storage_option(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError("invalid storage option")
    return name, value


def log_config(driver: str, options: list[str]) -> dict[str, Any]:
    if driver == "none" and options:
        raise ValueError("invalid logging opts for driver none")
    return {"Type": driver, "Config": dict(_cut(text, "=") for text in options)}


def restart_policy(text: str) -> dict[str, Any]:
    """`on-failure:3` -> {Name, MaximumRetryCount}."""
    name, colon, count = text.partition(":")
    if colon and not name:
        raise ValueError("invalid restart policy format: no policy provided before colon")
    retries = 0
    if colon:
        try:
            retries = parse_int(count)
        except ValueError:
            raise ValueError("invalid restart policy format: maximum retry count must be an integer") from None
    return {"Name": name, "MaximumRetryCount": retries}


def security(options: list[str]) -> dict[str, Any]:
    """`--security-opt` values as HostConfig members; a seccomp profile's file is read and sent whole."""
    result: dict[str, Any] = {}
    kept: list[str] = []
    for text in options:
        name, separator, value = text.partition("=")
        if not separator:
            name, separator, value = text.partition(":")
        if text == "systempaths=unconfined":
            result.update(MaskedPaths=[], ReadonlyPaths=[])
            continue
        if not separator and name != "no-new-privileges":
            raise ValueError(f"Invalid --security-opt: {quote(text)}")
        if name == "seccomp" and value not in ("unconfined", "builtin"):
            kept.append(f"seccomp={_read_profile(value)}")
        else:
            kept.append(text)
    if kept:
        result["SecurityOpt"] = kept
    return result


def _read_profile(path: str) -> str:
    from pier.cli.jsontext import dumps, loads  # noqa: PLC0415 - rare

    try:
        with open(path, "rb") as file:
            return dumps(loads(file.read()))
    except OSError as error:
        raise ValueError(f"opening seccomp profile ({path}) failed: open {path}: {reason(error)}") from None
    except ValueError as error:
        raise ValueError(f"compacting json for seccomp profile ({path}) failed: {error}") from None


def read_lines(path: str) -> list[str]:
    """A file of `name=value` lines, without comments and empty lines. ValueError when it cannot be read."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise ValueError(f"open {path}: {reason(error)}") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"env file {path} contains invalid utf8 bytes") from None
    lines = (line.lstrip(" \t").rstrip("\r") for line in text.split("\n"))
    return [line for line in lines if line and not line.startswith("#")]


def _named(line: str, path: str, what: str) -> tuple[str, str, str]:
    name, equals, value = line.partition("=")
    if not name:
        raise ValueError(f"invalid {what} file ({path}): no variable name on line '{line}'")
    if any(char in " \t" for char in name):
        raise ValueError(f"invalid {what} file ({path}): variable '{name}' contains whitespaces")
    return name, equals, value


def read_environment(opts: Options) -> list[str]:
    """`--env-file` then `--env`: NAME alone takes the caller's value (from a file: only when there is one)."""
    environment: list[str] = []
    for path in opts["env-file"]:
        for line in read_lines(path):
            name, equals, _ = _named(line, path, "env")
            if equals:
                environment.append(line)
            elif name in os.environ:
                environment.append(f"{name}={os.environ[name]}")
    for text in opts["env"]:
        name, equals, _ = text.partition("=")
        inherited = not equals and name in os.environ
        environment.append(f"{name}={os.environ[name]}" if inherited else text)
    return environment


def read_labels(opts: Options) -> dict[str, str]:
    labels: dict[str, str] = {}
    for path in opts["label-file"]:
        for line in read_lines(path):
            name, _, value = _named(line, path, "label")
            labels[name] = value
    labels.update(_cut(text, "=") for text in opts["label"])
    return labels


def split_volumes(texts: list[str]) -> tuple[list[str], list[str]]:
    """(anonymous volumes, binds): a text with a colon is a bind; `./x` becomes absolute. Raises ValueError."""
    volumes: list[str] = []
    binds: list[str] = []
    for text in texts:
        _check_volume(text)
        source, colon, rest = text.partition(":")
        if not colon:
            volumes.append(text)
            continue
        if source == "." or source.startswith(("./", "../")) or source == "..":
            source = os.path.abspath(source)
        binds.append(f"{source}:{rest}")
    return volumes, binds


def _check_volume(text: str) -> None:
    """Raises ValueError. As in Docker, a letter before a colon may be a drive, and two characters are a path."""
    if not text:
        raise ValueError("invalid empty volume spec")
    sections = [""]
    for part in text.split(":"):
        if len(sections[-1]) == 1 and sections[-1].isalpha():
            sections[-1] += f":{part}"
        else:
            sections.append(part)
    if len(text) > 2 and not all(sections[1:]):
        raise ValueError(f"invalid spec: {text}: empty section between colons")
    if len(sections) > 4:
        raise ValueError(f"invalid spec: {text}: too many colons")


def join_networks(networks: list[dict[str, Any]], opts: Options) -> tuple[str, dict[str, Any]]:
    """(NetworkMode, EndpointsConfig) of `--network` with the address and alias flags put on the first of them."""
    if any(not network["Name"] for network in networks):
        raise ValueError("no name set for network")
    if not networks:
        networks = [{"Name": "default"}]
    first = dict(networks[0])
    user_defined = _is_user_defined(first["Name"])
    aliases = first.get("Aliases", []) + opts["network-alias"] + opts["net-alias"]
    if aliases and not user_defined:
        raise ValueError("network-scoped aliases are only supported for user-defined networks")
    for flag, member in (("ip", "IPv4Address"), ("ip6", "IPv6Address"), ("mac-address", "MacAddress")):
        if opts[flag]:
            if first.get(member):
                raise ValueError(f"conflicting options: cannot specify both --{flag} and per-network {_DETAIL[flag]}")
            first[member] = opts[flag]
    if aliases:
        first["Aliases"] = aliases
    if opts["link-local-ip"]:
        first["LinkLocalIPs"] = opts["link-local-ip"]
    if opts["link"] and user_defined:
        first["Links"] = opts["link"]
    endpoints = _endpoints([first, *networks[1:]])
    if len(endpoints) == 1 and not any(endpoints.values()):
        return first["Name"], {}
    return first["Name"], endpoints


def _is_user_defined(network: str) -> bool:
    return network not in ("default", "bridge", "host", "none") and not network.startswith("container:")


_DETAIL = {"ip": "IPv4 address", "ip6": "IPv6 address", "mac-address": "MAC address"}


def _check_mac(text: str) -> None:
    if text:
        from pier.cli.values import check_mac  # noqa: PLC0415 - only with a MAC

        check_mac(text)


def _endpoints(networks: list[dict[str, Any]]) -> dict[str, Any]:
    endpoints: dict[str, Any] = {}
    for network in networks:
        _check_mac(network.get("MacAddress", "").strip())
        if network["Name"] in endpoints:
            raise ValueError(f'network "{network["Name"]}" is specified multiple times')
        endpoints[network["Name"]] = _endpoint(network)
    if len(set(map(_is_user_defined, endpoints))) > 1:
        raise ValueError("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
    return endpoints


def _endpoint(network: dict[str, Any]) -> dict[str, Any]:
    addresses = {key: network[key] for key in ("IPv4Address", "IPv6Address", "LinkLocalIPs") if key in network}
    members = ("Aliases", "Links", "MacAddress", "DriverOpts", "GwPriority")
    endpoint = {key: network[key] for key in members if key in network}
    if addresses:
        endpoint["IPAMConfig"] = addresses
    return endpoint
