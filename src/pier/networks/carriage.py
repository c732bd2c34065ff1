"""Who carries a published port: the kernel, by the firewall's table, or the daemon, by a relay. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, TypeAlias

from pier.networks.firewall import Forward

__all__ = ["Carriage", "Peer"]

Peer: TypeAlias = tuple[Any, ...]
"""A client's address as a socket gives it."""


@dataclass(frozen=True, slots=True)
class Carriage:
    """How this daemon's ports are carried; the defaults are those of a machine that lacks nothing."""

    table: bool = True
    """Is there a table that translates?"""
    proxy: bool = True
    """May the daemon carry what the table does not translate? (`userland-proxy`)"""
    host_rules: bool = False
    """Has the host's own firewall a say in who reaches published ports? (`published-ports-firewall`)"""
    plain: frozenset[int] = frozenset()
    """IP versions for which there are no rules (`ip6tables` false)."""
    refuses: Callable[[Peer], bool] = lambda _: False
    """Whom a relay does not serve: a container of an internal network, which may ask its gateway's address."""

    def translated(self, forward: Forward) -> bool:
        return self.table and forward.translated and forward.version not in self.plain

    def relayed(self, forward: Forward) -> bool:
        """Does the daemon listen on it?

        Where the host's firewall decides, what comes from other machines must arrive at a socket of the host's.
        """
        if not forward.host_port or forward.protocol == "sctp":
            return False
        if self.host_rules and not ip_address(forward.host_ip).is_loopback:
            return True
        return self.proxy and (not self.translated(forward) or forward.host_ip == "::")

    def possible(self, forward: Forward) -> bool:
        """Does anybody carry it?"""
        if not forward.host_port:
            return True
        if self.host_rules and forward.protocol == "sctp" and not ip_address(forward.host_ip).is_loopback:
            return False
        return self.translated(forward) or self.relayed(forward)
