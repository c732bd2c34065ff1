"""The host's side of a bridge network: the bridge device, its gateway address, and the kernel settings it needs.

What is missing is found by comparing with what is there, so making a bridge that exists does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_interface
from typing import Protocol

from pier.kernel import links
from pier.kernel.netlink import Address, Link, NetlinkSocket, Route
from pier.networks.bridge_options import BridgeNetwork, bridge_network
from pier.networks.ipam import Network
from pier.networks.mac import mac_of

__all__ = ["BridgeNetwork", "bridge_network", "bridge_plan", "host_networks", "remove_bridge", "run_plan"]

FORWARD = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}
"""The switches that make this machine a router, by IP version."""
SYSCTL_ROOT = "/proc/sys"
BRIDGE_FILTER = "net/bridge/bridge-nf-call-iptables"
"""There where the kernel has br_netfilter."""


class Operation(Protocol):
    """One small deed that can be shown, done and undone."""

    def describe(self) -> str: ...
    def execute(self, netlink: NetlinkSocket) -> None: ...
    def undo(self, netlink: NetlinkSocket) -> None: ...


@dataclass(frozen=True, slots=True)
class CreateBridge:
    """Make the bridge device, with a MAC made of the gateway address."""

    name: str
    mac: str
    mtu: int

    def describe(self) -> str:
        return f"create bridge {self.name}"

    def execute(self, netlink: NetlinkSocket) -> None:
        netlink.create_bridge(self.name, mac=self.mac, mtu=self.mtu)

    def undo(self, netlink: NetlinkSocket) -> None:
        netlink.delete_link(netlink.link_index(self.name))


@dataclass(frozen=True, slots=True)
class AddAddress:
    """Give the bridge the gateway's address."""

    name: str
    address: str

    def describe(self) -> str:
        return f"add {self.address} to {self.name}"

    def execute(self, netlink: NetlinkSocket) -> None:
        netlink.add_address(netlink.link_index(self.name), self.address)

    def undo(self, netlink: NetlinkSocket) -> None:
        netlink.delete_address(netlink.link_index(self.name), self.address)


@dataclass(frozen=True, slots=True)
class DeleteAddress:
    """Take an address of an earlier configuration off the bridge."""

    name: str
    address: str

    def describe(self) -> str:
        return f"delete {self.address} from {self.name}"

    def execute(self, netlink: NetlinkSocket) -> None:
        netlink.delete_address(netlink.link_index(self.name), self.address)

    def undo(self, netlink: NetlinkSocket) -> None:
        netlink.add_address(netlink.link_index(self.name), self.address)


@dataclass(frozen=True, slots=True)
class FilterInside:
    """Let the firewall see what containers of the bridge send each other."""

    name: str

    def describe(self) -> str:
        return f"filter inside of {self.name}"

    def execute(self, netlink: NetlinkSocket) -> None:
        netlink.do(*links.filter_inside(self.name))

    def undo(self, netlink: NetlinkSocket) -> None:
        """Nothing: what the table does not know it lets pass."""


@dataclass(frozen=True, slots=True)
class SetUp:
    """Set the bridge up."""

    name: str

    def describe(self) -> str:
        return f"set {self.name} up"

    def execute(self, netlink: NetlinkSocket) -> None:
        netlink.set_up(netlink.link_index(self.name))

    def undo(self, netlink: NetlinkSocket) -> None:
        """Nothing: a bridge that stays may stay up."""


@dataclass(frozen=True, slots=True)
class SetSysctl:
    """Write one kernel setting; the one that was there is put back by `undo`."""

    key: str
    """Below /proc/sys, with slashes: a device's name may hold dots."""
    value: str
    previous: str = ""
    """Empty for a setting of a device that this plan makes: it goes with the device."""

    def describe(self) -> str:
        return f"set {self.key.replace('/', '.')} = {self.value}"

    def execute(self, netlink: NetlinkSocket) -> None:
        try:
            write_sysctl(self.key, self.value)
        except FileNotFoundError:
            if is_needed(self.key, self.value):
                raise

    def undo(self, netlink: NetlinkSocket) -> None:
        if self.previous:
            write_sysctl(self.key, self.previous)


