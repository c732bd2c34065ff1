"""Links, addresses and routes of a network namespace through rtnetlink (rtnetlink(7), netlink(7)).

Loaded into the zygote: `socket` and `struct` only. A socket belongs to the network namespace it was opened in and stays
there when the process moves on, so an init that leaves the host's namespace keeps its way back:

    host = NetlinkSocket()                   # in the host's namespace
    unshare(CLONE_NEWNET)
    with NetlinkSocket() as inside:          # in its own
        inside.set_loopback_up()

Every refusal is an OSError whose text carries the operation, its object and the kernel's own words. What is asked is
put into bytes by `kernel.links` and `kernel.routes`.
"""

from __future__ import annotations

import errno
import socket

from pier.kernel import links, routes
from pier.kernel.links import Child, Link, VethPair
from pier.kernel.nlmsg import Channel, attribute_u32
from pier.kernel.routes import Address, Route

__all__ = ["Address", "Child", "Link", "NetlinkSocket", "Route", "VethPair"]


class NetlinkSocket(Channel):
    """A NETLINK_ROUTE socket in the network namespace of the thread that makes it; for one thread at a time.

    A request that the kernel does not answer within `timeout_s` raises TimeoutError.
    """

    def __init__(self, timeout_s: float = 10.0) -> None:
        super().__init__(socket.NETLINK_ROUTE, timeout_s)

    # devices

    def link_index(self, name: str) -> int:
        """The index of a device; OSError ENODEV when there is none of that name."""
        index: int = links.IFINFOMSG.unpack_from(self.ask(links.find(name)))[2]
        return index

    def link(self, name: str) -> Link:
        """One device; OSError ENODEV when there is none of that name."""
        return links.parse_link(self.ask(links.find(name)))

    def create_bridge(self, name: str, *, mac: str, mtu: int = 1500) -> None:
        """Make a bridge, down, whose MAC does not change with its ports. EEXIST when `name` is taken."""
        mtu_attribute = attribute_u32(links.IFLA_MTU, mtu)
        self.do(*links.create(name, "bridge", links.mac_attribute(mac), mtu_attribute))

    def create_dummy(self, name: str) -> None:
        """Make a device that leads nowhere, down. EOPNOTSUPP from a kernel without the dummy module."""
        self.do(*links.create(name, "dummy"))

    def create_veth(self, pair: VethPair) -> None:
        """Make a veth pair in one request: host end up and on its bridge, peer in its own namespace, down.

        EEXIST when either name is taken, EXFULL when the bridge has 1,023 ports already.
        """
        self.do(*links.create_veth(pair))

    def create_pair(self, name: str, peer: str) -> None:
        """Make two veth devices of this namespace that lead to each other, down."""
        self.do(*links.create_pair(name, peer))

    def knows(self, kind: str) -> bool:
        """Whether this kernel has devices of a kind that needs a parent: macvlan, ipvlan, vlan. Loads its module."""
        try:
            self.do(*links.create("pier-probe", kind))  # without a parent: refused, and for that reason if it is known
        except OSError as error:
            return error.errno != errno.EOPNOTSUPP
        self.delete_link(self.link_index("pier-probe"))
        return True

    def create_child(self, child: Child) -> None:
        """Make a macvlan or ipvlan in another namespace, down.

        EOPNOTSUPP from a kernel without that kind, EBUSY where the parent is a bridge's port or belongs to a passthru.
        """
        self.do(*links.create_child(child))

    def create_vlan(self, name: str, parent: int, vlan_id: int) -> None:
        """Make an 802.1q sub-interface of device `parent`, up. EOPNOTSUPP from a kernel without the 8021q module."""
        self.do(*links.create_vlan(name, parent, vlan_id))

    def set_hairpin(self, name: str, *, wanted: bool = True) -> None:
        """Let a bridge port send a frame back where it came from, or not.

        Needed where br_netfilter translates addresses inside the bridge: a container reaching its own published port.
        """
        self.do(*links.set_hairpin(name, wanted))

    def set_up(self, index: int) -> None:
        self.do(*links.set_up(index))

    def set_loopback_up(self) -> None:
        """Set `lo` of this socket's namespace up, which gives it 127.0.0.1/8 and ::1/128."""
        self.do(*links.set_up(links.LOOPBACK_IFINDEX))

    def set_mac(self, index: int, mac: str) -> None:
        self.do(*links.set_mac(index, mac))

    def set_alias(self, index: int, text: str) -> None:
        """Write something down about a device, at most 255 bytes (`Link.alias`)."""
        self.do(*links.set_alias(index, text))

    def set_mtu(self, index: int, mtu: int) -> None:
        self.do(*links.set_mtu(index, mtu))

    def delete_link(self, index: int) -> None:
        """Delete a device. Blocks about 20 ms for a veth: let those die with their namespace instead."""
        self.do(*links.delete(index))

    # addresses and routes

    def add_address(self, index: int, address: str) -> None:
        """Give a device `172.17.0.2/16` or `fd00::2/64`, usable at once (no duplicate address detection).

        EEXIST when the device has it already.
        """
        self.do(*routes.add_address(index, address))

    def delete_address(self, index: int, address: str) -> None:
        self.do(*routes.delete_address(index, address))

    def add_route(self, index: int, destination: str, gateway: str = "") -> None:
        """Send what goes to the network `destination` out by device `index`, to `gateway` if it is not a neighbour."""
        self.do(*routes.add_route(index, destination, gateway))

    def delete_route(self, index: int, destination: str, gateway: str = "") -> None:
        """ESRCH where there is no such route."""
        self.do(*routes.delete_route(index, destination, gateway))

    # listings

    def links(self) -> list[Link]:
        kind, _, body, what = links.everything()
        return [links.parse_link(payload) for payload in self.dump(kind, body, what)]

    def addresses(self) -> list[Address]:
        kind, _, body, what = routes.everything(routes.RTM_GETADDR)
        return [routes.parse_address(payload) for payload in self.dump(kind, body, what)]

    def routes(self) -> list[Route]:
        """The routes of every table and both families, those of local addresses included."""
        kind, _, body, what = routes.everything(routes.RTM_GETROUTE)
        return [routes.parse_route(payload) for payload in self.dump(kind, body, what)]
