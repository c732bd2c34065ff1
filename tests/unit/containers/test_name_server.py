"""When a container has a name server, and how it is told of its networks."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from pier.containers import etc_files, name_server
from pier.networks.endpoint import Ask, Endpoint, Publishing, Sandbox
from pier.runtime.client import MonitorError

from ...netlab import Machine, machines

FRONT = Endpoint(
    "c" * 64,
    "web",
    "n" * 64,
    "front",
    "bridge",
    "e" * 64,
    ip="172.20.0.2",
    gateway="172.20.0.1",
    names=["web"],
    host=["172.20.0.1"],
)
INNER = replace(FRONT, internal=True)
STUB = "nameserver 127.0.0.53\noptions ndots:2\n"


@pytest.fixture
def machine() -> Iterator[Machine]:
    """The container's network namespace."""
    with machines(1) as (made,):
        yield made


def name_server_sockets() -> list[int]:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    return [udp.detach(), socket.create_server(("127.0.0.1", 0)).detach()]


@pytest.mark.parametrize(
    ("endpoints", "host", "servers", "forwards", "single_label_is_local", "gateway"),
    [
        ([FRONT], {}, ["host(127.0.0.53)"], True, True, "172.20.0.1"),
        ([INNER], {}, ["host(127.0.0.53)"], False, True, "172.20.0.1"),
        ([INNER, replace(FRONT, network="back")], {}, ["host(127.0.0.53)"], True, True, "172.20.0.1"),
        ([], {}, ["host(127.0.0.53)"], False, True, None),
        ([FRONT], {"dns": ["192.0.2.53", "127.0.0.11"]}, ["192.0.2.53"], True, True, "172.20.0.1"),
        ([FRONT], {"dns_options": ["timeout:1"]}, ["host(127.0.0.53)"], True, False, "172.20.0.1"),
        ([FRONT], {"dns_options": ["ndots:0"]}, ["host(127.0.0.53)"], True, True, "172.20.0.1"),
        ([FRONT], {"extra_hosts": ["host.docker.internal:192.0.2.7"]}, ["host(127.0.0.53)"], True, True, "192.0.2.7"),
    ],
)
async def test_settings(
    house: Any,
    endpoints: list[Endpoint],
    host: dict[str, Any],
    servers: list[str],
    forwards: bool,
    single_label_is_local: bool,
    gateway: str | None,
) -> None:
    await house.create(**host)
    record = house.service._find("web").record
    found = name_server.settings(record, Sandbox(tuple(endpoints)), house.config, host_resolv=STUB)
    assert [str(server) for server in found.servers] == servers
    assert (found.forwards, found.single_label_is_local) == (forwards, single_label_is_local)
    addresses = found.host_addresses[b"host.docker.internal"]
    assert [str(ip_address(address)) for address in addresses] == ([] if gateway is None else [gateway])


