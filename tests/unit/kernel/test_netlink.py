"""rtnetlink: the bytes of requests and answers without root, devices in namespaces of the test's own with it."""

from __future__ import annotations

import errno
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from netlab import Machine, machines
from pier.kernel import links, nlmsg, routes
from pier.kernel.netlink import Address, Child, NetlinkSocket, Route, VethPair
from pier.runtime.request import Interface

INTERFACE = Interface("eth0", "veth0", "br0", "02:42:0a:00:00:02", ["10.0.0.2/24"], ["10.0.0.1"], mtu=1400)


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"", b"\x04\x00\x07\x00"),
        (b"a", b"\x05\x00\x07\x00a\0\0\0"),
        (b"abcd", b"\x08\x00\x07\x00abcd"),
    ],
)
def test_attribute_is_padded_to_four_bytes_and_counts_without_padding(payload: bytes, expected: bytes) -> None:
    assert nlmsg.attribute(7, payload) == expected


def test_attributes_reads_what_attribute_wrote() -> None:
    data = nlmsg.attribute(1, b"abc") + nlmsg.nested(2, nlmsg.attribute(3, b"x")) + nlmsg.attribute(4, b"")
    found = nlmsg.attributes(memoryview(data))
    assert {kind: bytes(value) for kind, value in found.items()} == {1: b"abc", 2: b"\x05\x00\x03\x00x\0\0\0", 4: b""}


@pytest.mark.parametrize("tail", [b"\x03\x00\x01\x00", b"\xff\x00\x01\x00", b"\x00\x00\x00\x00", b"\x08"])
def test_attributes_ends_at_a_malformed_length(tail: bytes) -> None:
    found = nlmsg.attributes(memoryview(nlmsg.attribute(1, b"good") + tail))
    assert list(found) == [1]


@pytest.mark.parametrize("length", [0, 15, 17, 1000])
def test_messages_refuses_lengths_that_lie(length: int) -> None:
    data = struct.pack("=IHHII", length, 2, 0, 1, 0)
    with pytest.raises(OSError, match="netlink: message of"):
        list(nlmsg.messages(memoryview(data)))


def error_message(code: int, flags: int, request_tail: bytes, *attributes: bytes) -> memoryview:
    request = struct.pack("=IHHII", 16 + len(request_tail), 16, 5, 9, 0) + request_tail
    return memoryview(struct.pack("=i", -code) + request + b"".join(attributes))


EXPLANATION = nlmsg.attribute(nlmsg.NLMSGERR_ATTR_MSG, b"no such thing\0")
CAPPED, TLVS = nlmsg.NLM_F_CAPPED, nlmsg.NLM_F_ACK_TLVS


@pytest.mark.parametrize(
    ("flags", "message", "expected"),
    [
        (CAPPED, error_message(0, 0, b""), (0, "")),
        (CAPPED | TLVS, memoryview(error_message(2, 0, b"")[:20].tobytes() + EXPLANATION), (2, "no such thing")),
        (TLVS, error_message(22, 0, b"12345678", EXPLANATION), (22, "no such thing")),
        (0, error_message(17, 0, b"12345678"), (17, "")),
    ],
)
def test_parse_error(flags: int, message: memoryview, expected: tuple[int, str]) -> None:
    assert nlmsg.parse_error(flags, message) == expected


@pytest.mark.parametrize("name", ["", "a" * 16, "a/b", "é" * 8, "a\0b"])
def test_names_the_kernel_would_cut_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a network device name"):
        links.name_attribute(name)


@pytest.mark.parametrize("text", ["10.0.0.1", "10.0.0.1/33", "fd00::1/129", "x/8", "10.0.0.1/", "10.0.0.1/-1", "/8"])
def test_addresses_without_a_sane_prefix_length_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an IP address"):
        routes.interface_address_bytes(text)


def test_broadcast_is_the_last_address() -> None:
    assert routes.broadcast_bytes(bytes([172, 17, 0, 2]), 16) == bytes([172, 17, 255, 255])


def nested_values(body: bytes, *path: int) -> dict[int, bytes]:
    """The attributes of a link message below the nested ones of `path`."""
    found = nlmsg.attributes(memoryview(body)[links.IFINFOMSG.size :])
    for kind in path:
        found = nlmsg.attributes(found[kind])
    return {kind: bytes(value) for kind, value in found.items()}


