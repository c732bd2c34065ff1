"""Published ports: which host port each binding gets, and the host sockets that hold them.

A published port is translated in the kernel before any socket sees it. A socket is bound to it all the same, and held
while the port is published: it finds the conflict with a process of the host, and keeps later ones from binding a port
on which nothing would ever arrive.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pier.errors import InvalidParameter, PierError
from pier.model.network import PortBinding
from pier.networks.carriage import Carriage
from pier.networks.firewall import Forward

__all__ = [
    "BadPort",
    "HeldPort",
    "PortAlreadyAllocated",
    "PortBindFailed",
    "PortRequest",
    "PortTable",
    "Target",
    "requests_of",
]

PROTOCOLS = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}
ANY4, ANY6 = "0.0.0.0", "::"  # noqa: S104
ANY = {4: ANY4, 6: ANY6}
EPHEMERAL_FILE = "/proc/sys/net/ipv4/ip_local_port_range"
EPHEMERAL_DEFAULT = range(49153, 65536)
"""IANA's dynamic ports, where the kernel does not say (as Docker)."""
NO_SUCH_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
NO_SUCH_PROTOCOL = (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT)


class BadPort(InvalidParameter):
    """invalid port specification: "{text}" """


class PortAlreadyAllocated(PierError):
    """Bind for {host_ip}:{port} failed: port is already allocated"""

    remedy = "published by container {holder}; choose another host port"


class AllPortsAllocated(PierError):
    """Bind for {host_ip}:{first}-{last} failed: all ports are allocated"""


class PortBindFailed(PierError):
    """failed to bind host port for {host_ip}:{port}:{container_ip}:{container_port}/{protocol}: {reason}"""


@dataclass(frozen=True, slots=True)
class PortRequest:
    """One binding as it was asked for."""

    protocol: str
    container_port: int
    host_ips: tuple[str, ...]
    """Each gets the same host port."""
    host_ports: range | None
    """The first free one is taken; None: any of the machine's ephemeral ports."""
    optional_ips: tuple[str, ...] = ()
    """Those of `host_ips` that a machine may lack: `::` where nobody named an address."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a container's published ports lead: its addresses on one network."""

    bridge: str
    """The network's device."""
    ips: tuple[str, ...]
    """At most one of each family."""
    routed: tuple[int, ...] = ()
    """The IP versions in which the network's addresses are reached directly: no port of the host is taken for them."""

    def address(self, host_ip: str) -> str:
        """The one a port on this address of the host leads to: of the same family where there is one."""
        same = [ip for ip in self.ips if (":" in ip) == (":" in host_ip)]
        return (same or list(self.ips))[0]


@dataclass(slots=True)
class HeldPort:
    """A published port and the socket that holds it on the host."""

    forward: Forward
    holder: str
    """The container's id."""
    socket: socket.socket | None
    """None where no port of the host is taken: a routed network's, or SCTP where only the kernel's table knows it."""


# --- from the API's words to requests


def parse_container_port(text: str) -> tuple[int, str]:
    """(80, "tcp") of `80/tcp` or `80`; raises BadPort."""
    number, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    ports = parse_port_range(number, text)
    if protocol not in PROTOCOLS or ports is None or len(ports) != 1:
        raise BadPort(text=text)
    return ports[0], protocol


def parse_port_range(text: str, whole: str) -> range | None:
    """`8000-8010` or `8080`; None for an empty text or `0`: ours to choose. Raises BadPort naming `whole`."""
    first, dash, last = text.partition("-")
    if text in ("", "0"):
        return None
    if not first.isascii() or not first.isdecimal() or (dash and not (last.isascii() and last.isdecimal())):
        raise BadPort(text=whole)
    ports = range(int(first), int(last or first) + 1)
    if not ports or not 0 < ports[0] <= ports[-1] < 65536:
        raise BadPort(text=whole)
    return ports


