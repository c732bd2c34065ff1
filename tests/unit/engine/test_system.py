import asyncio
from typing import Any

import pytest

from pier.api.versions import NEWEST, OLDEST, text
from pier.containers.oci_runtimes import OciRuntimes
from pier.engine.config import DaemonConfig, Proxies
from pier.engine.engine import driver_status
from pier.engine.host import Host, limits
from pier.engine.runtimes import About
from pier.engine.system import System, registry_config, security_options, without_secret
from pier.kernel.cgroups import Layout
from pier.model.container import ContainerSummary
from pier.model.disk_usage import BuildCacheUsage, VolumesUsage
from pier.model.image import ImageSummary

V1 = Layout("v1", {name: f"/cg/{name}" for name in "blkio cpu cpuset devices freezer memory pids".split()}, ())
V2 = Layout("v2", {"cpu": "/cg"}, ("/cg",), "/cg")
HOST = Host("box", "6.1.0", "Debian GNU/Linux 12 (bookworm)", "12", "x86_64", 2, 1 << 30)


class Containers:
    async def list(self, **_: Any) -> list[ContainerSummary]:
        states = ("running", "paused", "exited", "created")
        return [
            ContainerSummary(id=state, names=["/web"], image="", image_id="", command="", created=0, state=state)
            for state in states
        ]


class Images:
    async def list(self, **_: Any) -> list[ImageSummary]:
        return []


class Volumes:
    async def usage(self) -> VolumesUsage:
        return VolumesUsage(items=[])


class Builder:
    async def usage(self) -> BuildCacheUsage:
        return BuildCacheUsage(items=[])


def made(config: DaemonConfig) -> System:
    return System(
        config=config,
        id="cab7edb1-6ca9-4643-8f43-859f2e38e802",
        host=HOST,
        layout=V1,
        cgroup_driver="systemd",
        limits=limits(V1, lambda path: "memsw" not in path),
        driver="overlay2",
        driver_status=[["Backing Filesystem", "extfs"], ["userxattr", "false"]],
        containers=Containers(),
        images=Images(),
        volumes=Volumes(),
        builder=Builder(),
        listeners=lambda: 3,
        lacking=["no NAT in this kernel"],
        runtimes=About(OciRuntimes()),
    )


def test_info_counts_and_warns() -> None:
    config = DaemonConfig(labels=["rack=7"], proxies=Proxies(http_proxy="http://me:secret@proxy:3128"))
    info = asyncio.run(made(config).info())
    counts = (info.containers, info.containers_running, info.containers_paused, info.containers_stopped)
    assert counts == (4, 1, 1, 2)
    assert info.labels == ["rack=7"]
    assert info.n_events_listener == 3
    assert "secret" not in repr(info)
    assert (info.driver, info.driver_status[0]) == ("overlay2", ["Backing Filesystem", "extfs"])
    assert {"WARNING: No swap limit support", "WARNING: no NAT in this kernel"} <= set(info.warnings or [])
    assert info.memory_limit
    assert (info.cgroup_driver, info.cgroup_version) == ("systemd", "1")
    assert not info.swap_limit


def test_version_names_the_api_versions_that_the_api_speaks() -> None:
    version = asyncio.run(made(DaemonConfig()).version())
    assert (version.api_version, version.min_api_version) == (text(NEWEST), text(OLDEST))
    assert version.arch == "amd64"
    assert version.components[0].name == "Engine"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("", ""),
        ("http://proxy:3128", "http://proxy:3128"),
        ("http://me:pass@proxy:3128", "http://xxxxx:xxxxx@proxy:3128"),
        ("http://me:p@ss@proxy", "http://xxxxx:xxxxx@proxy"),
        ("http://proxy/a@b", "http://proxy/a@b"),
    ],
)
def test_without_secret(url: str, shown: str) -> None:
    assert without_secret(url) == shown


def test_registries_and_guards() -> None:
    config = DaemonConfig(
        insecure_registries=["10.0.0.0/8", "reg.local:5000"], registry_mirrors=["https://mirror.local"]
    )
    registries = registry_config(config)
    assert registries.insecure_registry_cidrs == ["::1/128", "127.0.0.0/8", "10.0.0.0/8"]
    assert not registries.index_configs["reg.local:5000"].secure
    assert registries.index_configs["docker.io"].mirrors == ["https://mirror.local/"]
    assert security_options(DaemonConfig(), V1) == ["name=seccomp,profile=builtin"]
    assert security_options(DaemonConfig(no_new_privileges=True), V2) == [
        "name=seccomp,profile=builtin",
        "name=cgroupns",
        "name=no-new-privileges",
    ]


@pytest.mark.parametrize("asked", [True, False])
def test_clients_are_told_of_a_store_of_several_platforms_where_they_shall(asked: bool) -> None:
    config = DaemonConfig(features={"containerd-snapshotter": asked})
    found = driver_status(config, "extfs", [["userxattr", "false"]])
    assert found[:2] == [["Backing Filesystem", "extfs"], ["userxattr", "false"]]
    assert (["driver-type", "io.containerd.snapshotter.v1"] in found) is asked
