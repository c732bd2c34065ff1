"""A bundle: its config.json read and judged before anything is done (runtime-spec 1.2, bundle.md and config.md).

`SPEC` is the configuration's schema; `judge` holds what a schema cannot say. Both refuse with one line that begins with
the field's path.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from pier.kernel import mounts
from pier.kernel.namespaces import OCI_TYPES
from pier.kernel.process import RLIMIT_NAMES
from pier.kernel.schedule import IO_CLASSES, POLICIES, SCHED_FLAGS, parse_cpus
from pier.runtime.command.schema import (
    INT64,
    UINT16,
    UINT32,
    UINT64,
    Array,
    BadField,
    Fields,
    Integer,
    Keyed,
    OneOf,
    Structure,
    absolute,
    boolean,
    name,
    text,
    without_nulls,
)
from pier.runtime.command.state import VERSION
from pier.runtime.process.sysctl import check_sysctl

CONFIG_NAME = "config.json"
SIZE_MAX = 16 * 1024 * 1024
DEPTH_MAX = 64

HOOK_KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
DEVICE_TYPES = ("a", "b", "c", "u", "p")
PERSONALITIES = ("LINUX", "LINUX32")
IDS = range(2**31)
"""Of users and groups, as runc has it: 2^32-1 is how the kernel says "leave it", and would be root."""
UNMOVABLE = frozenset({"user", "pid"})


class BundleError(ValueError):
    """A bundle that cannot be used, in one sentence."""


class Bundle(NamedTuple):
    path: str
    """Absolute."""
    spec: dict[str, Any]
    """The configuration, judged, without nulls."""
    rootfs: str
    """Absolute, symbolic links resolved."""


_STRINGS = Array(text)
_CAPABILITIES = dict.fromkeys(("bounding", "effective", "permitted", "inheritable", "ambient"), _STRINGS)
_USER: Fields = {
    "uid": Integer(IDS),
    "gid": Integer(IDS),
    "umask": Integer(range(0o1000)),
    "additionalGids": Array(Integer(IDS)),
    "username": text,
}
_RLIMIT = Structure(
    {"type": OneOf(RLIMIT_NAMES, "resource limit"), "soft": Integer(UINT64), "hard": Integer(UINT64)},
    required=("type", "soft", "hard"),
)
_SCHEDULER = Structure(
    {
        "policy": OneOf(POLICIES, "scheduling policy"),
        "nice": Integer(range(-20, 20)),
        "priority": Integer(range(100)),
        "flags": Array(OneOf(SCHED_FLAGS, "scheduler flag")),
        "runtime": Integer(UINT64),
        "deadline": Integer(UINT64),
        "period": Integer(UINT64),
    },
    required=("policy",),
)
PROCESS = Structure(
    {
        "terminal": boolean,
        "consoleSize": Structure({"height": Integer(UINT16), "width": Integer(UINT16)}),
        "cwd": absolute,
        "env": _STRINGS,
        "args": Array(text),
        "rlimits": Array(_RLIMIT),
        "apparmorProfile": text,
        "selinuxLabel": text,
        "capabilities": Structure(_CAPABILITIES),
        "noNewPrivileges": boolean,
        "oomScoreAdj": Integer(range(-1000, 1001)),
        "scheduler": _SCHEDULER,
        "ioPriority": Structure(
            {"class": OneOf(IO_CLASSES, "I/O priority class"), "priority": Integer(range(8))}, required=("class",)
        ),
        "execCPUAffinity": Structure({"initial": text, "final": text}),
        "user": Structure(_USER),
    },
    required=("cwd",),
)
"""config.md, "Process"; `exec --process` reads the same."""

_ID_MAPPINGS = Array(
    Structure(
        {"containerID": Integer(UINT32), "hostID": Integer(UINT32), "size": Integer(UINT32)},
        required=("containerID", "hostID", "size"),
    ),
    most=340,
)
"""340 lines is what the kernel takes in a uid_map (user_namespaces(7))."""
_MOUNT = Structure(
    {
        "destination": absolute,
        "type": text,
        "source": text,
        "options": _STRINGS,
        "uidMappings": _ID_MAPPINGS,
        "gidMappings": _ID_MAPPINGS,
    },
    required=("destination",),
)
_HOOK = Structure(
    {"path": absolute, "args": _STRINGS, "env": _STRINGS, "timeout": Integer(range(1, 2**31))}, required=("path",)
)
_NAMESPACE = Structure({"type": OneOf(OCI_TYPES, "namespace"), "path": absolute}, required=("type",))
_DEVICE = Structure(
    {
        "type": OneOf(DEVICE_TYPES, "type of a device"),
        "path": absolute,
        "major": Integer(INT64),
        "minor": Integer(INT64),
        "fileMode": Integer(UINT32),
        "uid": Integer(UINT32),
        "gid": Integer(UINT32),
    },
    required=("type", "path"),
)
_NUMBER_OF_DEVICE = {"major": Integer(INT64), "minor": Integer(INT64)}
_THROTTLE = Array(Structure({**_NUMBER_OF_DEVICE, "rate": Integer(UINT64)}, required=("major", "minor", "rate")))
RESOURCES = Structure(
    {
        "devices": Array(
            Structure(
                {
                    **_NUMBER_OF_DEVICE,
                    "allow": boolean,
                    "type": OneOf(DEVICE_TYPES, "type of a device"),
                    "access": text,
                },
                required=("allow",),
            )
        ),
        "memory": Structure(
            {
                **dict.fromkeys(("limit", "reservation", "swap", "kernel", "kernelTCP"), Integer(INT64)),
                "swappiness": Integer(range(101)),
                "disableOOMKiller": boolean,
                "useHierarchy": boolean,
                "checkBeforeUpdate": boolean,
            }
        ),
        "cpu": Structure(
            {
                **dict.fromkeys(("shares", "burst", "period", "realtimePeriod"), Integer(UINT64)),
                **dict.fromkeys(("quota", "realtimeRuntime", "idle"), Integer(INT64)),
                "cpus": text,
                "mems": text,
            }
        ),
        "pids": Structure({"limit": Integer(INT64)}),
        "blockIO": Structure(
            {
                "weight": Integer(UINT16),
                "leafWeight": Integer(UINT16),
                "weightDevice": Array(
                    Structure(
                        {**_NUMBER_OF_DEVICE, "weight": Integer(UINT16), "leafWeight": Integer(UINT16)},
                        required=("major", "minor"),
                    )
                ),
                "throttleReadBpsDevice": _THROTTLE,
                "throttleWriteBpsDevice": _THROTTLE,
                "throttleReadIOPSDevice": _THROTTLE,
                "throttleWriteIOPSDevice": _THROTTLE,
            }
        ),
        "hugepageLimits": Array(
            Structure({"pageSize": name, "limit": Integer(UINT64)}, required=("pageSize", "limit"))
        ),
        "network": Structure(
            {
                "classID": Integer(UINT32),
                "priorities": Array(
                    Structure({"name": name, "priority": Integer(UINT32)}, required=("name", "priority"))
                ),
            }
        ),
        "rdma": Keyed(Structure({"hcaHandles": Integer(UINT32), "hcaObjects": Integer(UINT32)})),
        "unified": Keyed(text),
    }
)
"""config-linux.md, "Control groups"; `update --resources` reads the same."""
_SECCOMP = Structure(
    {
        "defaultAction": name,
        "defaultErrnoRet": Integer(UINT32),
        "architectures": _STRINGS,
        "flags": _STRINGS,
        "listenerPath": absolute,
        "listenerMetadata": text,
        "syscalls": Array(
            Structure(
                {
                    "names": Array(name),
                    "action": name,
                    "errnoRet": Integer(UINT32),
                    "args": Array(
                        Structure(
                            {
                                "index": Integer(range(6)),
                                "value": Integer(UINT64),
                                "valueTwo": Integer(UINT64),
                                "op": name,
                            },
                            required=("index", "op"),
                        )
                    ),
                },
                required=("names", "action"),
            )
        ),
    },
    required=("defaultAction",),
)
_OFFSET = Structure({"secs": Integer(INT64), "nanosecs": Integer(range(1_000_000_000))})
_LINUX = Structure(
    {
        "namespaces": Array(_NAMESPACE),
        "uidMappings": _ID_MAPPINGS,
        "gidMappings": _ID_MAPPINGS,
        "timeOffsets": Structure({"monotonic": _OFFSET, "boottime": _OFFSET}),
        "devices": Array(_DEVICE),
        "cgroupsPath": text,
        "rootfsPropagation": OneOf(mounts.PROPAGATION, "kind of mount propagation"),
        "mountLabel": text,
        "maskedPaths": Array(absolute),
        "readonlyPaths": Array(absolute),
        "resources": RESOURCES,
        "sysctl": Keyed(text),
        "seccomp": _SECCOMP,
        "personality": Structure(
            {"domain": OneOf(PERSONALITIES, "personality"), "flags": _STRINGS}, required=("domain",)
        ),
    }
)
SPEC = Structure(
    {
        "ociVersion": name,
        "process": PROCESS,
        "root": Structure({"path": name, "readonly": boolean}, required=("path",)),
        "hostname": text,
        "domainname": text,
        "mounts": Array(_MOUNT),
        "hooks": Structure(dict.fromkeys(HOOK_KINDS, Array(_HOOK))),
        "annotations": Keyed(text),
        "linux": _LINUX,
    },
    required=("ociVersion", "process", "root"),
)
"""config.md and config-linux.md; other platforms' parts are passed over."""


