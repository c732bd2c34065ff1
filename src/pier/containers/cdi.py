"""Devices described by their vendors (Container Device Interface specification 0.8): found, and put into an OCI spec.

`--device vendor/class=name` asks for one. Specifications lie in a few folders; one in a later folder replaces a device
of the same name in an earlier one, as CDI has it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import field

from pier.containers.spec_resources import allow_rule, device_at
from pier.errors import NotImplementedYet, PierError
from pier.model.host_config import HostConfig

DRIVER = "cdi"
"""Of `DeviceRequest`."""
SPEC_DIRS = ("/etc/cdi", "/var/run/cdi")
SPEC_BYTES_MAX = 1 << 20
YAML = (".yaml", ".yml")


class Unresolvable(PierError):
    """CDI device injection failed: unresolvable CDI devices {names}"""

    remedy = "looked for in {folders}{faults}"


class CannotInject(PierError):
    """CDI device injection failed: {reason}"""


class DeviceNode(msgspec.Struct, rename="camel", frozen=True):
    """A node; what is not said of it is taken from the host's. Its mode is a number."""

    path: str
    host_path: str = ""
    type: str = ""
    major: int | None = None
    minor: int | None = None
    file_mode: int | None = None
    permissions: str = ""
    uid: int | None = None
    gid: int | None = None


class CdiMount(msgspec.Struct, rename="camel", frozen=True):
    host_path: str
    container_path: str
    options: list[str] = field(default_factory=list)
    type: str = ""


class Hook(msgspec.Struct, rename="camel", frozen=True, omit_defaults=True):
    hook_name: str
    path: str
    args: list[str] = field(default_factory=list)
    env: list[str] = field(default_factory=list)
    timeout: int | None = None


class Edits(msgspec.Struct, rename="camel", frozen=True):
    """`containerEdits`."""

    env: list[str] = field(default_factory=list)
    device_nodes: list[DeviceNode] = field(default_factory=list)
    mounts: list[CdiMount] = field(default_factory=list)
    hooks: list[Hook] = field(default_factory=list)
    additional_gids: list[int] = field(default_factory=list)
    intel_rdt: dict[str, Any] | None = None
    net_devices: list[dict[str, Any]] = field(default_factory=list)


class Device(msgspec.Struct, rename="camel", frozen=True):
    name: str
    container_edits: Edits = field(default_factory=Edits)


class Specification(msgspec.Struct, rename="camel", frozen=True):
    """One file: the devices of a kind (`vendor/class`), and edits that come with any of them."""

    cdi_version: str
    kind: str
    devices: list[Device] = field(default_factory=list)
    container_edits: Edits = field(default_factory=Edits)


class Found(msgspec.Struct, frozen=True):
    """All devices of the folders by their qualified names, and the files that could not be read."""

    devices: Mapping[str, tuple[Specification, Device]]
    faults: Sequence[str]


_decoder = msgspec.json.Decoder(Specification)


def look(folders: Iterable[str]) -> Found:
    """Read every specification. Blocking."""
    devices: dict[str, tuple[Specification, Device]] = {}
    faults = []
    for path in _files(folders):
        if path.endswith(YAML):
            faults.append(f"{path} is YAML, which Pier does not read yet: have it written as JSON")
            continue
        try:
            with open(path, "rb") as file:
                found = _decoder.decode(file.read(SPEC_BYTES_MAX + 1)[:SPEC_BYTES_MAX])
        except (OSError, msgspec.MsgspecError) as error:
            faults.append(f"{path}: {error}")
            continue
        devices |= {f"{found.kind}={device.name}": (found, device) for device in found.devices}
    return Found(devices, faults)


def _files(folders: Iterable[str]) -> Iterator[str]:
    for folder in folders:
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        yield from (f"{folder}/{name}" for name in names if name.endswith((".json", *YAML)))


def wanted(host: HostConfig) -> list[str]:
    """The qualified names that a container asks for."""
    requests = host.device_requests or ()
    return [name for request in requests if request.driver == DRIVER for name in request.device_ids or ()]


