"""The endpoints of containers: addresses, ports, interfaces and names, given, kept and taken back.

What the daemon's process holds for a container is addresses, sockets of published ports and a record an endpoint; the
devices are made by the container's first process when it starts, by `live` when it joins a network later.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import ip_address
from typing import Any, Protocol, TypeVar

from pier.errors import Conflict, PierError, Unavailable
from pier.kernel.nftables import NftablesError
from pier.networks import live
from pier.networks.asks import IFNAME, SYSCTLS, sysctls
from pier.networks.creation import Forbidden
from pier.networks.driver import BridgeDriver, Driver, Place
from pier.networks.endpoint import Ask, Endpoint, Publishing, Sandbox, gateway_endpoints
from pier.networks.firewall import Forward
from pier.networks.host import HostSide
from pier.networks.inside import run_inside
from pier.networks.ipam import AddressesExhausted, AddressOutside, AddressPool, open_pool
from pier.networks.ports import (
    AllPortsAllocated,
    HeldPort,
    PortAlreadyAllocated,
    PortBindFailed,
    PortTable,
    Target,
    port_map,
    requests_of,
)
from pier.networks.records import NetworkRecord
from pier.networks.registry import Registry
from pier.networks.relay import Relay, start_relays
from pier.runtime.request import Interface
from pier.state import Store

__all__ = ["ConnectivityFailed", "Endpoints", "Names", "PublishUnavailable", "both"]

T = TypeVar("T")
REFUSALS = (PortAlreadyAllocated, PortBindFailed, AllPortsAllocated, NftablesError)
BRIDGE_PORTS = 1023
"""Linux numbers the ports of a bridge with ten bits (BR_PORT_BITS), and number 0 is none."""


class PublishUnavailable(Unavailable):
    """failed to set up container networking: ports cannot be published: {reason}"""


class ConnectivityFailed(PierError):
    """failed to set up container networking: driver failed programming external connectivity on endpoint {name} ({endpoint_id}): {reason}"""  # noqa: E501


class AttachFailed(PierError):
    """failed to set up container networking: cannot add interface {interface}: {reason}"""


class BridgeFull(Conflict):
    """network {name} is full: a Linux bridge has {limit} ports"""

    remedy = "put further containers on another network"


class Names(Protocol):
    """Who answers containers' questions for names: `dns.NameTable`."""

    def put(
        self,
        network_id: str,
        endpoint_id: str,
        container_id: str,
        names: Sequence[str],
        addresses: Sequence[str],
        *,
        network_name: str = "",
        links: Mapping[str, str] | None = None,
    ) -> None: ...
    def remove(self, network_id: str, endpoint_id: str) -> None: ...


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