@pytest.mark.parametrize(
    ("kind", "mode", "flag", "data"),
    [
        ("macvlan", "", "", {1: b"\4\0\0\0"}),
        ("macvlan", "private", "", {1: b"\1\0\0\0"}),
        ("macvlan", "vepa", "", {1: b"\2\0\0\0"}),
        ("macvlan", "passthru", "", {1: b"\x08\0\0\0"}),
        ("ipvlan", "", "", {1: b"\0\0", 2: b"\0\0"}),
        ("ipvlan", "l3", "private", {1: b"\1\0", 2: b"\1\0"}),
        ("ipvlan", "l3s", "vepa", {1: b"\2\0", 2: b"\2\0"}),
    ],
)
def test_a_device_on_a_parent_in_the_kernels_words(kind: str, mode: str, flag: str, data: dict[int, bytes]) -> None:
    mac = "02:42:0a:00:00:02" if kind == "macvlan" else ""
    request = links.create_child(Child(kind, 7, "eth0", mac, 5, 1400, mode, flag))
    values = nested_values(request.body)
    assert values[links.IFLA_LINK] == b"\7\0\0\0"
    assert values[links.IFLA_NET_NS_FD] == b"\5\0\0\0"
    assert values.get(links.IFLA_ADDRESS) == (b"\2\x42\x0a\0\0\2" if mac else None)
    assert nested_values(request.body, links.IFLA_LINKINFO)[links.IFLA_INFO_KIND] == kind.encode()
    assert nested_values(request.body, links.IFLA_LINKINFO, links.IFLA_INFO_DATA) == data


