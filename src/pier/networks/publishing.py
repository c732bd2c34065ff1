"""The published ports of containers that run: claimed on the host, translated or relayed, moved, given back.

A container's ports are published from the endpoint that gives it its default route, as dockerd does; when that becomes
another one, the ports move with it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

from pier.errors import PierError, Unavailable
from pier.kernel.nftables import NftablesError
from pier.model.network import PortBinding, PortMap
from pier.networks.bridge_options import BridgeNetwork
from pier.networks.endpoint import Endpoint, Publishing, Sandbox
from pier.networks.firewall import Forward
from pier.networks.host import HostSide
from pier.networks.ports import (
    AllPortsAllocated,
    HeldPort,
    PortAlreadyAllocated,
    PortBindFailed,
    PortRequest,
    PortTable,
    Target,
    port_map,
    requests_of,
)
from pier.networks.relay import Relay, start_relays

__all__ = ["ConnectivityFailed", "PublishUnavailable", "PublishedPorts", "Work", "publisher", "refusal"]

T = TypeVar("T")
REFUSALS = (PortAlreadyAllocated, PortBindFailed, AllPortsAllocated, NftablesError)


class PublishUnavailable(Unavailable):
    """failed to set up container networking: ports cannot be published: {reason}"""


class ConnectivityFailed(PierError):
    """failed to set up container networking: driver failed programming external connectivity on endpoint {name} ({endpoint_id}): {reason}"""  # noqa: E501


class Work(Protocol):
    """Does blocking work in the thread of the networks."""

    async def __call__(self, deed: Callable[[], T]) -> T: ...


@dataclass(slots=True)
class Held:
    """What the daemon's process holds for one container."""

    ports: list[HeldPort] = field(default_factory=list)
    relays: list[Relay] = field(default_factory=list)

    @property
    def forwards(self) -> list[Forward]:
        return [port.forward for port in self.ports]


