"""The networks of the daemon: gives containers their endpoints, and keeps the host's side in order.

Drivers of this slice: the default bridge, `host`, `none` and `container:`. The veth pair of an endpoint is made by the
container's own init from `Endpoint.interfaces` and goes with its namespace; what this room holds for a container is an
address, published ports and a record in the state.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import ip_address
from typing import Any, TypeVar

import msgspec

from pier.errors import NotFound, PierError, Unavailable
from pier.kernel.nftables import NftablesError
from pier.model.network import PortBinding
from pier.networks.bridge_options import BridgeNetwork
from pier.networks.default_bridge import NetworkConfig, check_addresses, default_bridge
from pier.networks.endpoint import Endpoint, NetworkRecord
from pier.networks.firewall import Forward
from pier.networks.host import HostSide
from pier.networks.ipam import Address, AddressPool, open_pool
from pier.networks.mac import mac_of, parse_mac
from pier.networks.ports import (
    AllPortsAllocated,
    HeldPort,
    PortAlreadyAllocated,
    PortBindFailed,
    PortRequest,
    PortTable,
    Target,
    requests_of,
)
from pier.networks.relay import Relay
from pier.runtime.request import Interface
from pier.state import Delete, Put, Store

__all__ = ["ConnectivityFailed", "NetworkConfig", "NetworkNotFound", "NetworkService"]

T = TypeVar("T")
PREDEFINED = ("bridge", "host", "none")
ENDPOINT, NETWORK = "endpoint", "network"  # kinds of records
REFUSALS = (PortAlreadyAllocated, PortBindFailed, AllPortsAllocated, NftablesError)


class NetworkNotFound(NotFound):
    """network {name} not found"""


class BridgeUnavailable(Unavailable):
    """failed to set up container networking: the bridge network is off: {reason}"""

    remedy = "`--network host` and `--network none` work"


class PublishUnavailable(Unavailable):
    """failed to set up container networking: ports cannot be published: {reason}"""


class ConnectivityFailed(PierError):
    """failed to set up container networking: driver failed programming external connectivity on endpoint {name} ({endpoint_id}): {reason}"""  # noqa: E501


@dataclass(slots=True)
class Held:
    """What the daemon's process holds for one container."""

    ports: list[HeldPort] = field(default_factory=list)
    relays: list[Relay] = field(default_factory=list)


