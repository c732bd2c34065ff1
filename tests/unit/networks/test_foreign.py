"""Other firewalls that drop what is forwarded: who they are, and that packets of containers pass them."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from netdaemon import HOST, LAN, Daemon, Site, make_site
from netlab import stop
from pier.kernel.nftables import Nftables, NftablesError
from pier.networks.foreign import FIREWALLD, admit, admitting, dropping

ONE = "1" * 64
SILENCE_S = 0.3


def chain(family: str, table: str, policy: str, hook: str = "forward", name: str = "FORWARD") -> dict[str, Any]:
    return {"chain": {"family": family, "table": table, "name": name, "hook": hook, "policy": policy}}


def test_who_drops() -> None:
    listed = [
        chain("ip", "filter", "drop"),
        chain("inet", "pier", "drop"),
        chain("inet", "pier-b", "drop"),
        chain("ip", "x", "accept"),
        chain("inet", "y", "drop", "input"),
        chain("bridge", "z", "drop"),
        chain("inet", "firewalld", "accept", name="filter_FORWARD"),
    ]
    assert dropping(listed) == [("ip", "filter", "FORWARD"), FIREWALLD]


def test_a_firewall_that_takes_no_rule_is_named_with_the_remedy() -> None:
    class Owned:
        def list(self, what: str) -> list[dict[str, Any]]:
            return [chain(*FIREWALLD[:2], "accept", name=FIREWALLD[2])] if what == "chains" else []

        def run(self, commands: str) -> str:
            raise NftablesError(reason="Operation not permitted", text="")

    (warning,) = admit(Owned(), "pier0")[1]
    assert "inet firewalld filter_FORWARD drops forwarded packets" in warning
    assert "Operation not permitted" in warning
    assert "firewall-cmd --permanent --zone=trusted --add-interface=pier0" in warning


@pytest.fixture
def site() -> Iterator[Site]:
    with make_site() as found:
        yield found


@pytest.mark.root
@pytest.mark.parametrize("host_rules", [False, True])
def test_containers_pass_a_firewall_that_drops_by_default(site: Site, host_rules: bool) -> None:
    """As with ufw; iptables still understands its own table, and nothing but containers passes."""
    nft = site.host.run(Nftables)
    site.host.run(lambda: subprocess.run(["iptables", "-P", "FORWARD", "DROP"], check=True))
    daemon = Daemon(site, ports_firewall="host" if host_rules else "bypass")
    daemon.start()
    assert daemon.service.features == []
    one = daemon.connect(ONE, site.one, "8080:80/tcp")
    servers: list[socket.socket] = [site.one.serve("tcp", 80), site.lan.serve("tcp", 7)]
    assert site.one.ask("tcp", LAN, 7) == HOST
    if not host_rules:
        assert site.lan.ask("tcp", HOST, 8080) == LAN
    site.lan.route("172.17.0.0/16", HOST)
    assert site.lan.ask("tcp", one.ip, 80, SILENCE_S) is None
    listed = site.host.run(lambda: subprocess.check_output(["iptables", "-S", "FORWARD"], text=True))
    assert "-A FORWARD -m mark --mark 0x200000/0x200000 -j ACCEPT" in listed
    assert len(admitting(nft.list("chain ip filter FORWARD"))) == 1
    daemon.do(daemon.service.release(ONE))
    assert daemon.do(daemon.service.teardown())
    assert admitting(nft.list("chain ip filter FORWARD")) == []
    for server in servers:
        stop(server)
    nft.close()
    daemon.kill()
