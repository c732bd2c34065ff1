"""Interfaces of a container that runs: they come, they go, and the default route moves.

Everything here blocks; the service calls it in its worker thread. `netns_fd` is the container's network namespace
(`/proc/PID/ns/net`); the calling thread is in the host's.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from contextlib import suppress

from pier.kernel.netlink import NetlinkSocket
from pier.kernel.nlmsg import Request
from pier.kernel.routes import add_route, default_of, delete_route
from pier.networks.inside import run_inside
from pier.runtime.process.network import carry_at_once, create_device, settle_device
from pier.runtime.request import Interface

__all__ = ["attach", "detach", "free_name", "move_default_routes"]


def free_name(taken: Iterable[str], prefix: str = "eth") -> str:
    """The first of `eth0`, `eth1`, … that is not taken."""
    used = set(taken)
    return next(name for number in range(len(used) + 1) if (name := f"{prefix}{number}") not in used)


def attach(netns_fd: int, interface: Interface) -> None:
    """Give a network namespace one more interface, up, with its addresses and routes. Nothing is left when it fails.

    Its gateways must be no other interface's: `move_default_routes` first where one has them. Raises OSError (EEXIST
    for a name that is taken inside), ValueError.
    """
    with NetlinkSocket() as host:
        run_inside(netns_fd, lambda: _attach(host, netns_fd, interface))


def _attach(host: NetlinkSocket, netns_fd: int, interface: Interface) -> None:
    with NetlinkSocket() as inside:
        if any(link.name == interface.name for link in inside.links()):
            raise FileExistsError(errno.EEXIST, "the container has one of that name")
        create_device(host, netns_fd, interface)
        try:
            settle_device(inside, interface)
            carry_at_once(host, inside, interface)
        except BaseException:
            with suppress(OSError):
                inside.delete_link(inside.link_index(interface.name))
            raise


def detach(netns_fd: int, interface: Interface) -> None:
    """Take an interface away with its addresses and routes; one that is not there is no error. Raises OSError."""
    with suppress_missing():
        if interface.kind == "veth":  # by the host's end, whatever the container calls its own by now
            with NetlinkSocket() as host:
                host.delete_link(host.link_index(interface.host_name))
        else:
            run_inside(netns_fd, lambda: _delete_inside(interface.name))


def _delete_inside(name: str) -> None:
    with NetlinkSocket() as inside:
        inside.delete_link(inside.link_index(name))


def move_default_routes(netns_fd: int, before: Sequence[Interface], after: Sequence[Interface]) -> None:
    """Make the default routes those of the interfaces `after`, of which `before` had them.

    Routes that the container made itself are left alone. When a route cannot be added those from before are put back.
    Raises OSError.
    """
    old, new = gateways_of(before), gateways_of(after)
    gone = [item for item in old if item not in new]
    fresh = [item for item in new if item not in old]
    if gone or fresh:
        run_inside(netns_fd, lambda: _move(gone, fresh))


def gateways_of(interfaces: Iterable[Interface]) -> list[tuple[str, str]]:
    """(name of the interface, gateway) of each default route."""
    return [(interface.name, gateway) for interface in interfaces for gateway in interface.gateways]


def _move(gone: Sequence[tuple[str, str]], fresh: Sequence[tuple[str, str]]) -> None:
    with NetlinkSocket() as inside:
        index = {link.name: link.index for link in inside.links()}
        removed = []
        for name, gateway in gone:
            with suppress_missing():  # the interface went, and its routes with it
                request = delete_route(index.get(name, 0), default_of(gateway), gateway)
                inside.do(*request)
                removed.append((name, gateway))
        added: list[Request] = []
        try:
            for name, gateway in fresh:
                if name not in index:
                    raise OSError(errno.ENODEV, f"add default route by {gateway}: the container has no device {name}")
                inside.do(*add_route(index[name], default_of(gateway), gateway))
                added.append(delete_route(index[name], default_of(gateway), gateway))
        except OSError:
            for undo in added + [add_route(index[name], default_of(gateway), gateway) for name, gateway in removed]:
                with suppress(OSError):
                    inside.do(*undo)
            raise


class suppress_missing:  # noqa: N801 - reads like contextlib's
    """Ends a block quietly when the kernel says that the device or route is not there."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        return isinstance(error, OSError) and error.errno in (errno.ENODEV, errno.ESRCH)
