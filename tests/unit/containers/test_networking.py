"""The networks of a container: asked for at create, resolved at start, joined and left, kept over a restart."""

from __future__ import annotations

import os
from typing import Any

import msgspec
import pytest

from pier.errors import NotFound, PierError
from pier.model.container import ContainerCreateRequest
from pier.model.host_config import HostConfig
from pier.model.network import EndpointIPAMConfig, EndpointSettings, NetworkingConfig, PortBinding, PortMap
from pier.model.networks import NetworkConnectRequest, NetworkDisconnectRequest


async def create(house: Any, mode: str, name: str = "web", **endpoints: EndpointSettings) -> tuple[str, list[str]]:
    """(id, warnings)."""
    body = ContainerCreateRequest(
        image="bb",
        hostname="" if mode.startswith("container:") else "box",
        host_config=HostConfig(network_mode=mode),
        networking_config=NetworkingConfig(endpoints_config=dict(endpoints)),
    )
    made = await house.service.create(body, name=name, platform="")
    return made.id, made.warnings


async def networks(house: Any, ref: str = "web") -> dict[str, EndpointSettings]:
    found: dict[str, EndpointSettings] = (await house.service.inspect(ref, size=False)).network_settings.networks
    return found


def hosts(house: Any, id: str) -> list[str]:
    with open(house.config.etc_file(id, "hosts"), encoding="utf-8") as file:
        return file.read().splitlines()


@pytest.fixture
def live(house: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The house, whose containers' first process is this one."""

    async def follow(*_: Any) -> None:
        """A name server would be made in this process's own namespace."""

    def own(pid: int) -> tuple[int, int]:
        return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC), os.getppid()

    monkeypatch.setattr("pier.containers.network_namespace.namespace_of", own)
    monkeypatch.setattr("pier.containers.name_server.follow", follow)
    house.networks.add("a", "10.0.0.0/24")
    house.networks.add("b")
    return house


@pytest.mark.parametrize(
    ("mode", "endpoints", "expected"),
    [
        ("bridge", {}, ["bridge"]),
        ("", {"default": EndpointSettings()}, ["bridge"]),
        ("a", {}, ["a"]),
        ("b", {"a": EndpointSettings(), "b": EndpointSettings()}, ["b", "a"]),
        ("bridge", {"a": EndpointSettings()}, ["a"]),
        ("none", {"a": EndpointSettings()}, ["a"]),
        ("a".ljust(64, "0"), {}, ["a"]),
        ("a", {"a".ljust(64, "0"): EndpointSettings()}, ["a"]),
        ("nowhere", {}, ["nowhere"]),
        ("container:x", {}, []),
    ],
)
async def test_what_is_asked_for(live: Any, mode: str, endpoints: dict[str, Any], expected: list[str]) -> None:
    await create(live, mode, **endpoints)
    assert list(await networks(live)) == expected


@pytest.mark.parametrize(
    ("mode", "endpoints", "words"),
    [
        ("host", {"a": EndpointSettings()}, "cannot attach the container to network a and to network mode host"),
        ("container:x", {"a": EndpointSettings()}, "to network a and to network mode container:x"),
        ("a", {"a": EndpointSettings(), "host": EndpointSettings()}, "container must be created in host network mode"),
        ("a", {"a": EndpointSettings(), "none": EndpointSettings()}, "in private (none) mode"),
        (
            "b",
            {"b": EndpointSettings(ipam_config=EndpointIPAMConfig("10.0.0.9"))},
            "invalid config for network b: invalid endpoint settings:\nuser specified IP address is supported only",
        ),
        ("a", {"a": EndpointSettings(mac_address="x")}, "invalid config for network a: invalid MAC address x"),
        ("bridge", {"bridge": EndpointSettings(aliases=["x"])}, "invalid config for network bridge: invalid endpoint"),
    ],
)
async def test_what_is_refused(live: Any, mode: str, endpoints: dict[str, Any], words: str) -> None:
    with pytest.raises(PierError) as caught:
        await create(live, mode, **endpoints)
    assert words in caught.value.message
    assert caught.value.status == 400