def is_needed(key: str, value: str) -> bool:
    """Must the kernel have this setting? One without IPv6 need not be told to keep it off."""
    return not (
        key.startswith("net/ipv6/")
        and (key.endswith(("/accept_ra", "/accept_dad")) or (value == "1" and "disable" in key))
    )


def read_sysctl(key: str) -> str | None:
    """The setting's text; None where this kernel does not have it."""
    try:
        with open(f"{SYSCTL_ROOT}/{key}") as file:
            return file.read(4096).strip()
    except FileNotFoundError:
        return None


def write_sysctl(key: str, value: str) -> None:
    """Raises OSError."""
    with open(f"{SYSCTL_ROOT}/{key}", "w") as file:
        file.write(value)


def device_plan(
    network: BridgeNetwork,
    devices: Iterable[Link],
    addresses: Iterable[Address],
    read: Callable[[str], str | None] = read_sysctl,
) -> list[Operation]:
    """What is still to do for the device. Raises ValueError when the name belongs to something that is no bridge.

    Settings come before addresses, and the device is up last: at no moment does it listen to router advertisements.
    """
    link = next((link for link in devices if link.name == network.bridge), None)
    wanted = network.addresses
    inside = [FilterInside(network.bridge)] if not network.icc and read(BRIDGE_FILTER) is not None else []
    if link is None:
        create = CreateBridge(network.bridge, mac_of(network.mac_seed), network.mtu)
        settings = [SetSysctl(key, value) for key, value in device_sysctls(network).items()]
        carried = [AddAddress(network.bridge, text) for text in wanted]
        return [create, *inside, *settings, *carried, SetUp(network.bridge)]
    if link.kind != "bridge":
        raise ValueError(f"network device {network.bridge} exists and is no bridge")
    present = [f"{item.address}/{item.prefix_len}" for item in addresses if item.index == link.index]
    steps: list[Operation] = [*inside, *sysctl_plan(device_sysctls(network), read)]
    foreign = [text for text in present if text not in wanted and not link_local(text)]
    steps += [DeleteAddress(network.bridge, text) for text in foreign if not network.adopted]
    steps += [AddAddress(network.bridge, text) for text in wanted if text not in present]
    return steps if link.up else [*steps, SetUp(network.bridge)]


def link_local(text: str) -> bool:
    return ":" in text and ip_interface(text).is_link_local


def device_sysctls(network: BridgeNetwork) -> dict[str, str]:
    """The settings of the bridge device, in the order they are made; of one that was there before only the needed."""
    found = {}
    if network.publishes(4):
        # The host reaches a published port at 127.0.0.1; the firewall keeps everyone else off 127.0.0.0/8.
        found[f"net/ipv4/conf/{network.bridge}/route_localnet"] = "1"
    six = network.subnet(6) is not None and network.mode(6) != "isolated"
    if not network.adopted:
        found |= own_device_sysctls(network, six=six)
    if six or not network.adopted:
        found[f"net/ipv6/conf/{network.bridge}/disable_ipv6"] = "0" if six else "1"
    return found


def own_device_sysctls(network: BridgeNetwork, *, six: bool) -> dict[str, str]:
    """What a bridge is told that has no life but the network's; `six`: it has an IPv6 address."""
    found = {}
    if network.subnet(4) is not None and network.mode(4) == "isolated":
        # No route of the host leads to the containers: it takes no packet from them, and answers none of their ARP.
        found[f"net/ipv4/conf/{network.bridge}/rp_filter"] = "1"
    # A container must not make itself the host's router (CVE-2020-13401).
    found[f"net/ipv6/conf/{network.bridge}/accept_ra"] = "0"
    if six:
        # Nobody else makes addresses of this MAC; until they are judged, two seconds, the host asks for no neighbour.
        found[f"net/ipv6/conf/{network.bridge}/accept_dad"] = "0"
    return found


