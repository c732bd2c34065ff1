"""What a container has of the network: data, as it is kept in the state (kind `endpoint`, by container id)."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from pier.model.network import EndpointSettings, PortBinding
from pier.networks.firewall import Forward
from pier.networks.ports import port_map
from pier.runtime.request import Interface

__all__ = ["Endpoint", "NetworkRecord"]


@dataclass(frozen=True, slots=True)
class NetworkRecord:
    """A network of the daemon (kind `network`, by name): what must be the same after a restart."""

    id: str
    """64 hexadecimal digits."""
    subnet: str = ""
    """Empty for `host` and `none`."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One container on one network. Without interfaces for `host`, `none` and `container:`."""

    mode: str
    """`bridge`, `host`, `none` or `container:ID`."""
    network_id: str
    """Empty for `container:`."""
    endpoint_id: str
    interfaces: list[Interface] = field(default_factory=list)
    ip: str = ""
    prefix_len: int = 0
    gateway: str = ""
    mac: str = ""
    forwards: list[Forward] = field(default_factory=list)
    exposed: list[str] = field(default_factory=list)
    """`80/tcp`; with the published ones this makes `ports`."""

    @property
    def ports(self) -> dict[str, list[PortBinding] | None]:
        """`NetworkSettings.Ports` as inspect shows it; empty without a network of one's own."""
        return port_map(self.forwards, self.exposed)

    @property
    def settings(self) -> dict[str, EndpointSettings]:
        """`NetworkSettings.Networks` as inspect shows it."""
        if not self.network_id:
            return {}
        return {
            self.mode: EndpointSettings(
                mac_address=self.mac,
                network_id=self.network_id,
                endpoint_id=self.endpoint_id,
                gateway=self.gateway,
                ip_address=self.ip,
                ip_prefix_len=self.prefix_len,
            )
        }

    def to_json(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes) -> Endpoint:
        """Raises msgspec.DecodeError."""
        return msgspec.json.decode(data, type=cls)
