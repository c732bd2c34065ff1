"""The `run` command that makes a container like one that is there (wish 15). Pure: from inspect answers to words.

Only what differs from the image and from the daemon's own defaults is said.
"""

from __future__ import annotations

from pier.cli.units import go_duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Object = dict[str, Any]

_BINARY = ((1 << 30, "g"), (1 << 20, "m"), (1 << 10, "k"))
_SWITCHES = (
    ("--rm", "AutoRemove"),
    ("--privileged", "Privileged"),
    ("--publish-all", "PublishAllPorts"),
    ("--read-only", "ReadonlyRootfs"),
    ("--init", "Init"),
    ("--oom-kill-disable", "OomKillDisable"),
)
_TEXTS = (
    ("--cgroup-parent", "CgroupParent"),
    ("--pid", "PidMode"),
    ("--uts", "UTSMode"),
    ("--userns", "UsernsMode"),
    ("--cpuset-cpus", "CpusetCpus"),
    ("--cpuset-mems", "CpusetMems"),
    ("--isolation", "Isolation"),
    ("--volume-driver", "VolumeDriver"),
)
_NUMBERS = (
    ("--blkio-weight", "BlkioWeight"),
    ("--cpu-period", "CpuPeriod"),
    ("--cpu-quota", "CpuQuota"),
    ("--cpu-rt-period", "CpuRealtimePeriod"),
    ("--cpu-rt-runtime", "CpuRealtimeRuntime"),
    ("--cpu-shares", "CpuShares"),
    ("--oom-score-adj", "OomScoreAdj"),
    ("--pids-limit", "PidsLimit"),
)
_LISTS = (
    ("--cap-add", "CapAdd"),
    ("--cap-drop", "CapDrop"),
    ("--dns", "Dns"),
    ("--dns-option", "DnsOptions"),
    ("--dns-search", "DnsSearch"),
    ("--add-host", "ExtraHosts"),
    ("--group-add", "GroupAdd"),
    ("--device-cgroup-rule", "DeviceCgroupRules"),
    ("--security-opt", "SecurityOpt"),
    ("--link", "Links"),
    ("--volumes-from", "VolumesFrom"),
    ("-v", "Binds"),
)
_THROTTLES = (
    ("--device-read-bps", "BlkioDeviceReadBps"),
    ("--device-write-bps", "BlkioDeviceWriteBps"),
    ("--device-read-iops", "BlkioDeviceReadIOps"),
    ("--device-write-iops", "BlkioDeviceWriteIOps"),
)
_HEALTH_TIMES = (
    ("--health-interval", "Interval"),
    ("--health-timeout", "Timeout"),
    ("--health-start-period", "StartPeriod"),
    ("--health-start-interval", "StartInterval"),
)
_DEFAULT_SHM = 64 << 20
_OWN_ANNOTATIONS = {"pier.health-on-failure": "--health-on-failure", "pier.timezone": "--timezone"}


def words(container: Object, image: Object | None, daemon: Object) -> list[str]:
    """The command line, from the container's and the image's inspect answers and the daemon's info.

    `image` is None where it is gone: then what came from it is said too.
    """
    config, host = container["Config"], container["HostConfig"]
    base: Object = (image or {}).get("Config") or {}
    found = ["run"]
    if not (config.get("AttachStdout") or config.get("AttachStderr")):
        found.append("-d")
    found += ["--name", container["Name"].removeprefix("/")]
    for part in (_identity(container, config, base), _host(host, daemon), _network(container, host, config, base)):
        found += part
    found += _mounts(host)
    found += _data(config, base)
    program = _program(config, base)
    return [*found, *program[0], config["Image"], *program[1]]


def unsaid(container: Object) -> list[str]:
    """What the command line cannot say: one sentence each."""
    host, found = container["HostConfig"], []
    entrypoint = container["Config"].get("Entrypoint") or []
    if len(entrypoint) > 1:
        found.append("an ENTRYPOINT of several words is given as one word and arguments")
    if host.get("DeviceRequests"):
        found.append("device requests (--gpus) are not repeated")
    return found


