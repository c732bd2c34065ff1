"""The device of the host that the interfaces of a macvlan or ipvlan network hang on.

It is one that is there; or `eth0.50`, an 802.1q sub-interface made for the network where it is not there yet; or, where
none is named, a device that leads nowhere. What is made carries an alias that says so, and is removed with its last
network: a device of the same name that somebody else made stays.
"""

from __future__ import annotations

import errno
from contextlib import suppress

from pier.errors import InvalidParameter, PierError
from pier.kernel.netlink import NetlinkSocket
from pier.networks.bridge import write_sysctl

__all__ = ["BadParent", "ParentFailed", "ensure_parent", "find_parent", "parse_vlan", "remove_parent"]

ALIAS = "made by Pier for network "
LOOPBACK = "lo"
MAX_VLAN = 4094


class BadParent(InvalidParameter):
    """{reason}"""


class ParentFailed(PierError):
    """failed to create {what}: {reason}"""


def parse_vlan(name: str) -> tuple[str, int]:
    """(device, VLAN id) of `eth0.50`. Raises BadParent in Docker's words."""
    parts = name.split(".")
    if len(parts) == 1:
        raise BadParent(reason=f"invalid subinterface vlan name {name}, example formatting is eth0.10")
    if len(parts) != 2:
        raise BadParent(
            reason=f"required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received {name}"
        )
    device, number = parts
    if not number.isascii() or not number.isdecimal():
        raise BadParent(reason=f"unable to parse a valid vlan id from: {number} (ex. eth0.10 for vlan 10)")
    if not 1 <= int(number) <= MAX_VLAN:
        raise BadParent(reason=f"vlan id must be between 1-{MAX_VLAN}, received: {int(number)}")
    return device, int(number)


def find_parent(kind: str, option: str, network_id: str) -> tuple[str, bool]:
    """(name of the parent, whether it leads nowhere) for the option `parent`. Raises BadParent."""
    if option == LOOPBACK:
        raise BadParent(reason=f"loopback interface is not a valid {kind} parent link")
    return (option, False) if option else (f"d{kind[0]}-{network_id[:12]}", True)


def ensure_parent(netlink: NetlinkSocket, name: str, *, nowhere: bool, network_id: str) -> None:
    """Make the parent where it is not there. Raises BadParent, ParentFailed, OSError; nothing is left then."""
    present = {link.name: link.index for link in netlink.links()}
    if name in present:
        return
    try:
        if nowhere:
            _make_dead_end(netlink, name)
        else:
            _make_vlan(netlink, name, present)
        netlink.set_alias(netlink.link_index(name), ALIAS + network_id)
    except BaseException:
        with suppress(OSError):
            netlink.delete_link(netlink.link_index(name))
        raise


def remove_parent(netlink: NetlinkSocket, name: str) -> None:
    """Take away a parent that was made for a network; another one, or none, is left as it is. Raises OSError."""
    for link in netlink.links():
        if link.name == name and link.alias.startswith(ALIAS):
            netlink.delete_link(link.index)


def _make_vlan(netlink: NetlinkSocket, name: str, present: dict[str, int]) -> None:
    device, vlan_id = parse_vlan(name)
    if device not in present:
        raise BadParent(reason=f"-o parent interface was not found on the host: {device}")
    try:
        netlink.create_vlan(name, present[device], vlan_id)
    except OSError as error:
        raise ParentFailed(what=f"{name} vlan link", reason=_words(error, "8021q")) from error


def _make_dead_end(netlink: NetlinkSocket, name: str) -> None:
    """A device with a carrier and nobody behind it: a dummy, or a veth pair where the kernel has none."""
    try:
        netlink.create_dummy(name)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        other = f"x{name[1:]}"
        netlink.create_pair(name, other)
        _open_without_ipv6(netlink, other)
    _open_without_ipv6(netlink, name)


def _open_without_ipv6(netlink: NetlinkSocket, name: str) -> None:
    """Set a device up on which the host is no neighbour."""
    with suppress(FileNotFoundError):
        write_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "1")
    netlink.set_up(netlink.link_index(name))


def _words(error: OSError, module: str) -> str:
    if error.errno == errno.EOPNOTSUPP:
        return f"operation not supported (this kernel has no {module} module)"
    return error.strerror or str(error)
