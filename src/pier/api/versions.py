"""Which version a client speaks, and everything that differs between versions, in one table.

Services know one shape only: requests as of `NEWEST`, answers with every field of every version. `DIFFERENCES` says
what to change for a client of another version; the source is the API's version history.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pier.errors import InvalidParameter
from pier.model.container import ContainerCreateRequest, ContainerUpdateRequest
from pier.model.host_config import BindOptions
from pier.model.network import EndpointSettings
from pier.model.networks import NetworkCreateRequest

Version = tuple[int, int]

OLDEST: Version = (1, 24)
NEWEST: Version = (1, 55)

_PREFIX = re.compile(r"/v(\d{1,4}(?:\.\d{1,4})*)(?=/|$)", re.ASCII)


class ClientTooNew(InvalidParameter):
    """client version {asked} is too new. Maximum supported API version is {newest}"""


class ClientTooOld(InvalidParameter):
    """client version {asked} is too old. Minimum supported API version is {oldest}, please upgrade your client to a newer version"""  # noqa: E501


def text(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


def negotiate(path: str) -> tuple[Version, str]:
    """The version a path asks for, and the path without it; without a version it is the newest.

    Raises ClientTooNew, ClientTooOld.
    """
    match = _PREFIX.match(path)
    if match is None:
        return NEWEST, path
    asked = match[1]
    numbers = [int(part) for part in asked.split(".")]
    version = (numbers[0], numbers[1] if len(numbers) > 1 else 0)
    if version > NEWEST:
        raise ClientTooNew(asked=asked, newest=text(NEWEST))
    if version < OLDEST:
        raise ClientTooOld(asked=asked, oldest=text(OLDEST))
    return version, path[match.end() :]


@dataclass(frozen=True, slots=True)
class Difference:
    """For clients from `since` on (None: all) and before `until` (None: all), `change` edits in place."""

    operation: str
    why: str
    change: Callable[[Any], None]
    since: Version | None = None
    until: Version | None = None
    request: bool = False
    """It edits the request's struct, not the answer's JSON object (each of them, if the answer is a list)."""

    def applies(self, version: Version) -> bool:
        return (self.since is None or version >= self.since) and (self.until is None or version < self.until)


def _below(answer: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The object that keys lead to, one after another; an empty one where there is none."""
    for name in names:
        found = answer.get(name)
        if not isinstance(found, dict):
            return {}
        answer = found
    return answer


def drop(*path: str) -> Callable[[dict[str, Any]], None]:
    """Remove keys from an object: the last element names them (separated by blanks), the others lead there."""
    *parents, keys = path

    def change(answer: dict[str, Any]) -> None:
        place = _below(answer, parents)
        for key in keys.split():
            place.pop(key, None)

    return change


def drop_empty(*path: str) -> Callable[[dict[str, Any]], None]:
    """The same, for keys whose value is empty."""
    *parents, keys = path

    def change(answer: dict[str, Any]) -> None:
        place = _below(answer, parents)
        for key in keys.split():
            if not place.get(key):
                place.pop(key, None)

    return change


def _add_virtual_size(answer: dict[str, Any]) -> None:
    answer["VirtualSize"] = answer.get("Size", 0)


def _add_container_fields(answer: dict[str, Any]) -> None:
    """What an image's configuration had in common with a container's, and never had a value."""
    texts = dict.fromkeys(("Hostname", "Domainname", "Image"), "")
    switches = ("AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce")
    answer["Config"] = {**texts, **dict.fromkeys(switches, False), **(answer.get("Config") or {})}


def _add_no_containers(network: dict[str, Any]) -> None:
    network["Containers"] = {}


def _containers_not_counted(answer: dict[str, Any]) -> None:
    answer["Containers"] = -1


def _repeat_actor(event: dict[str, Any]) -> None:
    """`status`, `id` and `from`, of containers' and images' events."""
    if event["Type"] not in ("container", "image"):
        return
    event["status"] = event["Action"]
    event["id"] = event["Actor"]["ID"]
    if event["Type"] == "container":
        event["from"] = event["Actor"]["Attributes"].get("image", "")


def _move_mac_address(body: ContainerCreateRequest) -> None:
    """A container-wide MAC address is that of its main network."""
    mac = body.mac_address
    if not mac:
        return
    network = body.host_config.network_mode or "default"
    endpoints = body.networking_config.endpoints_config or {}
    endpoints.setdefault(network, EndpointSettings())
    if not endpoints[network].mac_address:
        endpoints[network].mac_address = mac
    body.networking_config.endpoints_config = endpoints


