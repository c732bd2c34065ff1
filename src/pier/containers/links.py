"""Legacy links (`--link NAME[:ALIAS]`): a name in /etc/hosts and variables that tell of another container.

On the default bridge only, where there is no name server. A link is kept by the other's id: a rename does not break it,
its removal ends it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from pier.containers import etc_files, networking
from pier.containers.inherited import DonorMissing
from pier.containers.record import Link, Record
from pier.containers.validate import parse_port
from pier.containers.world import Container, World
from pier.errors import Conflict, InvalidParameter, NotFound, PierError
from pier.model.host_config import HostConfig

UNDEFINED = "This would result in undefined behavior"


class LinkedNotRunning(PierError):
    """Cannot link to a non running container: /{name} AS /{own}/{alias}"""


class NoSuchLink(PierError):
    """Cannot get parent /{parent} for link name /{name}"""


class DefaultLink(Conflict):
    """Conflict, cannot remove the default link name of the container"""


def resolve(world: World, host: HostConfig) -> list[Link]:
    """The links of a new container. Raises DonorMissing, InvalidParameter."""
    if not host.links or networking.is_user_defined(host.network_mode):
        return []  # there, the endpoints' own links make aliases
    if host.network_mode.startswith("container:"):
        raise InvalidParameter(f"conflicting options: container type network can't be used with links. {UNDEFINED}")
    if host.network_mode in ("host", "none"):
        raise InvalidParameter(
            f"conflicting options: {host.network_mode} type networking can't be used with links. {UNDEFINED}"
        )
    return [_resolve(world, text) for text in host.links]


def _resolve(world: World, text: str) -> Link:
    ref, _, alias = text.partition(":")
    alias = alias.rpartition("/")[2]  # as inspect shows it: /NAME:/OWN/ALIAS
    ref = ref.removeprefix("/")
    if not ref or ":" in alias or any(character in alias for character in " \t\n\0="):
        raise InvalidParameter(f"bad format for links: {text[:80]}")
    try:
        other = world.find(ref)
        while (mode := other.record.host_config.network_mode).startswith("container:"):
            other = world.find(mode.partition(":")[2])
    except NotFound as error:
        raise DonorMissing(reason=f"could not get container for {ref}: {error.message}") from error
    if other.record.host_config.network_mode == "host":
        raise InvalidParameter(f"conflicting options: host type networking can't be used with links. {UNDEFINED}")
    return Link(other.id, alias or ref)


def linked(world: World, record: Record) -> list[tuple[str, Container]]:
    """(alias, the other container) of the links whose other end is still there."""
    return [(link.alias, world.containers[link.id]) for link in record.links if link.id in world.containers]


def require_running(world: World, record: Record) -> None:
    """Raises LinkedNotRunning."""
    for alias, other in linked(world, record):
        if other.monitor is None:
            raise LinkedNotRunning(name=other.record.name, own=record.name, alias=alias)


def hosts_entries(world: World, record: Record) -> list[tuple[str, str]]:
    """(address, names) for /etc/hosts."""
    return [(_address(world, other), names_of(alias, other.record)) for alias, other in linked(world, record)]


def names_of(alias: str, other: Record) -> str:
    """The names of a linked container in /etc/hosts."""
    return " ".join(dict.fromkeys((alias, other.config.hostname, other.name)))


def _address(world: World, other: Container) -> str:
    sandbox = world.networks.sandbox(other.id)
    endpoint = (sandbox.named("bridge") or sandbox.first) if sandbox is not None else None
    return endpoint.ip if endpoint is not None else ""


def environment(world: World, record: Record) -> list[str]:
    """The variables of Docker's links, for all of them."""
    found: list[str] = []
    for alias, other in linked(world, record):
        found += variables(alias, record.name, other.record, _address(world, other))
    return found


def variables(alias: str, own: str, other: Record, address: str) -> list[str]:
    """What one link tells: the first port, every port, the name, the other's variables but HOME and PATH. Pure."""
    prefix = alias.upper().replace("-", "_")
    ports = sorted(parse_port(port) for port in other.config.exposed_ports or {})
    found = [f"{prefix}_PORT={protocol}://{address}:{port}" for port, protocol in ports[:1]]
    for port, protocol in ports:
        name = f"{prefix}_PORT_{port}_{protocol.upper()}"
        found += [
            f"{name}={protocol}://{address}:{port}",
            f"{name}_ADDR={address}",
            f"{name}_PORT={port}",
            f"{name}_PROTO={protocol}",
        ]
    found.append(f"{prefix}_NAME=/{own}/{alias}")
    for entry in other.config.env or ():
        name, equals, value = entry.partition("=")
        if equals and name not in ("HOME", "PATH"):
            found.append(f"{prefix}_ENV_{name}={value}")
    return found


def refresh(world: World, container: Container) -> None:
    """A container has started, perhaps with another address: tell the hosts files of those linked to it. Blocking."""
    address = _address(world, container)
    for other in world.containers.values():
        for link in other.record.links:
            if link.id == container.id and other.monitor is not None and address:
                names = names_of(link.alias, container.record)
                with contextlib.suppress(OSError):
                    etc_files.readdress(world.config.etc_file(other.id, "hosts"), names, address)


def shown(world: World, record: Record) -> list[str] | None:
    """`HostConfig.Links` as inspect shows it."""
    found = [f"/{other.record.name}:/{record.name}/{alias}" for alias, other in linked(world, record)]
    return found or None


def further_names(world: World) -> dict[str, list[str]]:
    """Id -> the names that a container has by the links of others, for the list."""
    found: dict[str, list[str]] = {}
    for container in world.containers.values():
        for link in container.record.links:
            found.setdefault(link.id, []).append(f"/{container.record.name}/{link.alias}")
    return found


async def remove(world: World, name: str) -> None:
    """`rm --link PARENT/ALIAS`: the link goes, both containers stay. Raises DefaultLink, NoSuchLink."""
    parent, _, alias = name.removeprefix("/").rpartition("/")
    if not parent:
        raise DefaultLink
    container = world.containers.get(world.names.get(parent, ""))
    if container is None or alias not in [link.alias for link in container.record.links]:
        raise NoSuchLink(parent=parent, name=f"{parent}/{alias}")
    async with container.lock:
        container.record.links = [link for link in container.record.links if link.alias != alias]
        await world.save(container)


def dependencies(world: World, record: Record) -> list[str]:
    """Ids of the containers that must run, or be there, before this one can start."""
    host = record.host_config
    modes = (host.network_mode, host.pid_mode, host.ipc_mode)
    written = [mode.partition(":")[2] for mode in modes if mode.startswith("container:")]
    written += [text.partition(":")[0] for text in host.volumes_from or ()]
    found = [link.id for link in record.links]
    for ref in written:
        with contextlib.suppress(PierError):
            found.append(world.find(ref).id)
    return found


def in_order(world: World, containers: Iterable[Container]) -> list[Container]:
    """The order in which to start them: who is needed before who needs; else the oldest first. Cycles are cut."""
    waiting = {item.id: item for item in sorted(containers, key=lambda item: item.record.created_ns)}
    ordered: list[Container] = []

    while waiting:
        chain = [waiting.pop(next(iter(waiting)))]
        while chain:
            needed = next((id for id in dependencies(world, chain[-1].record) if id in waiting), None)
            if needed is None:
                ordered.append(chain.pop())
            else:
                chain.append(waiting.pop(needed))
    return ordered
