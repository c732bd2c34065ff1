"""Ports of a container that is there already are published and taken back: `update --publish-add`, `--publish-rm`.

The record says what is wanted (`HostConfig.PortBindings`), the network service's endpoint what is so while it runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address

from pier.containers.record import Record
from pier.containers.world import Container, World
from pier.errors import InvalidParameter
from pier.model.network import PortBinding, PortMap
from pier.networks.firewall import Forward
from pier.networks.ports import BadPort, PortAlreadyAllocated, overlap, parse_container_port, parse_port_range, port_map

__all__ = ["PortNotPublished", "Ports", "Selector", "changed_ports", "parse_selector", "plan"]

ANY = {4: "0.0.0.0", 6: "::"}  # noqa: S104


class PortNotPublished(InvalidParameter):
    """container {name} publishes no port {port}"""

    remedy = "`pier port {name}` lists what it publishes"


@dataclass(frozen=True, slots=True)
class Selector:
    """Which published ports are meant: those of a host port or a range, narrowed by what else is said."""

    text: str
    host_ip: str
    """Empty: on whatever address."""
    host_ports: range
    container_port: int
    """0: whatever it leads to."""
    protocol: str

    def fits(self, host_ip: str, host_port: int, container_port: int, protocol: str) -> bool:
        return (
            protocol == self.protocol
            and host_port in self.host_ports
            and self.container_port in (0, container_port)
            and (not self.host_ip or (host_ip or ANY[ip_address(self.host_ip).version]) == self.host_ip)
        )


@dataclass(frozen=True, slots=True)
class Ports:
    """A change of a container's ports."""

    bindings: PortMap
    """All it is to have."""
    add: PortMap
    remove: list[Forward]
    """Of those that are published now."""


@contextlib.asynccontextmanager
async def changed_ports(world: World, container: Container, ports: Ports | None) -> AsyncIterator[list[str]]:
    """Publish and take back ports of a container that runs, warnings as the value; all as before when the block fails.

    Raises what a start raises for ports.
    """
    if ports is None:
        yield []
        return
    record = container.record
    if record.host_config.network_mode == "host":
        yield ["Published ports are discarded when using host network mode"]
        return
    warnings = []
    if any(is_of_publish_all(record, forward) for forward in ports.remove):
        warnings.append("PublishAllPorts is set: at its next start the container publishes its exposed ports again.")
    if container.monitor is None:
        yield warnings
        return
    before = forwards_of(world, container)
    if not await world.networks.change_ports(record.id, ports.add, ports.remove, name=record.name):
        warnings.append("Its ports are published once a bridge network gives the container its default route.")
    try:
        yield warnings
    except BaseException:
        after = forwards_of(world, container)
        back = port_map([one for one in before if one not in after], ())
        await world.networks.change_ports(
            record.id, back, [one for one in after if one not in before], name=record.name
        )
        raise


def forwards_of(world: World, container: Container) -> list[Forward]:
    """What a container publishes now."""
    sandbox = world.networks.sandbox(container.id)
    return sandbox.forwards if sandbox is not None else []


def is_of_publish_all(record: Record, forward: Forward) -> bool:
    """Whether `--publish-all` publishes this port's like at each start."""
    exposed = {parse_container_port(key) for key in record.config.exposed_ports or {}}
    return record.host_config.publish_all_ports and (forward.container_port, forward.protocol) in exposed


def parse_selector(text: str) -> Selector:
    """`9090`, `9090/udp`, `127.0.0.1:9090`, `9090:80`, `[::1]:9000-9009:80/tcp`. Raises BadPort."""
    spec, slash, protocol = text.partition("/")
    host_ip, rest = "", spec
    if spec.startswith("["):
        host_ip, _, rest = spec[1:].partition("]:")
    elif spec.partition(":")[0].count("."):
        host_ip, _, rest = spec.partition(":")
    host, colon, container = rest.partition(":")
    ports = parse_port_range(host, text)
    if ports is None or (slash and protocol.lower() not in ("tcp", "udp", "sctp")) or (colon and not container):
        raise BadPort(text=text)
    try:
        host_ip = str(ip_address(host_ip)) if host_ip else ""
    except ValueError:
        raise BadPort(text=text) from None
    number = parse_container_port(container)[0] if container else 0
    return Selector(text, host_ip, ports, number, protocol.lower() or "tcp")


