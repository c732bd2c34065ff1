"""The networks of the daemon: made, found, shown and removed; containers join and leave them through `endpoints`.

A change is written before the world is changed: at a start of the daemon, records make bridges and rules.
"""

from __future__ import annotations

import asyncio
import builtins
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from typing import TypeVar

from pier.errors import PierError
from pier.events import EventBus
from pier.model.disk_usage import NetworksPruneResponse
from pier.model.filters import Filters, pruned_before_ns
from pier.model.network import PortMap
from pier.model.networks import (
    NetworkCreateRequest,
    NetworkCreateResponse,
    NetworkInspect,
    NetworkSummary,
)
from pier.networks import answers
from pier.networks.bridge_options import BridgeNetwork
from pier.networks.creation import Forbidden, draft, with_subnets
from pier.networks.default_bridge import NetworkConfig, check_addresses, default_bridge, pools_of
from pier.networks.dns import DnsServer, NameTable
from pier.networks.driver import BridgeDriver, Driver, HostDriver, NullDriver
from pier.networks.endpoint import ENDPOINT, Ask, Endpoint, Publishing, Sandbox, load_endpoints
from pier.networks.endpoints import Endpoints
from pier.networks.firewall import Forward
from pier.networks.guard import FirewallGuard
from pier.networks.host import HostSide
from pier.networks.ipam import Family, Network, check_overlap, choose_subnet
from pier.networks.ipvlan import IpvlanDriver
from pier.networks.macvlan import MacvlanDriver
from pier.networks.publishing import PublishedPorts
from pier.networks.records import NETWORK, NetworkRecord, SubnetRecord, load_networks
from pier.networks.registry import NetworkNotFound, Registry, matcher
from pier.state import Delete, Put, Store

__all__ = ["NetworkConfig", "NetworkService"]

T = TypeVar("T")
log = logging.getLogger("pier.networks")
PRUNE_FILTERS = ("label", "label!", "until")
REMEMBERED = 16
"""Subnets of removed networks that are not given again as long as there are others."""


class ActiveEndpoints(PierError):
    """error while removing network: network {name} has active endpoints ({endpoints})"""

    status = 403
    remedy = "disconnect or remove these containers"


