"""Ports that come and go: what is wanted afterwards, and what is to be done about it."""

from __future__ import annotations

from typing import Any

import pytest

from pier.containers.publish import PortNotPublished, parse_selector, plan
from pier.containers.update import UpdateRefused
from pier.errors import InvalidParameter, PierError
from pier.kernel.cgroups import Cgroup
from pier.model.container import ContainerUpdateRequest
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


# --- through the service


async def bindings(house: Any, name: str = "web") -> PortMap:
    found: PortMap = (await house.service.inspect(name, size=False)).host_config.port_bindings or {}
    return found


async def published(house: Any) -> list[str]:
    ports: PortMap = (await house.service.inspect("web", size=False)).network_settings.ports
    return [f"{one.host_ip}:{one.host_port}->{key}" for key, found in ports.items() for one in found or ()]


def change(*remove: str, **add: str) -> ContainerUpdateRequest:
    """`change("8080", tcp80="9090")`."""
    wanted = {f"{key[3:]}/{key[:3]}": [PortBinding("", port)] for key, port in add.items()}
    return ContainerUpdateRequest(publish_add=wanted or None, publish_rm=list(remove) or None)


async def test_a_running_container_is_changed_at_once_and_for_good(house: Any) -> None:
    await house.run()
    assert (await house.service.update("web", change(tcp80="8080", udp53="53"))).warnings is None
    assert await published(house) == ["0.0.0.0:53->53/udp", "0.0.0.0:8080->80/tcp"]
    await house.service.update("web", change("53/udp", tcp81="8081"))
    assert await published(house) == ["0.0.0.0:8080->80/tcp", "0.0.0.0:8081->81/tcp"]
    await house.again()
    assert await bindings(house) == {"80/tcp": [PortBinding("", "8080")], "81/tcp": [PortBinding("", "8081")]}
    assert house.actions().count("update") == 2


async def test_a_stopped_container_is_changed_in_its_record(house: Any) -> None:
    await house.create()
    await house.service.update("web", change(tcp80="8080"))
    await house.service.update("web", change("8080", tcp80="8081"))
    assert await bindings(house) == {"80/tcp": [PortBinding("", "8081")]}
    with pytest.raises(PortNotPublished):
        await house.service.update("web", change("8080"))


async def test_what_the_network_refuses_is_not_kept(house: Any) -> None:
    await house.run()
    await house.service.update("web", change(tcp80="8080"))
    house.networks.fail = PierError("Bind for 0.0.0.0:90 failed: port is already allocated")
    with pytest.raises(PierError, match=r"^Bind for 0\.0\.0\.0:90 failed"):
        await house.service.update("web", change("8080", tcp81="90"))
    assert await bindings(house) == {"80/tcp": [PortBinding("", "8080")]}
    assert await published(house) == ["0.0.0.0:8080->80/tcp"]


async def test_ports_go_back_when_limits_are_refused(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Cgroup, resources: object) -> None:
        raise OSError("no such limit")

    monkeypatch.setattr(Cgroup, "update", refuse)
    await house.run()
    await house.service.update("web", change(tcp80="8080"))
    asked = ContainerUpdateRequest(
        cpu_shares=200, publish_add={"81/tcp": [PortBinding("", "8081")]}, publish_rm=["8080"]
    )
    with pytest.raises(UpdateRefused, match="no such limit"):
        await house.service.update("web", asked)
    assert await published(house) == ["0.0.0.0:8080->80/tcp"]
    assert await bindings(house) == {"80/tcp": [PortBinding("", "8080")]}


async def test_where_ports_cannot_be_published(house: Any) -> None:
    await house.run("host", network_mode="host")
    answer = await house.service.update("host", change(tcp80="8080"))
    assert answer.warnings == ["Published ports are discarded when using host network mode"]
    await house.create("guest", network_mode="container:host")
    with pytest.raises(InvalidParameter, match="port publishing and the container type network mode"):
        await house.service.update("guest", change(tcp80="8080"))
    with pytest.raises(InvalidParameter, match='invalid port specification: "x/tcp"'):
        await house.service.update("host", ContainerUpdateRequest(publish_add={"x/tcp": [PortBinding()]}))