def parse_host_ips(host_ip: str, default_ip: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(host addresses, those of them that a machine may lack); raises BadPort."""
    text = host_ip or default_ip
    if not host_ip and text in ("", ANY4):
        return (ANY4, ANY6), (ANY6,)
    if "%" in text:
        raise BadPort(text=text)
    try:
        return (str(ipaddress.ip_address(text)),), ()
    except ValueError:
        raise BadPort(text=text) from None


def requests_of(
    bindings: Mapping[str, Sequence[PortBinding] | None],
    *,
    exposed: Iterable[str] = (),
    publish_all: bool = False,
    default_ip: str = ANY4,
) -> list[PortRequest]:
    """What a container's `PortBindings`, `ExposedPorts` and `PublishAllPorts` ask for, fixed host ports first.

    Fixed ones come first so that no ephemeral choice of the same container takes what another names. Raises BadPort.
    """
    wanted = {key: list(value or ()) for key, value in bindings.items()}
    if publish_all:
        wanted |= {key: [PortBinding()] for key in [*exposed, *wanted] if not wanted.get(key)}
    found = []
    for key in sorted(wanted, key=parse_container_port):
        port, protocol = parse_container_port(key)
        for binding in wanted[key]:
            host_ips, optional = parse_host_ips(binding.host_ip, default_ip)
            host_ports = parse_port_range(binding.host_port, f"{binding.host_port}:{key}")
            found.append(PortRequest(protocol, port, host_ips, host_ports, optional))
    return sorted(found, key=lambda request: len(request.host_ports or range(1 << 16)))


def port_map(forwards: Iterable[Forward], exposed: Iterable[str]) -> dict[str, list[PortBinding] | None]:
    """`NetworkSettings.Ports`: bindings by container port, None for a port that is exposed and not published."""
    found: dict[str, list[PortBinding] | None] = {key if "/" in key else f"{key}/tcp": None for key in exposed}
    for forward in forwards:
        key = f"{forward.container_port}/{forward.protocol}"
        binding = PortBinding(host_ip=forward.host_ip, host_port=str(forward.host_port or ""))
        found[key] = [*(found.get(key) or []), binding]
    return dict(sorted(found.items()))


# --- the host's side


def ephemeral_ports(path: str = EPHEMERAL_FILE) -> range:
    """The machine's range for ports that nobody chose."""
    try:
        with open(path) as file:
            first, last = (int(word) for word in file.read(64).split())
    except (OSError, ValueError):
        return EPHEMERAL_DEFAULT
    return range(first, last + 1)


def bind_port(protocol: str, host_ip: str, port: int) -> socket.socket | None:
    """A socket that holds a port: refuses connections, reads no datagrams. Raises OSError.

    None where this kernel has no sockets of the protocol: then no program of the host can have the port.
    """
    family = socket.AF_INET6 if ":" in host_ip else socket.AF_INET
    kind, number = PROTOCOLS[protocol]
    try:
        held = socket.socket(family, kind | socket.SOCK_NONBLOCK, number)
    except OSError as error:
        if protocol == "sctp" and error.errno in NO_SUCH_PROTOCOL:
            return None
        raise
    try:
        if family == socket.AF_INET6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Bind past the TIME_WAIT leftovers of a server that was here before, then let nobody bind past us.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(protocol != "udp"))
        held.bind((host_ip, port))
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError:
        held.close()
        raise
    return held


def split(request: PortRequest, target: Target) -> tuple[list[Forward], PortRequest]:
    """(what needs no port of the host, the rest of the request): an address of a routed family is reached itself."""
    direct = [ip for ip in request.host_ips if version_of(target.address(ip)) in target.routed]
    forwards = [
        Forward(request.protocol, ANY[version_of(target.address(ip))], 0, target.address(ip), request.container_port,
                target.bridge)
        for ip in direct
        if version_of(ip) == version_of(target.address(ip))
    ]  # fmt: skip
    return forwards, replace(request, host_ips=tuple(ip for ip in request.host_ips if ip not in direct))


def version_of(address: str) -> int:
    return 6 if ":" in address else 4


def refused(forward: Forward, number: int, reason: str) -> PortBindFailed:
    return PortBindFailed(
        host_ip=forward.host_ip,
        port=forward.host_port,
        container_ip=forward.container_ip,
        container_port=forward.container_port,
        protocol=forward.protocol,
        reason=reason,
        errno=number,
    )


def nobody(carriage: Carriage, forward: Forward) -> str:
    """Why neither kernel nor daemon carries a port."""
    if forward.protocol == "sctp":
        return "protocol not supported: SCTP is translated by the kernel within an IP version, and never relayed"
    why = "between IPv4 and IPv6, and from ::1, " if carriage.table else "without a firewall table "
    return f"{why}the daemon would have to carry it, and runs with userland-proxy=false"


def overlap(one: str, other: str) -> bool:
    """Do two host addresses share a port's name space: equal, or one of them every address of its family?"""
    if (":" in one) != (":" in other):
        return False
    return one == other or {one, other} & {ANY4, ANY6} != set()


