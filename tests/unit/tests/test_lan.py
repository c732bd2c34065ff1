"""The harness itself: what it says is reached is, what it says is silent is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lan import Lan, Probe, expect, lan
from netlab import Machine, stop

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def it() -> Iterator[Lan]:
    with lan() as found:
        yield found


def test_everyone_reaches_everyone_over_both_families(it: Lan) -> None:
    places = [
        (it.host, it.host_address, it.host_address6),
        (it.peer, it.peer_address, it.peer_address6),
        (it.second, it.second_address, it.second_address6),
        (it.far, it.far_address, it.far_address6),
    ]
    servers = [machine.serve("tcp", 80, "::") for machine, *_ in places]
    servers += [machine.serve("udp", 53) for machine, *_ in places]
    probes = [
        probe
        for source, mine, mine6 in places
        for _, theirs, theirs6 in places
        for probe in (
            Probe(source, "icmp", theirs),
            Probe(source, "icmp", theirs6),
            Probe(source, "udp", theirs, 53, seen_as=mine),
            Probe(source, "tcp", theirs6, 80, seen_as=mine6),
        )
    ]
    expect(reached=probes)
    for server in servers:
        stop(server)


def test_what_nobody_serves_is_silent(it: Lan) -> None:
    silent = [
        Probe(it.peer, "tcp", it.host_address, 81),
        Probe(it.far, "udp", it.host_address6, 81),
        Probe(it.peer, "icmp", "192.0.2.77"),
    ]
    expect(silent=silent)
    with pytest.raises(AssertionError, match=r"^reached, and must not be: icmp 192\.0\.2\.1 \(pong\)$"):
        expect(silent=[Probe(it.peer, "icmp", it.host_address)])


def test_a_wrong_sender_is_told(it: Lan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lan.WAIT_S", 0.0)
    server = it.host.serve("tcp", 80)
    with pytest.raises(AssertionError, match=r"not reached: tcp 192.* seen as 192\.0\.2\.3 \(192\.0\.2\.9\)"):
        expect(reached=[Probe(it.peer, "tcp", it.host_address, 80, seen_as="192.0.2.3")])
    stop(server)


def test_a_namespace_that_is_there_is_a_machine_too(it: Lan) -> None:
    again = Machine(f"/proc/self/fd/{it.peer.fd}")
    try:
        assert again.ping(it.host_address)
        again.set("ipv4/conf/eth0/log_martians", "1")
    finally:
        again.close()
