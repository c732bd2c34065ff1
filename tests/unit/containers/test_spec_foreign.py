"""The configuration that another OCI runtime gets, and which containers take that way."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pier.containers import spec_foreign
from pier.containers.oci_runtimes import OciRuntime, OciRuntimes, RuntimeMissing, UnknownRuntime
from pier.containers.record import Record
from pier.containers.seccomp_cache import oci_profile
from pier.containers.spec_foreign import NoInit, adapt, find_init
from pier.model.container import ContainerConfig, ContainerUpdateRequest
from pier.model.host_config import HostConfig

from .conftest import House

SPEC: dict[str, Any] = {"process": {"args": ["sh"]}, "mounts": [{"destination": "/proc"}], "linux": {"sysctl": {}}}


def test_adapt() -> None:
    adapted = adapt(SPEC, seccomp={"defaultAction": "SCMP_ACT_ALLOW"}, init="/usr/bin/docker-init")
    assert adapted["linux"] == {"sysctl": {}, "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}
    assert adapted["process"]["args"] == ["/sbin/docker-init", "--", "sh"]
    assert adapted["mounts"][-1] == {
        "destination": "/sbin/docker-init", "type": "bind", "source": "/usr/bin/docker-init", "options": ["bind", "ro"],
    }  # fmt: skip
    assert adapt(SPEC, seccomp=None, init="") == {**SPEC, "ociVersion": "1.0.2"}
    assert SPEC["process"]["args"] == ["sh"]


def test_find_init() -> None:
    assert find_init("x", lambda name: f"/bin/{name}" if name == "tini-static" else None) == "/bin/tini-static"
    with pytest.raises(NoInit, match="the runtime x cannot run an init"):
        find_init("x", lambda name: None)


def test_profile_is_what_would_be_compiled() -> None:
    found = oci_profile("builtin", ["CAP_SYS_ADMIN"])
    assert found is not None
    assert found["defaultAction"] == "SCMP_ACT_ERRNO"
    allowed = {name for rule in found["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}
    assert {"read", "mount"} <= allowed
    json.dumps(found)


def test_old_record_that_calls_piers_own_runtime_runc() -> None:
    host = HostConfig(runtime="runc")
    record = Record(
        id="a" * 64, name="web", created_ns=1, image_id="x", layers=[], path="sh", args=[], driver="overlay2",
        config=ContainerConfig(), host_config=host, oci_runtime="runc",
    )  # fmt: skip
    assert Record.decode(record.put().value).oci_runtime == "runc"
    old = json.loads(record.put().value)
    del old["oci_runtime"]
    assert OciRuntimes().command(Record.decode(json.dumps(old).encode()).oci_runtime) == []


async def test_request_names_the_runtime(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.config.oci_runtimes.replace("pier", {"other": OciRuntime("/bin/sh", ("-e",))})
    monkeypatch.setattr(spec_foreign, "find_init", lambda runtime: "/bin/tini")
    await house.run(runtime="other", init=True, security_opt=["seccomp=builtin"])
    request = house.runtime.requests[-1]
    assert request.oci_runtime == ["/bin/sh", "-e"]
    assert request.spec["process"]["args"][:2] == ["/sbin/docker-init", "--"]
    assert request.spec["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    assert (request.seccomp_bpf, request.init) == (None, False)


async def test_runtime_that_is_gone(house: House) -> None:
    house.config.oci_runtimes.replace("pier", {"other": OciRuntime("/nonexistent/other")})
    id = await house.create(runtime="other")
    with pytest.raises(RuntimeMissing, match="stat /nonexistent/other: no such file or directory"):
        await house.service.start_container(id)
    house.config.oci_runtimes.replace("pier", {})
    with pytest.raises(UnknownRuntime, match="unknown or invalid runtime name: other"):
        await house.service.start_container(id)
    assert await house.status() == "created"


async def test_default_runtime_is_kept_by_the_container(house: House) -> None:
    house.config.oci_runtimes.replace("other", {"other": OciRuntime("/bin/sh")})
    await house.run()
    assert (await house.service.inspect("web", size=False)).host_config.runtime == "other"
    with pytest.raises(UnknownRuntime, match="unknown or invalid runtime name: foo"):
        await house.create("second", runtime="foo")


async def test_pause_and_update_are_the_business_of_the_runtime_that_made_it(house: House) -> None:
    monitor = await house.run()
    monitor.foreign = True
    await house.service.pause("web")
    await house.service.unpause("web")
    await house.service.update("web", ContainerUpdateRequest(pids_limit=33))
    assert monitor.asked == ["pause", "resume", {"pids": {"limit": 33}}]