@pytest.mark.parametrize(
    ("kind", "mode", "flag", "words"),
    [
        ("macvlan", "l2", "", "'l2' is no macvlan mode: private, vepa, bridge, passthru are"),
        ("ipvlan", "bridge", "", "'bridge' is no ipvlan mode: l2, l3, l3s are"),
        ("ipvlan", "l2", "passthru", "'passthru' is no ipvlan flag: bridge, private, vepa are"),
        ("veth", "", "", "'veth' is no kind of device that has a parent"),
    ],
)
def test_modes_that_do_not_exist_are_refused(kind: str, mode: str, flag: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        links.create_child(Child(kind, 7, "eth0", "", 5, 1400, mode, flag))


def test_an_8021q_sub_interface_in_the_kernels_words() -> None:
    request = links.create_vlan("eth0.50", 3, 50)
    assert request.what == "create vlan eth0.50"
    assert nested_values(request.body)[links.IFLA_LINK] == b"\3\0\0\0"
    data = nested_values(request.body, links.IFLA_LINKINFO, links.IFLA_INFO_DATA)
    assert data == {links.IFLA_VLAN_ID: struct.pack("=H", 50)}


def test_a_gateway_of_the_other_family_is_refused() -> None:
    with pytest.raises(ValueError, match="fd00::1 is no gateway to 10"):
        routes.add_route(2, "10.0.0.0/8", "fd00::1")


def test_module_loads_nothing_beyond_the_standard_library() -> None:
    """It is loaded into the zygote."""
    script = (
        "import sys; before = set(sys.modules); import pier.kernel.netlink;"
        "print([name for name in set(sys.modules) - before"
        " if name.split('.')[0] not in sys.stdlib_module_names and not name.startswith('pier')])"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.fixture
def pair() -> Iterator[tuple[Machine, Machine]]:
    """A host with a bridge `br0` at 10.0.0.1/24, and a machine without interfaces."""
    with machines(2) as (host, guest):
        with host.run(NetlinkSocket) as sock:
            sock.create_bridge("br0", mac="02:42:0a:00:00:01")
            index = sock.link_index("br0")
            sock.add_address(index, "10.0.0.1/24")
            sock.set_up(index)
        yield host, guest


@pytest.mark.root
def test_interface_is_there_with_its_addresses_and_routes(pair: tuple[Machine, Machine]) -> None:
    host, guest = pair
    guest.plug(INTERFACE, host)
    with host.run(NetlinkSocket) as outside, guest.run(NetlinkSocket) as inside:
        port = next(link for link in outside.links() if link.name == "veth0")
        device = next(link for link in inside.links() if link.name == "eth0")
        assert (port.kind, port.up, port.mtu, port.master) == ("veth", True, 1400, outside.link_index("br0"))
        assert (device.kind, device.up, device.mtu, device.mac) == ("veth", True, 1400, "02:42:0a:00:00:02")
        assert Address(device.index, "10.0.0.2", 24) in inside.addresses()
        main = [route for route in inside.routes() if route.table == routes.RT_TABLE_MAIN]
        assert Route("0.0.0.0/0", "10.0.0.1", device.index, 254) in main
        assert Route("10.0.0.0/24", "", device.index, 254) in main


@pytest.mark.root
def test_ipv6_is_off_unless_given(pair: tuple[Machine, Machine]) -> None:
    host, guest = pair
    guest.plug(INTERFACE, host)
    with guest.run(NetlinkSocket) as inside:
        index = inside.link_index("eth0")
        assert [item for item in inside.addresses() if item.index == index and ":" in item.address] == []


@pytest.mark.root
def test_ipv6_addresses_are_usable_at_once(pair: tuple[Machine, Machine]) -> None:
    host, guest = pair
    both = Interface("eth0", "veth0", "br0", INTERFACE.mac, ["10.0.0.2/24", "fd00::2/64"], ["10.0.0.1", "fd00::1"])
    guest.plug(both, host)
    with guest.run(NetlinkSocket) as inside:
        index = inside.link_index("eth0")
        assert Address(index, "fd00::2", 64) in inside.addresses()
        assert Route("::/0", "fd00::1", index, 254) in inside.routes()
        guest.serve("udp", 1, "fd00::2").close()  # an address that is still tentative cannot be bound


@pytest.mark.root
def test_devices_go_with_their_namespace(pair: tuple[Machine, Machine]) -> None:
    host, _ = pair
    with machines(1) as (other,):
        other.plug(INTERFACE, host)
    deadline = time.monotonic() + 10
    with host.run(NetlinkSocket) as sock:
        while any(link.name == "veth0" for link in sock.links()):  # the kernel cleans up in the background
            assert time.monotonic() < deadline


@pytest.mark.root
def test_mac_mtu_and_deletion(pair: tuple[Machine, Machine]) -> None:
    host, _ = pair
    with host.run(NetlinkSocket) as sock:
        index = sock.link_index("br0")
        sock.set_mac(index, "02:42:0a:00:00:09")
        sock.set_mtu(index, 1300)
        link = next(link for link in sock.links() if link.index == index)
        assert (link.mac, link.mtu) == ("02:42:0a:00:00:09", 1300)
        sock.delete_address(index, "10.0.0.1/24")
        assert not [item for item in sock.addresses() if item.address == "10.0.0.1"]
        sock.delete_link(index)
        assert [link.name for link in sock.links() if link.kind == "bridge"] == []


@pytest.mark.root
def test_refusals_carry_errno_object_and_the_kernels_words(pair: tuple[Machine, Machine]) -> None:
    host, _ = pair
    with host.run(NetlinkSocket) as sock:
        index = sock.link_index("br0")
        with pytest.raises(OSError, match="find network device nope: No such device") as missing:
            sock.link_index("nope")
        assert missing.value.errno == errno.ENODEV
        with pytest.raises(FileExistsError, match="create bridge br0"):
            sock.create_bridge("br0", mac="02:42:0a:00:00:01")
        with pytest.raises(OSError, match=r"add default route by 192\.168\.1\.1: Network is unreachable: Nexthop has"):
            sock.add_route(index, routes.default_of("192.168.1.1"), "192.168.1.1")
        with pytest.raises(OSError, match="Bad file descriptor") as stale:
            sock.create_veth(VethPair("v0", index, "v1", "02:42:0a:00:00:02", 9999, 1500))
        assert stale.value.errno == errno.EBADF
        assert sock.link_index("br0") == index  # still in step with the kernel's answers


@pytest.mark.root
def test_of_several_requests_the_first_refusal_is_told_and_the_others_are_done(pair: tuple[Machine, Machine]) -> None:
    host, _ = pair
    with host.run(NetlinkSocket) as sock:
        index = sock.link_index("br0")
        with pytest.raises(FileExistsError, match=r"add address 10\.0\.0\.1/24 to network device"):
            sock.do_all(
                [
                    routes.add_address(index, "10.0.0.7/24"),
                    routes.add_address(index, "10.0.0.1/24"),
                    routes.add_route(index, "10.0.0.0/24", "192.168.1.1"),
                    routes.add_address(index, "10.0.0.8/24"),
                ]
            )
        assert {"10.0.0.7", "10.0.0.8"} < {item.address for item in sock.addresses()}
        sock.do_all([routes.delete_address(index, "10.0.0.8/24")])
        with pytest.raises(OSError, match=r"delete address 10\.0\.0\.8/24"):
            sock.do_all([links.set_up(index), routes.delete_address(index, "10.0.0.8/24")])
        assert sock.link_index("br0") == index


@pytest.mark.root
def test_routes_come_and_go(pair: tuple[Machine, Machine]) -> None:
    host, _ = pair
    with host.run(NetlinkSocket) as sock:
        index = sock.link_index("br0")
        wanted = [
            Route("192.0.2.0/24", "10.0.0.9", index, 254),
            Route("198.51.100.0/24", "", index, 254),
            Route("0.0.0.0/0", "", index, 254),
            Route("2001:db8::/32", "", index, 254),
        ]
        for route in wanted:
            sock.add_route(index, route.destination, route.gateway)
        assert set(wanted) < set(sock.routes())
        for route in wanted:
            sock.delete_route(index, route.destination, route.gateway)
        assert not set(wanted) & set(sock.routes())
        with pytest.raises(ProcessLookupError, match="delete default route: No such process"):
            sock.delete_route(index, "0.0.0.0/0")


@pytest.mark.root
def test_a_macvlan_is_made_in_another_namespace(pair: tuple[Machine, Machine]) -> None:
    host, guest = pair
    with host.run(NetlinkSocket) as sock, guest.run(NetlinkSocket) as inside:
        sock.create_child(Child("macvlan", sock.link_index("br0"), "eth0", "02:42:0a:00:00:05", guest.fd, 0))
        made = inside.link("eth0")
        assert (made.kind, made.mac, made.mtu) == ("macvlan", "02:42:0a:00:00:05", 1500)


@pytest.mark.root
def test_without_privilege_the_refusal_is_a_permission_error() -> None:
    script = (
        "import os; from pier.kernel.netlink import NetlinkSocket; os.setgroups([]); os.setuid(65534)\n"
        "try: NetlinkSocket().create_bridge('br0', mac='02:42:0a:00:00:01')\n"
        "except PermissionError as error: print(error)"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "create bridge br0: Operation not permitted" in answer.stdout


@pytest.mark.root
def test_a_dump_larger_than_one_datagram_is_complete(pair: tuple[Machine, Machine]) -> None:
    host, _ = pair
    with host.run(NetlinkSocket) as sock:
        index = sock.link_index("br0")
        wanted = [f"10.1.{number // 250}.{number % 250 + 1}" for number in range(1500)]
        for address in wanted:
            sock.add_address(index, f"{address}/32")
        assert {item.address for item in sock.addresses()} >= set(wanted)


@pytest.mark.root
def test_no_answer_is_a_timeout() -> None:
    with machines(1) as (host,), host.run(lambda: NetlinkSocket(timeout_s=0.05)) as sock:
        with pytest.raises(TimeoutError, match=r"ask nothing: no answer from the kernel within 0\.05 s"):
            # without NLM_F_ACK the kernel has nothing to say to a request that succeeds
            list(sock.exchange(links.RTM_SETLINK, 0, links.header(1), "ask nothing"))
        assert sock.link_index("lo") == links.LOOPBACK_IFINDEX


@pytest.mark.parametrize("torn", [0, 3, 100])
def test_a_torn_listing_is_asked_for_again(monkeypatch: pytest.MonkeyPatch, torn: int) -> None:
    asked: list[int] = []

    def exchange(*_: object) -> Iterator[memoryview]:
        asked.append(1)
        yield memoryview(b"a device")
        if len(asked) <= torn:
            raise InterruptedError

    monkeypatch.setattr(nlmsg, "DUMP_PAUSE_S", 0.0)
    with NetlinkSocket() as netlink:
        monkeypatch.setattr(netlink, "exchange", exchange)
        if torn < nlmsg.DUMP_ATTEMPTS:
            assert netlink.dump(0, b"", "list devices") == [memoryview(b"a device")]
        else:
            with pytest.raises(InterruptedError, match="list devices: the kernel's tables changed"):
                netlink.dump(0, b"", "list devices")
    assert len(asked) == min(torn + 1, nlmsg.DUMP_ATTEMPTS)
