"""Give a container's network namespace its devices (rtnetlink(7)).

The namespace's own first process does this: it opened a socket on the host's side before it left it, so no other
process has to be waited for, and the devices go away with the namespace.
"""

from __future__ import annotations

import errno
import os
import time

from pier.kernel import links, routes
from pier.kernel.links import Child, VethPair
from pier.kernel.netlink import NetlinkSocket
from pier.kernel.nlmsg import Request
from pier.kernel.paths import closing
from pier.runtime.request import Interface

LAST_RESORT = 4096
"""The metric of a route without a gateway: another interface's default route, which has one, comes before it."""
TAKEN_MAC_S = 10.0
"""How long a container waits for a MAC that its predecessor had."""


def configure(host: NetlinkSocket | None, interfaces: list[Interface], *, loopback: bool = True) -> None:
    """Bring up loopback and make `interfaces` in this process's network namespace; `host` belongs to the host's.

    Without `loopback` it is up already.

    Raises OSError with the kernel's own words, ValueError for what cannot be put into words for it.
    """
    if not loopback and not interfaces:
        return
    with NetlinkSocket() as inside:
        if loopback:
            inside.set_loopback_up()
        if not interfaces:
            return
        assert host is not None
        with closing(os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as netns:
            for interface in interfaces:
                add_interface(host, inside, netns_fd=netns, interface=interface)


def add_interface(host: NetlinkSocket, inside: NetlinkSocket, *, netns_fd: int, interface: Interface) -> None:
    """Give a network namespace one interface with its addresses and routes, up.

    `host` was opened in the namespace of `interface.parent`, `inside` in the one that `netns_fd` names; the calling
    thread is in the latter. An interface without an IPv6 address gets no IPv6 at all. A failure leaves at most the
    device, which goes with the namespace.
    """
    create_device(host, netns_fd, interface)
    settle_device(inside, interface)
    carry_at_once(host, inside, interface)


def carry_at_once(host: NetlinkSocket, inside: NetlinkSocket, interface: Interface) -> None:
    """Let the first packet of an interface that is up pass.

    Neither end of a veth pair sends, and its bridge neither, before they have learned that there is a carrier. The
    kernel tells them in the background, at its leisure, and what is sent before is lost: an ARP request, for a second.
    Asked for a device it tells it first (rtnl_getlink, since Linux 6.8).
    """
    if interface.kind == "veth":
        inside.link_index(interface.name)
        host.link_index(interface.host_name)
        host.link_index(interface.parent)


def settle_device(inside: NetlinkSocket, interface: Interface) -> None:
    """Give a device that is in the calling thread's network namespace what makes it an interface, and set it up."""
    has_ipv6 = any(":" in address for address in interface.addresses)
    _allow_ipv6(interface.name, has_ipv6)
    for key, value in interface.sysctls.items():
        write_setting(setting_path(key, interface.name), value)
    index = inside.link_index(interface.name)
    if interface.kind == "macvlan":
        _outlive(inside, index)
    requests = [routes.add_address(index, address) for address in interface.addresses]
    inside.do_all([*requests, links.set_up(index), *route_requests(index, interface)])


def _outlive(inside: NetlinkSocket, index: int) -> None:
    """Set a macvlan up whose MAC another one may still have: the kernel takes namespaces down in the background."""
    deadline = time.monotonic() + TAKEN_MAC_S
    while True:
        try:
            return inside.set_up(index)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def create_device(host: NetlinkSocket, netns_fd: int, interface: Interface) -> None:
    """Make the device, down, in another network namespace: the first half of `add_interface`."""
    parent = host.link_index(interface.parent)
    if interface.kind != "veth":
        host.create_child(
            Child(
                kind=interface.kind,
                parent=parent,
                name=interface.name,
                mac=interface.mac,
                netns_fd=netns_fd,
                mtu=interface.mtu,
                mode=interface.mode,
                flag=interface.flag,
            )
        )
        return
    pair = VethPair(
        host_name=interface.host_name,
        bridge=parent,
        peer_name=interface.name,
        peer_mac=interface.mac,
        peer_netns_fd=netns_fd,
        mtu=interface.mtu,
    )
    steps = [links.create_veth(pair), links.set_hairpin(interface.host_name, True)]
    host.do_all([*steps, links.set_isolated(interface.host_name)] if interface.mode == "isolated" else steps)


def route_requests(index: int, interface: Interface) -> list[Request]:
    """The routes of an interface whose device is `index`, those it gets by its addresses excepted."""
    # A gateway may lie behind one of the other routes.
    more = [
        routes.add_route(index, destination, gateway, 0 if gateway else LAST_RESORT)
        for destination, gateway in interface.routes
    ]
    return more + [routes.add_route(index, routes.default_of(gateway), gateway) for gateway in interface.gateways]


# --- settings of a device, below the calling thread's /proc/sys/net


def setting_path(key: str, name: str) -> str:
    """The file of `net.ipv4.conf.IFNAME.forwarding` for the device `name`; raises ValueError for other settings."""
    parts = key.split(".")
    if len(parts) != 5 or parts[0] != "net" or parts[3] != "IFNAME" or "" in parts or "/" in key:
        raise ValueError(f"{key!r} is no setting of a network device: net.FAMILY.conf.IFNAME.SETTING is")
    parts[3] = name
    return "/proc/sys/" + "/".join(parts)


def write_setting(path: str, value: str) -> None:
    """Raises OSError."""
    try:
        with open(path, "wb", buffering=0) as setting:
            setting.write(value.encode())
    except OSError as error:
        raise OSError(error.errno, f"set {path}: {error.strerror}") from error


def _allow_ipv6(name: str, wanted: bool) -> None:
    """Keep IPv6 off a device, router advertisements included, or let it have it whatever the host's default is."""
    try:
        write_setting(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "0" if wanted else "1")
    except FileNotFoundError:
        if wanted:
            raise OSError("this kernel has no IPv6, which the network asks for") from None
