"""Ports that come and go: what is wanted afterwards, and what is to be done about it."""

from __future__ import annotations

import pytest

from pier.containers.publish import PortNotPublished, parse_selector, plan
from pier.model.network import PortBinding, PortMap
from pier.networks.firewall import Forward
from pier.networks.ports import BadPort, PortAlreadyAllocated

C = "172.17.0.2"


def forward(host_ip: str, host_port: int, container_port: int = 80, protocol: str = "tcp") -> Forward:
    return Forward(protocol, host_ip, host_port, C, container_port, "pier0")


BOTH = [forward("0.0.0.0", 8080), forward("::", 8080)]


@pytest.mark.parametrize(
    ("text", "fits", "does_not"),
    [
        ("9090", ("", 9090, 80, "tcp"), ("", 9090, 80, "udp")),
        ("9090/udp", ("127.0.0.1", 9090, 53, "udp"), ("127.0.0.1", 9091, 53, "udp")),
        ("127.0.0.1:9090", ("127.0.0.1", 9090, 80, "tcp"), ("0.0.0.0", 9090, 80, "tcp")),
        ("0.0.0.0:9090", ("", 9090, 80, "tcp"), ("::", 9090, 80, "tcp")),
        ("[::1]:9090:80", ("::1", 9090, 80, "tcp"), ("::1", 9090, 81, "tcp")),
        ("9000-9009:80/TCP", ("", 9005, 80, "tcp"), ("", 9010, 80, "tcp")),
    ],
)
def test_which_ports_are_meant(text: str, fits: tuple[str, int, int, str], does_not: tuple[str, int, int, str]) -> None:
    assert parse_selector(text).fits(*fits)
    assert not parse_selector(text).fits(*does_not)


@pytest.mark.parametrize(
    "text", ["", "0", "x", "80/foo", "80:", "1.2.3:80", "[::1]80", "70000", "9-8", "80:x", "80:80:80", "²"]
)
def test_what_names_no_port(text: str) -> None:
    with pytest.raises(BadPort):
        parse_selector(text)


@pytest.mark.parametrize(
    ("before", "remove", "forwards", "after", "gone"),
    [
        ({"80/tcp": [PortBinding("", "8080")]}, "8080", None, {}, []),
        ({"80/tcp": [PortBinding("", "8080")]}, "8080", BOTH, {}, BOTH),
        (
            {"80/tcp": [PortBinding("", "8080"), PortBinding("127.0.0.1", "90")], "53/udp": [PortBinding("", "53")]},
            "8080",
            [*BOTH, forward("127.0.0.1", 90), forward("0.0.0.0", 53, 53, "udp")],
            {"80/tcp": [PortBinding("127.0.0.1", "90")], "53/udp": [PortBinding("", "53")]},
            BOTH,
        ),
        # of one binding that is on both families only a half goes
        (
            {"80/tcp": [PortBinding("", "8080")]},
            "0.0.0.0:8080",
            BOTH,
            {"80/tcp": [PortBinding("::", "8080")]},
            BOTH[:1],
        ),
        # a port of the daemon's choice, and the first of a range
        ({"80/tcp": [PortBinding()]}, "32768", [forward("0.0.0.0", 32768)], {}, [forward("0.0.0.0", 32768)]),
        (
            {"80/tcp": [PortBinding("", "8000-8009"), PortBinding("", "90")]},
            "8001",
            [forward("0.0.0.0", 8001), forward("0.0.0.0", 90)],
            {"80/tcp": [PortBinding("", "90")]},
            [forward("0.0.0.0", 8001)],
        ),
        ({"80/tcp": [PortBinding("", "8000-8009")]}, "8000-8009", None, {}, []),
        # of --publish-all: no binding asked for it
        ({}, "32768", [forward("0.0.0.0", 32768)], {}, [forward("0.0.0.0", 32768)]),
        ({"80/tcp": None, "81/tcp": [PortBinding("", "81")]}, "81", None, {"80/tcp": None}, []),
    ],
)  # fmt: skip
def test_ports_that_go(
    before: PortMap, remove: str, forwards: list[Forward] | None, after: PortMap, gone: list[Forward]
) -> None:
    found = plan("web", before, {}, [parse_selector(remove)], forwards)
    assert (found.bindings, found.remove) == (after, gone)


@pytest.mark.parametrize(("remove", "forwards"), [("81", None), ("8080/udp", None), ("8080", []), ("8001", None)])
def test_a_port_that_is_not_published(remove: str, forwards: list[Forward] | None) -> None:
    before: PortMap = {"80/tcp": [PortBinding("", "8080"), PortBinding("", "8000-8009")]}
    with pytest.raises(PortNotPublished, match=rf"container web publishes no port {remove} \(`pier port web` lists"):
        plan("web", before, {}, [parse_selector(remove)], forwards)


def test_ports_that_come() -> None:
    before: PortMap = {"80/tcp": [PortBinding("", "8080")]}
    add: PortMap = {"80": [PortBinding("", "9090")], "53/udp": []}
    found = plan("web", before, add, [], BOTH)
    assert found.bindings == {"80/tcp": [PortBinding("", "8080"), PortBinding("", "9090")], "53/udp": [PortBinding()]}
    assert found.add == {"80": [PortBinding("", "9090")], "53/udp": [PortBinding()]}
    assert before == {"80/tcp": [PortBinding("", "8080")]}


def test_a_port_may_change_hands_at_once() -> None:
    before: PortMap = {"80/tcp": [PortBinding("", "8080")]}
    found = plan("web", before, {"81/tcp": [PortBinding("", "8080")]}, [parse_selector("8080")], BOTH)
    assert (found.bindings, found.remove) == ({"81/tcp": [PortBinding("", "8080")]}, BOTH)


@pytest.mark.parametrize("address", ["", "127.0.0.1", "0.0.0.0"])
def test_a_port_it_has_already(address: str) -> None:
    before: PortMap = {"80/tcp": [PortBinding("", "8080")]}
    with pytest.raises(PortAlreadyAllocated, match=r"Bind for \S+:8080 failed: port is already allocated"):
        plan("web", before, {"81/tcp": [PortBinding(address, "8080")]}, [], None)
    plan("web", before, {"81/udp": [PortBinding(address, "8080")]}, [], None)