def load(path: str) -> Bundle:
    """The bundle at `path`. Raises BundleError, BadField, OSError."""
    try:
        folder = os.path.realpath(path, strict=True)
    except OSError as error:
        raise BundleError(f"chdir {path}: {(error.strerror or str(error)).lower()}") from None
    try:
        spec = read_json(os.path.join(folder, CONFIG_NAME))
    except FileNotFoundError:
        raise BundleError(f"JSON specification file {CONFIG_NAME} not found") from None
    SPEC(spec, "")
    spec = without_nulls(spec)
    judge(spec)
    return Bundle(folder, spec, find_rootfs(folder, spec["root"]["path"]))


def read_json(path: str) -> Any:
    """A JSON document of bounded size and depth. Raises BundleError, OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        data = file.read(SIZE_MAX + 1)
    return parse_json(data, os.path.basename(path))


def parse_json(data: bytes, what: str) -> Any:
    """`data` as JSON; `what` names it in errors. Raises BundleError."""
    if len(data) > SIZE_MAX:
        raise BundleError(f"{what} is larger than {SIZE_MAX} bytes")
    try:
        value = json.loads(data.decode().strip())
    except RecursionError:
        raise BundleError(f"{what} is nested deeper than {DEPTH_MAX} levels") from None
    except ValueError as error:
        raise BundleError(f"{what} is not JSON: {error}") from None
    if _deeper_than(value, DEPTH_MAX):
        raise BundleError(f"{what} is nested deeper than {DEPTH_MAX} levels")
    return value


def _deeper_than(value: Any, levels: int) -> bool:
    layer = [value]
    for _ in range(levels):
        below = [entry for item in layer if isinstance(item, (dict, list)) for entry in _entries(item)]
        if not below:
            return False
        layer = below
    return True


def _entries(item: dict[str, Any] | list[Any]) -> list[Any]:
    return list(item.values()) if isinstance(item, dict) else item


def find_rootfs(folder: str, path: str) -> str:
    """`root.path`, which is relative to the bundle. Raises BundleError."""
    place = os.path.join(folder, path)
    try:
        rootfs = os.path.realpath(place, strict=True)
    except OSError as error:
        raise BundleError(f"root.path: stat {place}: {(error.strerror or str(error)).lower()}") from None
    if not os.path.isdir(rootfs):
        raise BundleError(f"root.path: {place} is not a directory")
    if rootfs == "/":
        raise BundleError("root.path: the host's own root is no container's root")
    return rootfs


def judge(spec: dict[str, Any]) -> None:
    """What a configuration's fields must be to each other. `spec` fits SPEC and has no nulls. Raises BadField."""
    for rule in _RULES:
        rule(spec)