@dataclass(slots=True)
class PortTable:
    """The ports that Pier's containers hold on this machine. One thread at a time."""

    ephemeral: range = field(default_factory=ephemeral_ports)
    carriage: Callable[[], Carriage] = Carriage
    """How ports are carried at the moment."""
    _held: dict[tuple[str, int], list[HeldPort]] = field(default_factory=dict)
    _next_ephemeral: int = 0

    def claim(self, requests: Iterable[PortRequest], target: Target, *, holder: str) -> list[HeldPort]:
        """Hold a host port for every request, all or none.

        Raises PortAlreadyAllocated (another container has it), PortBindFailed (a process of the host has it, or the
        address is not this machine's), AllPortsAllocated (a range is used up).
        """
        claimed: list[HeldPort] = []
        try:
            for request in requests:
                claimed += self._claim_one(request, target, holder)
        except BaseException:
            self.release(claimed)
            raise
        return claimed

    def reclaim(self, forwards: Iterable[Forward], *, holder: str) -> tuple[list[HeldPort], list[str]]:
        """Hold the ports of a container that is running already; returns those held and, in words, those not."""
        held, lost = [], []
        for forward in forwards:
            try:
                held.append(self._hold(forward, holder) if forward.host_port else HeldPort(forward, holder, None))
            except PierError as error:
                lost.append(str(error))
        return held, lost

    def release(self, ports: Iterable[HeldPort]) -> None:
        for port in ports:
            if not port.forward.host_port:
                continue
            if port.socket is not None:
                port.socket.close()
            key = port.forward.protocol, port.forward.host_port
            self._held[key] = [other for other in self._held.get(key, []) if other is not port]
            if not self._held[key]:
                del self._held[key]

    def close(self) -> None:
        """Close every socket; translations in the kernel stay."""
        self.release([port for ports in list(self._held.values()) for port in ports])

    def _claim_one(self, request: PortRequest, target: Target, holder: str) -> list[HeldPort]:
        forwards, taking = split(request, target)
        routed = [HeldPort(forward, holder, None) for forward in forwards]
        if not taking.host_ips:
            return routed
        candidates = taking.host_ports or self._ephemeral_candidates()
        for port in candidates:
            try:
                held = self._hold_all(taking, port, target, holder)
            except (PortAlreadyAllocated, PortBindFailed) as error:
                only_choice = request.host_ports is not None and len(request.host_ports) == 1
                if only_choice or (isinstance(error, PortBindFailed) and error.fields["errno"] != errno.EADDRINUSE):
                    raise
                continue
            if request.host_ports is None:
                self._next_ephemeral = (port - self.ephemeral.start + 1) % len(self.ephemeral)
            return sorted([*routed, *held], key=lambda item: version_of(item.forward.host_ip))
        ports = request.host_ports or self.ephemeral
        raise AllPortsAllocated(host_ip=request.host_ips[0], first=ports[0], last=ports[-1])

    def _ephemeral_candidates(self) -> Iterator[int]:
        for step in range(len(self.ephemeral)):
            yield self.ephemeral[(self._next_ephemeral + step) % len(self.ephemeral)]

    def _hold_all(self, request: PortRequest, port: int, target: Target, holder: str) -> list[HeldPort]:
        """The same port on every address of the request that anybody carries, or on none."""
        forwards = [
            Forward(request.protocol, host_ip, port, target.address(host_ip), request.container_port, target.bridge)
            for host_ip in request.host_ips
        ]
        carriage = self.carriage()
        possible = [forward for forward in forwards if carriage.possible(forward)]
        if not possible:
            raise refused(forwards[0], errno.EPROTONOSUPPORT, nobody(carriage, forwards[0]))
        held: list[HeldPort] = []
        for forward in possible:
            try:
                held.append(self._hold(forward, holder))
            except PortBindFailed as error:
                if forward.host_ip in request.optional_ips and error.fields["errno"] in NO_SUCH_FAMILY:
                    continue
                self.release(held)
                raise
            except PortAlreadyAllocated:
                self.release(held)
                raise
        return held

    def _hold(self, forward: Forward, holder: str) -> HeldPort:
        """Raises PortAlreadyAllocated, PortBindFailed (with the errno among its fields)."""
        key = forward.protocol, forward.host_port
        for other in self._held.get(key, []):
            if overlap(other.forward.host_ip, forward.host_ip):
                anywhere = next((ip for ip in (ANY4, ANY6) if ip in (forward.host_ip, other.forward.host_ip)), None)
                raise PortAlreadyAllocated(
                    host_ip=anywhere or forward.host_ip, port=forward.host_port, holder=other.holder[:12]
                )
        try:
            bound = bind_port(forward.protocol, forward.host_ip, forward.host_port)
        except OSError as error:
            raise refused(forward, error.errno or 0, os.strerror(error.errno or 0).lower()) from None
        held = HeldPort(forward, holder, bound)
        self._held.setdefault(key, []).append(held)
        return held
