"""The endpoints of containers: made for a run, joined and left while it lasts, found again by the next daemon.

What the daemon's process holds for a container is addresses, sockets of published ports and a record an endpoint; the
devices are made by the container's first process when it starts, by `plugging` when it joins a network later.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from pier.errors import Conflict, PierError
from pier.model.network import PortMap
from pier.networks.addresses import Addresses
from pier.networks.asks import IFNAME, SYSCTLS, sysctls
from pier.networks.bridge_options import BridgeNetwork
from pier.networks.creation import Forbidden
from pier.networks.dns import NameTable
from pier.networks.driver import BridgeDriver, Driver, Place
from pier.networks.endpoint import Ask, Endpoint, Publishing, Sandbox, gateway_endpoints
from pier.networks.firewall import Forward
from pier.networks.live import free_name
from pier.networks.looks import Looks
from pier.networks.plugging import align_routes, plug, unplug
from pier.networks.publishing import PublishedPorts, Work, publisher, refusal, same_ports
from pier.networks.registry import Registry
from pier.runtime.request import Interface
from pier.state import Delete, Put, Store

__all__ = ["BridgeFull", "Endpoints"]

BRIDGE_PORTS = 1023
"""Linux numbers the ports of a bridge with ten bits (BR_PORT_BITS), and number 0 is none."""


class BridgeFull(Conflict):
    """network {name} is full: a Linux bridge has {limit} ports"""

    remedy = "put further containers on another network"


class Endpoints:
    """One per daemon, of all containers. Touched on the event loop's thread."""

    def __init__(
        self,
        *,
        store: Store,
        work: Work,
        registry: Registry,
        drivers: Mapping[str, Driver],
        ports: PublishedPorts,
        names: NameTable,
    ) -> None:
        self._store, self._work = store, work
        self._registry, self._drivers = registry, drivers
        self._ports, self._names = ports, names
        self._looks = Looks(work)
        self.addresses = Addresses()
        self._sandboxes: dict[str, Sandbox] = {}
        self._members: dict[str, dict[str, Endpoint]] = {}
        """Network -> container -> endpoint."""

    # --- looking

    def sandbox(self, container_id: str) -> Sandbox | None:
        return self._sandboxes.get(container_id)

    def all(self) -> list[Sandbox]:
        return list(self._sandboxes.values())

    def on(self, network_id: str) -> list[Endpoint]:
        """The endpoints of a network."""
        return list(self._members.get(network_id, {}).values())

    # --- a daemon's start

    async def restore(self, endpoints: Iterable[Endpoint]) -> list[str]:
        """Take over endpoints of containers that run already; returns what could not be held again, in words."""
        for endpoint in endpoints:
            for address in endpoint.addresses:
                self.addresses.take(endpoint.network_id, address)
            self._keep(self._sandboxes.get(endpoint.container_id, Sandbox()).having(endpoint))
        return await self._ports.restore(self._sandboxes.items())

    async def verify(self, container_id: str, netns_fd: int) -> list[Endpoint]:
        """Forget the endpoints of a running container whose interfaces it does not have; returns them.

        A daemon was killed between their records and their devices, or their routes. Raises OSError.
        """
        sandbox = self._sandboxes.get(container_id, Sandbox())
        lost, misrouted = await self._looks.faults(netns_fd, sandbox)
        for endpoint in lost:
            await self.leave(container_id, endpoint.network_id, publishing=Publishing(), netns_fd=None)
        if lost or misrouted:
            left = self._sandboxes.get(container_id, Sandbox())
            await self._work(lambda: align_routes(netns_fd, left))
        return lost

    # --- a container's start and end

    async def connect(self, container_id: str, asks: Sequence[Ask], *, name: str, publishing: Publishing) -> Sandbox:
        """Give a container its endpoints, durable and with its ports published; those it has already are replaced.

        Nothing is left when it fails or is cancelled. Raises NetworkNotFound, Unavailable, AddressesExhausted,
        AddressInUse, BadPort, BridgeFull, ConnectivityFailed.
        """
        return await self._finish(container_id, self._connect(container_id, asks, name, publishing))

    async def release(self, container_id: str) -> None:
        """Free what a container had; one without endpoints is no error. Done to its end even when cancelled."""
        await asyncio.shield(self._release(container_id))

    async def _finish(self, container_id: str, deed: Coroutine[Any, Any, Sandbox]) -> Sandbox:
        """Await `deed` to its end even when cancelled, for its thread cannot be stopped; then take it back."""
        task = asyncio.ensure_future(deed)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):
                await task
            await self._release(container_id)
            raise

    async def _connect(self, container_id: str, asks: Sequence[Ask], name: str, publishing: Publishing) -> Sandbox:
        await self._release(container_id)
        sandbox = Sandbox()
        try:
            for ask in asks:
                sandbox = self._keep(sandbox.having(self._allocate(container_id, name, ask)), named=False)
            sandbox = self._with_interfaces(sandbox, asks)
            sandbox = self._keep(await self._claim(sandbox, publishing), named=False)
            # Records and map elements need no order: at start-up the table is rebuilt from the records.
            puts = [endpoint.put() for endpoint in sandbox.endpoints]
            await both(self._store.write(*puts), self._ports.publish(container_id))
        except BaseException as error:
            await self._release(container_id)
            raise refusal(error, sandbox, name or container_id[:12]) from error
        return self._keep(sandbox)

    async def _release(self, container_id: str) -> None:
        sandbox = self._sandboxes.pop(container_id, None)
        if sandbox is None:
            return
        for endpoint in sandbox.endpoints:
            self._names.remove(endpoint.network_id, endpoint.endpoint_id)
        try:
            deletes = [endpoint.delete() for endpoint in sandbox.endpoints]
            await both(self._store.write(*deletes), self._ports.release(container_id))
        finally:
            for endpoint in sandbox.endpoints:
                self._free(endpoint)

    # --- while it runs

    async def join(
        self,
        container_id: str,
        ask: Ask,
        *,
        name: str,
        publishing: Publishing,
        netns_fd: int,
        more: Sequence[Put | Delete] = (),
    ) -> Endpoint:
        """Put a running container on one more network. Nothing is left when it fails. Not to be cancelled.

        `more` is written in the same transaction, before anything is made; it stays. Raises what `connect` does, and
        InterfaceFailed.
        """
        before = self._sandboxes.get(container_id, Sandbox())
        bare = self._allocate(container_id, name, ask)
        after = self._keep(before.having(bare), named=False)
        plugged = False
        try:
            after = self._with_interfaces(after, [ask])
            endpoint = after.endpoints[-1]
            await self._store.write(*more, *changed(before, after))
            await self._work(lambda: plug(netns_fd, endpoint, before, after))
            plugged = True
            after = await self._move_ports(before, after, publishing)
        except BaseException as error:
            await self._take_back(before, after, netns_fd if plugged else None, publishing)
            raise refusal(error, after, name) from error
        return self._keep(after).endpoints[-1]

    async def _take_back(self, before: Sandbox, after: Sandbox, netns_fd: int | None, publishing: Publishing) -> None:
        """Undo a join that failed; what cannot be undone is what the next start of the daemon repairs."""
        new = after.endpoints[-1]
        with contextlib.suppress(PierError):
            if netns_fd is not None:
                await self._work(lambda: unplug(netns_fd, new, after, before))
                before = await self._move_ports(after, before, publishing)
        with contextlib.suppress(PierError):
            await self._store.write(new.delete(), *changed(after, before))
        self._free(new)
        self._keep(before, container_id=new.container_id)

    async def leave(
        self,
        container_id: str,
        network_id: str,
        *,
        publishing: Publishing,
        netns_fd: int | None,
        more: Sequence[Put | Delete] = (),
    ) -> None:
        """Take a running container off a network; `netns_fd` None: there is no interface. Not to be cancelled.

        `more` is written in the same transaction, once the interface is gone. Raises InterfaceFailed where it stays,
        ConnectivityFailed where its ports cannot be published from another network.
        """
        before = self._sandboxes.get(container_id, Sandbox())
        endpoint = before.on(network_id)
        if endpoint is None:
            return
        after = self._with_interfaces(before.without(network_id), [])
        if netns_fd is not None:
            await self._work(lambda: unplug(netns_fd, endpoint, before, after))
        self._names.remove(network_id, endpoint.endpoint_id)
        try:
            after = await self._move_ports(before, after, publishing)
        except PierError as error:
            raise refusal(error, after, endpoint.container) from error
        finally:
            self._free(endpoint)
            self._keep(after, container_id=container_id)
            await self._store.write(*more, endpoint.delete(), *changed(before, after))

    async def change_ports(self, container_id: str, add: PortMap, remove: Sequence[Forward], *, name: str) -> bool:
        """Publish more ports of a running container, and some of its own no more; all of it or nothing.

        False, and nothing done, where no network of its publishes ports. Not to be cancelled. Raises BadPort,
        PublishUnavailable, ConnectivityFailed.
        """
        sandbox = self._sandboxes.get(container_id, Sandbox())
        owner = publisher(sandbox)
        if owner is None:
            return False
        before = self._ports.of(container_id)
        try:
            after = replace(owner, forwards=await self._ports.change(owner, self._bridge(owner), add, remove))
        except BaseException as error:
            raise refusal(error, sandbox, name) from error
        try:
            await self._store.write(after.put())
        except BaseException:
            await self._ports.go_back(container_id, before)
            raise
        self._keep(sandbox.having(after))
        return True

    async def rename(self, container_id: str, name: str, names: Mapping[str, Sequence[str]]) -> None:
        """A container has another name; `names` are those it is found by now, by network."""
        sandbox = self._sandboxes.get(container_id)
        if sandbox is None:
            return
        renamed = Sandbox(
            tuple(
                replace(one, container=name, names=list(names.get(one.network_id, ())) if one.names else [])
                for one in sandbox.endpoints
            )
        )
        await self._store.write(*(endpoint.put() for endpoint in renamed.endpoints))
        self._keep(renamed)

    # --- parts

    def _keep(self, sandbox: Sandbox, *, named: bool = True, container_id: str = "") -> Sandbox:
        """Remember a container's endpoints, and make them known by name; without any it has no place here."""
        for endpoint in sandbox.endpoints:
            container_id = endpoint.container_id
            self._members.setdefault(endpoint.network_id, {})[container_id] = endpoint
            if named and endpoint.names:
                self._names.put(
                    endpoint.network_id,
                    endpoint.endpoint_id,
                    container_id,
                    endpoint.names,
                    endpoint.addresses,
                    network_name=endpoint.network,
                    links=dict(endpoint.links),
                )
        if container_id:
            self._sandboxes[container_id] = sandbox
        return sandbox

    def _allocate(self, container_id: str, name: str, ask: Ask) -> Endpoint:
        """An endpoint with its addresses, without interface. Nothing is awaited: no network goes away meanwhile.

        Raises NetworkNotFound, Unavailable, Forbidden, BridgeFull, AddressesExhausted, AddressInUse, AddressOutside.
        """
        record = self._registry.find(ask.network)
        if record.config_only:
            raise Forbidden("cannot create endpoint on configuration-only network")
        driver = self._drivers[record.driver]
        driver.require(record)
        if record.driver == "bridge" and len(self._members.get(record.id, ())) >= BRIDGE_PORTS:
            raise BridgeFull(name=record.name, limit=BRIDGE_PORTS)
        given = self.addresses.allocate(record, ipv4=ask.ipv4, ipv6=ask.ipv6)
        (ip, prefix_len), (ip6, prefix_len6) = given.get(4, ("", 0)), given.get(6, ("", 0))
        first = ip or ip6
        return Endpoint(
            container_id=container_id,
            container=name,
            network_id=record.id,
            network=record.name,
            driver=record.driver,
            endpoint_id=secrets.token_hex(32),
            ip=ip,
            prefix_len=prefix_len,
            gateway=driver.gateway(record, 4) if ip else "",
            ip6=ip6,
            prefix_len6=prefix_len6,
            gateway6=driver.gateway(record, 6) if ip6 else "",
            mac=ask.mac or driver.mac(first),
            names=list(ask.names),
            links=list(ask.links),
            gw_priority=ask.gw_priority,
            internal=record.internal,
            host=driver.host_addresses(record),
        )

    def _free(self, endpoint: Endpoint) -> None:
        """Give back what `_allocate` gave."""
        members = self._members.get(endpoint.network_id, {})
        if members.get(endpoint.container_id, endpoint).endpoint_id == endpoint.endpoint_id:
            members.pop(endpoint.container_id, None)
        for address in endpoint.addresses:
            self.addresses.free(endpoint.network_id, address)

    def _with_interfaces(self, sandbox: Sandbox, asks: Iterable[Ask]) -> Sandbox:
        """The endpoints with their interfaces, each with the default routes that are its own now."""
        asked = {self._registry.find(ask.network).id: ask for ask in asks}
        gateway4, gateway6 = gateway_endpoints(sandbox.endpoints)
        taken = [interface.name for interface in sandbox.interfaces]
        found = []
        for one in sandbox.endpoints:
            gateways = [one.gateway] if one is gateway4 else []
            gateways += [one.gateway6] if one is gateway6 else []
            interface = one.interface
            if interface is not None:
                interface = replace(interface, gateways=gateways)
            elif (ask := asked.get(one.network_id)) is not None:
                interface = self._interface(one, ask, gateways, taken)
                taken += [interface.name] if interface is not None else []
            found.append(replace(one, interface=interface))
        return Sandbox(tuple(found))

    def _interface(self, endpoint: Endpoint, ask: Ask, gateways: list[str], taken: Sequence[str]) -> Interface | None:
        record = self._registry.find(endpoint.network_id)
        prefix = record.options.get("com.docker.network.container_iface_prefix") or "eth"
        addresses = [f"{endpoint.ip}/{endpoint.prefix_len}"] if endpoint.ip else []
        addresses += [f"{endpoint.ip6}/{endpoint.prefix_len6}"] if endpoint.ip6 else []
        addresses += [f"{text}/{16 if ip_address(text).version == 4 else 64}" for text in ask.link_local]
        place = Place(
            endpoint_id=endpoint.endpoint_id,
            name=ask.options.get(IFNAME) or free_name(taken, prefix),
            mac=endpoint.mac,
            addresses=tuple(addresses),
            gateways=tuple(gateways),
            sysctls=sysctls(ask.options.get(SYSCTLS, "")),
        )
        return self._drivers[record.driver].interface(record, place)

    async def _claim(self, sandbox: Sandbox, publishing: Publishing) -> Sandbox:
        """Hold the ports of a container for the endpoint that gives it its default route."""
        exposed = list(publishing.exposed)
        endpoints = [replace(one, exposed=exposed if one.interface else [], forwards=[]) for one in sandbox.endpoints]
        sandbox = Sandbox(tuple(endpoints))
        owner = publisher(sandbox)
        if owner is None:
            return sandbox
        forwards = await self._ports.claim(owner, self._bridge(owner), publishing)
        return sandbox.having(replace(owner, forwards=forwards))

    def _bridge(self, owner: Endpoint) -> BridgeNetwork:
        """The network that an endpoint's ports are published from."""
        bridge = self._drivers["bridge"]
        assert isinstance(bridge, BridgeDriver)
        return bridge.network(self._registry.find(owner.network_id))

    async def _move_ports(self, before: Sandbox, after: Sandbox, publishing: Publishing) -> Sandbox:
        """Publish a running container's ports from where its default route is now, under the same host ports."""
        old, new = publisher(before), publisher(after)
        if (old.network_id if old else "") == (new.network_id if new else ""):
            return after
        container_id = (old or new or after.endpoints[0]).container_id
        wanted = same_ports(publishing, before.forwards)
        await self._ports.release(container_id)
        after = await self._claim(after, wanted)
        await both(self._store.write(*changed(before, after)), self._ports.publish(container_id))
        return after


def changed(before: Sandbox, after: Sandbox) -> list[Any]:
    """The changes of the state that make it `after`, of the endpoints that are in it."""
    return [one.put() for one in after.endpoints if before.on(one.network_id) != one]


async def both(*deeds: Coroutine[Any, Any, object]) -> None:
    """Await all to their ends, then raise the first error."""
    results = await asyncio.gather(*deeds, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
