"""Interfaces of a container's network namespace, in namespaces of the test's own."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from netlab import Machine, machines, stop
from pier.kernel.netlink import Address, NetlinkSocket, Route
from pier.runtime.process import network
from pier.runtime.request import Interface, StartRequest

MAC = "02:42:0a:00:00:02"


def veth(name: str = "eth0", bridge: str = "br0", **more: object) -> Interface:
    fields: dict[str, object] = {"mac": MAC, "addresses": ["10.0.0.2/24"], "gateways": []}
    return Interface(name=name, host_name=f"h{name}", parent=bridge, **fields | more)  # type: ignore[arg-type]


@pytest.fixture
def pair() -> Iterator[tuple[Machine, Machine]]:
    """A host with a bridge `br0` at 10.0.0.1/24 and fd00::1/64, and a machine without interfaces."""
    with machines(2) as (host, guest):
        with host.run(NetlinkSocket) as sock:
            sock.create_bridge("br0", mac="02:42:0a:00:00:01")
            index = sock.link_index("br0")
            sock.add_address(index, "10.0.0.1/24")
            sock.add_address(index, "fd00::1/64")
            sock.set_up(index)
        yield host, guest


def read(path: str) -> str:
    with open(path) as file:
        return file.read().strip()


# --- pure


def test_an_interface_survives_the_way_to_the_runtime() -> None:
    there = StartRequest(
        id="a" * 64,
        spec={},
        root={"path": "/"},  # type: ignore[arg-type]
        exec_dir="/x",
        exit_file="/y",
        interfaces=[veth(routes=[("10.9.0.0/16", "10.0.0.9")], sysctls={"net.ipv4.conf.IFNAME.forwarding": "1"})],
    )
    (found,) = StartRequest.from_json(there.to_json()).interfaces
    assert found.sysctls == {"net.ipv4.conf.IFNAME.forwarding": "1"}
    assert [tuple(route) for route in found.routes] == [("10.9.0.0/16", "10.0.0.9")]


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("net.ipv4.conf.IFNAME.forwarding", "/proc/sys/net/ipv4/conf/eth0.5/forwarding"),
        ("net.ipv6.neigh.IFNAME.gc_stale_time", "/proc/sys/net/ipv6/neigh/eth0.5/gc_stale_time"),
    ],
)
def test_a_setting_is_of_the_device(key: str, path: str) -> None:
    assert network.setting_path(key, "eth0.5") == path


@pytest.mark.parametrize(
    "key",
    [
        "kernel.hostname",
        "net.ipv4.conf.all.forwarding",
        "net.ipv4.conf.IFNAME",
        "net.ipv4.conf.IFNAME.a/b",
        "net...IFNAME..",
    ],
)
def test_other_settings_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match="is no setting of a network device"):
        network.setting_path(key, "eth0")


# --- devices


@pytest.mark.root
def test_several_interfaces_with_one_default_route(pair: tuple[Machine, Machine]) -> None:
    host, guest = pair
    with host.run(NetlinkSocket) as sock:
        sock.create_bridge("br1", mac="02:42:0a:01:00:01")
        sock.set_up(sock.link_index("br1"))
    wanted = [
        veth(gateways=["10.0.0.1"], addresses=["10.0.0.2/24", "10.0.0.3/24", "169.254.7.7/16"]),
        veth("eth1", "br1", addresses=["fd01::2/64"], gateways=["fd01::1"], mac="", routes=[("fd09::/64", "fd01::9")]),
    ]
    for interface in wanted:
        guest.plug(interface, host)
    with guest.run(NetlinkSocket) as inside:
        one, two = inside.link_index("eth0"), inside.link_index("eth1")
        here = inside.addresses()
        assert {Address(one, "10.0.0.2", 24), Address(one, "10.0.0.3", 24), Address(one, "169.254.7.7", 16)} < set(here)
        assert [item for item in here if item.index == one and ":" in item.address] == []
        assert Address(two, "fd01::2", 64) in here
        assert [item.address for item in here if item.index == two and ":" not in item.address] == []
        main = [item for item in inside.routes() if item.table == 254]
        assert [item for item in main if item.destination in ("0.0.0.0/0", "::/0")] == [
            Route("0.0.0.0/0", "10.0.0.1", one, 254),
            Route("::/0", "fd01::1", two, 254),
        ]
        assert Route("fd09::/64", "fd01::9", two, 254) in main


@pytest.mark.root
def test_a_default_route_without_a_gateway_yields_to_one_that_has_one(pair: tuple[Machine, Machine]) -> None:
    host, guest = pair
    with host.run(NetlinkSocket) as sock:
        sock.create_bridge("br1", mac="02:42:0a:01:00:01")
        sock.set_up(sock.link_index("br1"))
    everywhere = [("0.0.0.0/0", ""), ("::/0", "")]
    l3 = veth("eth1", "br1", addresses=["10.9.0.2/24", "fd09::2/64"], mac="", routes=everywhere)
    guest.plug(l3, host)
    guest.plug(veth(gateways=["10.0.0.1"]), host)
    server = host.serve("udp", 7)
    assert guest.ask("udp", "10.0.0.1", 7) == "10.0.0.2"
    stop(server)
    with guest.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.connect(("192.0.2.77", 9))
        assert sock.getsockname()[0] == "10.0.0.2"
    with guest.run(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as sock:
        sock.connect(("2001:db8::1", 9))
        assert sock.getsockname()[0] == "fd09::2"


@pytest.mark.root
def test_settings_of_the_device_are_made_there(pair: tuple[Machine, Machine]) -> None:
    host, guest = pair
    guest.plug(veth(sysctls={"net.ipv4.conf.IFNAME.log_martians": "1"}), host)
    assert guest.run(lambda: read("/proc/sys/net/ipv4/conf/eth0/log_martians")) == "1"
    with pytest.raises(OSError, match="set /proc/sys/net/ipv4/conf/eth1/nothing: No such file"):
        guest.plug(veth("eth1", sysctls={"net.ipv4.conf.IFNAME.nothing": "1"}), host)


@pytest.mark.root
def test_ipv6_is_on_where_it_is_asked_for(pair: tuple[Machine, Machine]) -> None:
    host, guest = pair

    def off_by_default() -> None:
        network.write_setting("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")

    guest.run(off_by_default)
    guest.plug(veth(addresses=["fd00::2/64"], gateways=["fd00::1"]), host)
    guest.serve("udp", 7, "fd00::2")
    assert host.ask("udp", "fd00::2", 7) == "fd00::1"


def test_every_device_on_the_way_has_learned_of_its_carrier_before_the_program_runs(
    pair: tuple[Machine, Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or its first packet may be lost, and with it a second; the kernel tells those that it is asked for."""
    host, inside = pair
    asked: list[str] = []
    find = NetlinkSocket.link_index

    def noted(sock: NetlinkSocket, name: str) -> int:
        asked.append(name)
        return find(sock, name)

    monkeypatch.setattr(NetlinkSocket, "link_index", noted)
    inside.plug(Interface("eth0", "vfirst", "br0", "02:00:00:00:00:09", ["10.7.0.9/24"], []), host)
    assert asked[-3:] == ["eth0", "vfirst", "br0"]