async def test_on_a_user_defined_network_from_the_start(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    house.networks.add("front")
    launch = house.runtime.launch

    async def with_sockets(*arguments: Any, **more: Any) -> Any:
        monitor = await launch(*arguments, **more)
        monitor.resolver = name_server_sockets()
        return monitor

    monkeypatch.setattr(house.runtime, "launch", with_sockets)
    monitor = await house.run(network_mode="front")
    assert house.runtime.requests[-1].resolver
    assert (house.networks.dns.serves(monitor.id), monitor.resolver) == (True, [])
    assert "nameserver 127.0.0.11" in resolv_conf(house, monitor.id)
    await house.service.remove("web", force=True, volumes=False, link=False)
    assert not house.networks.dns.serves(monitor.id)


async def test_on_the_default_bridge(house: Any) -> None:
    monitor = await house.run()
    assert not house.runtime.requests[-1].resolver
    assert not house.networks.dns.serves(monitor.id)
    assert "127.0.0.11" not in resolv_conf(house, monitor.id)


def resolv_conf(house: Any, id: str) -> str:
    return Path(house.config.etc_file(id, "resolv.conf")).read_text()


@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.root
async def test_with_the_first_such_network_of_a_running_container(house: Any, machine: Machine, edited: bool) -> None:
    monitor = await house.run()
    container, world = house.service._find("web"), house.service._world
    path = house.config.etc_file(container.id, "resolv.conf")
    if edited:
        with open(path, "a") as file:
            file.write("# mine\n")
        os.utime(path, ns=(5, 5))

    async def keep_resolver(fds: list[int]) -> None:
        kept.extend(fds)

    kept: list[int] = []
    monitor.keep_resolver = keep_resolver
    await name_server.follow(world, container, machine.fd)
    assert not house.networks.dns.serves(container.id)
    record = house.networks.add("front")
    ask = Ask(record.id, names=("web",))
    await house.networks.join(container.id, ask, name="web", publishing=Publishing(), netns_fd=-1)
    await name_server.follow(world, container, machine.fd)
    assert house.networks.dns.serves(container.id)
    assert len(kept) == 2
    assert ("nameserver 127.0.0.11" in resolv_conf(house, container.id)) != edited
    await house.networks.leave(container.id, record.id, publishing=Publishing(), netns_fd=-1)
    await name_server.follow(world, container, machine.fd)
    assert house.networks.dns.serves(container.id)
    house.networks.dns.stop(container.id)


@pytest.mark.root
async def test_a_monitor_that_keeps_nothing(house: Any, machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    """One of an earlier version knows no such order."""
    monitor = await house.run()

    async def refuse(fds: list[int]) -> None:
        raise MonitorError(reason="unknown operation")

    monitor.keep_resolver = refuse
    house.networks.sandboxes[monitor.id] = Sandbox((FRONT,))
    await name_server.follow(house.service._world, house.service._find("web"), machine.fd)
    assert "the name server of container web ends with this daemon: the container's monitor refused" in caplog.text
    assert house.networks.dns.serves(monitor.id)
    house.networks.dns.stop(monitor.id)


async def test_a_container_that_gets_none(house: Any, caplog: pytest.LogCaptureFixture) -> None:
    monitor = await house.run()
    house.networks.sandboxes[monitor.id] = Sandbox((FRONT,))
    with open("/dev/null") as no_namespace:
        await name_server.follow(house.service._world, house.service._find("web"), no_namespace.fileno())
    assert "container web gets no name server: " in caplog.text
    assert not house.networks.dns.serves(monitor.id)


async def test_a_file_as_it_was_written(tmp_path: Path) -> None:
    etc_files.write(str(tmp_path), {"resolv.conf": "x\n"})
    path = str(tmp_path / "resolv.conf")
    assert etc_files.is_as_written(path)
    Path(path).write_text("y\n")
    assert not etc_files.is_as_written(path)


def test_names_are_found_on_user_defined_networks_alone() -> None:
    assert Sandbox((FRONT,)).finds_names
    assert not Sandbox((replace(FRONT, names=[]),)).finds_names
    assert not Sandbox().finds_names


async def test_name_servers_follow_the_hosts_file(house: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver 192.0.2.1\n")
    monkeypatch.setattr(name_server, "HOST_RESOLV_CONF", str(file))
    monitor = await house.run()
    world, dns = house.service._world, house.networks.dns
    world.host_texts = lambda: (file.read_text(), "")
    house.networks.sandboxes[monitor.id] = Sandbox((FRONT,))
    monitor.resolver = name_server_sockets()
    name_server.serve(world, house.service._find("web"), monitor)
    watching = name_server.HostServers(world)
    before = dns._served[monitor.id].settings
    watching.look()
    assert dns._served[monitor.id].settings is before
    file.write_text("nameserver 192.0.2.22\n")
    watching.look()
    assert [str(server) for server in dns._served[monitor.id].servers] == ["192.0.2.22"]
    file.unlink()
    assert name_server.stamp_of(str(file)) is None
    dns.stop(monitor.id)
