from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest

from pier.containers import links
from pier.errors import Conflict, InvalidParameter, PierError
from pier.model.container import ContainerCreateRequest
from pier.model.filters import Filters
from pier.model.host_config import HostConfig


async def donor(house: Any, name: str = "db", **host: Any) -> str:
    body = ContainerCreateRequest(
        image="bb",
        env=["USER=me", "HOME=/x", "BARE"],
        exposed_ports={"5432/tcp": {}, "53/udp": {}},
        host_config=HostConfig(**host),
    )
    return (await house.service.create(body, name=name, platform="")).id


def started_with(house: Any) -> tuple[list[str], str]:
    """(variables, hosts) of the container that was started last."""
    request = house.runtime.requests[-1]
    source = next(mount["source"] for mount in request.spec["mounts"] if mount["destination"] == "/etc/hosts")
    with open(source, encoding="utf-8") as file:
        return request.spec["process"]["env"], file.read()


async def test_a_link_tells_of_the_other_container(house: Any) -> None:
    id = await donor(house)
    await house.service.start_container("db")
    await house.run("web", links=["db:data-base"])
    env, hosts = started_with(house)
    told = [entry for entry in env if entry.startswith("DATA_BASE")]
    assert told == [
        "DATA_BASE_PORT=udp://172.17.0.2:53",
        "DATA_BASE_PORT_53_UDP=udp://172.17.0.2:53",
        "DATA_BASE_PORT_53_UDP_ADDR=172.17.0.2",
        "DATA_BASE_PORT_53_UDP_PORT=53",
        "DATA_BASE_PORT_53_UDP_PROTO=udp",
        "DATA_BASE_PORT_5432_TCP=tcp://172.17.0.2:5432",
        "DATA_BASE_PORT_5432_TCP_ADDR=172.17.0.2",
        "DATA_BASE_PORT_5432_TCP_PORT=5432",
        "DATA_BASE_PORT_5432_TCP_PROTO=tcp",
        "DATA_BASE_NAME=/web/data-base",
        "DATA_BASE_ENV_USER=me",
    ]
    assert f"172.17.0.2\tdata-base {id[:12]} db\n" in hosts
    shown = await house.service.inspect("web", size=False)
    assert shown.host_config.links == ["/db:/web/data-base"]
    names = {line.id: line.names for line in await house.service.list(all=True, limit=0, size=False, filters=Filters())}
    assert names[id] == ["/db", "/web/data-base"]


async def test_a_link_follows_a_rename_and_ends_with_the_container(house: Any) -> None:
    await donor(house)
    await house.create("web", links=["db"])
    await house.service.rename("db", "store")
    assert (await house.service.inspect("web", size=False)).host_config.links == ["/store:/web/db"]
    with pytest.raises(PierError, match="Cannot link to a non running container: /store AS /web/db"):
        await house.service.start_container("web")
    await house.service.remove("store", force=True, volumes=False, link=False)
    assert await house.service.start_container("web")
    assert (await house.service.inspect("web", size=False)).host_config.links is None


async def test_another_address_after_a_restart_is_told(house: Any) -> None:
    await donor(house)
    await house.service.start_container("db")
    await house.run("web", links=["db"])
    connect = house.networks.connect

    async def elsewhere(id: str, asks: Any, **options: Any) -> Any:
        found = await connect(id, asks, **options)
        house.networks.sandboxes[id] = found.having(replace(found.endpoints[0], ip="172.17.0.99"))
        return house.networks.sandboxes[id]

    house.networks.connect = elsewhere
    await house.service.restart("db")
    path = house.config.etc_file(house.service._find("web").id, "hosts")
    with open(path, encoding="utf-8") as file:
        assert [line.split()[0] for line in file if " db\n" in line or "\tdb " in line] == ["172.17.0.99"]
    assert os.stat(path).st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ({"links": ["nosuch"]}, "could not get container for nosuch: No such container: nosuch"),
        ({"links": ["db:a:b"]}, "bad format for links"),
        ({"links": ["db:a b"]}, "bad format for links"),
        ({"links": [":a"]}, "bad format for links"),
        ({"links": ["db"], "network_mode": "host"}, "host type networking can't be used with links"),
        ({"links": ["db"], "network_mode": "container:db"}, "container type network can't be used with links"),
        ({"links": ["free"]}, "host type networking can't be used with links"),
    ],
)
async def test_refused(house: Any, host: dict[str, Any], words: str) -> None:
    await donor(house)
    await donor(house, "free", network_mode="host")
    with pytest.raises(InvalidParameter, match=words):
        await house.create("web", **host)


async def test_a_link_is_removed_and_nothing_else(house: Any) -> None:
    await donor(house)
    await house.create("web", links=["db:a", "db:b"])
    await house.service.remove("/web/a", force=False, volumes=False, link=True)
    assert (await house.service.inspect("web", size=False)).host_config.links == ["/db:/web/b"]
    with pytest.raises(PierError, match="Cannot get parent /web for link name /web/a"):
        await house.service.remove("web/a", force=False, volumes=False, link=True)
    with pytest.raises(Conflict, match="cannot remove the default link name"):
        await house.service.remove("web", force=False, volumes=False, link=True)


async def test_who_is_needed_comes_first(house: Any) -> None:
    first = await house.create("first")
    await house.create("second")
    world = house.service._world
    world.containers[first].record.host_config.network_mode = "container:second"
    await house.create("linked", links=["second:x"])
    order = [container.record.name for container in links.in_order(world, world.containers.values())]
    assert order == ["second", "first", "linked"]
    world.containers[world.names["second"]].record.host_config.pid_mode = "container:first"  # a circle
    assert sorted(item.record.name for item in links.in_order(world, world.containers.values())) == sorted(order)
