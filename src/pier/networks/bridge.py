"""The host's side of a bridge network: the bridge device, its gateway address, and the kernel settings it needs.

What is missing is found by comparing with what is there, so making a bridge that exists does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Protocol

from pier.kernel.netlink import Address, Link, NetlinkSocket, Route
from pier.networks.mac import mac_of

__all__ = ["BridgeConfig", "bridge_plan", "host_networks", "remove_bridge", "run_plan"]

IP_FORWARD = "net/ipv4/ip_forward"
SYSCTL_ROOT = "/proc/sys"


@dataclass(frozen=True, slots=True)
class BridgeConfig:
    """One bridge and the subnet behind it."""

    name: str
    subnet: IPv4Network
    gateway: IPv4Address
    mtu: int = 1500
    forward: bool = True
    """Turn on `ip_forward` (daemon.json `ip-forward`)."""

    @property
    def address(self) -> str:
        """The gateway with the prefix length, as the bridge carries it."""
        return f"{self.gateway}/{self.subnet.prefixlen}"


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
    previous: str

    def describe(self) -> str:
        return f"set {self.key.replace('/', '.')} = {self.value}"

    def execute(self, netlink: NetlinkSocket) -> None:
        write_sysctl(self.key, self.value)

    def undo(self, netlink: NetlinkSocket) -> None:
        write_sysctl(self.key, self.previous)


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


def device_plan(config: BridgeConfig, links: Iterable[Link], addresses: Iterable[Address]) -> list[Operation]:
    """What is still to do for the device. Raises ValueError when the name belongs to something that is no bridge."""
    link = next((link for link in links if link.name == config.name), None)
    if link is None:
        create = CreateBridge(config.name, mac_of(config.gateway), config.mtu)
        return [create, AddAddress(config.name, config.address), SetUp(config.name)]
    if link.kind != "bridge":
        raise ValueError(f"network device {config.name} exists and is no bridge")
    present = [f"{item.address}/{item.prefix_len}" for item in addresses if item.index == link.index]
    old = [text for text in present if ":" not in text and text != config.address]
    steps: list[Operation] = [DeleteAddress(config.name, text) for text in old]
    if config.address not in present:
        steps.append(AddAddress(config.name, config.address))
    return steps if link.up else [*steps, SetUp(config.name)]


def wanted_sysctls(config: BridgeConfig, *, icc: bool) -> dict[str, str]:
    """The settings a bridge network depends on, in the order they are made."""
    found = {
        # The host reaches a published port at 127.0.0.1; the firewall keeps everyone else off 127.0.0.0/8.
        f"net/ipv4/conf/{config.name}/route_localnet": "1",
        # A network without IPv6 has none: no link-local side door, no router advertisements from containers.
        f"net/ipv6/conf/{config.name}/disable_ipv6": "1",
    }
    if config.forward:
        found[IP_FORWARD] = "1"
    if not icc:
        # What stays on the bridge is seen by the firewall only through br_netfilter.
        found["net/bridge/bridge-nf-call-iptables"] = "1"
    return found


def sysctl_plan(wanted: dict[str, str], read: Callable[[str], str | None] = read_sysctl) -> list[Operation]:
    """The settings that differ; one that this kernel lacks is left out, save those that isolation rests on.

    Raises ValueError for those.
    """
    steps: list[Operation] = []
    for key, value in wanted.items():
        present = read(key)
        if present is None and not key.startswith("net/ipv6/"):
            raise ValueError(f"this kernel has no {key.replace('/', '.')}")
        if present is not None and present != value:
            steps.append(SetSysctl(key, value, present))
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


def bridge_plan(config: BridgeConfig, netlink: NetlinkSocket) -> list[Operation]:
    """What is still to do for the device, as `device_plan`."""
    return device_plan(config, netlink.links(), netlink.addresses())


def remove_bridge(name: str, netlink: NetlinkSocket) -> None:
    """Delete the bridge; one that is not there is no error."""
    for link in netlink.links():
        if link.name == name and link.kind == "bridge":
            netlink.delete_link(link.index)


def host_networks(routes: Iterable[Route], addresses: Iterable[Address], *, except_index: int = 0) -> list[IPv4Network]:
    """The IPv4 networks this machine reaches by another device than `except_index`: a new subnet must overlap none.

    Default routes, and halves of one (a VPN's 0.0.0.0/1), say nothing about what is behind them.
    """
    texts = [route.destination for route in routes if route.index != except_index and ":" not in route.destination]
    texts += [
        f"{item.address}/{item.prefix_len}"
        for item in addresses
        if item.index != except_index and ":" not in item.address
    ]
    networks = [IPv4Interface(text).network for text in texts]
    return [network for network in networks if network.prefixlen > 1]
