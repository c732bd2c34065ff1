"""macvlan networks: containers are hosts of the LAN that the parent is on, each with a MAC of its own."""

from __future__ import annotations

from pier.kernel.links import MACVLAN_MODES
from pier.networks.mac import random_mac
from pier.networks.parent_driver import BadMode, ParentDriver, ParentInUse, parent_of
from pier.networks.records import NetworkRecord

__all__ = ["MacvlanDriver"]

MODE = "macvlan_mode"
PASSTHRU = "passthru"


class MacvlanDriver(ParentDriver):
    """`bridge`: containers of one parent reach each other directly; `vepa`: by the switch, if it sends back; `private`:
    not at all; `passthru`: one container has the parent for itself.
    """

    kind = "macvlan"
    known_options = frozenset((MODE,))

    def check_mode(self, record: NetworkRecord) -> None:
        if self.mode(record) not in MACVLAN_MODES:
            raise BadMode(kind=self.kind, what="mode", value=self.mode(record), default="'bridge' mode")

    def check_neighbour(self, record: NetworkRecord, other: NetworkRecord) -> None:
        used = f"macvlan network {other.id} is already using parent interface {parent_of(record)}"
        if self.mode(record) == PASSTHRU:
            raise ParentInUse(reason=f"cannot use mode passthru, {used}")
        if self.mode(other) == PASSTHRU:
            raise ParentInUse(reason=f"{used} in mode passthru")

    def mac(self, address: str) -> str:
        # Not made of the address: two of one MAC cannot be on a parent, and an earlier container's device takes the
        # kernel a while to remove.
        return random_mac()

    def mode(self, record: NetworkRecord) -> str:
        return record.options.get(MODE, "") or "bridge"
