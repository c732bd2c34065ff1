"""Published ports: what is asked for, what the host gives, and Docker's words where it refuses."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pier.model.network import PortBinding
from pier.networks.carriage import Carriage
from pier.networks.firewall import Forward
from pier.networks.ports import (
    EPHEMERAL_DEFAULT,
    AllPortsAllocated,
    BadPort,
    HeldPort,
    PortAlreadyAllocated,
    PortBindFailed,
    PortRequest,
    PortTable,
    Target,
    ephemeral_ports,
    overlap,
    port_map,
    requests_of,
)

EVERYWHERE = ("0.0.0.0", "::")


def ask(protocol: str, port: int, ips: tuple[str, ...], ports: range | None) -> PortRequest:
    return PortRequest(protocol, port, ips, ports, ("::",) if ips == EVERYWHERE else ())


@pytest.mark.parametrize(
    ("key", "binding", "expected"),
    [
        ("80/tcp", PortBinding("", "8080"), ask("tcp", 80, EVERYWHERE, range(8080, 8081))),
        ("80", PortBinding("", "8080"), ask("tcp", 80, EVERYWHERE, range(8080, 8081))),
        ("53/udp", PortBinding("127.0.0.1", "5353"), ask("udp", 53, ("127.0.0.1",), range(5353, 5354))),
        ("80/tcp", PortBinding("0.0.0.0", "8080"), ask("tcp", 80, ("0.0.0.0",), range(8080, 8081))),
        ("80/tcp", PortBinding("::1", "8080"), ask("tcp", 80, ("::1",), range(8080, 8081))),
        ("80/tcp", PortBinding("", ""), ask("tcp", 80, EVERYWHERE, None)),
        ("80/tcp", PortBinding("", "0"), ask("tcp", 80, EVERYWHERE, None)),
        ("9/sctp", PortBinding("", "9999"), ask("sctp", 9, EVERYWHERE, range(9999, 10000))),
        ("80/TCP", PortBinding("", "8000-8010"), ask("tcp", 80, EVERYWHERE, range(8000, 8011))),
    ],
)
def test_requests_of_one_binding(key: str, binding: PortBinding, expected: PortRequest) -> None:
    assert requests_of({key: [binding]}) == [expected]


@pytest.mark.parametrize(
    ("key", "binding"),
    [
        ("0/tcp", PortBinding()),
        ("70000/tcp", PortBinding()),
        ("x/tcp", PortBinding()),
        ("80/icmp", PortBinding()),
        ("80-82/tcp", PortBinding()),
        ("/tcp", PortBinding()),
        ("80/tcp", PortBinding("", "70000")),
        ("80/tcp", PortBinding("", "-1")),
        ("80/tcp", PortBinding("", "10-5")),
        ("80/tcp", PortBinding("", "٨٠")),
        ("80/tcp", PortBinding("", "80;")),
        ("80/tcp", PortBinding("localhost", "80")),
        ("80/tcp", PortBinding("fe80::1%eth0", "80")),
        ("80/tcp", PortBinding("1.2.3.4 } ; flush ruleset", "80")),
    ],
)
def test_nonsense_is_refused(key: str, binding: PortBinding) -> None:
    with pytest.raises(BadPort, match="invalid port specification"):
        requests_of({key: [binding]})


def test_publish_all_publishes_what_is_exposed_and_not_bound() -> None:
    found = requests_of(
        {"80/tcp": [PortBinding("", "8080")]}, exposed=["9/udp", "80/tcp", "72/tcp", "70/tcp"], publish_all=True
    )
    assert [(request.container_port, request.host_ports) for request in found] == [
        (80, range(8080, 8081)),
        (9, None),
        (70, None),
        (72, None),
    ]


def test_fixed_ports_are_claimed_before_free_choices() -> None:
    found = requests_of({"1/tcp": [PortBinding()], "2/tcp": [PortBinding("", "5-6")], "3/tcp": [PortBinding("", "5")]})
    assert [request.container_port for request in found] == [3, 2, 1]


def test_a_configured_host_address_is_the_default() -> None:
    assert requests_of({"80/tcp": [PortBinding("", "80")]}, default_ip="127.0.0.1")[0].host_ips == ("127.0.0.1",)


@pytest.mark.parametrize("nothing", [None, []])
def test_a_port_without_bindings_is_published_only_with_publish_all(nothing: list[PortBinding] | None) -> None:
    assert requests_of({"80/tcp": nothing}) == []
    assert requests_of({"80/tcp": nothing}, publish_all=True)[0].host_ports is None


def test_port_map_as_inspect_shows_it() -> None:
    forwards = [
        Forward("tcp", "0.0.0.0", 8080, "172.17.0.2", 80),
        Forward("tcp", "::", 8080, "172.17.0.2", 80),
        Forward("udp", "127.0.0.1", 5353, "172.17.0.2", 53),
    ]
    assert port_map(forwards, ["80/tcp", "99", "7/udp"]) == {
        "53/udp": [PortBinding("127.0.0.1", "5353")],
        "7/udp": None,
        "80/tcp": [PortBinding("0.0.0.0", "8080"), PortBinding("::", "8080")],
        "99/tcp": None,
    }


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("0.0.0.0", "127.0.0.1", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("0.0.0.0", "::", False),
        ("::", "::1", True),
    ],
)
def test_overlap(one: str, other: str, expected: bool) -> None:
    assert overlap(one, other) is expected


def test_ephemeral_ports(tmp_path: Path) -> None:
    (tmp_path / "range").write_text("40000\t40009\n")
    assert ephemeral_ports(str(tmp_path / "range")) == range(40000, 40010)
    assert ephemeral_ports(str(tmp_path / "missing")) == EPHEMERAL_DEFAULT
    (tmp_path / "broken").write_text("x")
    assert ephemeral_ports(str(tmp_path / "broken")) == EPHEMERAL_DEFAULT


# --- against the host's sockets, on loopback


def free_port(count: int = 1) -> int:
    """The first of `count` neighbouring ports that nobody has, outside the ephemeral range."""
    for port in range(20000, 30000, count):
        try:
            for number in range(port, port + count):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    with socket.socket(socket.AF_INET, kind) as probe:
                        probe.bind(("127.0.0.1", number))
        except OSError:
            continue
        return port
    raise AssertionError("no free port")


@pytest.fixture
def table() -> Iterator[PortTable]:
    first = free_port(4)
    made = PortTable(ephemeral=range(first, first + 4))
    yield made
    made.close()


def claim(table: PortTable, *requests: PortRequest, holder: str = "c" * 64) -> list[HeldPort]:
    return table.claim(requests, Target("pier0", ("172.17.0.2",)), holder=holder)


def local(port: int | None, protocol: str = "tcp", ip: str = "127.0.0.1") -> PortRequest:
    return PortRequest(protocol, 80, (ip,), None if port is None else range(port, port + 1))


def test_a_port_of_another_container_is_refused_in_dockers_words(table: PortTable) -> None:
    port = free_port()
    claim(table, local(port), holder="a" * 64)
    with pytest.raises(PortAlreadyAllocated, match=rf"^Bind for 127\.0\.0\.1:{port} failed: port is already allocated"):
        claim(table, local(port))
    with pytest.raises(PortAlreadyAllocated, match=rf"^Bind for 0\.0\.0\.0:{port} failed.*container aaaaaaaaaaaa;"):
        claim(table, local(port, ip="0.0.0.0"))
    claim(table, local(port, "udp"))
    claim(table, local(port, ip="127.0.0.2"))


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_port_of_a_process_of_the_host_is_refused_in_dockers_words(table: PortTable, protocol: str) -> None:
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", port))
        text = (
            rf"^failed to bind host port for 127\.0\.0\.1:{port}:172\.17\.0\.2:80/{protocol}: address already in use$"
        )
        with pytest.raises(PortBindFailed, match=text):
            claim(table, local(port, protocol))
    claim(table, local(port, protocol))


def test_an_address_that_is_not_this_machines(table: PortTable) -> None:
    with pytest.raises(PortBindFailed, match="cannot assign requested address"):
        claim(table, local(free_port(), ip="203.0.113.9"))


def bind_and_listen(sock: socket.socket, port: int) -> None:
    sock.bind(("127.0.0.1", port))
    sock.listen()


def test_while_it_is_held_nobody_can_listen_and_nobody_is_let_in(table: PortTable) -> None:
    port = free_port()
    held = claim(table, local(port))
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            bind_and_listen(other, port)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    table.release(held)
    socket.create_server(("127.0.0.1", port)).close()


def test_the_leftovers_of_closed_connections_do_not_count(table: PortTable) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as server:
        client = socket.create_connection(("127.0.0.1", port))
        served, _ = server.accept()
        served.close()  # the server closes first: TIME_WAIT stays on its port
        client.recv(1)
        client.close()
    claim(table, local(port))


def test_all_or_none(table: PortTable) -> None:
    first, taken = free_port(2), free_port(2) + 1
    with socket.socket() as other:
        other.bind(("127.0.0.1", taken))
        with pytest.raises(PortBindFailed):
            claim(table, local(first), local(taken))
    socket.create_server(("127.0.0.1", first)).close()
    claim(table, local(first))


def test_ephemeral_choices_go_round_and_skip_what_is_taken(table: PortTable) -> None:
    ports = table.ephemeral
    with socket.socket() as other:
        other.bind(("127.0.0.1", ports[1]))
        chosen = [claim(table, local(None)) for _ in range(3)]
        assert [held[0].forward.host_port for held in chosen] == [ports[0], ports[2], ports[3]]
        with pytest.raises(AllPortsAllocated, match="all ports are allocated"):
            claim(table, local(None))
        table.release(chosen[0])
    assert claim(table, local(None))[0].forward.host_port == ports[0]


def test_a_freed_ephemeral_port_is_not_chosen_at_once(table: PortTable) -> None:
    first = claim(table, local(None))
    table.release(first)
    assert claim(table, local(None))[0].forward.host_port == table.ephemeral[1]


def test_a_range_gives_its_first_free_port(table: PortTable) -> None:
    port = free_port(3)
    request = PortRequest("tcp", 80, ("127.0.0.1",), range(port, port + 2))
    assert [claim(table, request)[0].forward.host_port for _ in range(2)] == [port, port + 1]
    with pytest.raises(AllPortsAllocated, match=rf"Bind for 127\.0\.0\.1:{port}-{port + 1} failed: all ports"):
        claim(table, request)


def test_both_families_get_the_same_port(table: PortTable) -> None:
    port = free_port()
    held = claim(table, PortRequest("tcp", 80, EVERYWHERE, range(port, port + 1), ("::",)))
    assert {item.forward.host_port for item in held} == {port}
    assert held[0].forward.host_ip == "0.0.0.0"


def test_ports_of_live_containers_are_held_again(table: PortTable) -> None:
    port, taken = free_port(2), free_port(2) + 1
    forwards = [Forward("tcp", "127.0.0.1", number, "172.17.0.2", 80) for number in (port, taken)]
    with socket.socket() as other:
        other.bind(("127.0.0.1", taken))
        held, lost = table.reclaim(forwards, holder="c" * 64)
    assert [item.forward for item in held] == forwards[:1]
    assert len(lost) == 1
    assert "address already in use" in lost[0]


def test_a_port_leads_to_the_address_of_its_own_family(table: PortTable) -> None:
    request = PortRequest("tcp", 80, ("127.0.0.1", "::1"), range(port := free_port(), port + 1))
    held = table.claim([request], Target("br-a", ("172.18.0.2", "fd00::2")), holder="c")
    assert [port.forward.container_ip for port in held] == ["172.18.0.2", "fd00::2"]
    assert [Carriage().relayed(port.forward) for port in held] == [False, True]
    table.release(held)
    held = table.claim([request], Target("br-a", ("fd00::2",)), holder="c")
    assert [port.forward.container_ip for port in held] == ["fd00::2", "fd00::2"]
    assert [Carriage().relayed(port.forward) for port in held] == [True, True]


def test_a_routed_network_takes_no_port_of_the_host(table: PortTable) -> None:
    request = PortRequest("tcp", 80, EVERYWHERE, range(port := free_port(), port + 1), ("::",))
    both = Target("br-a", ("172.18.0.2", "fd00::2"), routed=(4, 6))
    first, second = (table.claim([request], both, holder=holder) for holder in "ab")
    assert [(item.forward.host_ip, item.forward.host_port, item.socket) for item in first] == [
        ("0.0.0.0", 0, None),
        ("::", 0, None),
    ]
    assert port_map([item.forward for item in first], []) == {
        "80/tcp": [PortBinding("0.0.0.0", ""), PortBinding("::", "")]
    }
    table.release([*first, *second])
    (four,) = table.claim([request], Target("br-a", ("172.18.0.2",), routed=(4,)), holder="a")
    assert four.forward.container_ip == "172.18.0.2"
    mixed = table.claim([request], Target("br-a", ("172.18.0.2", "fd00::2"), routed=(4,)), holder="a")
    assert [(item.forward.host_ip, item.forward.host_port) for item in mixed] == [("0.0.0.0", 0), ("::", port)]
    table.release(mixed)
    mixed = table.claim([request], Target("br-a", ("172.18.0.2", "fd00::2"), routed=(6,)), holder="a")
    assert [(item.forward.host_ip, item.forward.host_port) for item in mixed] == [("0.0.0.0", port), ("::", 0)]


def test_sctp_is_held_or_known_to_the_table_alone_and_never_relayed(table: PortTable) -> None:
    port = free_port()
    request = PortRequest("sctp", 9, EVERYWHERE, range(port, port + 1), ("::",))
    held = table.claim([request], Target("br-a", ("172.18.0.2",)), holder="c")
    assert [item.forward.host_ip for item in held] == ["0.0.0.0"]
    with pytest.raises(PortAlreadyAllocated):
        table.claim([request], Target("br-a", ("172.18.0.3",)), holder="d")
    table.release(held)
    with pytest.raises(PortBindFailed, match="protocol not supported"):
        table.claim([PortRequest("sctp", 9, ("::",), range(port, port + 1))], Target("b", ("172.18.0.2",)), holder="c")
