"""What POST /build's query means, and the builder's other operations."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from multidict import MultiDict

from pier.api.build import network_of, request_of
from pier.api.query import Query
from pier.builder.graph import HostIP, NetMode, Ulimit
from pier.errors import InvalidParameter, NotImplementedYet
from pier.oci import Platform


def call(*pairs: tuple[str, str], headers: dict[str, str] | None = None) -> Any:
    return SimpleNamespace(query=Query(MultiDict(pairs)), request=SimpleNamespace(headers=headers or {}))


def test_every_parameter_of_the_classic_build() -> None:
    found = request_of(
        call(
            ("t", "one"),
            ("t", "two:3"),
            ("dockerfile", "a/Dockerfile"),
            ("q", "1"),
            ("nocache", "true"),
            ("pull", "1"),
            ("squash", "1"),
            ("target", "stage"),
            ("platform", "linux/arm64"),
            ("buildargs", '{"A":"1","UNSET":null}'),
            ("labels", '{"l":"v"}'),
            ("extrahosts", "db:10.0.0.1"),
            ("extrahosts", "six:[::1]"),
            ("ulimits", '[{"Name":"nofile","Soft":10,"Hard":20}]'),
            ("cgroupparent", "/x"),
            ("networkmode", "backend"),
            ("memory", "1048576"),
            ("memswap", "-1"),
            ("cpusetcpus", "0"),
            ("cpuquota", "5000"),
            ("shmsize", "4096"),
            ("buildid", "me"),
        )
    )
    options = found.options
    assert [name.familiar for name in found.names] == ["one:latest", "two:3"]
    assert (found.dockerfile, found.quiet, found.squash, found.id) == ("a/Dockerfile", True, True, "me")
    assert (options.no_cache, options.image_resolve_mode, options.target) == (True, "pull", "stage")
    assert options.target_platform == Platform.parse("linux/arm64")
    assert (options.build_args, options.labels) == ({"A": "1"}, {"l": "v"})
    assert options.extra_hosts == (HostIP("db", "10.0.0.1"), HostIP("six", "[::1]"))
    assert options.ulimits == (Ulimit("nofile", 10, 20),)
    assert options.limits is not None
    assert (options.limits.memory, options.limits.memory_swap, options.limits.cpu_quota) == (1 << 20, -1, 5000)
    assert (options.limits.cpuset_cpus, options.limits.shm_size, options.limits.network) == ("0", 4096, "backend")


def test_images_that_carry_a_cache() -> None:
    assert request_of(call(("cachefrom", '["image"]'))).cache_from == ("image",)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("", (NetMode.UNSET, "")),
        ("default", (NetMode.UNSET, "")),
        ("none", (NetMode.NONE, "")),
        ("host", (NetMode.HOST, "")),
        ("bridge", (NetMode.UNSET, "bridge")),
    ],
)
def test_networks_of_the_steps(mode: str, expected: tuple[NetMode, str]) -> None:
    assert network_of(mode) == expected


def test_a_containers_network_is_refused() -> None:
    with pytest.raises(NotImplementedYet):
        network_of("container:abc")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("buildargs", "[", "invalid parameter: buildargs"),
        ("labels", '{"a":1}', "invalid parameter: labels"),
        ("ulimits", '{"a":1}', "invalid parameter: ulimits"),
        ("extrahosts", "alone", "not of the form NAME:ADDRESS"),
        ("t", "UPPER", "must be lowercase"),
        ("platform", "a/b/c/d", "platform"),
        ("memory", "much", "memory"),
        ("securityopt", "x", "does not support setting security options on build"),
    ],
)
def test_a_parameter_that_is_wrong(name: str, value: str, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        request_of(call((name, value)))


async def test_what_needs_a_session_says_so(client: Any) -> None:
    for query in ("version=2", "remote=client-session"):
        answer = await client.request("POST", f"/build?{query}")
        assert answer.status == 400
        assert "needs a session" in answer.json["message"]
    assert (await client.request("POST", "/build?version=3")).status == 400


async def test_a_build_is_cancelled_by_its_id(client: Any) -> None:
    assert (await client.request("POST", "/build/cancel?id=known")).status == 204
    assert (await client.request("POST", "/build/cancel?id=other")).status == 404
    assert (await client.request("POST", "/build/cancel")).status == 400


async def test_how_much_of_the_cache_may_stay(client: Any) -> None:
    filters = quote(json.dumps({"type": {"regular": True}}))
    for name in ("keep-storage", "reserved-space"):
        assert (await client.request("POST", f"/build/prune?all=1&{name}=1000&filters={filters}")).status == 200
        [(given, everything, keep)] = client.engine.builder.pruned
        assert (given.get("type"), everything, keep) == (("regular",), True, 1000)
        client.engine.builder.pruned.clear()
