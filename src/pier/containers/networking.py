"""The networks of a container: what it asks for when it is made, and joining and leaving while it runs or not.

`Record.networks` says which networks a container is on, by name; the network service's sandbox says what it has got of
them, as long as it runs. A change of a running container is written to the record first: what a daemon that was killed
in the middle left undone is done at the next start (`settle`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence

import msgspec

from pier.containers import etc_files, name_server, neighbours, validate
from pier.containers.network_namespace import network_namespace
from pier.containers.record import Record
from pier.containers.world import Container, World, finish, log
from pier.errors import Conflict, InvalidParameter, NotFound, PierError
from pier.model.host_config import HostConfig
from pier.model.network import EndpointSettings, NetworkingConfig
from pier.model.networks import NetworkConnectRequest, NetworkDisconnectRequest
from pier.networks import Ask, Endpoint, NetworkRecord, Publishing, Sandbox, ask_of, check_settings, unknown_options

SHARED_NAMESPACE = (
    "container sharing network namespace with another container or host cannot be connected to any other network"
)
NONE_IS_ALONE = "container cannot be connected to multiple networks with one of the networks in private (none) mode"
NO_HOST = "cannot connect container to host network - container must be created in host network mode"


class BadNetworkConfig(InvalidParameter):
    """invalid config for network {network}: {reason}"""


class NetworkSetupFailed(PierError):
    """failed to set up container networking: {reason}"""

    def __init__(self, cause: PierError) -> None:
        super().__init__(reason=cause.wire)
        self.status = cause.status


class AlreadyConnected(PierError):
    """endpoint with name {name} already exists in network {network}"""

    status = 403


class NotConnected(PierError):
    """container {id} is not connected to {network}"""


class NoSuchEndpoint(NotFound):
    """endpoint {name} not found"""


class MarkedForRemoval(Conflict):
    """Container {id} is marked for removal and cannot be connected or disconnected to the network"""


# --- what a new container asks for


def prepare(
    world: World, networking: NetworkingConfig, host: HostConfig
) -> tuple[dict[str, EndpointSettings], list[str]]:
    """(what a new container asks of each network, by name, its main one first; warnings).

    Networks that are not there yet are not judged: a start that does not find them says so, as with Docker.
    Raises InvalidParameter, BadNetworkConfig.
    """
    mode = host.network_mode
    given = {
        _name_of(world, "bridge" if name in ("", "default") else name): asked
        for name, asked in (networking.endpoints_config or {}).items()
    }
    _check_together(mode, given)
    if mode.startswith("container:"):
        return {}, []
    main = _name_of(world, mode)
    asked_of = {name: given[name] for name in sorted(given, key=lambda name: (name != main, name))}
    asked_of = asked_of or {main: EndpointSettings()}
    warnings = []
    for name, asked in asked_of.items():
        with contextlib.suppress(NotFound):
            _check(world.networks.find(name), asked)
        warnings += [
            f"Pier does not know the endpoint option {option[:80]} (--network driver-opt). It has no effect."
            for option in unknown_options(asked)
        ]
        asked.network_id = asked.endpoint_id = ""
    if (host.port_bindings or host.publish_all_ports) and _none_publishes(world, asked_of):
        warnings.append(f"Published ports have no effect on network {main}: its driver publishes none.")
    linked = [link for asked in asked_of.values() for link in asked.links or ()]
    if is_user_defined(mode) and set(host.links or ()) - set(linked):
        warnings.append(
            f"HostConfig.Links has no effect on network {main}. Use Links of its EndpointsConfig, or an alias."
        )
    return asked_of, warnings


def is_user_defined(mode: str) -> bool:
    """Does a container with this HostConfig.NetworkMode live on a network of the user's?"""
    return mode not in ("", "default", "bridge", "host", "none") and not mode.startswith("container:")


def _name_of(world: World, ref: str) -> str:
    """A network's name, by which it is shown, where it was called by its id."""
    with contextlib.suppress(PierError):
        return world.networks.find(ref).name
    return ref


def _none_publishes(world: World, names: Iterable[str]) -> bool:
    """Whether all these networks are there, and on a device of the host, past its firewall and its ports."""
    try:
        return all(world.networks.find(name).driver in ("macvlan", "ipvlan") for name in names)
    except PierError:
        return False


def _check(record: NetworkRecord, asked: EndpointSettings) -> None:
    try:
        check_settings(record, asked)
    except InvalidParameter as error:
        raise BadNetworkConfig(network=record.name, reason=error.wire) from error


