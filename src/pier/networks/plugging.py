"""An endpoint's interface in a container that runs: plugged in, pulled out, looked for.

Everything here blocks; it is called in the thread of the networks. `netns_fd` is the container's network namespace.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from pier.errors import PierError
from pier.networks import live
from pier.networks.endpoint import Endpoint, Sandbox
from pier.networks.inside import run_inside

__all__ = ["InterfaceFailed", "missing", "plug", "unplug"]


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
        raise InterfaceFailed(deed="add", interface=interface.name, reason=str(error)) from error


def unplug(netns_fd: int, endpoint: Endpoint, before: Sandbox, after: Sandbox) -> None:
    """Take an endpoint's interface away; default routes move to who gives them in `after`. Raises InterfaceFailed."""
    interface = endpoint.interface
    if interface is None:
        return
    try:
        live.detach(netns_fd, interface)
        live.move_default_routes(netns_fd, before.interfaces, after.interfaces)
    except (OSError, ValueError) as error:
        raise InterfaceFailed(deed="remove", interface=interface.name, reason=str(error)) from error


def missing(netns_fd: int, endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """Those whose interfaces are not there. Raises OSError.

    A veth pair is known by its end on the host: whoever has the rights inside may call the other as he likes.
    """
    found = []
    for endpoint in endpoints:
        interface = endpoint.interface
        if interface is None:
            continue
        if interface.kind == "veth":
            there = is_there(interface.host_name)
        else:
            there = run_inside(netns_fd, partial(is_there, interface.name))
        if not there:
            found.append(endpoint)
    return found


def is_there(name: str) -> bool:
    """Has this thread's network namespace such a device? One is asked for: all of a busy machine are many."""
    try:
        return bool(socket.if_nametoindex(name))
    except OSError:
        return False
