"""Where containers' cgroups are, by the daemon's driver and the container's own parent."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pier.containers import recovery
from pier.containers.start import cgroup_of
from pier.errors import InvalidParameter
from pier.kernel.cgroup_layout import Layout
from pier.runtime.systemd.scopes import Scope

BAD_SLICE = 'cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"'


@pytest.fixture
async def scopes(house: Any, tmp_path: Path) -> Any:
    """A daemon whose cgroups systemd keeps."""
    mount = str(tmp_path / "cgroup")
    layout = Layout("v2", {"memory": mount}, (mount,), mount)
    house.config = replace(house.config, cgroups=layout, systemd_cgroups=True, cgroup_parent="pier-vm.slice")
    await house.again()
    return house


def place_of(house: Any) -> str:
    path: str = house.runtime.requests[-1].spec["linux"]["cgroupsPath"]
    return path


async def test_a_group_of_our_own(house: Any) -> None:
    monitor = await house.run()
    assert place_of(house) == f"/{house.config.cgroup_parent.strip('/')}/{monitor.id}"
    monitor = await house.run("other", cgroup_parent="a.slice")
    assert place_of(house) == f"/a.slice/{monitor.id}"


async def test_a_scope(scopes: Any) -> None:
    monitor = await scopes.run()
    assert place_of(scopes) == f"pier-vm.slice:pier:{monitor.id}"
    container = scopes.service._find("web")
    cgroup = cgroup_of(scopes.service._world, container)
    assert isinstance(cgroup, Scope)
    assert cgroup.path == f"/pier.slice/pier-vm.slice/pier-{monitor.id}.scope"
    await scopes.run("other", cgroup_parent="else.slice")
    assert place_of(scopes).startswith("else.slice:pier:")


async def test_a_container_stays_where_it_was_started(scopes: Any) -> None:
    """The driver may have changed since: its monitor knows."""
    monitor = await scopes.run()
    monitor.cgroup = "/pier/abc"
    cgroup = cgroup_of(scopes.service._world, scopes.service._find("web"))
    assert (type(cgroup).__name__, cgroup.path) == ("Cgroup", "/pier/abc")


@pytest.mark.parametrize("parent", ["/a", "a", "a/b.slice", "a--b.slice", ".slice"])
async def test_a_parent_that_is_no_slice(scopes: Any, parent: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        await scopes.create(cgroup_parent=parent)
    assert caught.value.message == BAD_SLICE


async def test_scopes_that_belong_to_no_container_are_found(scopes: Any, tmp_path: Path) -> None:
    known, stranger = "a" * 64, "b" * 64
    slice = tmp_path / "cgroup/pier.slice/pier-vm.slice"
    for name in (f"pier-{known}.scope", f"pier-{stranger}.scope", f"docker-{'c' * 64}.scope", "pier-x.scope", "d" * 64):
        (slice / name).mkdir(parents=True)
    assert recovery._cgroups_of_strangers(scopes.config, {known}) == [f"pier-vm.slice:pier:{stranger}"]
    assert len(os.listdir(slice)) == 5
