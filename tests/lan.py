"""A small internet for tests, made of network namespaces, IPv4 and IPv6: who may reach whom is asked from all sides.

    peer ──┐
    host ──┼── LAN ── router ── FAR ── far
    second ┘

`host` is where a daemon runs, or a NetworkService; `second` another machine with a bridge of its own in mind; `peer`
a neighbour, `far` a stranger behind the router. All have their default route by the router, which knows no way but to
its two networks. In `with lan() as it:` ask, all at once:

    expect(reached=[Probe(it.peer, "tcp", it.host_address, 8080)], silent=[Probe(it.far, "icmp", "172.18.0.2")])

A daemon runs in it by `it.host.run(daemon.start)`, and a container is a machine too: `Machine(f"/proc/{pid}/ns/net")`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address

from netlab import WAIT_S, Machine, machines
from pier.kernel.netlink import NetlinkSocket
from pier.networks.mac import mac_of
from pier.runtime.request import Interface

SILENCE_S = 0.4
"""How long nothing must come where nothing may come."""
RETRY_S = 0.2
"""What is to be reached is asked again after this long: a datagram may meet a rule that is just being replaced."""


@dataclass(frozen=True)
class Lan:
    """The machines, and the addresses by which the others know them."""

    host: Machine
    peer: Machine
    second: Machine
    router: Machine
    far: Machine
    switch: Machine

    host_address: str = "192.0.2.1"
    peer_address: str = "192.0.2.9"
    second_address: str = "192.0.2.2"
    router_address: str = "192.0.2.254"
    far_address: str = "198.51.100.9"
    host_address6: str = "2001:db8:1::1"
    peer_address6: str = "2001:db8:1::9"
    second_address6: str = "2001:db8:1::2"
    router_address6: str = "2001:db8:1::fe"
    far_address6: str = "2001:db8:2::9"

    def reflect(self, *, wanted: bool) -> None:
        """Whether the switch sends frames of the host's back to it (802.1Qbg, reflective relay); not at first."""
        with self.switch.run(NetlinkSocket) as sock:
            sock.set_hairpin("lan1", wanted=wanted)


@contextmanager
def lan() -> Iterator[Lan]:
    """The machines, wired; all gone afterwards. Each has the LAN at `eth0`, the router FAR at `eth1`."""
    with machines(6) as (switch, *wired):
        found = Lan(*wired, switch)
        with switch.run(NetlinkSocket) as sock:
            for name, mac in (("lan", "02:00:00:00:00:01"), ("far", "02:00:00:00:00:02")):
                sock.create_bridge(name, mac=mac)
                sock.set_up(sock.link_index(name))
        by = [found.router_address, found.router_address6]
        _plug(switch, "lan", found.router, [found.router_address, found.router_address6], [])
        _plug(switch, "far", found.router, ["198.51.100.254", "2001:db8:2::fe"], [], name="eth1")
        found.router.set("ipv4/ip_forward", "1")
        found.router.set("ipv6/conf/all/forwarding", "1")
        _plug(switch, "lan", found.host, [found.host_address, found.host_address6], by)
        _plug(switch, "lan", found.peer, [found.peer_address, found.peer_address6], by)
        _plug(switch, "lan", found.second, [found.second_address, found.second_address6], by)
        _plug(switch, "far", found.far, [found.far_address, found.far_address6], ["198.51.100.254", "2001:db8:2::fe"])
        yield found


def _plug(
    switch: Machine, network: str, machine: Machine, addresses: Sequence[str], gateways: list[str], name: str = "eth0"
) -> None:
    lengths = [f"{address}/{64 if ':' in address else 24}" for address in addresses]
    number = addresses[0].rpartition(".")[2]
    wire = Interface(name, f"{network}{number}", network, mac_of(IPv4Address(addresses[0])), lengths, gateways)
    machine.plug(wire, switch)
    with switch.run(NetlinkSocket) as sock:
        sock.set_hairpin(wire.host_name, wanted=False)


@dataclass(frozen=True)
class Probe:
    """One question: does `source` get an answer from there?"""

    source: Machine
    protocol: str
    """`tcp`, `udp` (a server of `Machine.serve` must be there) or `icmp`."""
    address: str
    port: int = 0
    seen_as: str = ""
    """The address that the server must have seen; empty: any."""

    def __str__(self) -> str:
        to = f"{self.protocol} {self.address}" + (f" port {self.port}" if self.port else "")
        return f"{to}, seen as {self.seen_as}" if self.seen_as else to

    def asked(self, timeout_s: float) -> str:
        """What came back; empty for silence or a refusal."""
        if self.protocol == "icmp":
            return "pong" if self.source.ping(self.address, timeout_s) else ""
        return self.source.ask(self.protocol, self.address, self.port, timeout_s) or ""


def expect(*, reached: Sequence[Probe] = (), silent: Sequence[Probe] = ()) -> None:
    """Ask all at once; fails with a list of those `reached` in vain and those `silent` that were answered."""
    with ThreadPoolExecutor(max(1, len(reached) + len(silent))) as threads:
        answers = [(probe, threads.submit(_persistent, probe)) for probe in reached]
        leaks = [(probe, threads.submit(partial(probe.asked, SILENCE_S))) for probe in silent]
        wrong = [
            f"not reached: {probe} ({found.result() or 'silence'})"
            for probe, found in answers
            if not _good(probe, found.result())
        ]
        wrong += [f"reached, and must not be: {probe} ({found.result()})" for probe, found in leaks if found.result()]
    assert not wrong, "\n".join(wrong)


def _good(probe: Probe, answer: str) -> bool:
    return answer == probe.seen_as if probe.seen_as else bool(answer)


def _persistent(probe: Probe) -> str:
    deadline = time.monotonic() + WAIT_S
    while True:
        started = time.monotonic()
        answer = probe.asked(0.5)
        if _good(probe, answer) or time.monotonic() > deadline:
            return answer
        time.sleep(max(0.0, RETRY_S - (time.monotonic() - started)))
