"""Several networks a container, joined and left while it runs, on machines made of network namespaces."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator

import pytest

from netdaemon import HOST, LAN, Daemon, Site, bindings, make_site
from netlab import Machine, stop
from pier.errors import Conflict, PierError
from pier.kernel.netlink import NetlinkSocket
from pier.kernel.routes import add_route, delete_route
from pier.networks import Ask, Endpoint, Publishing, Sandbox, endpoints
from pier.networks.plugging import InterfaceFailed, Route, route_changes
from pier.networks.publishing import ConnectivityFailed
from pier.runtime.request import Interface

pytestmark = pytest.mark.root

ONE, TWO = "1" * 64, "2" * 64
WEB = Publishing(bindings("8080:80/tcp"))


@pytest.fixture
def site() -> Iterator[Site]:
    with make_site() as made:
        yield made


@pytest.fixture
def daemon(site: Site) -> Iterator[Daemon]:
    made = Daemon(site)
    made.start()
    yield made
    made.kill()


def join(daemon: Daemon, machine: Machine, ask: Ask, publishing: Publishing = WEB, id: str = ONE) -> Endpoint:
    with namespace(machine) as fd:
        return daemon.do(daemon.service.join(id, ask, name="web", publishing=publishing, netns_fd=fd))


def leave(daemon: Daemon, machine: Machine, network: str, publishing: Publishing = WEB) -> None:
    network_id = daemon.service.find(network).id
    with namespace(machine) as fd:
        daemon.do(daemon.service.leave(ONE, network_id, publishing=publishing, netns_fd=fd))


@contextlib.contextmanager
def namespace(machine: Machine) -> Iterator[int]:
    fd = machine.run(lambda: os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
    try:
        yield fd
    finally:
        os.close(fd)


def routes(machine: Machine) -> set[str]:
    """The gateways of default routes."""
    with machine.run(NetlinkSocket) as sock:
        return {route.gateway for route in sock.routes() if route.destination in ("0.0.0.0/0", "::/0")}


def devices(machine: Machine) -> set[str]:
    with machine.run(NetlinkSocket) as sock:
        return {link.name for link in sock.links()} - {"lo"}


def test_the_published_port_and_the_default_route_go_together(site: Site, daemon: Daemon) -> None:
    daemon.create("a")
    daemon.create("b")
    daemon.start_on(ONE, site.one, Ask("bridge"), name="web", publishing=WEB)
    server = site.one.serve("tcp", 80)
    try:
        assert site.lan.ask("tcp", HOST, 8080) == LAN
        first = join(daemon, site.one, Ask("a", gw_priority=1, names=("web", "x")))
        assert routes(site.one) == {first.gateway}
        assert site.lan.ask("tcp", HOST, 8080) == LAN
        second = join(daemon, site.one, Ask("b"))
        assert routes(site.one) == {first.gateway}
        leave(daemon, site.one, "bridge")
        leave(daemon, site.one, "a")
        assert (routes(site.one), devices(site.one)) == ({second.gateway}, {"eth2"})
        assert site.lan.ask("tcp", HOST, 8080) == LAN
        assert [binding.host_port for binding in daemon.sandbox(ONE).ports["80/tcp"] or []] == ["8080", "8080"]
        leave(daemon, site.one, "b")
        assert (routes(site.one), devices(site.one)) == (set(), set())
        assert daemon.sandbox(ONE).ports == {}
        assert not daemon.keeps(ONE)
    finally:
        stop(server)


def test_a_join_that_fails_leaves_nothing(site: Site, daemon: Daemon) -> None:
    daemon.create("a")
    daemon.start_on(ONE, site.one, Ask("bridge"), name="web", publishing=WEB)
    before = daemon.sandbox(ONE), dict(daemon.store.records), routes(site.one)
    with site.one.run(NetlinkSocket) as sock:  # the container has made itself a device of the name to come
        sock.create_bridge("eth1", mac="02:42:00:00:00:09")
    with pytest.raises(InterfaceFailed, match=r"cannot add interface eth1: the container has one of that name$"):
        join(daemon, site.one, Ask("a", gw_priority=1, names=("web",)))
    assert (daemon.sandbox(ONE), daemon.store.records, routes(site.one)) == before
    assert daemon.service.inspect("a").containers == {}
    daemon.do(daemon.service.remove("a"))


def test_a_join_whose_ports_cannot_be_had_leaves_nothing(site: Site, daemon: Daemon) -> None:
    daemon.create("in", internal=True)
    daemon.create("a")
    daemon.start_on(ONE, site.one, Ask("in"), name="web", publishing=WEB)
    assert daemon.sandbox(ONE).ports == {}
    before = dict(daemon.store.records)
    refused = pytest.raises(ConnectivityFailed, match=r"external connectivity on endpoint web .*8080")
    with site.host.run(lambda: socket.create_server(("0.0.0.0", 8080))), refused:
        join(daemon, site.one, Ask("a"))
    assert (devices(site.one), routes(site.one), daemon.store.records) == ({"eth0"}, set(), before)
    join(daemon, site.one, Ask("a"))
    assert daemon.sandbox(ONE).ports["80/tcp"]


def test_what_a_killed_daemon_left_half_done_is_found(site: Site, daemon: Daemon) -> None:
    daemon.create("a")
    daemon.start_on(ONE, site.one, Ask("bridge"), Ask("a"), name="web", publishing=WEB)
    daemon.kill()
    with site.one.run(NetlinkSocket) as sock:
        sock.delete_link(sock.link_index("eth1"))
    again = Daemon(site, daemon.store)
    again.start({ONE})
    with namespace(site.one) as fd:
        (lost,) = again.do(again.service.verify(ONE, fd))
        assert not again.do(again.service.verify(ONE, fd))
    assert (lost.network, [one.network for one in again.sandbox(ONE).endpoints]) == ("a", ["bridge"])
    assert join(again, site.one, Ask("a")).ip == lost.ip.rpartition(".")[0] + ".3"  # not at once the same again
    again.kill()


def test_an_interface_that_was_not_set_up_and_a_route_that_was_not_moved(site: Site, daemon: Daemon) -> None:
    daemon.create("a")
    daemon.start_on(ONE, site.one, Ask("bridge"), Ask("a", gw_priority=1), name="web")
    own, other = daemon.sandbox(ONE).endpoints
    with site.one.run(NetlinkSocket) as sock:
        index = {link.name: link.index for link in sock.links()}
        sock.do(*delete_route(index["eth1"], "0.0.0.0/0", other.gateway))
        sock.do(*add_route(index["eth0"], "0.0.0.0/0", own.gateway))
    with namespace(site.one) as fd:
        assert not daemon.do(daemon.service.verify(ONE, fd))
        assert routes(site.one) == {other.gateway}
        with site.one.run(NetlinkSocket) as sock:
            down = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index["eth1"], 0, 1)  # ifinfomsg: IFF_UP off
            sock.do(19, 0, down, "set eth1 down")  # RTM_SETLINK
        assert [one.network for one in daemon.do(daemon.service.verify(ONE, fd))] == ["a"]
    assert (routes(site.one), devices(site.one)) == ({own.gateway}, {"eth0"})


@pytest.mark.parametrize(
    ("present", "changes"),
    [
        ([("eth1", "10.1.0.1")], ([], [])),
        ([("eth0", "10.0.0.1")], ([("eth0", "10.0.0.1")], [("eth1", "10.1.0.1")])),
        ([], ([], [("eth1", "10.1.0.1")])),
        ([("tun0", "10.9.0.1")], ([], [])),
        ([("eth0", "10.0.0.9")], ([], [])),
        ([("eth0", "10.0.0.9"), ("eth0", "10.0.0.1")], ([("eth0", "10.0.0.1")], [])),
    ],
)
def test_routes_of_the_containers_own_are_left_alone(
    present: list[Route], changes: tuple[list[Route], list[Route]]
) -> None:
    def one(number: int, *gateways: str) -> Endpoint:
        interface = Interface(f"eth{number}", "", "", "", [], list(gateways))
        return Endpoint(ONE, "", str(number), str(number), "bridge", "", interface, gateway=f"10.{number}.0.1")

    assert route_changes(Sandbox((one(0), one(1, "10.1.0.1"))), present) == changes


def test_a_full_bridge_says_so(site: Site, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "BRIDGE_PORTS", 1)
    daemon.create("a")
    daemon.start_on(ONE, None, Ask("a"))
    with pytest.raises(Conflict, match="network a is full: a Linux bridge has 1 ports"):
        daemon.start_on(TWO, None, Ask("a"))
    with pytest.raises(PierError, match='has active endpoints \\(name:"" id:'):
        daemon.do(daemon.service.remove("a"))
    assert daemon.service.sandbox(TWO) is None


def test_addresses_of_all_networks_are_given_back(site: Site, daemon: Daemon) -> None:
    config = {"enable_ipv6": True}
    daemon.create("a", **config)
    asks = (Ask("a"), Ask("bridge"))
    daemon.start_on(ONE, None, *asks)
    (status,) = {one.ips_in_use for one in subnets(daemon, "a") if one.ips_in_use < 10} - {3}
    assert status == 4  # network, broadcast, gateway, the container
    with pytest.raises(PierError, match="network nowhere not found"):
        daemon.start_on(TWO, None, *asks, Ask("nowhere"))
    assert status in {one.ips_in_use for one in subnets(daemon, "a")}
    daemon.do(daemon.service.release(ONE))
    assert {one.ips_in_use for one in subnets(daemon, "a")} == {3, 2}
    daemon.do(daemon.service.remove("a"))


def subnets(daemon: Daemon, network: str) -> list[object]:
    status = daemon.service.inspect(network).status
    assert status is not None
    return list(status.ipam.subnets.values())


def test_a_new_name_is_told(site: Site, daemon: Daemon) -> None:
    id = daemon.create("a")
    daemon.start_on(ONE, None, Ask("a", names=("web", "x")), Ask("bridge"), name="web")
    assert daemon.service.names.resolve(ONE, b"web", 4)
    daemon.do(daemon.service.rename(ONE, "shop", {id: ["shop", "x"]}))
    assert daemon.service.names.resolve(ONE, b"web", 4) is None
    assert daemon.service.names.resolve(ONE, b"shop", 4)
    assert [one.container for one in daemon.sandbox(ONE).endpoints] == ["shop", "shop"]
    assert daemon.service.inspect("a").containers[ONE].name == "shop"


def test_networks_work_without_the_default_bridge(site: Site) -> None:
    daemon = Daemon(site, bridge="none")
    daemon.start()
    daemon.create("a")
    assert daemon.start_on(ONE, None, Ask("a")).endpoints[0].ip
    with pytest.raises(PierError, match="the daemon runs with bridge=none"):
        daemon.start_on(TWO, None, Ask("bridge"))
    daemon.do(daemon.service.release(ONE))
    assert daemon.do(daemon.service.teardown())
    daemon.kill()


def test_a_default_bridge_whose_address_a_network_has_is_off_alone(site: Site, daemon: Daemon) -> None:
    id = daemon.create("a")
    gateway = daemon.service.find(id).subnets[0].gateway
    daemon.kill()
    again = Daemon(site, daemon.store, bip=f"{gateway}/24")
    again.start()
    (warning,) = again.service.features
    assert warning.startswith("WARNING: the default bridge network is off: invalid pool request: Pool overlaps")
    with pytest.raises(PierError, match="the bridge network is off: invalid pool request"):
        again.start_on(TWO, None, Ask("bridge"))
    assert again.start_on(ONE, None, Ask("a")).endpoints[0].gateway == gateway
    again.kill()


def test_a_network_whose_addresses_make_no_sense_does_not_keep_the_daemon_down(site: Site) -> None:
    daemon = Daemon(site, bip="10.9.0.1/24", default_gateway="10.9.0.1")
    daemon.start()
    (warning,) = daemon.service.features
    assert warning.startswith("WARNING: network bridge gives no addresses: failed to allocate secondary ip address")
    daemon.create("a")
    assert daemon.start_on(ONE, None, Ask("a")).endpoints[0].ip
    daemon.kill()


def test_a_bridge_that_was_there_stays(site: Site, daemon: Daemon) -> None:
    with site.host.run(NetlinkSocket) as sock:
        sock.create_bridge("br-own", mac="02:42:00:00:00:0a")
        sock.add_address(sock.link_index("br-own"), "198.51.100.1/24")
    daemon.create("a", options={"com.docker.network.bridge.name": "br-own"})
    with pytest.raises(PierError, match="networks have same bridge name"):
        daemon.create("b", options={"com.docker.network.bridge.name": "br-own"})
    daemon.do(daemon.service.remove("a"))
    with site.host.run(NetlinkSocket) as sock:
        index = sock.link_index("br-own")
        assert "198.51.100.1" in {item.address for item in sock.addresses() if item.index == index}
