"""Ethernet addresses of containers: Docker's scheme, `02:42` and the four bytes of the IPv4 address."""

from __future__ import annotations

import secrets
from ipaddress import IPv4Address, IPv6Address

from pier.errors import InvalidParameter


class BadMac(InvalidParameter):
    """invalid MAC address: {text}"""

    remedy = "write six pairs of hexadecimal digits, e.g. 02:42:ac:11:00:02; the first must be even"


def mac_of(address: IPv4Address | IPv6Address) -> str:
    """A locally administered MAC made of an address's last four bytes: 172.17.0.2 -> `02:42:ac:11:00:02`."""
    return (b"\x02\x42" + address.packed[-4:]).hex(":")


def random_mac() -> str:
    """A locally administered MAC that nobody else has."""
    return (b"\x02\x42" + secrets.token_bytes(4)).hex(":")


def parse_mac(text: str) -> str:
    """Normal form of `02-42-AC-11-00-02`, `02:42:ac:11:00:02`; raises BadMac, also for multicast and all zeros."""
    parts = text.replace("-", ":").split(":")
    try:
        packed = bytes(int(part, 16) for part in parts if 1 <= len(part) <= 2)
    except ValueError:
        raise BadMac(text=text) from None
    if len(parts) != 6 or len(packed) != 6 or packed[0] & 1 or not any(packed):
        raise BadMac(text=text)
    return packed.hex(":")
