"""Neighbours are told who has an address now: gratuitous ARP (RFC 5227) and neighbour advertisements (RFC 4861, 7.2.6).

A neighbour that remembers another MAC behind an address that has changed hands would talk to nobody until it asks anew.
The daemon tells them, not the container's first process: a bridge lets nothing through a port that has just come up,
and the kernel takes milliseconds to close a packet socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Mapping
from ipaddress import ip_interface

from pier.kernel import links
from pier.kernel.netlink import NetlinkSocket
from pier.networks.inside import run_inside
from pier.networks.mac import mac_of
from pier.runtime.request import Interface

__all__ = ["OPTIONS", "announce", "cadence", "is_news", "wrong_options"]

TIMES, INTERVAL_S = 3, 1.0
"""How often and how fast by default, as Docker does."""
TIMES_OPTION = "com.docker.network.advertise-addr-nmsgs"
INTERVAL_OPTION = "com.docker.network.advertise-addr-ms"
OPTIONS = {TIMES_OPTION: range(4), INTERVAL_OPTION: range(100, 2001)}
"""Of a network: how often, and after how many milliseconds again."""

# linux/if_ether.h, linux/if_arp.h
ETH_P_ARP = 0x0806
ETH_P_IP = 0x0800
ARPHRD_ETHER = 1
ARPOP_REQUEST = 1
BROADCAST = bytes(6 * [255])
ARP = struct.Struct("!HHBBH6s4s6s4s")

# RFC 4861, section 4.4
ND_NEIGHBOR_ADVERT = 136
NA_OVERRIDE = 0x20
ND_OPT_TARGET_LINKADDR = 2
ALL_NODES = "ff02::1"


def is_news(interface: Interface) -> bool:
    """Whether a neighbour may remember another MAC behind an address: not where the MAC is made of it."""
    return any(interface.mac != mac_of(ip_interface(item).ip) for item in interface.addresses)


def gratuitous_arp(address: str, mac: str) -> bytes:
    """An announcement that `mac` has the IPv4 `address`: a request for it, as RFC 5227 (3) wants."""
    packed, hardware = socket.inet_aton(address), links.mac_bytes(mac)
    return ARP.pack(ARPHRD_ETHER, ETH_P_IP, 6, 4, ARPOP_REQUEST, hardware, packed, bytes(6), packed)


def advertisement(address: str, mac: str) -> bytes:
    """An unsolicited neighbour advertisement; the kernel fills in the checksum."""
    option = bytes([ND_OPT_TARGET_LINKADDR, 1]) + links.mac_bytes(mac)
    head = bytes([ND_NEIGHBOR_ADVERT, 0, 0, 0, NA_OVERRIDE, 0, 0, 0])
    return head + socket.inet_pton(socket.AF_INET6, address) + option


def cadence(options: Mapping[str, str]) -> tuple[int, float]:
    """(times, seconds between them) for a network's options."""
    times, interval_ms = (_number(options, key) for key in OPTIONS)
    return TIMES if times is None else times, INTERVAL_S if interval_ms is None else interval_ms / 1000


def wrong_options(options: Mapping[str, str]) -> list[str]:
    """A warning for each of these options whose value is not what it may be."""
    return [
        f"The option {key} takes a number from {allowed[0]} to {allowed[-1]}. {options[key][:80]!r} has no effect."
        for key, allowed in OPTIONS.items()
        if key in options and _number(options, key) is None
    ]


def _number(options: Mapping[str, str], key: str) -> int | None:
    text = options.get(key, "")
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 5 else -1
    return number if number in OPTIONS[key] else None


async def announce(netns_fd: int, interface: Interface, *, times: int = TIMES, interval_s: float = INTERVAL_S) -> None:
    """Tell all neighbours of an interface that is up, `times` times; returns when that is done or has become pointless.

    `netns_fd` is needed until the first of them is sent.
    """
    if not times or not interface.addresses:
        return
    made = asyncio.ensure_future(asyncio.to_thread(run_inside, netns_fd, lambda: Teller(interface)))
    try:
        teller = await asyncio.shield(made)
    except OSError:
        return  # the container has ended, or the interface is gone
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):
            (await made).close()
        raise
    try:
        for turn in range(times):
            if turn:
                await asyncio.sleep(interval_s)
            teller.tell()
    except OSError:
        pass  # likewise
    finally:
        await asyncio.shield(asyncio.to_thread(teller.close))


class Teller:
    """The sockets of one network namespace that tell of one interface. Made in that namespace."""

    def __init__(self, interface: Interface) -> None:
        """Raises OSError."""
        addresses = [item.partition("/")[0] for item in interface.addresses]
        with NetlinkSocket() as netlink:
            link = netlink.link(interface.name)
        self._index, self._name = link.index, link.name
        self._ipv4 = [gratuitous_arp(item, link.mac) for item in addresses if ":" not in item]
        self._ipv6 = [(item, advertisement(item, link.mac)) for item in addresses if ":" in item]
        self._sockets: list[socket.socket] = []
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        if self._ipv4:
            self._sockets.append(socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0))
        for address, _ in self._ipv6:
            sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
            self._sockets.append(sock)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
            sock.bind((address, 0, 0, self._index))

    def tell(self) -> None:
        """Raises OSError."""
        sockets = iter(self._sockets)
        if self._ipv4:
            sock = next(sockets)
            for packet in self._ipv4:
                sock.sendto(packet, (self._name, ETH_P_ARP, 0, 0, BROADCAST))
        for (_, message), sock in zip(self._ipv6, sockets, strict=True):
            sock.sendto(message, (ALL_NODES, 0, 0, self._index))

    def close(self) -> None:
        """Blocks for some milliseconds."""
        for sock in self._sockets:
            sock.close()
