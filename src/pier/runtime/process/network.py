"""Give a container's network namespace its devices (rtnetlink(7)).

The namespace's own first process does this: it opened a socket on the host's side before it left it, so no other
process has to be waited for, and the devices go away with the namespace.
"""

from __future__ import annotations

import os

from pier.kernel.netlink import NetlinkSocket, add_interface
from pier.kernel.paths import closing
from pier.runtime.request import Interface


def configure(host: NetlinkSocket | None, interfaces: list[Interface], *, loopback: bool = True) -> None:
    """Bring up loopback and make `interfaces` in this process's network namespace; `host` belongs to the host's.

    Without `loopback` it is up already.

    Raises OSError with the kernel's own words.
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