class Endpoints:
    """One per daemon, of all containers. Touched on the event loop's thread."""

    def __init__(
        self,
        *,
        store: Store,
        host: HostSide,
        work: Work,
        registry: Registry,
        drivers: Mapping[str, Driver],
        names: Names,
        default_ip: str,
    ) -> None:
        """`default_ip` is where ports are published that name no address of the host."""
        self._store, self._host, self._work = store, host, work
        self._registry, self._drivers, self._names = registry, drivers, names
        self._default_ip = default_ip
        self._ports = PortTable(carriage=lambda: host.carriage)
        self._pools: dict[str, list[AddressPool]] = {}
        self._sandboxes: dict[str, Sandbox] = {}
        self._members: dict[str, dict[str, Endpoint]] = {}
        """Network -> container -> endpoint."""
        self._held: dict[str, Held] = {}

    # --- looking

    def sandbox(self, container_id: str) -> Sandbox | None:
        return self._sandboxes.get(container_id)

    def all(self) -> list[Sandbox]:
        return list(self._sandboxes.values())

    def on(self, network_id: str) -> list[Endpoint]:
        """The endpoints of a network."""
        return list(self._members.get(network_id, {}).values())

    def pools(self, network_id: str) -> list[AddressPool]:
        return self._pools.get(network_id, [])

    # --- networks come and go

    def open(self, record: NetworkRecord) -> None:
        """Begin to hand out the addresses of a network. Raises GatewayInUse, AuxAddressInUse."""
        self._pools[record.id] = [open_pool(subnet.ranges) for subnet in record.subnets]

    def close_network(self, network_id: str) -> None:
        self._pools.pop(network_id, None)

    async def restore(self, endpoints: Iterable[Endpoint]) -> list[str]:
        """Take over endpoints of containers that run already; returns what could not be held again, in words."""
        for endpoint in endpoints:
            sandbox = self._sandboxes.get(endpoint.container_id, Sandbox())
            for address in endpoint.addresses:
                for pool in self.pools(endpoint.network_id):
                    if ip_address(address) in pool.subnet:
                        with contextlib.suppress(PierError):  # of an earlier configuration: it cannot collide
                            pool.take(ip_address(address))
            self._keep(sandbox.having(endpoint))
        lost = []
        for container_id, sandbox in self._sandboxes.items():
            reclaim = partial(self._ports.reclaim, sandbox.forwards, holder=container_id)
            held, gone = await self._work(reclaim)
            self._held[container_id] = Held(held, await start_relays(held, self._host.carriage))
            lost += [f"published port of container {container_id[:12]}: {text}" for text in gone]
        return lost

    async def close(self) -> None:
        """Let go of the sockets; everything in the kernel stays."""
        for held in self._held.values():
            for relay in held.relays:
                relay.close()
        await self._work(self._ports.close)

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
                sandbox = sandbox.having(self._allocate(container_id, name, ask, sandbox))
                self._keep(sandbox, named=False)
            sandbox = self._with_interfaces(sandbox, asks)
            sandbox = self._keep(await self._publish_from(sandbox, publishing, name), named=False)
            # Records and map elements need no order: at start-up the table is rebuilt from the records.
            puts = [endpoint.put() for endpoint in sandbox.endpoints]
            await both(self._store.write(*puts), self._publish(sandbox.forwards))
        except BaseException as error:
            await self._release(container_id)
            raise self._refusal(error, sandbox, name or container_id[:12]) from error
        return self._keep(sandbox)

    def _refusal(self, error: BaseException, sandbox: Sandbox, name: str) -> BaseException:
        """What to raise for a failure: ports that cannot be had are Docker's `external connectivity`."""
        owner = publisher(sandbox)
        if isinstance(error, REFUSALS) and owner is not None:
            return ConnectivityFailed(name=name, endpoint_id=owner.endpoint_id, reason=error.wire)
        return error

    async def _release(self, container_id: str) -> None:
        sandbox = self._sandboxes.pop(container_id, None)
        if sandbox is None:
            return
        held = self._held.pop(container_id, Held())
        for relay in held.relays:
            relay.close()
        for endpoint in sandbox.endpoints:
            self._names.remove(endpoint.network_id, endpoint.endpoint_id)
        try:
            deletes = [endpoint.delete() for endpoint in sandbox.endpoints]
            await both(self._store.write(*deletes), self._unpublish(held.forwards))
        finally:
            if held.ports:
                await self._work(lambda: self._ports.release(held.ports))
            for endpoint in sandbox.endpoints:
                self._free(endpoint)

    # --- while it runs

    async def join(self, container_id: str, ask: Ask, *, name: str, publishing: Publishing, netns_fd: int) -> Endpoint:
        """Put a running container on one more network. Nothing is left when it fails. Raises what `connect` does, and
        AttachFailed. Not to be cancelled."""
        before = self._sandboxes.get(container_id, Sandbox())
        endpoint = self._allocate(container_id, name, ask, before)
        self._keep(before.having(endpoint), named=False)
        after = before
        try:
            after = self._with_interfaces(before.having(endpoint), [ask])
            new = after.endpoints[-1]
            await self._store.write(new.put())
            await self._work(lambda: attach(netns_fd, new, before, after))
            after = await self._republish(before, after, publishing, name)
        except BaseException as error:
            await self._take_back(before, after, endpoint, netns_fd)
            raise self._refusal(error, after, name) from error
        self._keep(after)
        found = after.on(endpoint.network_id)
        assert found is not None
        return found

    async def _take_back(self, before: Sandbox, after: Sandbox, endpoint: Endpoint, netns_fd: int) -> None:
        """Undo a join that failed."""
        new = after.on(endpoint.network_id)
        if new is not None:
            with contextlib.suppress(OSError):
                await self._work(lambda: detach(netns_fd, new, after, before))
        with contextlib.suppress(PierError):
            await self._store.write(endpoint.delete(), *(one.put() for one in before.endpoints))
        self._members.get(endpoint.network_id, {}).pop(endpoint.container_id, None)
        self._free(endpoint)
        if before.endpoints:
            self._keep(before)
        else:
            self._sandboxes.pop(endpoint.container_id, None)

    async def leave(self, container_id: str, network_id: str, *, publishing: Publishing, netns_fd: int | None) -> None:
        """Take a running container off a network; `netns_fd` None: its namespace is gone. Not to be cancelled.

        Raises AttachFailed where the interface stays, ConnectivityFailed where its ports cannot be published from
        another network.
        """
        before = self._sandboxes.get(container_id, Sandbox())
        endpoint = before.on(network_id)
        if endpoint is None:
            return
        after = self._with_interfaces(before.without(network_id), [])
        self._names.remove(network_id, endpoint.endpoint_id)
        if netns_fd is not None:
            fd = netns_fd
            try:
                await self._work(lambda: detach(fd, endpoint, before, after))
            except OSError as error:
                self._keep(before)
                name = endpoint.interface.name if endpoint.interface else ""
                raise AttachFailed(interface=name, reason=str(error)) from error
        try:
            after = await self._republish(before, after, publishing, endpoint.container)
        except PierError as error:
            raise self._refusal(error, after, endpoint.container) from error
        finally:
            self._members.get(network_id, {}).pop(container_id, None)
            self._free(endpoint)
            self._keep(after, container_id=container_id)
            await self._store.write(endpoint.delete())

    async def verify(self, container_id: str, netns_fd: int) -> list[Endpoint]:
        """Forget the endpoints of a running container whose interfaces it does not have; returns them.

        A daemon was killed between their records and their devices. Raises OSError.
        """
        sandbox = self._sandboxes.get(container_id, Sandbox())
        lost = await self._work(lambda: missing(netns_fd, sandbox.endpoints))
        for endpoint in lost:
            await self.leave(container_id, endpoint.network_id, publishing=Publishing(), netns_fd=None)
        return lost

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
        """Remember a container's endpoints, and make them known by name."""
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

    def _allocate(self, container_id: str, name: str, ask: Ask, sandbox: Sandbox) -> Endpoint:
        """An endpoint with its addresses, without interface. Nothing is awaited: no network goes away meanwhile.

        Raises NetworkNotFound, Unavailable, Forbidden, BridgeFull, AddressesExhausted, AddressInUse, AddressOutside.
        """
        record = self._registry.find(ask.network)
        if record.config_only:
            raise Forbidden("cannot create endpoint on configuration-only network")
        driver = self._drivers[record.driver]
        driver.require(record)
        members = self._members.setdefault(record.id, {})
        if record.driver == "bridge" and len(members) >= BRIDGE_PORTS:
            raise BridgeFull(name=record.name, limit=BRIDGE_PORTS)
        given: dict[int, tuple[str, int]] = {}
        try:
            for version, wanted in ((4, ask.ipv4), (6, ask.ipv6)):
                pools = [pool for pool in self.pools(record.id) if pool.subnet.version == version]
                if pools:
                    given[version] = allocate(pools, record, wanted)
        except BaseException:
            for address, _ in given.values():
                self._free_address(record.id, address)
            raise
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

    def _with_interfaces(self, sandbox: Sandbox, asks: Iterable[Ask]) -> Sandbox:
        """The endpoints with their interfaces, each with the default routes that are its own now."""
        asked = {self._registry.find(ask.network).id: ask for ask in asks}
        gateway4, gateway6 = gateway_endpoints(sandbox.endpoints)
        taken = [one.interface.name for one in sandbox.endpoints if one.interface is not None]
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
        name = ask.options.get(IFNAME) or live.free_name(taken, prefix)
        addresses = [f"{endpoint.ip}/{endpoint.prefix_len}"] if endpoint.ip else []
        addresses += [f"{endpoint.ip6}/{endpoint.prefix_len6}"] if endpoint.ip6 else []
        addresses += [f"{text}/{16 if ip_address(text).version == 4 else 64}" for text in ask.link_local]
        place = Place(
            endpoint_id=endpoint.endpoint_id,
            name=name,
            mac=endpoint.mac,
            addresses=tuple(addresses),
            gateways=tuple(gateways),
            sysctls=sysctls(ask.options.get(SYSCTLS, "")),
        )
        return self._drivers[record.driver].interface(record, place)

    def _free(self, endpoint: Endpoint) -> None:
        members = self._members.get(endpoint.network_id, {})
        if members.get(endpoint.container_id, endpoint).endpoint_id == endpoint.endpoint_id:
            members.pop(endpoint.container_id, None)
        for address in endpoint.addresses:
            self._free_address(endpoint.network_id, address)

    def _free_address(self, network_id: str, address: str) -> None:
        for pool in self.pools(network_id):
            if ip_address(address) in pool.subnet:
                pool.release(ip_address(address))

    # --- ports

    async def _publish_from(self, sandbox: Sandbox, publishing: Publishing, name: str) -> Sandbox:
        """Hold the ports of a container for the endpoint that gives it its default route; nothing in the kernel yet."""
        exposed = list(publishing.exposed)
        endpoints = tuple(replace(one, exposed=exposed, forwards=[]) for one in sandbox.endpoints)
        sandbox = Sandbox(endpoints if any(one.interface for one in endpoints) else sandbox.endpoints)
        owner = publisher(sandbox)
        if owner is None:
            return sandbox
        network = self._bridge().network(self._registry.find(owner.network_id))
        requests = requests_of(
            publishing.ports,
            exposed=publishing.exposed,
            publish_all=publishing.publish_all,
            default_ip=network.host_binding or self._default_ip,
        )
        if not requests:
            return sandbox
        if self._host.publish_off:
            raise PublishUnavailable(reason=self._host.publish_off)
        target, holder = self._target(owner), owner.container_id
        held = await self._work(lambda: self._ports.claim(requests, target, holder=holder))
        self._held[holder] = Held(held)
        self._held[holder].relays = await start_relays(held, self._host.carriage)
        return sandbox.having(replace(owner, forwards=[port.forward for port in held]))

    def _target(self, owner: Endpoint) -> Target:
        network = self._bridge().network(self._registry.find(owner.network_id))
        routed = tuple(version for version in (4, 6) if network.mode(version) == "routed")
        return Target(network.bridge, tuple(owner.addresses), routed)

    def _bridge(self) -> BridgeDriver:
        driver = self._drivers["bridge"]
        assert isinstance(driver, BridgeDriver)
        return driver

    async def _republish(self, before: Sandbox, after: Sandbox, publishing: Publishing, name: str) -> Sandbox:
        """Publish a running container's ports from where its default route is now, under the same host ports."""
        old, new = publisher(before), publisher(after)
        if (old.network_id if old else "") == (new.network_id if new else ""):
            return after
        container_id = (old or new or after.endpoints[0]).container_id
        held = self._held.pop(container_id, Held())
        for relay in held.relays:
            relay.close()
        await self._unpublish(held.forwards)
        wanted = replace(publishing, ports={**publishing.ports, **bindings(held.forwards)})
        await self._work(lambda: self._ports.release(held.ports))
        after = await self._publish_from(after, wanted, name)
        await both(self._store.write(*(one.put() for one in after.endpoints)), self._publish(after.forwards))
        return after

    async def _publish(self, forwards: list[Forward]) -> None:
        if forwards:
            await self._work(lambda: self._host.publish(forwards))

    async def _unpublish(self, forwards: list[Forward]) -> None:
        if forwards:
            with contextlib.suppress(NftablesError):  # never added, or flushed by others: it is not there
                await self._work(lambda: self._host.unpublish(forwards))


