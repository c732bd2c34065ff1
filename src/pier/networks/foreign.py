"""Other firewalls of this machine that drop forwarded packets, and Pier's one rule in each.

Accepting in one table outvotes no other: where a firewall drops what it does not know (ufw, Docker,
`iptables -P FORWARD DROP`), containers would reach nobody. Pier's own table has judged their packets by then, and marks
those it let pass; one rule at the head of the other's chain accepts the mark. It is taken off again at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from pier.kernel.nftables import NftablesError

__all__ = ["MARK", "admit", "admitting", "dismiss", "dropping"]

MARK = 0x00200000
"""One bit of the packet mark, within the forward hook alone."""
ADMISSION = f"meta mark & {MARK:#010x} == {MARK:#010x} counter accept"
"""As `iptables -m mark --mark 0x200000/0x200000 -j ACCEPT`, by which iptables-nft shows and deletes it."""
FIREWALLD = ("inet", "firewalld", "filter_FORWARD")
"""Accepts by policy, and ends with a reject."""
FIREWALLD_REMEDY = "firewall-cmd --permanent --zone=trusted --add-interface={bridge} && firewall-cmd --reload"


class Tables(Protocol):
    """`pier.kernel.nftables.Nftables` is one."""

    def run(self, commands: str) -> str: ...
    def list(self, what: str) -> list[dict[str, Any]]: ...


def is_ours(table: str) -> bool:
    """Is it a table of Pier's, of this daemon or of another one?"""
    return table == "pier" or table.startswith("pier-")


def dropping(listed: Iterable[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """(family, table, chain) of every other firewall's chain that drops forwarded packets by default.

    `listed` is what `list chains` answers.
    """
    chains = [item["chain"] for item in listed if "chain" in item]
    return [
        name
        for chain in chains
        if chain["family"] in ("ip", "ip6", "inet") and not is_ours(chain["table"])
        for name in [(chain["family"], chain["table"], chain["name"])]
        if (chain.get("hook") == "forward" and chain.get("policy") == "drop") or name == FIREWALLD
    ]


def admitting(listed: Iterable[dict[str, Any]]) -> list[int]:
    """The handles of Pier's rules in a chain; `listed` is what `list chain` answers."""
    return [item["rule"]["handle"] for item in listed if "rule" in item and is_admission(item["rule"].get("expr", []))]


def is_admission(expressions: Iterable[dict[str, Any]]) -> bool:
    left = {"&": [{"meta": {"key": "mark"}}, MARK]}
    return any(item.get("match", {}).get("left") == left for item in expressions)


def admit(nft: Tables, bridge: str) -> tuple[list[str], list[str]]:
    """Put the rule where it is missing; returns (the chains it was put into, warnings about those that refuse it).

    `bridge` is named in the warnings' remedy. Raises NftablesError.
    """
    added, warnings = [], []
    for name in dropping(nft.list("chains")):
        chain = " ".join(name)
        try:
            if admitting(nft.list(f"chain {chain}")):
                continue
            nft.run(f"insert rule {chain} {ADMISSION}")
            added.append(chain)
        except NftablesError as error:
            remedy = FIREWALLD_REMEDY.format(bridge=bridge) if name == FIREWALLD else f"accept device {bridge} in it"
            warnings.append(
                f"WARNING: {chain} drops forwarded packets, those of containers too, and takes no rule of Pier's "
                f"({error.fields['reason']}): {remedy}"
            )
    return added, warnings


def dismiss(nft: Tables) -> None:
    """Take the rules away again. Raises NftablesError."""
    for name in dropping(nft.list("chains")):
        chain = " ".join(name)
        for handle in admitting(nft.list(f"chain {chain}")):
            nft.run(f"delete rule {chain} handle {handle}")
