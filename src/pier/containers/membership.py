"""`network connect` and `network disconnect`: a container joins a network or leaves it, whether it runs or not.

A join of a running container is written to its record, with the endpoint's, before anything is made; a departure when
the interface is gone. What a daemon that was killed in the middle left undone is done at the next start (`settle`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from pier.containers import etc_files, name_server, neighbours
from pier.containers.network_namespace import network_namespace
from pier.containers.networking import NO_HOST, NONE_IS_ALONE, ask_for, dns_names, publishing
from pier.containers.world import Container, World, finish, log
from pier.errors import Conflict, InvalidParameter, NotFound, PierError
from pier.model.network import EndpointSettings
from pier.model.networks import NetworkConnectRequest, NetworkDisconnectRequest
from pier.networks import Ask, Endpoint, NetworkRecord, Sandbox, check_settings

SHARED_NAMESPACE = (
    "container sharing network namespace with another container or host cannot be connected to any other network"
)


class AlreadyConnected(PierError):
    """endpoint with name {name} already exists in network {network}"""

    status = 403


class NotConnected(PierError):
    """container {id} is not connected to {network}"""


class NoSuchEndpoint(NotFound):
    """endpoint {name} not found"""


class MarkedForRemoval(Conflict):
    """Container {id} is marked for removal and cannot be connected or disconnected to the network"""


async def join(world: World, network_ref: str, asked: NetworkConnectRequest) -> None:
    """Put a container on one more network. Raises NotFound, InvalidParameter, AlreadyConnected, what a start does."""
    container = _find(world, asked.container)
    async with container.lock:
        network = world.networks.find(network_ref)
        settings = asked.endpoint_config or EndpointSettings()
        _check_may_join(container, network)
        check_settings(network, settings)
        await finish(_join(world, container, network, settings))


def _find(world: World, ref: str) -> Container:
    if not ref:
        raise InvalidParameter('invalid name or ID supplied: ""')
    return world.find(ref)


def _check_may_join(container: Container, network: NetworkRecord) -> None:
    """Raises InvalidParameter, AlreadyConnected, MarkedForRemoval."""
    record = container.record
    mode = record.host_config.network_mode
    if record.state.status in ("removing", "dead"):
        raise MarkedForRemoval(id=record.id)
    if mode == "host" or mode.startswith("container:"):
        raise InvalidParameter(SHARED_NAMESPACE)
    if network.name == "host":
        raise InvalidParameter(NO_HOST)
    others = set(record.networks) - {network.name}
    if others and (network.name == "none" or "none" in others):
        raise InvalidParameter(NONE_IS_ALONE)
    if container.monitor is not None and network.name in record.networks:
        raise AlreadyConnected(name=record.name, network=network.name)


async def _join(world: World, container: Container, network: NetworkRecord, asked: EndpointSettings) -> None:
    record = container.record
    before = dict(record.networks)
    asked.network_id = network.id if record.state.started_at_ns else ""
    record.networks[network.name] = asked
    try:
        if container.monitor is None:
            await world.save(container)
        else:
            await _join_live(world, container, ask_for(record, network, asked))
    except BaseException:
        record.networks = before
        await world.save(container)
        raise


async def _join_live(world: World, container: Container, ask: Ask) -> None:
    record = container.record
    before = _host(world, container)
    async with network_namespace(container) as netns_fd:
        endpoint = await world.networks.join(
            record.id,
            ask,
            name=record.name,
            publishing=publishing(record),
            netns_fd=netns_fd,
            more=[record.put()],
        )
        await name_server.follow(world, container, netns_fd)
    neighbours.tell(world, container, [endpoint])
    await _tell_hosts(world, container, before, added=endpoint.addresses)
    world.publish_network(container, "connect", endpoint)


async def leave(world: World, network_ref: str, asked: NetworkDisconnectRequest) -> None:
    """Take a container off a network; `force` also off one that is no more. Raises NotFound, NotConnected."""
    try:
        container = _find(world, asked.container)
    except NotFound:
        if asked.force:
            world.networks.find(network_ref)
            raise NoSuchEndpoint(name=asked.container[:128]) from None
        raise
    async with container.lock:
        record = container.record
        if record.state.status in ("removing", "dead"):
            raise MarkedForRemoval(id=record.id)
        name = network_ref
        try:
            name = world.networks.find(network_ref).name
        except NotFound:
            if not asked.force and network_ref not in record.networks:
                raise
        if name not in record.networks:
            the = "network" if container.monitor is not None else "the network"
            raise NotConnected(id=record.id, network=f"{the} {name}")
        if name == "host" or record.host_config.network_mode == "host":
            raise InvalidParameter(
                "cannot disconnect container from host network - container was created in host network mode"
            )
        await finish(_leave(world, container, name))


async def _leave(world: World, container: Container, name: str) -> None:
    record = container.record
    sandbox = world.networks.sandbox(record.id)
    endpoint = sandbox.named(name) if sandbox is not None else None
    before = dict(record.networks)
    del record.networks[name]
    if endpoint is None:
        await world.save(container)
        return
    try:
        await _leave_live(world, container, endpoint)
    except BaseException:
        now = world.networks.sandbox(record.id)
        if now is not None and now.named(name) is not None:
            record.networks = before
        raise


async def _leave_live(world: World, container: Container, endpoint: Endpoint) -> None:
    record = container.record
    if container.monitor is None:
        await world.networks.leave(
            record.id, endpoint.network_id, publishing=publishing(record), netns_fd=None, more=[record.put()]
        )
        return
    before = _host(world, container)
    async with network_namespace(container) as netns_fd:
        await world.networks.leave(
            record.id, endpoint.network_id, publishing=publishing(record), netns_fd=netns_fd, more=[record.put()]
        )
        await name_server.follow(world, container, netns_fd)
    await _tell_hosts(world, container, before, removed=endpoint.addresses)
    world.publish_network(container, "disconnect", endpoint)


def _host(world: World, container: Container) -> list[str]:
    """By what a container reaches the host now."""
    return list(world.config.host_gateway_ips) or (world.networks.sandbox(container.id) or Sandbox()).host


async def _tell_hosts(
    world: World,
    container: Container,
    host_before: Sequence[str],
    *,
    added: Sequence[str] = (),
    removed: Sequence[str] = (),
) -> None:
    """Write a change of addresses into the container's hosts file."""
    host = _host(world, container)
    config = container.record.config
    own = f"{config.hostname}.{config.domainname} {config.hostname}" if config.domainname else config.hostname
    path = world.config.etc_file(container.id, "hosts")
    with contextlib.suppress(OSError):
        changed = host if host != host_before else ()
        await asyncio.to_thread(etc_files.change_own, path, own, added=added, removed=removed, host=changed)


