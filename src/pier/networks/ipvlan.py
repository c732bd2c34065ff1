"""ipvlan networks: containers have addresses on the LAN that the parent is on, and the parent's MAC."""

from __future__ import annotations

from collections.abc import Collection

from pier.kernel.links import IPVLAN_FLAGS, IPVLAN_MODES
from pier.networks.driver import Place
from pier.networks.parent_driver import BadMode, ParentDriver, ParentInUse, parent_of
from pier.networks.records import NetworkRecord

__all__ = ["IpvlanDriver"]

MODE, FLAG = "ipvlan_mode", "ipvlan_flag"
DEFAULT_ROUTES = {4: ("0.0.0.0/0", ""), 6: ("::/0", "")}


class IpvlanDriver(ParentDriver):
    """`l2`: as on the LAN; `l3`: the host routes between the subnets, nothing is broadcast; `l3s`: so, and netfilter
    sees it.
    """

    kind = "ipvlan"
    known_options = frozenset((MODE, FLAG))

    def without_gateway(self, record: NetworkRecord) -> Collection[int]:
        return super().without_gateway(record) if self.mode(record) == "l2" else (4, 6)

    def check_mode(self, record: NetworkRecord) -> None:
        if self.mode(record) not in IPVLAN_MODES:
            raise BadMode(kind=self.kind, what="mode", value=self.mode(record), default="'l2' mode")
        if self.flag(record) not in IPVLAN_FLAGS:
            raise BadMode(kind=self.kind, what="flag", value=self.flag(record), default="'bridge'")

    def check_neighbour(self, record: NetworkRecord, other: NetworkRecord) -> None:
        raise ParentInUse(reason=f"network di-{other.id[:12]} is already using parent interface {parent_of(record)}")

    def gateway(self, record: NetworkRecord, version: int) -> str:
        return super().gateway(record, version) if self.mode(record) == "l2" else ""

    def routes(self, record: NetworkRecord, place: Place) -> list[tuple[str, str]]:
        if self.mode(record) == "l2" or not self.leads_out(record):
            return []
        return [DEFAULT_ROUTES[version] for version in sorted({6 if ":" in item else 4 for item in place.addresses})]

    def mac(self, address: str) -> str:
        return ""

    def mode(self, record: NetworkRecord) -> str:
        return record.options.get(MODE, "") or "l2"

    def flag(self, record: NetworkRecord) -> str:
        return record.options.get(FLAG, "") or "bridge"