def plan(
    name: str, bindings: PortMap | None, add: PortMap, selectors: Iterable[Selector], forwards: Sequence[Forward] | None
) -> Ports:
    """What a change comes to; `forwards` are the ports of a running container, None for one that is stopped.

    Raises PortNotPublished for a selector that means none, PortAlreadyAllocated for a port twice, BadPort. Pure.
    """
    left = {key: list(found or ()) for key, found in (bindings or {}).items()}
    gone: list[Forward] = []
    for selector in selectors:
        if forwards is None:
            found = _forget(left, selector)
        else:
            chosen = [one for one in forwards if one not in gone and _means(selector, one)]
            found = bool(chosen)
            gone += chosen
        if not found:
            raise PortNotPublished(name=name, port=selector.text)
    for forward in gone:
        _forget_forward(left, forward, [one for one in forwards or () if one not in gone])
    after: PortMap = {key: found or None for key, found in left.items() if found or not (bindings or {}).get(key)}
    for key, wanted in add.items():
        port, protocol = parse_container_port(key)
        _check_free(name, after, protocol, wanted or ())
        after[f"{port}/{protocol}"] = [*(after.get(f"{port}/{protocol}") or ()), *(wanted or [PortBinding()])]
    return Ports(after, {key: list(wanted or [PortBinding()]) for key, wanted in add.items()}, gone)


def _means(selector: Selector, forward: Forward) -> bool:
    return selector.fits(forward.host_ip, forward.host_port, forward.container_port, forward.protocol)


def _forget(left: dict[str, list[PortBinding]], selector: Selector) -> bool:
    """Take out the bindings that a selector means; whether there were any. Those without a fixed port have none yet."""
    found = False
    for key, wanted in left.items():
        port, protocol = parse_container_port(key)
        for binding in list(wanted):
            ports = parse_port_range(binding.host_port, binding.host_port)
            if ports is not None and all(selector.fits(binding.host_ip, one, port, protocol) for one in ports):
                wanted.remove(binding)
                found = True
    return found


def _forget_forward(left: dict[str, list[PortBinding]], gone: Forward, staying: Sequence[Forward]) -> None:
    """Take out the binding that a port came from; what else came from it stays, under its own address."""
    wanted = left.get(f"{gone.container_port}/{gone.protocol}", [])
    for binding in wanted:
        ports = parse_port_range(binding.host_port, binding.host_port)
        if (ports is None or gone.host_port in ports) and _is_on(binding.host_ip, gone.host_ip):
            wanted.remove(binding)
            wanted += [
                replace_binding(one) for one in staying if _twins(one, gone) and _is_on(binding.host_ip, one.host_ip)
            ]
            return


def _is_on(asked: str, host_ip: str) -> bool:
    """Whether a port on `host_ip` can come from a binding to the address `asked`."""
    return not asked or asked == host_ip or (asked == ANY[4] and host_ip == ANY[6])


def _twins(one: Forward, other: Forward) -> bool:
    """One host port on several addresses."""
    return replace(one, host_ip="", container_ip="") == replace(other, host_ip="", container_ip="")


def replace_binding(forward: Forward) -> PortBinding:
    return PortBinding(host_ip=forward.host_ip, host_port=str(forward.host_port))


def _check_free(
    name: str, after: Mapping[str, list[PortBinding] | None], protocol: str, wanted: Iterable[PortBinding]
) -> None:
    """Raises PortAlreadyAllocated where the container itself has the port already."""
    for binding in wanted:
        ports = parse_port_range(binding.host_port, binding.host_port)
        if ports is None or len(ports) != 1:
            continue
        for key, present in after.items():
            for other in present or () if parse_container_port(key)[1] == protocol else ():
                taken = parse_port_range(other.host_port, other.host_port)
                if taken == ports and overlap(binding.host_ip or ANY[4], other.host_ip or ANY[4]):
                    raise PortAlreadyAllocated(host_ip=binding.host_ip or ANY[4], port=ports[0], holder=name)