def _identity(container: Object, config: Object, base: Object) -> Iterator[str]:
    """Terminal, host name, user, environment, labels, health: the container's own configuration."""
    if config.get("OpenStdin"):
        yield "-i"
    if config.get("Tty"):
        yield "-t"
    hostname = config.get("Hostname", "")
    if hostname and not container["Id"].startswith(hostname) and container["HostConfig"]["NetworkMode"] != "host":
        yield from ("--hostname", hostname)
    if config.get("Domainname"):
        yield from ("--domainname", config["Domainname"])
    for flag, key in (("--user", "User"), ("--workdir", "WorkingDir"), ("--stop-signal", "StopSignal")):
        if config.get(key) and config[key] != base.get(key):
            yield from (flag, config[key])
    if config.get("StopTimeout") is not None:
        yield from ("--stop-timeout", str(config["StopTimeout"]))
    known = set(base.get("Env") or ())
    for item in config.get("Env") or ():
        if item not in known:
            yield from ("-e", item)
    labels = base.get("Labels") or {}
    for key, value in (config.get("Labels") or {}).items():
        if labels.get(key) != value:
            yield from ("--label", f"{key}={value}")
    yield from _health(config.get("Healthcheck") or {}, base.get("Healthcheck") or {})


def _health(check: Object, base: Object) -> Iterator[str]:
    test = check.get("Test") or []
    if test != (base.get("Test") or []):
        if test == ["NONE"]:
            yield "--no-healthcheck"
        elif test:
            from shlex import join  # noqa: PLC0415 - only for some containers

            yield from ("--health-cmd", test[1] if test[0] == "CMD-SHELL" else join(test[1:]))
    for flag, key in _HEALTH_TIMES:
        if check.get(key) and check[key] != base.get(key):
            yield from (flag, go_duration(check[key]))
    if check.get("Retries") and check["Retries"] != base.get("Retries"):
        yield from ("--health-retries", str(check["Retries"]))


def _host(host: Object, daemon: Object) -> Iterator[str]:
    """What the container has of the host, but for its network and its mounts."""
    yield from (flag for flag, key in _SWITCHES if host.get(key))
    yield from _pairs(host, _TEXTS, str)
    yield from _pairs(host, _NUMBERS, str)
    if host.get("NanoCpus"):
        yield from ("--cpus", f"{host['NanoCpus'] / 1e9:.9f}".rstrip("0").rstrip("."))
    yield from _memory(host)
    yield from _collections(host)
    yield from _modes(host, daemon)
    yield from _policy(host, daemon)


def _collections(host: Object) -> Iterator[str]:
    """Flags that are given once for each member."""
    for flag, key in _LISTS:
        for value in host.get(key) or ():
            yield from (flag, value)
    for key, value in (host.get("Sysctls") or {}).items():
        yield from ("--sysctl", f"{key}={value}")
    for key, value in (host.get("StorageOpt") or {}).items():
        yield from ("--storage-opt", f"{key}={value}")
    for key, value in (host.get("Annotations") or {}).items():
        yield from (_OWN_ANNOTATIONS[key], value) if key in _OWN_ANNOTATIONS else ("--annotation", f"{key}={value}")
    for limit in host.get("Ulimits") or ():
        yield from ("--ulimit", f"{limit['Name']}={limit['Soft']}:{limit['Hard']}")
    for device in host.get("Devices") or ():
        yield from ("--device", _device(device))
    for flag, key in _THROTTLES:
        for throttle in host.get(key) or ():
            yield from (flag, f"{throttle['Path']}:{throttle['Rate']}")
    for weight in host.get("BlkioWeightDevice") or ():
        yield from ("--blkio-weight-device", f"{weight['Path']}:{weight['Weight']}")