def namespace_types(spec: dict[str, Any]) -> set[str]:
    """The OCI names of the namespaces that are new or joined by path."""
    return {item["type"] for item in spec.get("linux", {}).get("namespaces", [])}


def _version(spec: dict[str, Any]) -> None:
    major, dot, _ = spec["ociVersion"].partition(".")
    if major != "1" or not dot:
        raise BadField("ociVersion", f"{spec['ociVersion']!r} is not supported, {VERSION} is")


def _args(spec: dict[str, Any]) -> None:
    args = spec["process"].get("args") or []
    if not args:
        raise BadField("process.args", "must not be empty")


def _namespaces(spec: dict[str, Any]) -> None:
    seen: set[str] = set()
    for index, item in enumerate(spec.get("linux", {}).get("namespaces", [])):
        if item["type"] in seen:
            raise BadField(f"linux.namespaces[{index}].type", f"the {item['type']} namespace is named twice")
        seen.add(item["type"])
    if "mount" not in seen:
        raise BadField("linux.namespaces", "a mount namespace is needed: Pier mounts nothing in the host's")


def _names(spec: dict[str, Any]) -> None:
    own = namespace_types(spec)
    for key in ("hostname", "domainname"):
        if spec.get(key) and "uts" not in own:
            raise BadField(key, f"cannot be set without a uts namespace in linux.namespaces: {spec[key]!r}")
        if len(spec.get(key, "").encode()) > 64:
            raise BadField(key, "is longer than 64 bytes")


