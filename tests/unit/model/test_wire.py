"""JSON in and out as Go does it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest

from pier.model.container import (
    ContainerCreateRequest,
    ContainerInspectResponse,
    ContainerStatsResponse,
    ContainerSummary,
    HealthConfig,
)
from pier.model.event import EventActor, EventMessage
from pier.model.exec import ExecConfig, ExecInspectResponse
from pier.model.host_config import HostConfig, Mount, PortBinding
from pier.model.image import ImageInspect, ImageSummary
from pier.model.system import SystemInfo, SystemVersion
from pier.model.wire import OMIT, Struct, decode, encode

ANSWERS = Path(__file__).parent / "answers"


class Sample(Struct):
    always: str = ""
    list_or_null: list[str] | None = None
    text: Annotated[str, OMIT] = ""
    number: Annotated[int, OMIT] = 0
    pointer: Annotated[int | None, OMIT] = None
    items: Annotated[list[str] | None, OMIT] = None
    inner: Annotated[PortBinding | None, OMIT] = None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Sample(), {"Always": "", "ListOrNull": None}),
        (Sample(list_or_null=[], items=[]), {"Always": "", "ListOrNull": []}),
        (Sample(text="a", number=1, pointer=0, items=["x"]), {"Text": "a", "Number": 1, "Pointer": 0, "Items": ["x"]}),
        (Sample(inner=PortBinding()), {"Inner": {"HostIp": "", "HostPort": ""}}),
    ],
)
def test_omitted_fields(value: Sample, expected: dict[str, Any]) -> None:
    assert json.loads(encode(value)) == {"Always": "", "ListOrNull": None} | expected


def test_omission_reaches_into_lists_and_maps() -> None:
    config = HostConfig(mounts=[Mount(type="bind", source="/a", target="/b")])
    assert json.loads(encode([config]))[0]["Mounts"] == [{"Type": "bind", "Source": "/a", "Target": "/b"}]


def test_null_is_the_zero_value_everywhere() -> None:
    body = b"""{"Image": null, "Tty": null, "Labels": {"a": null}, "ExposedPorts": {"80/tcp": null}, "Cmd": null,
        "HostConfig": {"Memory": null, "PidsLimit": null, "PortBindings": {"80/tcp": null}, "LogConfig": null},
        "NetworkingConfig": null}"""
    got = decode(body, ContainerCreateRequest)
    assert (got.image, got.tty, got.labels, got.cmd) == ("", False, {"a": ""}, None)
    assert got.exposed_ports == {"80/tcp": {}}
    assert (got.host_config.memory, got.host_config.pids_limit) == (0, None)
    assert got.host_config.port_bindings == {"80/tcp": None}
    assert got.host_config.log_config.type == ""
    assert got.networking_config.endpoints_config is None


def test_an_absent_body_is_the_default() -> None:
    assert decode(b"{}", ContainerCreateRequest) == ContainerCreateRequest()


def test_keys_match_whatever_their_case_and_unknown_ones_are_ignored() -> None:
    got = decode(b'{"image": "a", "HOSTCONFIG": {"nanocpus": 5}, "Whatever": {"deep": [1]}}', ContainerCreateRequest)
    assert (got.image, got.host_config.nano_cpus) == ("a", 5)


@pytest.mark.parametrize(
    ("text", "cmd"), [('"ls"', ["ls"]), ('["ls", "-l"]', ["ls", "-l"]), ("[]", []), ("null", None)]
)
def test_a_command_may_be_one_string(text: str, cmd: list[str] | None) -> None:
    assert decode(f'{{"Cmd": {text}}}', ExecConfig).cmd == cmd


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ('{"HostConfig": {"Memory": "x"}}', "$.HostConfig.Memory"),
        ('{"HostConfig": {"Memory": 1.5}}', "$.HostConfig.Memory"),
        ('{"HostConfig": {"Memory": 9223372036854775808}}', "$.HostConfig.Memory"),
        ('{"HostConfig": {"Memory": -9223372036854775809}}', "$.HostConfig.Memory"),
        ('{"HostConfig": {"BlkioWeight": 65536}}', "$.HostConfig.BlkioWeight"),
        ('{"HostConfig": {"Ulimits": [{"Soft": 99999999999999999999}]}}', "$.HostConfig.Ulimits[...].Soft"),
        (
            '{"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": 80}]}}}',
            "$.HostConfig.PortBindings[...][0].HostPort",
        ),
        ('{"Tty": 1}', "$.Tty"),
        ('{"Env": {}}', "$.Env"),
        ('{"Labels": []}', "$.Labels"),
        ('{"Volumes": {"/a": "b"}}', "$.Volumes[...]"),
        ('{"Healthcheck": "curl"}', "$.Healthcheck"),
    ],
)
def test_wrong_types_name_their_field(body: str, path: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        decode(body, ContainerCreateRequest)
    assert f"`{path}`" in str(caught.value)


@pytest.mark.parametrize("body", ["", "nope", "{", "[" * 100_000, '{"a":' * 100_000, "{}{}", "\x00"])
def test_what_is_no_json(body: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(body, ContainerCreateRequest)


def test_the_request_holds_the_containers_configuration() -> None:
    request = decode(
        b'{"Image": "a", "Healthcheck": {"Retries": 3}, "HostConfig": {"Memory": 1}}', ContainerCreateRequest
    )
    config = request.config()
    assert (config.image, config.healthcheck) == ("a", HealthConfig(retries=3))
    assert "HostConfig" not in json.loads(encode(config))


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("container-inspect", ContainerInspectResponse),
        ("container-list", list[ContainerSummary]),
        ("container-stats", ContainerStatsResponse),
        ("image-inspect", ImageInspect),
        ("image-list", list[ImageSummary]),
        ("exec-inspect", ExecInspectResponse),
        ("info", SystemInfo),
        ("version", SystemVersion),
    ],
)
def test_answers_of_docker_survive_a_round_trip(name: str, type_: Any) -> None:
    """Every key, null and empty value that Docker 28 writes is read and written again."""
    raw = (ANSWERS / f"{name}.json").read_bytes()
    assert json.loads(encode(decode(raw, type_))) == json.loads(raw)


def test_an_event_of_the_bus() -> None:
    event = EventMessage(type="image", action="tag", actor=EventActor(id="a"), time=1, time_nano=2)
    assert json.loads(encode(event)) == {
        "Type": "image",
        "Action": "tag",
        "Actor": {"ID": "a", "Attributes": {}},
        "scope": "local",
        "time": 1,
        "timeNano": 2,
    }