# --- blocking, in the thread of the networks


def attach(netns_fd: int, endpoint: Endpoint, before: Sandbox, after: Sandbox) -> None:
    """Make an endpoint's interface in a running container, default routes included. Raises AttachFailed."""
    interface = endpoint.interface
    if interface is None:
        return
    try:
        had_routes = any(one.gateways for one in before.interfaces)
        live.attach(netns_fd, replace(interface, gateways=[]) if had_routes else interface)
        if had_routes:
            live.move_default_routes(netns_fd, before.interfaces, after.interfaces)
    except (OSError, ValueError) as error:
        raise AttachFailed(interface=interface.name, reason=str(error)) from error


def detach(netns_fd: int, endpoint: Endpoint, before: Sandbox, after: Sandbox) -> None:
    """Take an endpoint's interface away, and give the default routes to who has them now. Raises OSError."""
    interface = endpoint.interface
    if interface is None:
        return
    live.detach(netns_fd, interface)
    live.move_default_routes(netns_fd, before.interfaces, after.interfaces)


def missing(netns_fd: int, endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """Those whose interfaces are not there. Raises OSError.

    A veth pair is known by its end on the host: whoever has the rights inside may call the other as he likes.
    """
    found = []
    for endpoint in endpoints:
        interface = endpoint.interface
        if interface is None:
            continue
        if interface.kind == "veth":
            there = is_there(interface.host_name)
        else:
            there = run_inside(netns_fd, partial(is_there, interface.name))
        if not there:
            found.append(endpoint)
    return found


def is_there(name: str) -> bool:
    """Has this thread's network namespace such a device? One is asked for: all of a busy machine are many."""
    try:
        return bool(socket.if_nametoindex(name))
    except OSError:
        return False


# --- pure


def publisher(sandbox: Sandbox) -> Endpoint | None:
    """The endpoint whose addresses published ports lead to: of a bridge that gives the default route."""
    return next((one for one in sandbox.gateways if one is not None and one.driver == "bridge"), None)


def bindings(forwards: Iterable[Forward]) -> dict[str, list[Any]]:
    """The ports that a container has, to be asked for again."""
    return {port: list(found) for port, found in port_map(forwards, ()).items() if found}


def allocate(pools: Sequence[AddressPool], record: NetworkRecord, wanted: str) -> tuple[str, int]:
    """(an address, its prefix length) of one family. Raises AddressesExhausted, AddressInUse, AddressOutside."""
    name = f"{record.name} ({record.id})"
    if wanted:
        address = ip_address(wanted)
        for pool in pools:
            if address in pool.subnet:
                return str(pool.allocate(name, address)), pool.subnet.prefixlen
        raise AddressOutside(address=wanted)
    for pool in pools[:-1]:
        with contextlib.suppress(AddressesExhausted):
            return str(pool.allocate(name)), pool.subnet.prefixlen
    return str(pools[-1].allocate(name)), pools[-1].subnet.prefixlen


async def both(*deeds: Coroutine[Any, Any, object]) -> None:
    """Await all to their ends, then raise the first error."""
    results = await asyncio.gather(*deeds, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