class NetworkService:
    """One per daemon. Kernel work is done in one thread of its own, in order."""

    def __init__(self, config: NetworkConfig, store: Store) -> None:
        """Raises BadBridgeAddress for a wrong `bip` or `fixed_cidr`."""
        check_addresses(config)
        self.features: list[str] = []
        """What of networking is off on this machine and why, for `info`'s warnings."""
        self._config = config
        self._store = store
        self._host = HostSide(config)
        self._worker = ThreadPoolExecutor(1, "networks")
        self._ports = PortTable()
        self._network: BridgeNetwork | None = None
        self._pool: AddressPool | None = None
        self._networks: dict[str, NetworkRecord] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._held: dict[str, Held] = {}

    # --- start and stop

    async def start(self, live: set[str]) -> list[str]:
        """Make the host's side and take up where an earlier daemon ended; returns what was repaired, in words.

        `live` are the ids of the containers that run; endpoints of others are freed. What this machine lacks is said
        in `features`, and is no error: `host` and `none` always work.
        """
        repaired = await self._load(live)
        published = [forward for endpoint in self._endpoints.values() for forward in endpoint.forwards]
        in_use = any(endpoint.ip for endpoint in self._endpoints.values())
        self.features = await self._work(lambda: self._start_host(published, in_use=in_use))
        if self._host.bridge_off:
            return repaired
        await self._open_pool()
        return repaired + await self._hold_ports_again()

    async def teardown(self) -> bool:
        """Remove bridge and table; False, and nothing done, when a container has an endpoint on the bridge.

        Raises OSError, NftablesError.
        """
        if any(endpoint.interfaces for endpoint in self._endpoints.values()):
            return False
        await self._work(self._host.teardown)
        return True

    async def close(self) -> None:
        """Let go of sockets and the thread; bridge, table and translations stay for the containers that go on."""
        for held in self._held.values():
            for relay in held.relays:
                relay.close()
        await self._work(self._ports.close)
        await self._work(self._host.close)
        self._worker.shutdown(wait=False)

    # --- endpoints

    @property
    def gateway(self) -> str:
        """The host as containers of the default bridge see it (`host-gateway`); empty without a bridge."""
        subnet = self._network.subnet(4) if self._network and not self._host.bridge_off else None
        return str(subnet.gateway) if subnet else ""

    def network_id(self, name: str) -> str:
        """The id of `bridge`, `host` or `none`; raises NetworkNotFound."""
        if name not in self._networks:
            raise NetworkNotFound(name=name)
        return self._networks[name].id

    def endpoint(self, container_id: str) -> Endpoint | None:
        return self._endpoints.get(container_id)

    async def connect(
        self,
        container_id: str,
        *,
        mode: str,
        ports: Mapping[str, Sequence[PortBinding] | None],
        publish_all: bool = False,
        exposed: Sequence[str] = (),
        mac: str | None = None,
        name: str = "",
    ) -> Endpoint:
        """Give a container its endpoint, durable and with its ports published; one it has already is replaced.

        `mode` is HostConfig.NetworkMode; `ports` and `exposed` count on the bridge only. `name` is the container's, for
        messages. Nothing is left when it fails or is cancelled. Raises NetworkNotFound, BridgeUnavailable,
        PublishUnavailable, AddressesExhausted, BadPort, BadMac, ConnectivityFailed.
        """
        kind = "bridge" if mode in ("", "default", "bridge") else mode
        network_id = "" if kind.startswith("container:") else self.network_id(kind)
        endpoint = Endpoint(kind, network_id, secrets.token_hex(32) if network_id else "")
        if kind != "bridge":
            return await self._finish(container_id, self._replace(container_id, self._keep(container_id, endpoint)))
        requests = requests_of(ports, exposed=exposed, publish_all=publish_all, default_ip=self._config.ip)
        own_mac = parse_mac(mac) if mac else ""
        if self._host.bridge_off:
            raise BridgeUnavailable(reason=self._host.bridge_off)
        if requests and self._host.publish_off:
            raise PublishUnavailable(reason=self._host.publish_off)
        endpoint = replace(endpoint, mac=own_mac, exposed=list(exposed))
        join = self._join_bridge(container_id, endpoint, requests, name or container_id[:12])
        return await self._finish(container_id, self._replace(container_id, join))

    async def release(self, container_id: str) -> None:
        """Free what a container had; one without an endpoint is no error. Done to its end even when cancelled."""
        await asyncio.shield(self._release(container_id))

    # --- parts of connect and release

    async def _finish(self, container_id: str, deed: Coroutine[Any, Any, Endpoint]) -> Endpoint:
        """Await `deed` to its end even when cancelled, for its thread cannot be stopped; then take it back."""
        task = asyncio.ensure_future(deed)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):
                await task
            await self._release(container_id)
            raise

    async def _replace(self, container_id: str, deed: Coroutine[Any, Any, Endpoint]) -> Endpoint:
        await self._release(container_id)
        return await deed

    async def _join_bridge(
        self, container_id: str, endpoint: Endpoint, requests: list[PortRequest], name: str
    ) -> Endpoint:
        assert self._pool is not None
        address = self._pool.allocate("bridge")
        held = Held()
        endpoint = self._place(endpoint, address)
        try:
            if requests:
                target = Target(self._config.bridge, (endpoint.ip,))
                held.ports = await self._work(lambda: self._ports.claim(requests, target, holder=container_id))
            endpoint = replace(endpoint, forwards=[port.forward for port in held.ports])
            held.relays = await start_relays(held.ports)
            # Record and map elements need no order: at start-up the table is rebuilt from the records.
            await both(self._keep(container_id, endpoint), self._publish(endpoint.forwards))
        except BaseException as error:
            self._held[container_id], self._endpoints[container_id] = held, endpoint
            await self._release(container_id)
            if isinstance(error, REFUSALS):
                raise ConnectivityFailed(name=name, endpoint_id=endpoint.endpoint_id, reason=error.wire) from error
            raise
        self._held[container_id] = held
        return endpoint

    def _place(self, endpoint: Endpoint, address: Address) -> Endpoint:
        """The endpoint with its address and its one interface on the default bridge."""
        network = self._network
        assert network is not None
        assert self._pool is not None
        mac, prefix_len = endpoint.mac or mac_of(address), self._pool.subnet.prefixlen
        gateway = network.gateway(4)
        interface = Interface(
            name="eth0",
            host_name=f"veth{endpoint.endpoint_id[:7]}",
            parent=network.bridge,
            mac=mac,
            addresses=[f"{address}/{prefix_len}"],
            gateways=[gateway],
            mtu=self._config.mtu,
        )
        return replace(
            endpoint, interfaces=[interface], ip=str(address), prefix_len=prefix_len, gateway=gateway, mac=mac
        )

    async def _release(self, container_id: str) -> None:
        endpoint = self._endpoints.pop(container_id, None)
        if endpoint is None:
            return
        held = self._held.pop(container_id, Held())
        for relay in held.relays:
            relay.close()
        try:
            await both(self._store.write(Delete(ENDPOINT, container_id)), self._unpublish(endpoint.forwards))
        finally:
            if held.ports:
                await self._work(lambda: self._ports.release(held.ports))
            if endpoint.ip and self._pool is not None:
                self._pool.release(ip_address(endpoint.ip))

    async def _keep(self, container_id: str, endpoint: Endpoint) -> Endpoint:
        await self._store.write(Put(ENDPOINT, container_id, endpoint.to_json()))
        self._endpoints[container_id] = endpoint
        return endpoint

    async def _publish(self, forwards: list[Forward]) -> None:
        if forwards:
            await self._work(lambda: self._host.publish(forwards))

    async def _unpublish(self, forwards: list[Forward]) -> None:
        if forwards:
            with contextlib.suppress(NftablesError):  # never added, or flushed by others: it is not there
                await self._work(lambda: self._host.unpublish(forwards))

    # --- parts of start

    async def _load(self, live: set[str]) -> list[str]:
        """Read the state; forget endpoints of containers that are gone and records that cannot be read."""
        self._networks = read_records(await self._store.load(NETWORK), NetworkRecord)
        new = {name: NetworkRecord(secrets.token_hex(32)) for name in PREDEFINED if name not in self._networks}
        self._networks.update(new)
        records = await self._store.load(ENDPOINT)
        self._endpoints = {key: item for key, item in read_records(records, Endpoint).items() if key in live}
        stale = sorted(set(records) - set(self._endpoints))
        puts = [Put(NETWORK, name, msgspec.json.encode(record)) for name, record in new.items()]
        if puts or stale:
            await self._store.write(*puts, *(Delete(ENDPOINT, key) for key in stale))
        return [f"network endpoint of container {key[:12]}: freed, the container is gone" for key in stale]

    def _start_host(self, published: list[Forward], *, in_use: bool) -> list[str]:
        """Choose the default bridge's subnet and make the host's side; returns what this machine lacks."""
        if self._config.bridge == "none":
            self._host.bridge_off = self._host.publish_off = "the daemon runs with bridge=none"
            return []
        record = self._networks["bridge"]
        try:
            occupied = self._host.occupied()
            earlier = record.subnet.split()
            self._network = default_bridge(self._config, record.id, earlier=earlier, occupied=occupied, in_use=in_use)
        except (OSError, PierError) as error:
            self._host.bridge_off = self._host.publish_off = str(error)
            return [f"WARNING: the bridge network is off: {error}"]
        return self._host.start([self._network], published)

    async def _open_pool(self) -> None:
        """Take the addresses of live containers out of the pool; keep the subnet for the next start."""
        assert self._network is not None
        subnet = self._network.subnet(4)
        assert subnet is not None
        self._pool = open_pool(subnet)
        for endpoint in self._endpoints.values():
            if endpoint.ip:
                with contextlib.suppress(PierError):  # of another `bip`: it cannot collide
                    self._pool.take(ip_address(endpoint.ip))
        record, subnets = self._networks["bridge"], " ".join(str(item.network) for item in self._network.subnets)
        if record.subnet != subnets:
            self._networks["bridge"] = record = replace(record, subnet=subnets)
            await self._store.write(Put(NETWORK, "bridge", msgspec.json.encode(record)))

    async def _hold_ports_again(self) -> list[str]:
        """Hold the ports of live containers; returns those that a process of the host has taken, in words."""
        lost_all = []
        for container_id, endpoint in self._endpoints.items():
            held, lost = await self._work(partial(self._ports.reclaim, endpoint.forwards, holder=container_id))
            self._held[container_id] = Held(held, await start_relays(held))
            lost_all += [f"published port of container {container_id[:12]}: {text}" for text in lost]
        return lost_all

    async def _work(self, deed: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, deed)


def read_records(records: Mapping[str, bytes], type_: type[T]) -> dict[str, T]:
    """The records that can be read; others are left out."""
    found = {}
    for key, value in records.items():
        with contextlib.suppress(msgspec.DecodeError):
            found[key] = msgspec.json.decode(value, type=type_)
    return found


async def both(*deeds: Coroutine[Any, Any, object]) -> None:
    """Await all to their ends, then raise the first error."""
    results = await asyncio.gather(*deeds, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def start_relays(held: Iterable[HeldPort]) -> list[Relay]:
    """Relays for those ports that the table does not translate; raises OSError, with none left."""
    relays: list[Relay] = []
    try:
        for port in held:
            if port.socket is not None and not port.forward.translated:
                relay = Relay(port.socket, port.forward.container_ip, port.forward.container_port)
                await relay.start()
                relays.append(relay)
    except BaseException:
        for relay in relays:
            relay.close()
        raise
    return relays
