"""Networks as the Engine API shows them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from pier.model.networks import (
    IPAM,
    ConfigReference,
    EndpointResource,
    IPAMConfig,
    IPAMStatus,
    NetworkInspect,
    NetworkStatus,
    NetworkSummary,
    SubnetStatus,
)
from pier.model.time import rfc3339_nano
from pier.networks import bridge_options
from pier.networks.bridge_options import BridgeNetwork
from pier.networks.endpoint import Endpoint
from pier.networks.ipam import AddressPool
from pier.networks.records import NetworkRecord, SubnetRecord

__all__ = ["described", "inspect", "summary"]

MOST = 2**64 - 1
"""At which numbers of addresses saturate."""


def summary(record: NetworkRecord) -> NetworkSummary:
    """One line of the list."""
    return NetworkSummary(**_fields(record))


def inspect(record: NetworkRecord, endpoints: Sequence[Endpoint], pools: Sequence[AddressPool]) -> NetworkInspect:
    """A network with the containers that are on it."""
    return NetworkInspect(
        **_fields(record),
        containers={one.container_id: resource(one) for one in sorted(endpoints, key=lambda one: one.container)},
        status=NetworkStatus(IPAMStatus({str(pool.subnet): subnet_status(pool) for pool in pools})),
    )


def _fields(record: NetworkRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "id": record.id,
        "created": rfc3339_nano(record.created_ns),
        "scope": record.scope,
        "driver": record.driver,
        "enable_ipv4": record.enable_ipv4,
        "enable_ipv6": record.enable_ipv6,
        "ipam": record.ipam,
        "internal": record.internal,
        "attachable": record.attachable,
        "config_from": ConfigReference(record.config_from),
        "config_only": record.config_only,
        "options": record.options,
        "labels": record.labels,
    }


def resource(endpoint: Endpoint) -> EndpointResource:
    """A container as its network shows it."""
    return EndpointResource(
        name=endpoint.container,
        endpoint_id=endpoint.endpoint_id,
        mac_address=endpoint.mac,
        ipv4_address=f"{endpoint.ip}/{endpoint.prefix_len}" if endpoint.ip else "",
        ipv6_address=f"{endpoint.ip6}/{endpoint.prefix_len6}" if endpoint.ip6 else "",
    )


def subnet_status(pool: AddressPool) -> SubnetStatus:
    in_use, available = pool.counts()
    return SubnetStatus(ips_in_use=min(in_use, MOST), dynamic_ips_available=min(available, MOST))


def described(
    record: NetworkRecord, network: BridgeNetwork, subnets: list[SubnetRecord], *, host_binding: str
) -> NetworkRecord:
    """The default bridge's record with what the daemon's configuration says of it, in Docker's options."""
    options = {
        bridge_options.DEFAULT_BRIDGE: "true",
        bridge_options.ENABLE_ICC: str(network.icc).lower(),
        bridge_options.ENABLE_IP_MASQUERADE: str(network.masquerade).lower(),
        bridge_options.HOST_BINDING_IPV4: host_binding,
        bridge_options.NAME: network.bridge,
        bridge_options.MTU: str(network.mtu),
    }
    shown = [
        IPAMConfig(
            subnet=one.subnet,
            ip_range=one.ip_range,
            gateway=one.gateway,
            auxiliary_addresses=dict(one.aux) or None,
        )
        for one in subnets
    ]
    return msgspec.structs.replace(
        record,
        subnets=subnets,
        ipam=IPAM(config=shown),
        options=options,
        enable_ipv6=any(one.version == 6 for one in subnets),
    )
