from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pier.api.versions import (
    DIFFERENCES,
    NEWEST,
    OLDEST,
    ClientTooNew,
    ClientTooOld,
    Version,
    adapt_answer,
    adapt_request,
    negotiate,
)
from pier.model import wire
from pier.model.container import ContainerCreateRequest, ContainerInspectResponse, ContainerState
from pier.model.host_config import HostConfig
from pier.model.image import ImageConfig, ImageInspect


@pytest.mark.parametrize(
    ("path", "version", "rest"),
    [
        ("/info", NEWEST, "/info"),
        ("/v1.24/info", (1, 24), "/info"),
        ("/v1.55/info", (1, 55), "/info"),
        ("/v1.55", (1, 55), ""),
        ("/v1.55.0/info", (1, 55), "/info"),
        ("/v1.5x/info", NEWEST, "/v1.5x/info"),
        ("/volumes", NEWEST, "/volumes"),
        ("/version", NEWEST, "/version"),
        ("/v/info", NEWEST, "/v/info"),
    ],
)
def test_negotiate(path: str, version: Version, rest: str) -> None:
    assert negotiate(path) == (version, rest)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/v1.56/info", ClientTooNew),
        ("/v2/info", ClientTooNew),
        ("/v9999.9999/info", ClientTooNew),
        ("/v1.23/info", ClientTooOld),
        ("/v1/info", ClientTooOld),
        ("/v0.1/info", ClientTooOld),
    ],
)
def test_negotiate_refuses(path: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        negotiate(path)


def test_the_versions_of_the_table_exist_and_say_something() -> None:
    for difference in DIFFERENCES:
        assert (difference.since is None) != (difference.until is None), difference.why
        assert OLDEST < (difference.since or difference.until or OLDEST) <= NEWEST, difference.why


def inspected(version: Version) -> dict[str, Any]:
    struct = ContainerInspectResponse(
        id="a",
        created="",
        path="",
        args=[],
        state=ContainerState(),
        image="",
        host_config=HostConfig(kernel_memory_tcp=1),
    )
    answer = adapt_answer("ContainerInspect", version, wire.to_builtins(struct))
    assert isinstance(answer, dict)
    return answer


def test_inspect_before_and_after_1_52() -> None:
    old, new = inspected((1, 51)), inspected((1, 52))
    assert {"IPAddress", "Bridge", "MacAddress"} <= old["NetworkSettings"].keys()
    assert new["NetworkSettings"].keys() == {"SandboxID", "SandboxKey", "Ports", "Networks"}
    assert "KernelMemoryTCP" in old["HostConfig"]
    assert "KernelMemoryTCP" not in new["HostConfig"]


def test_images_have_a_virtual_size_before_1_44() -> None:
    image = ImageInspect(id="a", size=7)
    assert adapt_answer("ImageInspect", (1, 43), wire.to_builtins(image))["VirtualSize"] == 7
    assert "VirtualSize" not in adapt_answer("ImageInspect", (1, 44), wire.to_builtins(image))


def test_an_image_s_configuration_has_a_container_s_fields_for_old_clients() -> None:
    image = ImageInspect(id="a", container="c", container_config={"Cmd": ["x"]}, config=ImageConfig(user="5"))
    old = adapt_answer("ImageInspect", (1, 44), wire.to_builtins(image))
    assert (old["Container"], old["ContainerConfig"]) == ("c", {"Cmd": ["x"]})
    assert (old["Config"]["User"], old["Config"]["Hostname"], old["Config"]["Tty"]) == ("5", "", False)
    new = adapt_answer("ImageInspect", (1, 50), wire.to_builtins(image))
    assert {"Container", "ContainerConfig"}.isdisjoint(new)
    assert "Hostname" not in new["Config"]


def test_lists_are_changed_item_by_item() -> None:
    answer = [{"Id": "a", "Health": {}}, {"Id": "b", "Health": {}}]
    assert adapt_answer("ContainerList", (1, 51), answer) == [{"Id": "a"}, {"Id": "b"}]


@pytest.mark.parametrize(
    ("version", "path", "value"),
    [
        ((1, 40), "host_config.cgroupns_mode", "host"),
        ((1, 41), "host_config.cgroupns_mode", ""),
        ((1, 39), "host_config.ipc_mode", "shareable"),
        ((1, 40), "host_config.ipc_mode", ""),
        ((1, 41), "host_config.kernel_memory", 5),
        ((1, 42), "host_config.kernel_memory", 0),
        ((1, 41), "host_config.console_size", [0, 0]),
        ((1, 42), "host_config.console_size", [24, 80]),
        ((1, 43), "healthcheck.start_interval", 0),
        ((1, 44), "healthcheck.start_interval", 9),
        ((1, 52), "networking_config.endpoints_config", None),
        ((1, 52), "mac_address", ""),
    ],
)
def test_requests_mean_what_their_version_meant(version: Version, path: str, value: Any) -> None:
    body = wire.decode(
        b'{"MacAddress": "02:42:ac:11:00:09", "Healthcheck": {"StartInterval": 9},'
        b' "HostConfig": {"KernelMemory": 5, "ConsoleSize": [24, 80]}}',
        ContainerCreateRequest,
    )
    adapt_request("ContainerCreate", version, body)
    found: Any = body
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value


def test_a_container_wide_mac_address_goes_to_the_main_network() -> None:
    body = wire.decode(
        b'{"MacAddress": "02:42:ac:11:00:09", "HostConfig": {"NetworkMode": "n"}}', ContainerCreateRequest
    )
    adapt_request("ContainerCreate", (1, 43), body)
    assert body.networking_config.endpoints_config is not None
    assert body.networking_config.endpoints_config["n"].mac_address == "02:42:ac:11:00:09"


def test_read_only_binds_were_shallow_before_1_44() -> None:
    raw = msgspec.json.encode(
        {"HostConfig": {"Mounts": [{"Type": "bind", "ReadOnly": True, "Source": "/", "Target": "/a"}]}}
    )
    for version, expected in (((1, 43), True), ((1, 44), False)):
        body = wire.decode(raw, ContainerCreateRequest)
        adapt_request("ContainerCreate", version, body)
        (mount,) = body.host_config.mounts or []
        assert (mount.bind_options is not None and mount.bind_options.read_only_non_recursive) is expected
