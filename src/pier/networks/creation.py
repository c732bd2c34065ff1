"""A request for a network, judged and made a record (NetworkCreate). Pure: what it needs of the world is handed in."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_network

import msgspec

from pier.errors import InvalidParameter, NotFound, PierError
from pier.model.networks import IPAM, IPAMConfig, NetworkCreateRequest, is_network_name
from pier.networks.ipam import (
    BadSubnets,
    Family,
    Network,
    Subnet,
    check_overlap,
    first_gateway,
    open_pool,
    parse_subnet,
)
from pier.networks.records import PREDEFINED, NetworkRecord, SubnetRecord, make_id
from pier.networks.registry import NetworkExists, Registry

__all__ = ["Forbidden", "draft", "joined_faults", "with_subnets"]

DEFAULT_DRIVER = "bridge"
MAX_TEXT = 4096
"""Characters of one label or option."""
MAX_ENTRIES = 256
"""Labels, options, subnets and auxiliary addresses of one network, each."""


class Forbidden(PierError):
    """{message}"""

    status = 403


class BadName(InvalidParameter):
    """invalid name: "{name}" """

    remedy = "at most 255 printable characters, none of its parts between slashes empty, . or .., no container:"


class DriverNotFound(NotFound):
    """plugin "{name}" not found"""


class NoSuchConfiguration(NotFound):
    """configuration network "{name}" does not exist"""


class TooMuch(InvalidParameter):
    """a network has at most {limit} {what}, of at most {length} characters each"""


def draft(
    asked: NetworkCreateRequest,
    registry: Registry,
    *,
    drivers: Iterable[str],
    defaults: Mapping[str, Mapping[str, str]],
) -> NetworkRecord:
    """The record of a new network, its subnets still those that were asked for.

    `drivers` are those this daemon has, `defaults` the options of new networks by driver (`default-network-opts`).

    Raises InvalidParameter, Forbidden, NotFound, NetworkExists, each worded as Docker words it.
    """
    _check_name(asked.name)
    if registry.named(asked.name) is not None:
        raise NetworkExists(name=asked.name)
    _check_sizes(asked)
    driver = asked.driver or ("null" if asked.config_only else DEFAULT_DRIVER)
    _check_scope(asked, driver)
    ipam = msgspec.structs.replace(asked.ipam, config=asked.ipam.config or None) if asked.ipam else IPAM()
    record = NetworkRecord(
        id=make_id(),
        name=asked.name,
        driver=driver,
        created_ns=time.time_ns(),
        enable_ipv4=True if asked.enable_ipv4 is None else asked.enable_ipv4,
        enable_ipv6=bool(asked.enable_ipv6),
        ipam=ipam,
        internal=asked.internal,
        attachable=asked.attachable,
        options={**defaults.get(driver, {}), **(asked.options or {})},
        labels=asked.labels or {},
        scope=asked.scope or "local",
        config_only=asked.config_only,
    )
    if asked.config_from is not None and asked.config_from.network:
        record = _configured(record, asked, registry.named(asked.config_from.network))
    elif asked.config_only:
        record = msgspec.structs.replace(record, driver="null")
    elif driver in PREDEFINED.values() and driver != DEFAULT_DRIVER:
        raise Forbidden(f'only one instance of "{driver}" network is allowed')
    if not record.config_only and driver not in drivers:
        raise DriverNotFound(name=driver[:128])
    if not record.enable_ipv4 and not record.enable_ipv6:
        raise InvalidParameter("IPv4 or IPv6 must be enabled")
    _check_ipam(record.ipam)
    return record


def _check_name(name: str) -> None:
    if not name.strip():
        raise InvalidParameter("invalid name: name is empty")
    if name in PREDEFINED or name == "default":
        raise Forbidden(f"operation is not permitted on predefined {name} network ")
    if not is_network_name(name) or name.startswith("container:"):
        raise BadName(name="".join(character if character.isprintable() else "?" for character in name[:64]))


def _check_scope(asked: NetworkCreateRequest, driver: str) -> None:
    """Raises Forbidden for what only a swarm has."""
    if asked.ingress:
        raise Forbidden("Ingress network can only be global scope network")
    if asked.scope == "swarm":
        raise Forbidden("cannot create a swarm scoped network when swarm is not active")
    if driver == "overlay":
        raise Forbidden(
            'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to '
            "swarm and try again."
        )
    if asked.scope not in ("", "local"):
        raise InvalidParameter(f"invalid network scope: {asked.scope[:64]}")


def _check_sizes(asked: NetworkCreateRequest) -> None:
    config = asked.ipam.config or [] if asked.ipam else []
    maps = [asked.labels, asked.options, asked.ipam.options if asked.ipam else None]
    maps += [one.auxiliary_addresses for one in config[:MAX_ENTRIES]]
    for found in maps:
        longest = max((max(len(key), len(value)) for key, value in (found or {}).items()), default=0)
        if len(found or {}) > MAX_ENTRIES or longest > MAX_TEXT:
            raise TooMuch(limit=MAX_ENTRIES, what="labels, options and auxiliary addresses", length=MAX_TEXT)
    if len(config) > MAX_ENTRIES:
        raise TooMuch(limit=MAX_ENTRIES, what="subnets", length=MAX_TEXT)


def _configured(record: NetworkRecord, asked: NetworkCreateRequest, source: NetworkRecord | None) -> NetworkRecord:
    """A network that takes its settings from a config-only one."""
    if asked.config_only:
        raise Forbidden("a configuration network cannot depend on another configuration network")
    assert asked.config_from is not None
    name = asked.config_from.network
    if source is None or not source.config_only:
        raise NoSuchConfiguration(name=name[:128])
    if asked.options:
        raise Forbidden("network driver options are not supported if the network depends on a configuration network")
    if asked.enable_ipv6 or asked.enable_ipv4 or (asked.ipam and asked.ipam.config) or asked.labels:
        raise Forbidden(
            "user specified configurations are not supported if the network depends on a configuration network"
        )
    return msgspec.structs.replace(
        record,
        config_from=name,
        ipam=source.ipam,
        enable_ipv4=source.enable_ipv4,
        enable_ipv6=source.enable_ipv6,
        internal=record.internal or source.internal,
        options=dict(source.options),
        labels=dict(source.labels),
    )


# --- subnets


def _check_ipam(ipam: IPAM) -> None:
    """Raises BadSubnets with all that is wrong with the subnets, DriverNotFound."""
    if ipam.driver == "null":
        raise InvalidParameter("ipv4 pool is empty")
    if ipam.driver not in ("", "default"):
        raise DriverNotFound(name=ipam.driver[:128])
    faults: list[str] = []
    for config in ipam.config or []:
        subnet, found = _parse(config)
        faults += found
        if subnet is not None and (subnet.network.is_multicast or subnet.network.is_loopback):
            faults.append(f"invalid subnet {subnet.network}: no host of a network has such an address")
    if faults:
        raise BadSubnets(problems=faults)


def _parse(config: IPAMConfig) -> tuple[Subnet | None, list[str]]:
    return parse_subnet(config.subnet, config.gateway, config.ip_range, config.auxiliary_addresses)


def with_subnets(
    record: NetworkRecord,
    others: Iterable[NetworkRecord],
    choose: Callable[[Family], Network],
    *,
    without_gateway: Collection[int] = (),
) -> NetworkRecord:
    """The record with the subnets it really has: those asked for, and one of `choose` for a family without.

    Each has a gateway, but for those of the IP versions in `without_gateway` whose user names none.

    Raises PoolOverlaps, GatewayInUse, AuxAddressInUse, AddressesExhausted, and what `choose` raises.
    """
    if record.config_only:
        return record
    families: list[Family] = [4] if record.enable_ipv4 else []
    families += [6] if record.enable_ipv6 else []
    occupied = [ip_network(subnet.subnet) for other in others for subnet in other.subnets]
    found: list[SubnetRecord] = []
    for config in record.ipam.config or []:
        subnet, _ = _parse(config)
        if subnet is None or subnet.version not in families:
            continue
        check_overlap(subnet.network, occupied)
        occupied.append(subnet.network)
        if subnet.gateway is None and subnet.version not in without_gateway:
            subnet = replace(subnet, gateway=first_gateway(subnet))
        open_pool(subnet)
        found.append(SubnetRecord.of(subnet, asked=True))
    shown = list(record.ipam.config or [])
    for family in families:
        if not any(subnet.version == family for subnet in found):
            network = choose(family)
            gateway = None if family in without_gateway else first_gateway(Subnet(network))
            found.append(SubnetRecord.of(Subnet(network, gateway)))
            shown.append(IPAMConfig(subnet=str(network), gateway=str(gateway or "")))
    shown.sort(key=lambda config: ":" in config.subnet)  # clients take the first for the IPv4 one
    ipam = msgspec.structs.replace(record.ipam, driver=record.ipam.driver or "default", config=shown)
    return msgspec.structs.replace(record, subnets=sorted(found, key=lambda item: item.version), ipam=ipam)


def joined_faults(faults: list[str]) -> str:
    """As Go's multierror in Docker: one alone as it is, several as a list."""
    return faults[0] if len(faults) == 1 else "\n".join(f"* {fault}" for fault in faults)