def _modes(host: Object, daemon: Object) -> Iterator[str]:
    """What has a default that is not nothing."""
    if host.get("MaskedPaths") == [] and host.get("ReadonlyPaths") == [] and not host.get("Privileged"):
        yield from ("--security-opt", "systempaths=unconfined")
    if host.get("IpcMode", "private") not in ("", "private"):
        yield from ("--ipc", host["IpcMode"])
    if host.get("CgroupnsMode") not in (None, "", "host" if host.get("Privileged") else "private"):
        yield from ("--cgroupns", host["CgroupnsMode"])
    if host.get("Runtime") not in (None, "", daemon.get("DefaultRuntime")):
        yield from ("--runtime", host["Runtime"])


def _policy(host: Object, daemon: Object) -> Iterator[str]:
    """Restart policy and log."""
    policy = host.get("RestartPolicy") or {}
    if policy.get("Name", "no") not in ("", "no"):
        retries = policy.get("MaximumRetryCount")
        yield from ("--restart", f"{policy['Name']}:{retries}" if retries else policy["Name"])
    log = host.get("LogConfig") or {}
    if log.get("Type") not in (None, "", daemon.get("LoggingDriver")):
        yield from ("--log-driver", log["Type"])
    for key, value in (log.get("Config") or {}).items():
        yield from ("--log-opt", f"{key}={value}")


def _memory(host: Object) -> Iterator[str]:
    memory, swap = host.get("Memory", 0), host.get("MemorySwap", 0)
    if memory:
        yield from ("--memory", _bytes(memory))
    if host.get("MemoryReservation"):
        yield from ("--memory-reservation", _bytes(host["MemoryReservation"]))
    if swap and swap != 2 * memory:
        yield from ("--memory-swap", "-1" if swap < 0 else _bytes(swap))
    if host.get("MemorySwappiness") not in (None, -1):
        yield from ("--memory-swappiness", str(host["MemorySwappiness"]))
    if host.get("ShmSize", _DEFAULT_SHM) not in (0, _DEFAULT_SHM):
        yield from ("--shm-size", _bytes(host["ShmSize"]))


def _network(container: Object, host: Object, config: Object, base: Object) -> Iterator[str]:
    mode = host.get("NetworkMode", "")
    main = "bridge" if mode in ("", "default") else mode
    networks = (container.get("NetworkSettings") or {}).get("Networks") or {}
    # Two things can be said of a network in the long form alone.
    if len(networks) > 1 or any(one.get("DriverOpts") or one.get("GwPriority") for one in networks.values()):
        for name in sorted(networks, key=lambda name: (name != main, name)):
            yield from ("--network", _long_network(name, networks[name]))
    else:
        if main != "bridge":
            yield from ("--network", main)
        for endpoint in networks.values():
            yield from _endpoint_flags(endpoint)
    bindings = host.get("PortBindings") or {}
    for port, places in bindings.items():
        for place in places or [{}]:
            yield from ("-p", _published(port, place))
    image_ports = base.get("ExposedPorts") or {}
    for port in config.get("ExposedPorts") or {}:
        if port not in bindings and port not in image_ports:
            yield from ("--expose", port.removesuffix("/tcp"))


def _endpoint_flags(endpoint: Object) -> Iterator[str]:
    """What was asked of the one network, as flags beside `--network`."""
    for key, value in _asked(endpoint):
        if key == "alias":
            yield from ("--network-alias", value)
        elif key in ("ip", "ip6", "link-local-ip"):
            yield from (f"--{key}", value)


def _long_network(name: str, endpoint: Object) -> str:
    """`name=web,alias=a,ip=10.0.0.9`: a network among several, with what was asked of it."""
    fields = [f"name={name}", *(f"{key}={value}" for key, value in _asked(endpoint))]
    if len(fields) == 1:
        return name
    return ",".join('"' + field.replace('"', '""') + '"' if set(field) & set(',"') else field for field in fields)


