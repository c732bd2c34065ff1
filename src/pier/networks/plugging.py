"""An endpoint's interface in a container that runs: plugged in, pulled out, looked for.

Everything here blocks; it is called in the thread of the networks. `netns_fd` is the container's network namespace.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from pier.errors import PierError
from pier.kernel.links import Link
from pier.kernel.netlink import NetlinkSocket
from pier.kernel.routes import add_route, default_of, delete_route
from pier.networks import live
from pier.networks.endpoint import Endpoint, Sandbox
from pier.networks.inside import run_in_each, run_inside

__all__ = ["Faults", "InterfaceFailed", "align_routes", "faults", "plug", "unplug"]


class InterfaceFailed(PierError):
    """failed to set up container networking: cannot {deed} interface {interface}: {reason}"""


def plug(netns_fd: int, endpoint: Endpoint, before: Sandbox, after: Sandbox) -> None:
    """Make an endpoint's interface; the default routes move to who gives them in `after`. Raises InterfaceFailed."""
    interface = endpoint.interface
    if interface is None:
        return
    try:
        if not any(one.gateways for one in before.interfaces):
            live.attach(netns_fd, interface)
            return
        live.attach(netns_fd, replace(interface, gateways=[]))
        try:
            live.move_default_routes(netns_fd, before.interfaces, after.interfaces)
        except BaseException:
            with suppress(OSError):
                live.detach(netns_fd, interface)
            raise
    except (OSError, ValueError) as error:
        raise InterfaceFailed(deed="add", interface=interface.name, reason=reason_of(error)) from error


def unplug(netns_fd: int, endpoint: Endpoint, before: Sandbox, after: Sandbox) -> None:
    """Take an endpoint's interface away; default routes move to who gives them in `after`. Raises InterfaceFailed."""
    interface = endpoint.interface
    if interface is None:
        return
    try:
        live.detach(netns_fd, interface)
        live.move_default_routes(netns_fd, before.interfaces, after.interfaces)
    except (OSError, ValueError) as error:
        raise InterfaceFailed(deed="remove", interface=interface.name, reason=reason_of(error)) from error


def reason_of(error: OSError | ValueError) -> str:
    """The kernel's words, without its number."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


# --- after a daemon was killed


Route = tuple[str, str]
"""(device, gateway) of a default route."""


class Inside(NamedTuple):
    """What there is in a network namespace."""

    devices: dict[str, Link]
    routes: list[Route]


def look() -> Inside:
    """This thread's network namespace. Raises OSError."""
    with NetlinkSocket() as netlink:
        links = list(netlink.links())
        names = {link.index: link.name for link in links}
        routes = [
            (names.get(route.index, ""), route.gateway)
            for route in netlink.routes()
            if route.gateway and route.destination == default_of(route.gateway)
        ]
        return Inside({link.name: link for link in links}, routes)


class Faults(NamedTuple):
    """What of a running container's networks is not as its records say."""

    missing: list[Endpoint]
    """Those whose interfaces are not there."""
    misrouted: bool
    """Its default routes are others."""


def faults(asked: Sequence[tuple[int, Sandbox]]) -> list[Faults | BaseException]:
    """Look at containers, each given by its network namespace and what it should have there."""
    found = run_in_each([netns_fd for netns_fd, _ in asked], look)
    return [
        inside if isinstance(inside, BaseException) else _compare(netns_fd, sandbox, inside)
        for (netns_fd, sandbox), inside in zip(asked, found, strict=True)
    ]


def _compare(netns_fd: int, sandbox: Sandbox, inside: Inside) -> Faults | BaseException:
    try:
        missing = _missing(netns_fd, sandbox, inside)
        return Faults(missing, route_changes(sandbox, inside.routes) != ([], []))
    except OSError as error:
        return error


def _missing(netns_fd: int, sandbox: Sandbox, inside: Inside) -> list[Endpoint]:
    """Endpoints whose interfaces are not there; one that was made and not set up is removed. Raises OSError.

    A veth pair is known by its end on the host: whoever has the rights inside may call the other as he likes.
    """
    missing = []
    plugged = [(endpoint, endpoint.interface) for endpoint in sandbox.endpoints if endpoint.interface is not None]
    for endpoint, interface in plugged:
        link = inside.devices.get(interface.name)
        half_made = link is not None and not link.up
        if half_made:
            live.detach(netns_fd, interface)
        there = is_there(interface.host_name) if interface.kind == "veth" else link is not None
        if half_made or not there:
            missing.append(endpoint)
    return missing


def is_there(name: str) -> bool:
    """Has this thread's network namespace such a device? One is asked for: all of a busy machine are many."""
    try:
        return bool(socket.if_nametoindex(name))
    except OSError:
        return False


def align_routes(netns_fd: int, sandbox: Sandbox) -> None:
    """Have the default routes given by who gives them by the records; the container's own stay. Raises OSError."""
    if sandbox.interfaces:
        run_inside(netns_fd, lambda: _align(sandbox))


def _align(sandbox: Sandbox) -> None:
    devices, present = look()
    gone, fresh = route_changes(sandbox, present)
    with NetlinkSocket() as inside:
        for name, gateway in gone:
            inside.do(*delete_route(devices[name].index, default_of(gateway), gateway))
        for name, gateway in fresh:
            if name in devices:
                inside.do(*add_route(devices[name].index, default_of(gateway), gateway))


def route_changes(sandbox: Sandbox, present: Sequence[Route]) -> tuple[list[Route], list[Route]]:
    """(those to delete, those to add). Where the container has a default route of its own, it keeps it. Pure."""
    wanted = [(interface.name, gateway) for interface in sandbox.interfaces for gateway in interface.gateways]
    ours = {
        (endpoint.interface.name, gateway)
        for endpoint in sandbox.endpoints
        if endpoint.interface is not None
        for gateway in (endpoint.gateway, endpoint.gateway6)
    }
    foreign = {default_of(gateway) for name, gateway in present if (name, gateway) not in ours}
    gone = [route for route in present if route in ours and route not in wanted]
    return gone, [route for route in wanted if route not in present and default_of(route[1]) not in foreign]
