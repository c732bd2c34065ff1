"""The networks of a container: what it asks for when it is made, gets for a run, and shows.

`Record.networks` says which networks a container is on, by name; the network service's sandbox says what it has got of
them, as long as it runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from pier.containers import name_server, validate
from pier.containers.record import Record
from pier.containers.world import Container, World
from pier.errors import InvalidParameter, NotFound, PierError
from pier.model.host_config import HostConfig
from pier.model.network import EndpointSettings, NetworkingConfig
from pier.networks import (
    Ask,
    NetworkRecord,
    Publishing,
    Sandbox,
    ask_of,
    check_borrowed,
    check_settings,
    unknown_options,
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
        with _named(mode):
            check_borrowed(given.get(mode) or EndpointSettings())
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
    with _named(record.name):
        check_settings(record, asked)


@contextlib.contextmanager
def _named(network: str) -> Iterator[None]:
    """Raises BadNetworkConfig for what is refused within."""
    try:
        yield
    except InvalidParameter as error:
        raise BadNetworkConfig(network=network, reason=error.wire) from error


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
        found.append(ask_for(record, network, asked))
    return found


def ask_for(record: Record, network: NetworkRecord, asked: EndpointSettings) -> Ask:
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
