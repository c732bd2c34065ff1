"""Options of `dockerd` that Pier knows and does not act on: each says why when it is set.

An option that changes what is *protected* is refused, since ignoring it would leave a user less safe than they asked to
be; any other is accepted with a warning, so that an existing `daemon.json` works as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Shape = Literal["bool", "int", "str", "list", "map"]
"""How a flag's text becomes the value that `daemon.json` would hold."""


@dataclass(frozen=True, slots=True)
class Inert:
    """An option that does nothing here."""

    shape: Shape
    why: str
    refused: bool = False
    harmless: tuple[Any, ...] = ()
    """Values that ask for what Pier does anyway: no warning."""
    flag: str = ""
    """The command line's name where it is not the key."""


NO_CONTAINERD = "Pier has no containerd"
NO_SWARM = "Pier has no swarm mode"
NO_TCP = "Pier listens on unix sockets only for now"

INERT: dict[str, Inert] = {
    "authorization-plugins": Inert(
        "list", "authorization plugins are not implemented yet", refused=True, flag="authorization-plugin"
    ),
    "bridge-accept-fwmark": Inert("str", "Pier's nftables rules do not look at marks"),
    "containerd": Inert("str", NO_CONTAINERD),
    "containerd-namespace": Inert("str", NO_CONTAINERD),
    "containerd-plugins-namespace": Inert("str", NO_CONTAINERD),
    "cpu-rt-period": Inert("int", "realtime scheduling of the parent cgroup is not implemented yet", harmless=(0,)),
    "cpu-rt-runtime": Inert("int", "realtime scheduling of the parent cgroup is not implemented yet", harmless=(0,)),
    "cri-containerd": Inert("bool", NO_CONTAINERD),
    "firewall-backend": Inert("str", "Pier's rules live in an nftables table of their own", harmless=("nftables", "")),
    "init-path": Inert("str", "the init process of --init is part of Pier"),
    "log-format": Inert("str", "the daemon's log is text", harmless=("text",)),
    "metrics-addr": Inert("str", "the metrics page is not implemented yet"),
    "min-api-version": Inert("str", "the oldest API version spoken is 1.24"),
    "network-control-plane-mtu": Inert("int", NO_SWARM),
    "node-generic-resources": Inert("list", NO_SWARM, flag="node-generic-resource"),
    "oom-score-adjust": Inert("int", "set OOMScoreAdjust= in the systemd unit"),
    "raw-logs": Inert("bool", "the daemon's log has no colors", harmless=(True, False)),
    "rootless": Inert("bool", "rootless mode is not implemented yet", refused=True, harmless=(False,)),
    "selinux-enabled": Inert("bool", "SELinux labels are not implemented yet", refused=True, harmless=(False,)),
    "swarm-default-advertise-addr": Inert("str", NO_SWARM),
    "tls": Inert("bool", NO_TCP, harmless=(False,)),
    "tlscacert": Inert("str", NO_TCP),
    "tlscert": Inert("str", NO_TCP),
    "tlskey": Inert("str", NO_TCP),
    "tlsverify": Inert("bool", NO_TCP, harmless=(False,)),
    "userland-proxy-path": Inert("str", "what the kernel does not forward the daemon carries itself, no proxy process"),
}