def _refuse_several_networks(body: ContainerCreateRequest) -> None:
    names = sorted(body.networking_config.endpoints_config or {})
    if len(names) > 1:
        raise InvalidParameter(f"Container cannot be created with multiple network endpoints: {', '.join(names)}")


def _ignore_enable_ipv4(body: NetworkCreateRequest) -> None:
    body.enable_ipv4 = None


def _ignore_mac_address(body: ContainerCreateRequest) -> None:
    body.mac_address = ""


def _ignore_kernel_memory(body: ContainerCreateRequest) -> None:
    body.host_config.kernel_memory = 0


def _ignore_kernel_memory_of_update(body: ContainerUpdateRequest) -> None:
    body.kernel_memory = body.kernel_memory_tcp = 0


def _ignore_kernel_memory_tcp(body: ContainerCreateRequest) -> None:
    body.host_config.kernel_memory_tcp = 0


def _host_cgroup_namespace(body: ContainerCreateRequest) -> None:
    if not body.host_config.cgroupns_mode:
        body.host_config.cgroupns_mode = "host"


def _shareable_ipc(body: ContainerCreateRequest) -> None:
    if not body.host_config.ipc_mode:
        body.host_config.ipc_mode = "shareable"


def _no_console_size(body: ContainerCreateRequest) -> None:
    body.host_config.console_size = [0, 0]


def _no_start_interval(body: ContainerCreateRequest) -> None:
    if body.healthcheck is not None:
        body.healthcheck.start_interval = 0


def _shallow_read_only(body: ContainerCreateRequest) -> None:
    """Read-only binds were not recursive."""
    for mount in body.host_config.mounts or []:
        if mount.type == "bind" and mount.read_only:
            mount.bind_options = mount.bind_options or BindOptions()
            mount.bind_options.read_only_non_recursive = True


_OLD_NETWORK_FIELDS = (
    "Bridge HairpinMode LinkLocalIPv6Address LinkLocalIPv6PrefixLen SecondaryIPAddresses SecondaryIPv6Addresses "
    "EndpointID Gateway GlobalIPv6Address GlobalIPv6PrefixLen IPAddress IPPrefixLen IPv6Gateway MacAddress"
)
_IMAGE_CONFIG = "Cmd Entrypoint Env Labels OnBuild User Volumes WorkingDir"
_SHARES_NOTHING = "IpcMode was shareable where the request was silent"

USAGE_IMAGES = "SystemDataUsage.Images"
"""The images in the answer of GET /system/df: containers were always counted there."""