class PublishedPorts:
    """One per daemon. `default_ip` is where ports are published that name no address of the host."""

    def __init__(self, host: HostSide, work: Work, *, default_ip: str) -> None:
        self._host, self._work, self._default_ip = host, work, default_ip
        self._table = PortTable(carriage=lambda: host.carriage)
        self._held: dict[str, Held] = {}

    async def claim(self, owner: Endpoint, network: BridgeNetwork, asked: Publishing) -> list[Forward]:
        """Hold the ports of a container for the endpoint `owner`; `publish` makes them reachable.

        Raises BadPort, PublishUnavailable, and those of REFUSALS.
        """
        requests = self._requests(network, asked)
        if not requests:
            return []
        target, holder = target_of(owner, network), owner.container_id
        ports = await self._work(lambda: self._table.claim(requests, target, holder=holder))
        held = self._held[holder] = Held(ports)
        held.relays = await start_relays(ports, self._host.carriage)
        return held.forwards

    def _requests(self, network: BridgeNetwork, asked: Publishing) -> list[PortRequest]:
        """Raises BadPort, PublishUnavailable."""
        requests = requests_of(
            asked.ports,
            exposed=asked.exposed,
            publish_all=asked.publish_all,
            default_ip=network.host_binding or self._default_ip,
        )
        if requests and self._host.publish_off:
            raise PublishUnavailable(reason=self._host.publish_off)
        return requests

    async def publish(self, container_id: str) -> None:
        """Make a container's ports reachable. Raises NftablesError."""
        held = self._held.get(container_id)
        if held is not None and held.ports:
            await self._work(lambda: self._host.publish(held.forwards))

    async def release(self, container_id: str) -> None:
        """Unpublish the ports of a container and give them back; one without ports is no error."""
        held = self._held.pop(container_id, None)
        if held is None:
            return
        for relay in held.relays:
            relay.close()
        if held.ports:
            await self._work(lambda: self._give_back(held))

    def _give_back(self, held: Held) -> None:
        try:
            with contextlib.suppress(NftablesError):  # never added, or flushed by others: it is not there
                self._host.unpublish(held.forwards)
        finally:
            self._table.release(held.ports)

    # --- while the container runs

    def of(self, container_id: str) -> list[Forward]:
        """What a container publishes."""
        held = self._held.get(container_id)
        return held.forwards if held is not None else []

    async def change(
        self, owner: Endpoint, network: BridgeNetwork, add: PortMap, remove: Sequence[Forward]
    ) -> list[Forward]:
        """Publish more ports of a container, and some of its own no more, all or nothing; returns all it has now.

        Connections by ports that stay are not touched; those by one that goes are cut where the daemon relays them.
        Not to be cancelled. Raises BadPort, PublishUnavailable, and those of REFUSALS.
        """
        requests = self._requests(network, Publishing(add))
        target, holder = target_of(owner, network), owner.container_id
        held = self._held.setdefault(holder, Held())
        before = held.forwards
        try:
            await self._drop(held, remove)  # first, for one of the new ones may be in its place
            await self._take(held, lambda: self._table.claim(requests, target, holder=holder))
        except BaseException:
            await self.go_back(holder, before)
            raise
        return held.forwards

    async def go_back(self, container_id: str, before: Sequence[Forward]) -> None:
        """Undo a `change` of a container whose ports were `before`. Raises NftablesError, OSError."""
        held = self._held.setdefault(container_id, Held())
        await self._drop(held, [forward for forward in held.forwards if forward not in before])
        missing = [forward for forward in before if forward not in held.forwards]
        await self._take(held, lambda: self._table.reclaim(missing, holder=container_id)[0])

    async def _drop(self, held: Held, forwards: Sequence[Forward]) -> None:
        gone = Held([port for port in held.ports if port.forward in forwards])
        if not gone.ports:
            return
        sockets = [port.socket for port in gone.ports]
        for relay in [relay for relay in held.relays if relay.held in sockets]:
            relay.close()
            held.relays.remove(relay)
        held.ports = [port for port in held.ports if port not in gone.ports]
        await self._work(lambda: self._give_back(gone))

    async def _take(self, held: Held, claim: Callable[[], list[HeldPort]]) -> None:
        """Hold ports, relay them where need be, and make them reachable; nothing of it when a part fails."""
        taken = Held(await self._work(claim))
        if not taken.ports:
            return
        try:
            taken.relays = await start_relays(taken.ports, self._host.carriage)
            await self._work(lambda: self._host.publish(taken.forwards))
        except BaseException:
            for relay in taken.relays:
                relay.close()
            await self._work(lambda: self._table.release(taken.ports))
            raise
        held.ports += taken.ports
        held.relays += taken.relays

    # --- the daemon's start and end

    async def restore(self, sandboxes: Iterable[tuple[str, Sandbox]]) -> list[str]:
        """Hold the ports of containers that run already; returns those that others have taken, in words."""
        lost = []
        for container_id, sandbox in sandboxes:
            reclaim = partial(self._table.reclaim, sandbox.forwards, holder=container_id)
            ports, gone = await self._work(reclaim)
            self._held[container_id] = Held(ports, await start_relays(ports, self._host.carriage))
            lost += [f"published port of container {container_id[:12]}: {text}" for text in gone]
        return lost

    async def close(self) -> None:
        """Let go of the sockets; translations in the kernel stay."""
        for held in self._held.values():
            for relay in held.relays:
                relay.close()
        await self._work(self._table.close)


# --- pure


def target_of(owner: Endpoint, network: BridgeNetwork) -> Target:
    """Where ports that are published from an endpoint lead."""
    routed = tuple(version for version in (4, 6) if network.mode(version) == "routed")
    return Target(network.bridge, tuple(owner.addresses), routed)


def publisher(sandbox: Sandbox) -> Endpoint | None:
    """The endpoint whose addresses published ports lead to: of a bridge that gives the default route."""
    return next((one for one in sandbox.gateways if one is not None and one.driver == "bridge"), None)


def same_ports(asked: Publishing, forwards: Sequence[Forward]) -> Publishing:
    """What was asked for, with the host ports that the container has got already."""
    found: dict[str, Sequence[PortBinding] | None] = dict(asked.ports)
    found |= {port: list(bindings) for port, bindings in port_map(forwards, ()).items() if bindings}
    return Publishing(found, publish_all=asked.publish_all, exposed=asked.exposed)


def refusal(error: BaseException, sandbox: Sandbox, name: str) -> BaseException:
    """What to raise for a failure: ports that cannot be had are Docker's `external connectivity`."""
    owner = publisher(sandbox)
    if isinstance(error, REFUSALS) and owner is not None:
        return ConnectivityFailed(name=name, endpoint_id=owner.endpoint_id, reason=error.wire)
    return error