def sysctl_plan(wanted: dict[str, str], read: Callable[[str], str | None] = read_sysctl) -> list[SetSysctl]:
    """The settings that differ; one that this kernel lacks is left out, save those that something rests on.

    Raises ValueError for those.
    """
    steps = []
    for key, value in wanted.items():
        present = read(key)
        if present is None and is_needed(key, value):
            raise ValueError(f"this kernel has no {key.replace('/', '.')}")
        if present is not None and present != value:
            steps.append(SetSysctl(key, value, present))
    return steps


def forwarding_plan(
    version: int, devices: Iterable[str] = (), read: Callable[[str], str | None] = read_sysctl
) -> list[SetSysctl]:
    """What makes this machine forward packets of one IP version; empty where it does. Raises ValueError.

    A host that learned its IPv6 route from its router forgets it when it becomes a router itself, unless told to go on
    listening (`accept_ra` 2): `devices` that do listen are.
    """
    steps = sysctl_plan({FORWARD[version]: "1"}, read)
    if version == 6 and steps:
        listening = [key for name in devices if read(key := f"net/ipv6/conf/{name}/accept_ra") == "1"]
        steps = [*(SetSysctl(key, "2", "1") for key in listening), *steps]
    return steps


def run_plan(steps: Sequence[Operation], netlink: NetlinkSocket) -> None:
    """Execute in order; when a step fails, undo those before it, last first, and raise the step's own error."""
    done: list[Operation] = []
    try:
        for step in steps:
            step.execute(netlink)
            done.append(step)
    except OSError as error:
        for step in reversed(done):
            try:
                step.undo(netlink)
            except OSError as left:
                error.add_note(f"and could not undo: {step.describe()}: {left}")
        raise


def bridge_plan(network: BridgeNetwork, netlink: NetlinkSocket) -> list[Operation]:
    """What is still to do for the device, as `device_plan`."""
    return device_plan(network, netlink.links(), netlink.addresses())


def remove_bridge(name: str, netlink: NetlinkSocket) -> None:
    """Delete the bridge; one that is not there is no error."""
    for link in netlink.links():
        if link.name == name and link.kind == "bridge":
            netlink.delete_link(link.index)


LINK_LOCAL = ("fe80:", "ff00:")
"""How most of what a machine with many devices has in IPv6 begins: no subnet can overlap it."""


def host_networks(
    routes: Iterable[Route], addresses: Iterable[Address], *, except_indexes: Iterable[int] = ()
) -> list[Network]:
    """The networks this machine reaches by other devices than `except_indexes`: a new subnet must overlap none.

    Default routes, and halves of one (a VPN's 0.0.0.0/1), say nothing about what is behind them; link-local and
    multicast ranges are every device's.
    """
    passed = set(except_indexes)
    texts = [route.destination for route in routes if route.index not in passed]
    texts += [f"{item.address}/{item.prefix_len}" for item in addresses if item.index not in passed]
    networks = [ip_interface(text).network for text in dict.fromkeys(texts) if not text.startswith(LINK_LOCAL)]
    return [network for network in networks if network.prefixlen > 3 and not is_everywhere(network)]


def port_mode(network: BridgeNetwork, read: Callable[[str], str | None] = read_sysctl) -> str:
    """How containers are plugged into the bridge (`Interface.mode`).

    What they send each other where they shall not is dropped by the table. A kernel that cannot show it that has ports
    that are kept apart, which in turn know nothing of translations inside a bridge.
    """
    return "isolated" if not network.icc and read(BRIDGE_FILTER) is None else ""


def is_everywhere(network: Network) -> bool:
    return network.is_multicast or (network.version == 6 and network.is_link_local)