def _asked(endpoint: Object) -> Iterator[tuple[str, str]]:
    """Keys of `--network`'s long form with their values; a MAC is left out: nobody can tell who chose it."""
    for alias in endpoint.get("Aliases") or ():
        yield "alias", alias
    addresses = endpoint.get("IPAMConfig") or {}
    for key, member in (("ip", "IPv4Address"), ("ip6", "IPv6Address")):
        if addresses.get(member):
            yield key, addresses[member]
    for address in addresses.get("LinkLocalIPs") or ():
        yield "link-local-ip", address
    for option, value in (endpoint.get("DriverOpts") or {}).items():
        yield "driver-opt", f"{option}={value}"
    if endpoint.get("GwPriority"):
        yield "gw-priority", str(endpoint["GwPriority"])


def _published(port: str, place: Object) -> str:
    address, number = place.get("HostIp", ""), place.get("HostPort", "")
    inside = port.removesuffix("/tcp")
    shown = f"[{address}]" if ":" in address else address
    return f"{shown}:{number}:{inside}" if address else f"{number}:{inside}" if number else inside


def _mounts(host: Object) -> Iterator[str]:
    for path, options in (host.get("Tmpfs") or {}).items():
        yield from ("--tmpfs", f"{path}:{options}" if options else path)
    for mount in host.get("Mounts") or ():
        yield from ("--mount", _mount(mount))


def _data(config: Object, base: Object) -> Iterator[str]:
    """Volumes without a name that the image does not declare."""
    of_image = base.get("Volumes") or {}
    for path in config.get("Volumes") or {}:
        if path not in of_image:
            yield from ("-v", path)


def _mount(mount: Object) -> str:
    parts = [f"type={mount['Type']}"]
    if mount.get("Source"):
        parts.append(f"source={mount['Source']}")
    parts.append(f"target={mount['Target']}")
    if mount.get("ReadOnly"):
        parts.append("readonly")
    bind, volume, tmpfs = (mount.get(key) or {} for key in ("BindOptions", "VolumeOptions", "TmpfsOptions"))
    if bind.get("Propagation"):
        parts.append(f"bind-propagation={bind['Propagation']}")
    if volume.get("NoCopy"):
        parts.append("volume-nocopy")
    if volume.get("Subpath"):
        parts.append(f"volume-subpath={volume['Subpath']}")
    parts += (f"volume-label={key}={value}" for key, value in (volume.get("Labels") or {}).items())
    driver = volume.get("DriverConfig") or {}
    if driver.get("Name"):
        parts.append(f"volume-driver={driver['Name']}")
    parts += (_quoted(f"volume-opt={key}={value}") for key, value in (driver.get("Options") or {}).items())
    if tmpfs.get("SizeBytes"):
        parts.append(f"tmpfs-size={tmpfs['SizeBytes']}")
    if tmpfs.get("Mode"):
        parts.append(f"tmpfs-mode={tmpfs['Mode']:o}")
    return ",".join(parts)


def _quoted(field: str) -> str:
    """As a field of CSV (RFC 4180): a comma in it does not end it."""
    return '"' + field.replace('"', '""') + '"' if "," in field or '"' in field else field


def _program(config: Object, base: Object) -> tuple[list[str], list[str]]:
    """(the flag for another ENTRYPOINT, the words after the image)."""
    entrypoint, command = config.get("Entrypoint") or [], config.get("Cmd") or []
    if entrypoint == (base.get("Entrypoint") or []):
        return [], [] if command == (base.get("Cmd") or []) else command
    if not entrypoint:
        return ["--entrypoint", ""], command
    return ["--entrypoint", entrypoint[0]], [*entrypoint[1:], *command]


def _pairs(host: Object, table: tuple[tuple[str, str], ...], shown: Callable[[Any], str]) -> Iterator[str]:
    for flag, key in table:
        if host.get(key):
            yield from (flag, shown(host[key]))


def _device(device: Object) -> str:
    inside, permissions = device.get("PathInContainer", ""), device.get("CgroupPermissions", "rwm")
    text = device["PathOnHost"]
    if inside and inside != text:
        text += f":{inside}"
    return text if permissions == "rwm" else f"{text}:{permissions}"


def _bytes(count: int) -> str:
    for unit, name in _BINARY:
        if count % unit == 0:
            return f"{count // unit}{name}"
    return str(count)
