"""Which cgroup driver a configuration and a machine make, in Docker's words where it is none."""

from __future__ import annotations

import pytest

from pier.engine.cgroup_driver import BadParent, CgroupDriver, choose, find_problem
from pier.kernel.cgroup_layout import Layout
from pier.runtime.systemd.scopes import NoSystemd

V1, V2 = Layout("v1", {}, ("/c",)), Layout("v2", {}, ("/c",), "/c")
SYSTEMD, CGROUPFS = ["native.cgroupdriver=systemd"], ["native.cgroupdriver=cgroupfs"]


@pytest.mark.parametrize(
    ("exec_opts", "parent", "layout", "booted", "expected"),
    [
        ([], "", V2, True, CgroupDriver("systemd", "system.slice")),
        ([], "", V2, False, CgroupDriver("cgroupfs", "/pier")),
        ([], "", V1, True, CgroupDriver("cgroupfs", "/pier")),
        ([], "/own", V1, False, CgroupDriver("cgroupfs", "/own")),
        ([], "a-b.slice", V2, True, CgroupDriver("systemd", "a-b.slice")),
        (CGROUPFS, "", V2, True, CgroupDriver("cgroupfs", "/pier")),
        (SYSTEMD, "", V1, True, CgroupDriver("systemd", "system.slice")),
        (["Native.CgroupDriver = systemd"], "", V1, True, CgroupDriver("systemd", "system.slice")),
        ([*CGROUPFS, *SYSTEMD], "", V2, True, CgroupDriver("cgroupfs", "/pier")),
    ],
)
def test_choice(exec_opts: list[str], parent: str, layout: Layout, booted: bool, expected: CgroupDriver) -> None:
    assert find_problem(exec_opts, parent) == ""
    assert choose(exec_opts, parent, layout, booted=booted) == expected


def test_systemd_that_is_not_there() -> None:
    with pytest.raises(NoSystemd, match="systemd is not init on this machine"):
        choose(SYSTEMD, "", V2, booted=False)


@pytest.mark.parametrize("exec_opts", [[], SYSTEMD])
def test_a_parent_that_is_no_slice(exec_opts: list[str]) -> None:
    with pytest.raises(BadParent) as caught:
        choose(exec_opts, "/own", V2, booted=True)
    assert caught.value.message == 'cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"'


@pytest.mark.parametrize(
    ("exec_opts", "parent", "problem"),
    [
        (["foo"], "", "invalid exec-opt (foo): must be formatted 'opt=value'"),
        (["native.cgroupdriver="], "", "invalid exec-opt (native.cgroupdriver=): must be formatted 'opt=value'"),
        (["foo=bar"], "", "invalid exec-opt (foo=bar): unknown option: 'foo'"),
        (["native.cgroupdriver=x"], "", "native.cgroupdriver option x not supported"),
        (SYSTEMD, "/x", 'cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"'),
        (SYSTEMD, "x.slice", ""),
    ],
)
def test_what_is_wrong_with_the_options(exec_opts: list[str], parent: str, problem: str) -> None:
    assert find_problem(exec_opts, parent) == problem