# --- after a restart of the daemon, a rename


async def settle(world: World, container: Container) -> list[str]:
    """Bring a running container's endpoints in line with its record, where a daemon was killed in the middle of a
    change; returns what was repaired, in words. What cannot be is logged."""
    record = container.record
    mode = record.host_config.network_mode
    if container.monitor is None or mode.startswith("container:") or mode == "host":
        return []
    try:
        return await _settle(world, container)
    except (PierError, OSError) as error:
        log.warning("the networks of container %s are not what its record says: %s", record.name, error)
        return []


async def _settle(world: World, container: Container) -> list[str]:
    record = container.record
    async with network_namespace(container) as netns_fd:
        await world.networks.verify(record.id, netns_fd)
        await name_server.follow(world, container, netns_fd)
    sandbox = world.networks.sandbox(record.id) or Sandbox()
    repaired = []
    for endpoint in sandbox.endpoints:
        if endpoint.network not in record.networks:
            await _leave_live(world, container, endpoint)
            repaired.append(f"container {record.name}: taken off network {endpoint.network}")
    present = {endpoint.network for endpoint in sandbox.endpoints}
    for name, asked in list(record.networks.items()):
        if name in present:
            continue
        try:
            network = world.networks.find(asked.network_id or name)
            await _join_live(world, container, ask_for(record, network, asked))
        except (PierError, OSError) as error:
            log.warning("container %s cannot be put on network %s again: %s", record.name, name, error)
            continue
        repaired.append(f"container {record.name}: put on network {name}")
    if any(endpoint.container != record.name for endpoint in sandbox.endpoints):
        await renamed(world, container)
    return repaired


async def renamed(world: World, container: Container) -> None:
    """Tell the networks a container's new name."""
    record = container.record
    names = {asked.network_id: dns_names(record, asked) for asked in record.networks.values() if asked.network_id}
    await world.networks.rename(record.id, record.name, names)