def _check_together(mode: str, given: dict[str, EndpointSettings]) -> None:
    """Raises InvalidParameter for networks that one container cannot be on."""
    others = sorted(name for name in given if name != mode)
    if others and (mode == "host" or mode.startswith("container:")):
        raise InvalidParameter(
            f"conflicting options: cannot attach the container to network {others[0]} and to network mode {mode}"
        )
    if "host" in others:
        raise InvalidParameter(NO_HOST)
    if "none" in given and len(given) > 1:
        raise InvalidParameter(NONE_IS_ALONE)


def dns_names(record: Record, asked: EndpointSettings) -> list[str]:
    """By which others of a network find the container, Docker's order."""
    names = [record.name, *(asked.aliases or ()), record.id[:12], record.config.hostname]
    return list(dict.fromkeys(name for name in names if name))


# --- start and end


async def connect(world: World, container: Container, asks: Sequence[Ask]) -> Sandbox:
    """Join the networks for a run. Raises NetworkSetupFailed, and what else the network service raises."""
    record = container.record
    if not asks:
        return Sandbox()
    try:
        sandbox = await world.networks.connect(record.id, asks, name=record.name, publishing=publishing(record))
    except PierError as error:
        if error.message.startswith("failed to set up container networking"):
            raise
        raise NetworkSetupFailed(error) from error
    for endpoint in sandbox.endpoints:
        world.publish_network(container, "connect", endpoint)
    return sandbox


async def disconnect(world: World, container: Container) -> None:
    """Leave all networks; nothing to do where none was joined. Never raises: the end of a container goes on."""
    name_server.stop(world, container)
    sandbox = world.networks.sandbox(container.id)
    if sandbox is None:
        return
    with contextlib.suppress(Exception):
        await world.networks.release(container.id)
        for endpoint in sandbox.endpoints:
            world.publish_network(container, "disconnect", endpoint)


def asks(world: World, record: Record) -> list[Ask]:
    """What a container asks of its networks for a run, each now known by its id. Raises NetworkSetupFailed."""
    found = []
    for name, asked in list(record.networks.items()):
        try:
            network = world.networks.find(asked.network_id or name)
        except PierError as error:
            raise NetworkSetupFailed(error) from error
        found.append(_ask(record, network, asked))
    return found


def _ask(record: Record, network: NetworkRecord, asked: EndpointSettings) -> Ask:
    """One of them; the network's id is noted in the container's record."""
    if network.user_defined:
        asked.network_id = network.id
        return ask_of(network.id, asked, names=dns_names(record, asked))
    asked.network_id = network.id
    return ask_of(network.id, asked)


def publishing(record: Record) -> Publishing:
    """The ports of a container, where it has a network of its own to publish them from."""
    host, config = record.host_config, record.config
    exposed = ["{}/{}".format(*validate.parse_port(port)) for port in config.exposed_ports or {}]
    if host.network_mode == "host":
        return Publishing(exposed=exposed)
    ports = {port: list(bindings or ()) for port, bindings in (host.port_bindings or {}).items()}
    return Publishing(ports, publish_all=host.publish_all_ports, exposed=exposed)


# --- network connect, network disconnect


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
        await world.save(container)
        if container.monitor is not None:
            await _join_live(world, container, _ask(record, network, asked))
    except BaseException:
        record.networks = before
        await world.save(container)
        raise


async def _join_live(world: World, container: Container, ask: Ask) -> None:
    record = container.record
    before = _host(world, container)
    async with network_namespace(container) as netns_fd:
        endpoint = await world.networks.join(
            record.id, ask, name=record.name, publishing=publishing(record), netns_fd=netns_fd
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
    del record.networks[name]
    await world.save(container)
    if endpoint is not None:
        await _leave_live(world, container, endpoint)


async def _leave_live(world: World, container: Container, endpoint: Endpoint) -> None:
    record = container.record
    if container.monitor is None:
        await world.networks.leave(record.id, endpoint.network_id, publishing=publishing(record), netns_fd=None)
        return
    before = _host(world, container)
    async with network_namespace(container) as netns_fd:
        await world.networks.leave(record.id, endpoint.network_id, publishing=publishing(record), netns_fd=netns_fd)
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
            await _join_live(world, container, _ask(record, network, asked))
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


# --- inspect


def shown(world: World, record: Record) -> dict[str, EndpointSettings]:
    """`NetworkSettings.Networks`: what was asked of each network, with what the container has got of it."""
    sandbox = world.networks.sandbox(record.id) or Sandbox()
    found = {}
    for name, asked in record.networks.items():
        endpoint = sandbox.named(name)
        if endpoint is not None:
            found[name] = endpoint.fill(asked)
        else:
            named = asked.network_id and _is_user_defined(world, asked.network_id)
            found[name] = msgspec.structs.replace(asked, dns_names=dns_names(record, asked) if named else None)
    return found


def _is_user_defined(world: World, network_id: str) -> bool:
    try:
        return world.networks.find(network_id).user_defined
    except PierError:
        return True