def _users(spec: dict[str, Any]) -> None:
    linux = spec.get("linux", {})
    item = next((item for item in linux.get("namespaces", []) if item["type"] == "user"), None)
    for key in ("uidMappings", "gidMappings"):
        mapped = bool(linux.get(key))
        if item is None and mapped:
            raise BadField(f"linux.{key}", "needs a user namespace in linux.namespaces")
        if item is not None and not item.get("path") and not mapped:
            raise BadField(f"linux.{key}", "must not be empty with a new user namespace")
        overlap = overlapping(linux.get(key, []))
        if overlap is not None:
            raise BadField(f"linux.{key}[{overlap}]", "overlaps with an earlier mapping")


def overlapping(maps: list[dict[str, int]]) -> int | None:
    """The index of the first mapping that shares a container's id with an earlier one."""
    for index, item in enumerate(maps):
        first, end = item["containerID"], item["containerID"] + item["size"]
        for earlier in maps[:index]:
            if first < earlier["containerID"] + earlier["size"] and earlier["containerID"] < end:
                return index
    return None


def _offsets(spec: dict[str, Any]) -> None:
    if spec.get("linux", {}).get("timeOffsets") and "time" not in namespace_types(spec):
        raise BadField("linux.timeOffsets", "needs a time namespace in linux.namespaces")


def _mounts(spec: dict[str, Any]) -> None:
    for index, mount in enumerate(spec.get("mounts", [])):
        path = f"mounts[{index}]"
        words = mount.get("options", [])
        binds = "bind" in words or "rbind" in words
        if mount["destination"] == "/":
            raise BadField(f"{path}.destination", "the root itself is no place for a mount")
        if binds and not mount.get("source"):
            raise BadField(f"{path}.source", "must not be empty for a bind mount")
        if not binds and not mount.get("type"):
            raise BadField(f"{path}.type", "must not be empty")
        mapped = [key for key in ("uidMappings", "gidMappings") if mount.get(key)]
        if mapped and not binds:
            raise BadField(f"{path}.{mapped[0]}", "only a bind mount can have mappings of its own")
        if len(mapped) == 1:
            raise BadField(f"{path}.{mapped[0]}", "uidMappings and gidMappings come together")


def _devices(spec: dict[str, Any]) -> None:
    for index, device in enumerate(spec.get("linux", {}).get("devices", [])):
        if device["type"] != "p" and ("major" not in device or "minor" not in device):
            raise BadField(f"linux.devices[{index}].major", "major and minor must be given")


def _limits(spec: dict[str, Any]) -> None:
    seen: set[str] = set()
    for index, limit in enumerate(spec["process"].get("rlimits", [])):
        if limit["type"] in seen:
            raise BadField(f"process.rlimits[{index}].type", f"{limit['type']} is named twice")
        if limit["soft"] > limit["hard"]:
            raise BadField(f"process.rlimits[{index}].soft", f"is above the hard limit of {limit['hard']}")
        seen.add(limit["type"])


def _capabilities(spec: dict[str, Any]) -> None:
    sets = spec["process"].get("capabilities", {})
    beyond = set(sets.get("effective", [])) - set(sets.get("permitted", []))
    if beyond:
        raise BadField("process.capabilities.effective", f"{min(beyond)} is not among the permitted ones")


def _affinity(spec: dict[str, Any]) -> None:
    for key, cpus in spec["process"].get("execCPUAffinity", {}).items():
        if key in ("initial", "final") and cpus:
            try:
                parse_cpus(cpus)
            except ValueError:
                raise BadField(f"process.execCPUAffinity.{key}", "is no list of CPUs such as 0-3,7") from None


def _rdt(spec: dict[str, Any]) -> None:
    if "intelRdt" in spec.get("linux", {}):
        raise BadField("linux.intelRdt", "Intel RDT is not implemented by Pier")


def _sysctls(spec: dict[str, Any]) -> None:
    for key in spec.get("linux", {}).get("sysctl", {}):
        try:
            check_sysctl(key, namespace_types(spec))
        except ValueError as error:
            raise BadField(f"linux.sysctl.{key}", str(error)) from None


def _personality(spec: dict[str, Any]) -> None:
    if spec.get("linux", {}).get("personality", {}).get("flags"):
        raise BadField("linux.personality.flags", "no flags are defined for a personality")


_RULES: tuple[Callable[[dict[str, Any]], None], ...] = (
    _version,
    _args,
    _namespaces,
    _names,
    _users,
    _offsets,
    _mounts,
    _devices,
    _limits,
    _sysctls,
    _personality,
    _capabilities,
    _affinity,
    _rdt,
)