async def test_a_start_joins_them_all_and_notes_their_ids(live: Any) -> None:
    id, _ = await create(live, "b", a=EndpointSettings(aliases=["x"], gw_priority=2), b=EndpointSettings())
    assert [one.network_id for one in (await networks(live)).values()] == ["", ""]
    await live.service.start_container(id)
    first, second = live.networks.asks
    assert (first.network, second.gw_priority) == (live.networks.records["b"].id, 2)
    assert second.names == ("web", "x", id[:12], "box")
    assert [line for line in hosts(live, id) if line.endswith("\tbox")] == ["172.17.0.2\tbox", "172.18.0.2\tbox"]
    live.monitor(id).end(0)
    await live.service.wait(id, "not-running")
    stopped = await networks(live)
    assert [one.network_id[:1] for one in stopped.values()] == ["b", "a"]
    assert (stopped["a"].dns_names, stopped["a"].ip_address) == (["web", "x", id[:12], "box"], "")


async def test_a_network_that_is_gone_fails_the_start(live: Any) -> None:
    id, _ = await create(live, "a")
    await live.service.start_container(id)
    live.monitor(id).end(0)
    await live.service.wait(id, "not-running")
    network = live.networks.records.pop("a")
    live.networks.records["a"] = type(network)(id="f" * 64, name="a", driver="bridge")  # another one of that name
    with pytest.raises(PierError, match=f"^failed to set up container networking: network {network.id} not found$"):
        await live.service.start_container(id)
    await live.service.leave_network("a", NetworkDisconnectRequest(container="web", force=True))
    await live.service.join_network("a", NetworkConnectRequest(container="web"))
    assert await live.service.start_container(id)


async def test_links_become_aliases_for_lookups_of_its_own(live: Any) -> None:
    body = ContainerCreateRequest(
        image="bb",
        host_config=HostConfig(network_mode="a", links=["db:store"]),
        networking_config=NetworkingConfig(endpoints_config={"a": EndpointSettings(links=["db:store"])}),
    )
    made = await live.service.create(body, name="web", platform="")
    await live.service.start_container(made.id)
    assert (live.networks.asks[0].links, made.warnings) == ((("store", "db"),), [])
    body.networking_config = NetworkingConfig()
    made = await live.service.create(body, name="other", platform="")
    assert "HostConfig.Links has no effect on network a" in made.warnings[0]


async def test_a_network_that_publishes_no_ports_is_told_of(live: Any) -> None:
    live.networks.records["lan"] = msgspec.structs.replace(live.networks.add("lan"), driver="macvlan")
    ports: PortMap = {"80/tcp": [PortBinding("", "8080")]}
    for mode, warnings in (
        ("lan", ["Published ports have no effect on network lan: its driver publishes none."]),
        ("a", []),
        ("nowhere", []),
    ):
        body = ContainerCreateRequest(image="bb", host_config=HostConfig(network_mode=mode, port_bindings=ports))
        assert (await live.service.create(body, name=f"on-{mode}", platform="")).warnings == warnings


async def test_connect_and_disconnect_of_a_running_container(live: Any) -> None:
    id, _ = await create(live, "a")
    await live.service.start_container(id)
    asked = NetworkConnectRequest(container="web", endpoint_config=EndpointSettings(aliases=["y"]))
    await live.service.join_network("b", asked)
    assert "172.18.0.2\tbox" in hosts(live, id)
    assert (await networks(live))["b"].dns_names == ["web", "y", id[:12], "box"]
    with pytest.raises(PierError, match="endpoint with name web already exists in network b"):
        await live.service.join_network("b", asked)
    await live.service.leave_network("a", NetworkDisconnectRequest(container="web"))
    lines = hosts(live, id)
    assert "172.17.0.2\tbox" not in lines
    assert [line.split()[0] for line in lines if "host.docker.internal" in line] == ["172.18.0.1"]
    with pytest.raises(PierError, match="is not connected to network a"):
        await live.service.leave_network("a", NetworkDisconnectRequest(container="web"))
    happened = [event for event in live.events._history if event.type == "network"]
    assert [(event.action, event.actor.attributes["name"]) for event in happened] == [
        ("connect", "a"),
        ("connect", "b"),
        ("disconnect", "a"),
    ]