def edits_for(names: Sequence[str], folders: Sequence[str]) -> list[Edits]:
    """What to change for these devices, those of a specification before those of its devices. Blocking.

    Raises Unresolvable.
    """
    if not names:
        return []
    found = look(folders)
    missing = [name for name in names if name not in found.devices]
    if missing:
        faults = "".join(f"; {fault}" for fault in found.faults)
        raise Unresolvable(names=", ".join(missing)[:500], folders=", ".join(folders), faults=faults[:1000])
    edits: list[Edits] = []
    seen: list[Specification] = []
    for name in dict.fromkeys(names):
        specification, device = found.devices[name]
        if specification not in seen:
            seen.append(specification)
            edits.append(specification.container_edits)
        edits.append(device.container_edits)
    return edits


def inject(spec: Mapping[str, Any], edits: Iterable[Edits], *, foreign: bool) -> dict[str, Any]:
    """An OCI configuration with the edits made; hooks are for `foreign` runtimes only. Looks at devices of the host.

    Raises CannotInject, NotImplementedYet.
    """
    process, linux = dict(spec["process"]), dict(spec["linux"])
    mounts, nodes = list(spec["mounts"]), list(linux.get("devices", ()))
    rules, hooks = list(linux["resources"].get("devices", ())), dict(spec.get("hooks", {}))
    for item in edits:
        _refuse(item, foreign=foreign)
        names = {entry.partition("=")[0] for entry in item.env}
        process["env"] = [entry for entry in process["env"] if entry.partition("=")[0] not in names] + item.env
        for node in item.device_nodes:
            made = _node(node)
            nodes = [other for other in nodes if other["path"] != made["path"]] + [made]
            rules.append(allow_rule(made["type"], made["major"], made["minor"], node.permissions or "rwm"))
        mounts += [_mount(mount) for mount in item.mounts]
        for hook in item.hooks:
            entry = {key: value for key, value in msgspec.to_builtins(hook).items() if key != "hookName"}
            hooks[hook.hook_name] = [*hooks.get(hook.hook_name, ()), entry]
    linux |= {"devices": nodes, "resources": {**linux["resources"], "devices": rules}}
    return {**spec, "process": process, "linux": linux, "mounts": mounts, **({"hooks": hooks} if hooks else {})}


def groups(edits: Iterable[Edits]) -> list[str]:
    """Further groups of the process, by number."""
    return [str(gid) for item in edits for gid in item.additional_gids if gid]


def _refuse(edits: Edits, *, foreign: bool) -> None:
    if edits.hooks and not foreign:
        kinds = ", ".join(sorted({hook.hook_name for hook in edits.hooks}))
        raise NotImplementedYet(what=f"a CDI device with hooks ({kinds}): `--runtime runc` runs them; it")
    if edits.intel_rdt:
        raise NotImplementedYet(what="a CDI device with intelRdt")
    if edits.net_devices:
        raise NotImplementedYet(what="a CDI device with netDevices")


def _node(node: DeviceNode) -> dict[str, Any]:
    if not set(node.permissions) <= set("rwm"):
        raise CannotInject(reason=f"device {node.path}: invalid permissions {node.permissions!r}")
    made: dict[str, Any] | None = None
    source = node.host_path or node.path
    if not node.type or node.major is None or node.minor is None:
        try:
            made = device_at(source, node.path)
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise CannotInject(
                reason=f"failed to stat CDI host device {node.host_path or node.path!r}: {reason}"
            ) from error
        if made is None:
            raise CannotInject(reason=f"{source!r} is not a device node")
    told = {
        "type": node.type,
        "major": node.major,
        "minor": node.minor,
        "fileMode": node.file_mode,
        "uid": node.uid,
        "gid": node.gid,
    }
    base = made or {"fileMode": 0o666, "uid": 0, "gid": 0}
    return {**base, "path": node.path, **{key: value for key, value in told.items() if value not in (None, "")}}


def _mount(mount: CdiMount) -> dict[str, Any]:
    options = list(mount.options) or ["bind", "ro"]
    if mount.type in ("", "bind") and not {"bind", "rbind"} & set(options):
        options.insert(0, "bind")
    return {
        "destination": mount.container_path,
        "type": mount.type or "bind",
        "source": mount.host_path,
        "options": options,
    }
