"""The frontend's attributes, and what it answers besides builds."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from pier.builder.dockerfile.frontend import (
    BadAttribute,
    CacheImport,
    FrontendRequest,
    for_platform,
    read_attributes,
    repeated_platforms,
)
from pier.builder.dockerfile.options import Options
from pier.builder.dockerfile.source import DockerfileError
from pier.builder.dockerfile.subrequests import DESCRIBE, UnsupportedSubrequest, answer
from pier.builder.graph import HostIP, Limits, NetMode, Ulimit

from .compiling import AMD64, ARM64, Images, compiled, execs, image


def read(**attrs: str) -> FrontendRequest:
    return read_attributes({key.replace("_", "-"): value for key, value in attrs.items()}, AMD64)


def test_attributes() -> None:
    request = read_attributes(
        {
            "filename": "sub/app.Dockerfile",
            "target": "t",
            "build-arg:A": "1",
            "label:l": "x",
            "context:base": "docker-image://busybox",
            "add-hosts": "Host=1.2.3.4,six=::1",
            "ulimit": "nofile=10:20,nproc=5",
            "shm-size": "1048576",
            "force-network-mode": "host",
            "image-resolve-mode": "local",
            "cgroup-parent": "/p",
            "hostname": "h",
            "cache-imports": '[{"Type":"local","Attrs":{"src":"/x"}}]',
            "cache-from": "a,b",
            "local-sessionid:context": "s",
            "context": "https://h/r.git",
            "contextsubdir": "d",
            "requestid": "frontend.lint",
            "something": "else",
        },
        AMD64,
    )
    options = request.options
    assert (request.filename, request.context, request.context_subdir) == ("sub/app.Dockerfile", "https://h/r.git", "d")
    assert (request.subrequest, request.local_sessions) == ("frontend.lint", {"context": "s"})
    assert request.cache_imports == (
        CacheImport("local", {"src": "/x"}),
        CacheImport("registry", {"ref": "a"}),
        CacheImport("registry", {"ref": "b"}),
    )
    assert (options.target, options.build_args, options.labels) == ("t", {"A": "1"}, {"l": "x"})
    assert options.contexts == {"base": "docker-image://busybox"}
    assert options.extra_hosts == (HostIP("host", "1.2.3.4"), HostIP("six", "::1"))
    assert options.ulimits == (Ulimit("nofile", 10, 20), Ulimit("nproc", 5, 5))
    assert (options.limits, options.network, options.image_resolve_mode) == (
        Limits(shm_size=1 << 20), NetMode.HOST, "local",
    )  # fmt: skip
    assert (options.cgroup_parent, options.hostname) == ("/p", "h")


def test_what_is_not_said() -> None:
    request = read()
    assert request == FrontendRequest(options=Options(build_platform=AMD64))
    assert for_platform(request, None).target_platform is None


@pytest.mark.parametrize(
    ("attrs", "everything", "stages"),
    [({}, False, set()), ({"no_cache": ""}, True, set()), ({"no_cache": "a, B"}, False, {"a", "b"})],
)
def test_no_cache(attrs: dict[str, str], everything: bool, stages: set[str]) -> None:
    options = read(**attrs).options
    assert (options.no_cache, options.no_cache_stages) == (everything, stages)


def test_platforms() -> None:
    request = read(platform="linux/amd64,linux/aarch64,linux/arm64/v8")
    assert request.platforms == (AMD64, ARM64)
    assert request.as_map
    assert request.options.several_platforms
    assert for_platform(request, ARM64).target_platform == ARM64
    assert not read(platform="linux/arm64").as_map
    assert read(platform="linux/arm64", multi_platform="1").as_map
    assert repeated_platforms({"platform": "linux/amd64,linux/aarch64,linux/arm64/v8"}) == ["linux/arm64"]


def test_multi_platform_by_argument() -> None:
    assert read_attributes({"build-arg:BUILDKIT_MULTI_PLATFORM": "true"}, AMD64).as_map


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("platform", "a/b/c/d", "failed to parse target platform a/b/c/d: "),
        ("multi-platform", "maybe", "invalid boolean value for multi-platform: maybe"),
        ("force-network-mode", "x", "invalid netmode x"),
        ("image-resolve-mode", "x", "invalid image-resolve-mode: x"),
        ("add-hosts", "x", "failed to parse additional hosts: invalid key-value pair x"),
        ("add-hosts", "x=y", "failed to parse additional hosts: failed to parse IP y"),
        ("ulimit", "x", "failed to parse ulimit: invalid ulimit argument: x"),
        ("shm-size", "1m", "failed to parse shm size: 1m"),
        ("cache-imports", "x", "failed to unmarshal cache-imports"),
    ],
)
def test_bad_attributes(key: str, value: str, message: str) -> None:
    with pytest.raises(BadAttribute) as raised:
        read_attributes({key: value}, AMD64)
    assert raised.value.message.startswith(message)


def test_arguments_that_are_settings() -> None:
    text = "FROM busybox\nRUN --mount=type=cache,target=/c x\nCMD a"
    args = {"BUILDKIT_SANDBOX_HOSTNAME": "h", "BUILDKIT_CACHE_MOUNT_NS": "ns"}
    found = compiled(text, build_args={**args, "BUILDKIT_DOCKERFILE_CHECK": "skip=all"})
    step = execs(found)[0]
    cache = step.mounts[1].cache
    assert cache is not None
    assert (step.meta.hostname, cache.id, found.warnings, found.unused_args) == ("h", "ns//c", (), ())
    with pytest.raises(DockerfileError, match="lint violation"):
        compiled(text, build_args={"BUILDKIT_DOCKERFILE_CHECK": "error=true"})
    with pytest.raises(DockerfileError, match="a frontend from an image is not run"):
        compiled(text, build_args={"BUILDKIT_SYNTAX": "foo/bar"})


# --- subrequests


def ask(name: str, text: str = "FROM busybox AS a\nARG X=1\nCMD x") -> dict[str, Any]:
    images = Images({"busybox": image()})
    found = asyncio.run(answer(name, text.encode(), "Dockerfile", Options(build_platform=AMD64), images))
    return {key: value.decode() for key, value in found.items()}


def test_subrequests() -> None:
    lint = ask("frontend.lint")
    assert (lint["result.statuscode"], lint["version"]) == ("1", "1.0.0")
    assert json.loads(lint["result.json"])["warnings"][0]["ruleName"] == "JSONArgsRecommended"
    assert ask("frontend.outline")["result.txt"].startswith("TARGET: a\n")
    assert json.loads(ask("frontend.targets")["result.json"])["targets"][0]["default"]
    described = json.loads(ask(DESCRIBE)["result.json"])
    assert [each["name"] for each in described] == [
        "frontend.outline", "frontend.targets", "frontend.lint", "frontend.subrequests.describe",
    ]  # fmt: skip
    with pytest.raises(UnsupportedSubrequest):
        ask("frontend.nope")
