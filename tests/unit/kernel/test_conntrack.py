"""Forgetting UDP flows, in a network namespace of the test's own."""

from __future__ import annotations

import struct

import pytest

from netlab import Machine, machines, stop
from pier.kernel import conntrack, nlmsg
from pier.kernel.nftables import Nftables


def flow(protocol: int, port: int) -> memoryview:
    proto = nlmsg.attribute(1, bytes([protocol])) + nlmsg.attribute(3, struct.pack("!H", port))
    body = nlmsg.nested(1, nlmsg.nested(2, proto)) + nlmsg.attribute(12, b"\0\0\0\7")
    return memoryview(b"\2\0\0\0" + body)


@pytest.mark.parametrize(
    ("payload", "found"),
    [(flow(17, 53), True), (flow(17, 54), False), (flow(6, 53), False), (memoryview(b"\2\0\0\0"), False)],
)
def test_only_udp_flows_to_the_port(payload: memoryview, found: bool) -> None:
    """A kernel without the filter answers with every flow."""
    assert (conntrack.udp_flow_to(payload, {53, 99}) is not None) is found


@pytest.mark.root
def test_flows_to_one_port_are_forgotten_and_no_others() -> None:
    with machines(1) as (host,):
        track(host)
        servers = [host.serve("udp", port) for port in (53, 54)]
        for port in (53, 53, 54):
            assert host.ask("udp", "127.0.0.1", port) == "127.0.0.1"
        assert host.run(lambda: conntrack.forget_udp_flows({53})) == 2
        assert host.run(lambda: conntrack.forget_udp_flows({53})) == 0
        assert host.run(lambda: conntrack.forget_udp_flows({54, 99})) == 1
        for server in servers:
            stop(server)


def track(host: Machine) -> None:
    """Connections are tracked only where a rule asks for it."""
    nft = host.run(Nftables)
    nft.run("table inet t { chain c { type filter hook output priority 0; ct state new accept; }; }")
    nft.close()
