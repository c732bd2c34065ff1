"""The files in /etc, and the compiled seccomp filters."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pier.containers import etc_files
from pier.containers.seccomp_cache import SeccompCache, make_filter
from pier.containers.spec_security import DEFAULT_CAPABILITIES
from pier.errors import PierError
from pier.model.container import ContainerConfig
from pier.model.host_config import HostConfig
from pier.networks.endpoint import Endpoint, Sandbox

BRIDGE = Endpoint(
    "c" * 64, "web", "n" * 64, "bridge", "bridge", "e" * 64, ip="172.17.0.2", gateway="172.17.0.1", host=["172.17.0.1"]
)


async def texts(house: Any, endpoint: Endpoint | None = BRIDGE, **host: Any) -> dict[str, str]:
    await house.create(**host)
    record = house.service._find("web").record
    record.config = ContainerConfig(hostname="hh", domainname="dom")
    record.host_config = HostConfig(network_mode=endpoint.network if endpoint else "bridge", **host)
    return etc_files.contents(
        record,
        Sandbox((endpoint,) if endpoint else ()),
        house.config,
        host_resolv="nameserver 192.0.2.1\n",
        host_hosts="192.0.2.9 h\n",
    )


async def test_on_the_bridge(house: Any) -> None:
    found = await texts(house, extra_hosts=["db=192.0.2.5", "gw:host-gateway"], dns=["192.0.2.53"])
    assert found["hostname"] == "hh.dom\n"
    lines = found["hosts"].splitlines()
    assert lines[0] == "127.0.0.1\tlocalhost"
    assert "192.0.2.5\tdb" in lines
    assert "172.17.0.1\tgw" in lines
    assert lines[-1] == "172.17.0.2\thh.dom hh"
    assert "nameserver 192.0.2.53" in found["resolv.conf"]


async def test_on_the_hosts_network(house: Any) -> None:
    found = await texts(house, Endpoint("c" * 64, "web", "n" * 64, "host", "host", "e" * 64))
    assert found["hosts"].startswith("192.0.2.9 h\n")
    assert "nameserver 192.0.2.1" in found["resolv.conf"]


async def test_host_gateway_on_the_hosts_network(house: Any) -> None:
    endpoint = Endpoint("c" * 64, "web", "n" * 64, "host", "host", "e" * 64)
    found = await texts(house, endpoint, extra_hosts=["gw:host-gateway"])
    assert found["hosts"] == "192.0.2.9 h\n127.0.0.1\tgw\n"
    record = house.service._find("web").record
    found = etc_files.contents(
        record, Sandbox((endpoint,)), house.config, host_resolv="", host_hosts="", host_gateway=["172.17.0.1"]
    )
    assert found["hosts"] == "172.17.0.1\tgw\n"


async def test_written_files_are_readable_and_links_are_not_followed(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        etc_files.write(str(tmp_path), {"hosts": "x\n"})
    finally:
        os.umask(old)
    assert (tmp_path / "hosts").stat().st_mode & 0o777 == 0o644
    os.symlink(tmp_path / "hosts", tmp_path / "hostname")
    with pytest.raises(OSError, match="symbolic links"):
        etc_files.write(str(tmp_path), {"hostname": "y\n"})


async def test_filters_are_compiled_once_and_differ_by_capabilities(house: Any, tmp_path: Path) -> None:
    await house.create()
    record = house.service._find("web").record
    folder = tmp_path / "seccomp"
    cache = SeccompCache(str(folder))
    await cache.warm()
    assert len(os.listdir(folder)) == 1
    first = await cache.path_for(record, DEFAULT_CAPABILITIES)
    assert first is not None
    stamp = os.stat(first).st_mtime_ns
    assert await cache.path_for(record, list(reversed(DEFAULT_CAPABILITIES))) == first
    assert await SeccompCache(str(folder)).path_for(record, DEFAULT_CAPABILITIES) == first
    assert os.stat(first).st_mtime_ns == stamp
    assert await cache.path_for(record, [*DEFAULT_CAPABILITIES, "CAP_SYS_ADMIN"]) != first
    assert os.stat(first).st_size % 8 == 0


async def test_unconfined(house: Any, tmp_path: Path) -> None:
    await house.create(privileged=True)
    record = house.service._find("web").record
    folder = tmp_path / "seccomp"
    cache = SeccompCache(str(folder))
    assert await cache.path_for(record, ()) is None
    record.host_config.privileged = False
    record.host_config.security_opt = ["seccomp=unconfined"]
    assert await cache.path_for(record, ()) is None
    assert not folder.exists()


def test_a_profile_of_the_users(tmp_path: Path) -> None:
    text = '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}'
    path = make_filter(str(tmp_path), text, ())
    assert path is not None
    assert make_filter(str(tmp_path), "{}", ()) is None
    with pytest.raises(PierError):
        make_filter(str(tmp_path), '{"defaultAction": "x"', ())