DIFFERENCES: tuple[Difference, ...] = (
    # answers, newest change first
    Difference("NetworkInspect", "Status came with 1.52", drop("Status"), until=(1, 52)),
    Difference("NetworkList", "an empty Containers went with 1.52", _add_no_containers, until=(1, 52)),
    Difference("SystemInfo", "NRI came with 1.53", drop("NRI"), until=(1, 53)),
    Difference("SystemEvents", "status, id and from went with 1.52", _repeat_actor, until=(1, 52)),
    Difference("SystemInfo", "KernelMemoryTCP went with 1.52", drop("KernelMemoryTCP"), since=(1, 52)),
    Difference("ContainerStats", "os_type came with 1.52", drop("os_type"), until=(1, 52)),
    Difference("ContainerList", "Health came with 1.52", drop("Health"), until=(1, 52)),
    Difference(
        "ContainerInspect",
        "the first network's fields went with 1.52",
        drop("NetworkSettings", _OLD_NETWORK_FIELDS),
        since=(1, 52),
    ),
    Difference(
        "ContainerInspect",
        "KernelMemoryTCP went with 1.52",
        drop("HostConfig", "KernelMemoryTCP"),
        since=(1, 52),
    ),
    Difference("ContainerInspect", "an empty OnBuild went with 1.52", drop_empty("Config", "OnBuild"), since=(1, 52)),
    Difference("ContainerInspect", "Storage came with 1.52", drop("Storage"), until=(1, 52)),
    Difference(
        "ImageInspect",
        "empty fields went with 1.52",
        drop_empty("Parent Comment DockerVersion Author"),
        since=(1, 52),
    ),
    Difference(
        "ImageInspect",
        "empty fields of Config went with 1.52",
        drop_empty("Config", _IMAGE_CONFIG),
        since=(1, 52),
    ),
    Difference("ImageInspect", "a container's fields went with 1.50", _add_container_fields, until=(1, 50)),
    Difference("SystemInfo", "DiscoveredDevices came with 1.50", drop("DiscoveredDevices"), until=(1, 50)),
    Difference("SystemInfo", "FirewallBackend came with 1.49", drop("FirewallBackend"), until=(1, 49)),
    Difference("ContainerList", "the manifest came with 1.48", drop("ImageManifestDescriptor"), until=(1, 48)),
    Difference("ContainerInspect", "the manifest came with 1.48", drop("ImageManifestDescriptor"), until=(1, 48)),
    Difference("ImageList", "Descriptor came with 1.48", drop("Descriptor"), until=(1, 48)),
    Difference("ImageInspect", "Descriptor came with 1.48", drop("Descriptor"), until=(1, 48)),
    Difference("ImageList", "Manifests came with 1.47", drop("Manifests"), until=(1, 47)),
    Difference("ImageInspect", "Manifests came with 1.48", drop("Manifests"), until=(1, 48)),
    Difference("SystemInfo", "Containerd came with 1.46", drop("Containerd"), until=(1, 46)),
    Difference(
        "ContainerList",
        "annotations came with 1.46",
        drop("HostConfig", "Annotations"),
        until=(1, 46),
    ),
    Difference(
        "ImageInspect",
        "Container and ContainerConfig went with 1.45",
        drop("Container ContainerConfig"),
        since=(1, 45),
    ),
    Difference("ImageList", "VirtualSize went with 1.44", _add_virtual_size, until=(1, 44)),
    Difference(USAGE_IMAGES, "VirtualSize went with 1.44", _add_virtual_size, until=(1, 44)),
    Difference("ImageInspect", "VirtualSize went with 1.44", _add_virtual_size, until=(1, 44)),
    Difference("ImageList", "Containers are counted since 1.51", _containers_not_counted, until=(1, 51)),
    # requests
    Difference("NetworkCreate", "EnableIPv4 came with 1.48", _ignore_enable_ipv4, until=(1, 48), request=True),
    Difference(
        "ContainerCreate",
        "several networks at once came with 1.44",
        _refuse_several_networks,
        until=(1, 44),
        request=True,
    ),
    Difference(
        "ContainerCreate",
        "a container-wide MacAddress went with 1.52",
        _ignore_mac_address,
        since=(1, 52),
        request=True,
    ),
    Difference(
        "ContainerCreate",
        "a container-wide MacAddress means the main network's",
        _move_mac_address,
        until=(1, 52),
        request=True,
    ),
    Difference(
        "ContainerCreate",
        "KernelMemoryTCP went with 1.52",
        _ignore_kernel_memory_tcp,
        since=(1, 52),
        request=True,
    ),
    Difference(
        "ContainerCreate",
        "read-only binds became recursive with 1.44",
        _shallow_read_only,
        until=(1, 44),
        request=True,
    ),
    Difference(
        "ContainerCreate",
        "StartInterval came with 1.44",
        _no_start_interval,
        until=(1, 44),
        request=True,
    ),
    Difference("ContainerCreate", "KernelMemory went with 1.42", _ignore_kernel_memory, since=(1, 42), request=True),
    Difference(
        "ContainerUpdate",
        "KernelMemory went with 1.42",
        _ignore_kernel_memory_of_update,
        since=(1, 42),
        request=True,
    ),
    Difference("ContainerCreate", "ConsoleSize came with 1.42", _no_console_size, until=(1, 42), request=True),
    Difference(
        "ContainerCreate",
        "private cgroup namespaces came with 1.41",
        _host_cgroup_namespace,
        until=(1, 41),
        request=True,
    ),
    Difference("ContainerCreate", _SHARES_NOTHING, _shareable_ipc, until=(1, 40), request=True),
)

MULTIPLEXED_SINCE: Version = (1, 42)
"""Streams of two channels say so in their Content-Type."""
IMAGE_CREATE_SINCE: Version = (1, 46)
"""Events tell of images that are made here."""
EVENT_TYPES_SINCE: Version = (1, 52)
"""GET /events heeds the Accept header."""


def adapt_answer(operation: str, version: Version, answer: Any) -> Any:
    """An answer's JSON objects as the client's version knows them; edited in place."""
    changes = [item.change for item in _applying(operation, version, request=False)]
    if changes:
        for one in answer if isinstance(answer, list) else [answer]:
            for change in changes:
                change(one)
    return answer


def adapt_request(operation: str, version: Version, body: Any) -> None:
    """A request's struct as the newest version would have said it; edited in place."""
    for item in _applying(operation, version, request=True):
        item.change(body)


@functools.lru_cache(maxsize=256)
def _applying(operation: str, version: Version, *, request: bool) -> tuple[Difference, ...]:
    return tuple(
        item
        for item in DIFFERENCES
        if item.operation == operation and item.request == request and item.applies(version)
    )