class NetworkService:
    """One per daemon. Kernel work is done in one thread of its own, in order."""

    def __init__(self, config: NetworkConfig, store: Store, events: EventBus) -> None:
        """Raises BadBridgeAddress for a wrong `bip` or `fixed_cidr`."""
        check_addresses(config)
        self.features: list[str] = []
        """What of networking is off on this machine and why, for `info`'s warnings."""
        self.names = NameTable()
        self.dns = DnsServer(self.names)
        """The name servers of containers on user-defined networks."""
        self._config, self._store, self._events = config, store, events
        self._host = HostSide(config)
        self._worker = ThreadPoolExecutor(1, "networks")
        self._guard = FirewallGuard(self._host, self._work, self._tell)
        self._registry = Registry()
        self._bridge = BridgeDriver(self._host)
        self._drivers: dict[str, Driver] = {
            "bridge": self._bridge,
            "host": HostDriver(),
            "null": NullDriver(),
            "macvlan": MacvlanDriver(),
            "ipvlan": IpvlanDriver(),
        }
        self._ports = PublishedPorts(self._host, self._work, default_ip=config.ip)
        self._endpoints = Endpoints(
            store=store,
            work=self._work,
            registry=self._registry,
            drivers=self._drivers,
            ports=self._ports,
            names=self.names,
        )
        self._changing = asyncio.Lock()
        """Held while a network is made or removed."""
        self._recent: deque[Network] = deque(maxlen=REMEMBERED)

    # --- start and stop

    async def start(self, live: set[str]) -> list[str]:
        """Make the host's side and take up where an earlier daemon ended; returns what was repaired, in words.

        `live` are the ids of the containers that run; endpoints of others are freed. What this machine lacks is said
        in `features`, and is no error: `host` and `none` always work.
        """
        endpoints, repaired = await self._load(live)
        published = [forward for endpoint in endpoints for forward in endpoint.forwards]
        in_use = any(endpoint.network == "bridge" for endpoint in endpoints)
        self.features = await self._start_host(published, in_use=in_use)
        repaired += await self._work(self._make_parents)
        await self._guard.start()
        for record in self._registry:
            try:
                self._endpoints.addresses.open(record)
            except PierError as error:
                self.features.append(f"WARNING: network {record.name} gives no addresses: {error}")
        return repaired + await self._endpoints.restore(endpoints)

    def _make_parents(self) -> builtins.list[str]:
        """Make what macvlan and ipvlan networks hang on, where it is gone; returns what cannot be had. Blocking."""
        missing = []
        for record in self._registry:
            if record.driver in ("macvlan", "ipvlan") and not record.config_only:
                try:
                    self._drivers[record.driver].make(record)
                except (OSError, PierError) as error:
                    missing.append(f"network {record.name}: no container can join: {error}")
        return missing

    async def teardown(self) -> bool:
        """Remove bridges and table; False, and nothing done, when a container has an endpoint on a bridge.

        Raises OSError, NftablesError.
        """
        if any(sandbox.interfaces for sandbox in self._endpoints.all()):
            return False
        await self._guard.close()
        await self._work(self._host.teardown)
        return True

    async def close(self) -> None:
        """Let go of sockets and the thread; bridges, table and translations stay for the containers that go on."""
        await self.dns.close()
        await self._guard.close()
        await self._ports.close()
        await self._work(self._host.close)
        self._worker.shutdown(wait=False)

    def _tell(self, words: str) -> None:
        """Of what was put right in the firewall."""
        log.warning("firewall: %s", words)
        self._events.publish("daemon", "firewall", self._config.seed, {"message": words})

    async def _load(self, live: set[str]) -> tuple[list[Endpoint], list[str]]:
        """Read the state; forget endpoints of containers that are gone and records that cannot be read."""
        networks, changes, repaired = load_networks(await self._store.load(NETWORK))
        for record in networks.values():
            self._registry.put(record)
        endpoints, more = load_endpoints(await self._store.load(ENDPOINT))
        changes += more
        kept = []
        for endpoint in endpoints:
            if endpoint.container_id in live and endpoint.network_id in networks:
                kept.append(endpoint)
            else:
                changes.append(endpoint.delete())
                repaired.append(f"network endpoint of container {endpoint.container_id[:12]}: freed, it is gone")
        if changes:
            await self._store.write(*changes)
        return kept, repaired

    async def _start_host(self, published: list[Forward], *, in_use: bool) -> list[str]:
        """Make the bridges of all records; returns what this machine lacks."""
        own = self._registry.find("bridge")
        try:
            networks = await self._work(lambda: self._bridges(own, in_use=in_use))
            warnings = await self._work(lambda: self._host.start(networks, published))
        except (OSError, PierError) as error:
            self._host.bridge_off = self._host.publish_off = str(error)
            return [f"WARNING: bridge networks are off: {error}"]
        default = next((network for network in networks if network.id == own.id), None)
        if default is not None:
            await self._note_default(own, default)
        elif self._config.bridge != "none":
            warnings.append(f"WARNING: the default bridge network is off: {self._bridge.no_default}")
        return warnings

    def _bridges(self, own: NetworkRecord, *, in_use: bool) -> builtins.list[BridgeNetwork]:
        """The bridges that there are to be, the default one first. Blocking. Raises OSError, PierError."""
        found = []
        if self._config.bridge != "none":
            try:
                found.append(self._default(own, in_use=in_use))
                self._bridge.default(found[0])
            except PierError as error:
                self._bridge.no_default = error.wire
        for record in self._registry:
            if record.driver == "bridge" and record.id != own.id and not record.config_only:
                found.append(self._bridge.network(record))
        return found

    def _default(self, own: NetworkRecord, *, in_use: bool) -> BridgeNetwork:
        """The default bridge, clear of all other networks. Blocking. Raises OSError, SubnetsExhausted, PoolOverlaps."""
        others = [record for record in self._registry if record.id != own.id]
        taken = [ip_network(subnet.subnet) for record in others for subnet in record.subnets]
        earlier = [subnet.subnet for subnet in own.subnets]
        occupied = [*self._host.occupied(), *taken]
        found = default_bridge(self._config, own.id, earlier=earlier, occupied=occupied, in_use=in_use)
        for subnet in found.subnets:
            check_overlap(subnet.network, taken)
        return found

    async def _note_default(self, own: NetworkRecord, network: BridgeNetwork) -> None:
        """Keep the default bridge's subnets for the next start, and what inspect shows of it."""
        subnets = [SubnetRecord.of(subnet) for subnet in network.subnets]
        record = answers.described(own, network, subnets, host_binding=self._config.ip)
        self._registry.put(record)
        if record != own:
            await self._store.write(record.put())

    # --- networks

    def find(self, ref: str) -> NetworkRecord:
        """By id, name or beginning of an id. Raises NetworkNotFound, AmbiguousNetwork."""
        return self._registry.find(ref)

    def list(self, filters: Filters) -> list[NetworkSummary]:
        """By name. Raises UnknownFilter and what else `matcher` raises."""
        matches = matcher(filters, lambda id: bool(self._endpoints.on(id)))
        chosen = [record for record in self._registry if matches(record)]
        return [answers.summary(record) for record in sorted(chosen, key=lambda record: record.name)]

    def inspect(self, ref: str, *, scope: str = "") -> NetworkInspect:
        """Raises NetworkNotFound, AmbiguousNetwork."""
        record = self.find(ref)
        if scope and scope != record.scope:
            raise NetworkNotFound(name=ref)
        return answers.inspect(record, self._endpoints.on(record.id), self._endpoints.addresses.pools(record.id))

    async def create(self, asked: NetworkCreateRequest) -> NetworkCreateResponse:
        """Make a network. Raises InvalidParameter, NetworkExists, Forbidden, PoolOverlaps, BridgeFailed, …"""
        async with self._changing:
            wanted = draft(asked, self._registry, drivers=self._drivers, defaults=self._config.network_opts)
            record = await self._work(lambda: self._complete(wanted))
            warnings: builtins.list[str] = []
            if record.config_only:
                await self._store.write(record.put())
            else:
                warnings = await self._make(record)
            self._registry.put(record)
            self._publish(record, "create")
        return NetworkCreateResponse(id=record.id, warning="\n".join(warnings))

    async def _make(self, record: NetworkRecord) -> builtins.list[str]:
        driver = self._drivers[record.driver]
        warnings = driver.check(record, [*self._registry])
        await self._store.write(record.put())
        try:
            self._endpoints.addresses.open(record)
            await self._work(lambda: driver.make(record))
        except BaseException:
            self._endpoints.addresses.close(record.id)
            driver.forget(record)
            await self._store.write(Delete(NETWORK, record.id))
            raise
        return warnings

    def _complete(self, wanted: NetworkRecord) -> NetworkRecord:
        """The record with what only a look at the machine can tell. Blocking. Raises PierError, OSError."""
        without = self._drivers[wanted.driver].without_gateway(wanted)
        record = with_subnets(wanted, self._registry, self._choose_subnet, without_gateway=without)
        if record.driver == "bridge" and not record.config_only:
            record = self._bridge.adopt(record)
        return record

    def _choose_subnet(self, family: Family) -> Network:
        """One that nothing on this machine uses. Blocking. Raises SubnetsExhausted, OSError."""
        occupied = self._host.occupied()
        occupied += [ip_network(subnet.subnet) for record in self._registry for subnet in record.subnets]
        return choose_subnet(family, pools_of(self._config), occupied, recent=[*self._recent])

    async def remove(self, ref: str) -> None:
        """Raises NetworkNotFound, Forbidden for one of the daemon's own, ActiveEndpoints."""
        async with self._changing:
            record = self.find(ref)
            if record.predefined:
                raise Forbidden(f"{record.name} is a pre-defined network and cannot be removed")
            await self._remove(record)

    async def _remove(self, record: NetworkRecord) -> None:
        endpoints = self._endpoints.on(record.id)
        if endpoints:
            words = ", ".join(f'name:"{one.container}" id:"{one.endpoint_id[:12]}"' for one in endpoints)
            raise ActiveEndpoints(name=record.name, endpoints=words)
        if record.config_only and any(other.config_from == record.name for other in self._registry):
            raise Forbidden(f'error while removing network: configuration network "{record.name}" is in use')
        self._registry.drop(record)  # from now on nobody joins it
        try:
            if not record.config_only:
                await self._work(lambda: self._drivers[record.driver].unmake(record))
            await self._store.write(Delete(NETWORK, record.id))
        except BaseException:
            self._registry.put(record)
            raise
        self._endpoints.addresses.close(record.id)
        self._recent += [ip_network(subnet.subnet) for subnet in record.subnets if not subnet.asked]
        self._publish(record, "destroy")

    async def prune(self, filters: Filters) -> NetworksPruneResponse:
        """Remove the networks that no container is on. Raises UnknownFilter, BadTime, SeveralUntil."""
        filters.validate(PRUNE_FILTERS)
        before_ns = pruned_before_ns(filters, time.time_ns())
        gone = []
        async with self._changing:
            for record in self._registry:
                if self._prunable(record, filters, before_ns):
                    await self._remove(record)
                    gone.append(record.name)
        self._events.publish("network", "prune", "", {"reclaimed": "0"})
        return NetworksPruneResponse(networks_deleted=gone or None)

    def _prunable(self, record: NetworkRecord, filters: Filters, before_ns: int | None) -> bool:
        return (
            record.user_defined
            and not record.config_only
            and not self._endpoints.on(record.id)
            and (before_ns is None or record.created_ns <= before_ns)
            and filters.key_values("label", record.labels)
            and filters.lacks_key_values("label!", record.labels)
        )

    def _publish(self, record: NetworkRecord, action: str) -> None:
        self._events.publish("network", action, record.id, {"name": record.name, "type": record.driver})

    # --- containers: see `Endpoints`

    def sandbox(self, container_id: str) -> Sandbox | None:
        """What a container has of its networks; None: nothing, or it joins another's."""
        return self._endpoints.sandbox(container_id)

    def host_gateway(self) -> builtins.list[str]:
        """The default bridge's addresses; empty where there is none."""
        try:
            return self._bridge.host_addresses(self._registry.find("bridge"))
        except PierError:
            return []

    async def connect(self, container_id: str, asks: Sequence[Ask], *, name: str, publishing: Publishing) -> Sandbox:
        return await self._endpoints.connect(container_id, asks, name=name, publishing=publishing)

    async def release(self, container_id: str) -> None:
        await self._endpoints.release(container_id)

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
        return await self._endpoints.join(
            container_id, ask, name=name, publishing=publishing, netns_fd=netns_fd, more=more
        )

    async def leave(
        self,
        container_id: str,
        network_id: str,
        *,
        publishing: Publishing,
        netns_fd: int | None,
        more: Sequence[Put | Delete] = (),
    ) -> None:
        await self._endpoints.leave(container_id, network_id, publishing=publishing, netns_fd=netns_fd, more=more)

    async def change_ports(self, container_id: str, add: PortMap, remove: Sequence[Forward], *, name: str) -> bool:
        return await self._endpoints.change_ports(container_id, add, remove, name=name)

    async def verify(self, container_id: str, netns_fd: int) -> Sequence[Endpoint]:
        return await self._endpoints.verify(container_id, netns_fd)

    async def rename(self, container_id: str, name: str, names: Mapping[str, Sequence[str]]) -> None:
        await self._endpoints.rename(container_id, name, names)

    async def _work(self, deed: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, deed)