async def test_a_connect_that_fails_is_taken_back(live: Any) -> None:
    id, _ = await create(live, "a")
    await live.service.start_container(id)
    live.networks.fail = PierError("no more addresses")
    with pytest.raises(PierError, match="no more addresses"):
        await live.service.join_network("b", NetworkConnectRequest(container="web"))
    assert list(await networks(live)) == ["a"]


@pytest.mark.parametrize(
    ("mode", "network", "words"),
    [
        ("host", "a", "container sharing network namespace with another container or host"),
        ("container:x", "a", "container sharing network namespace with another container or host"),
        ("none", "a", "with one of the networks in private"),
        ("a", "none", "with one of the networks in private"),
        ("a", "host", "container must be created in host network mode"),
        ("a", "nowhere", "network nowhere not found"),
    ],
)
async def test_networks_that_cannot_be_joined(live: Any, mode: str, network: str, words: str) -> None:
    await create(live, mode)
    with pytest.raises(PierError, match=words):
        await live.service.join_network(network, NetworkConnectRequest(container="web"))


async def test_containers_that_are_not_there(live: Any) -> None:
    for force, words in ((False, "No such container: nobody"), (True, "endpoint nobody not found")):
        with pytest.raises(NotFound, match=words):
            await live.service.leave_network("a", NetworkDisconnectRequest(container="nobody", force=force))
    with pytest.raises(PierError, match="invalid name or ID supplied"):
        await live.service.join_network("a", NetworkConnectRequest())


async def test_after_a_kill_the_record_is_what_counts(live: Any) -> None:
    id, _ = await create(live, "a")
    await live.service.start_container(id)
    record = live.service._find("web").record
    record.networks["b"] = EndpointSettings()  # written, and the daemon killed before it was done
    del record.networks["a"]
    await live.store.write(record.put())
    repaired = await live.again()
    assert "container web: put on network b" in repaired
    assert "container web: taken off network a" in repaired
    assert [one.network for one in live.networks.sandboxes[id].endpoints] == ["b"]


async def test_after_a_kill_in_a_rename_the_networks_learn_the_name(live: Any) -> None:
    id, _ = await create(live, "a")
    await live.service.start_container(id)
    record = live.service._find("web").record
    record.name = "shop"
    await live.store.write(record.put())
    await live.again()
    assert live.networks.renamed == ("shop", {live.networks.records["a"].id: ["shop", id[:12], "box"]})


async def test_a_record_of_an_older_daemon(live: Any) -> None:
    await create(live, "bridge")
    record = live.service._find("web").record
    record.networks, record.mac_address = {}, "02:00:00:00:00:01"
    await live.store.write(record.put())
    await live.again()
    found = await networks(live)
    assert (list(found), found["bridge"].mac_address) == (["bridge"], "02:00:00:00:00:01")
    settings = (await live.service.inspect("web", size=False)).network_settings
    assert settings.mac_address == "02:00:00:00:00:01"


async def test_a_rename_is_told_to_the_networks(live: Any) -> None:
    id, _ = await create(live, "a", a=EndpointSettings(aliases=["x"]))
    await live.service.start_container(id)
    await live.service.rename("web", "shop")
    assert live.networks.renamed == ("shop", {live.networks.records["a"].id: ["shop", "x", id[:12], "box"]})
