"""Detection of cgroup v1, hybrid and v2 from recorded mount tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from pier.kernel.cgroup_layout import Layout, NoCgroups, detect, parse

ROOT = "/sys/fs/cgroup"
HEAD = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
"""
V1 = """\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset,clone_children
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
"""
V1_DIRECTORIES = {
    "cpu": f"{ROOT}/cpu,cpuacct",
    "cpuacct": f"{ROOT}/cpu,cpuacct",
    "cpuset": f"{ROOT}/cpuset",
    "memory": f"{ROOT}/memory",
}
V1_MOUNTS = (f"{ROOT}/cpu,cpuacct", f"{ROOT}/cpuset", f"{ROOT}/memory", f"{ROOT}/systemd")
V1_OPTIONS = (
    (f"{ROOT}/cpu,cpuacct", "cpu,cpuacct"),
    (f"{ROOT}/cpuset", "cpuset"),
    (f"{ROOT}/memory", "memory"),
    (f"{ROOT}/systemd", "none,name=systemd"),
)
V1_AGAIN = """\
50 22 0:32 / /somewhere/else/memory rw - cgroup cgroup rw,memory
51 22 0:32 / /sys/fs/cgroup/m2 rw - cgroup cgroup rw,memory
"""
UNIFIED = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
V2 = "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


@pytest.mark.parametrize(
    ("mountinfo", "unified_controllers", "expected"),
    [
        pytest.param(HEAD + V1, "", Layout("v1", V1_DIRECTORIES, V1_MOUNTS, None, V1_OPTIONS), id="v1"),
        pytest.param(
            HEAD + V1 + V1_AGAIN,
            "",
            Layout("v1", V1_DIRECTORIES, V1_MOUNTS, None, V1_OPTIONS),
            id="mounted more than once",
        ),
        pytest.param(
            HEAD + V1 + UNIFIED,
            "hugetlb\n",
            Layout(
                "hybrid",
                V1_DIRECTORIES | {"hugetlb": f"{ROOT}/unified"},
                (*V1_MOUNTS, f"{ROOT}/unified"),
                f"{ROOT}/unified",
                V1_OPTIONS,
            ),
            id="hybrid",
        ),
        pytest.param(
            V2,
            "cpuset cpu io memory pids",
            Layout("v2", dict.fromkeys(("cpuset", "cpu", "io", "memory", "pids"), ROOT), (ROOT,), ROOT),
            id="v2",
        ),
        pytest.param(
            HEAD + V1.splitlines(keepends=True)[3] + UNIFIED,
            "cpu memory",
            Layout(
                "v2",
                dict.fromkeys(("cpu", "memory"), f"{ROOT}/unified"),
                (f"{ROOT}/systemd", f"{ROOT}/unified"),
                f"{ROOT}/unified",
                V1_OPTIONS[3:],
            ),
            id="named v1 hierarchy alone is no hybrid",
        ),
    ],
)
def test_parse(mountinfo: str, unified_controllers: str, expected: Layout) -> None:
    assert parse(mountinfo, ROOT, unified_controllers) == expected


def test_no_cgroups() -> None:
    with pytest.raises(NoCgroups, match="no cgroup hierarchy is mounted under /sys/fs/cgroup"):
        parse(HEAD, ROOT, "")


def test_versions_in_a_hybrid() -> None:
    layout = parse(HEAD + V1 + UNIFIED, ROOT, "hugetlb")
    assert [layout.version(name) for name in ("memory", "hugetlb", "pids")] == [1, 2, 1]
    assert layout.number == "1"


def test_version_of_what_is_missing_is_the_machines() -> None:
    layout = parse(V2, ROOT, "memory io")
    assert [layout.version(name) for name in ("memory", "blkio", "pids", "devices")] == [2, 2, 2, 2]
    assert layout.number == "2"


def test_detect_reads_a_recorded_tree(tmp_path: Path) -> None:
    root = tmp_path / "cgroup with space"
    root.mkdir()
    (root / "cgroup.controllers").write_text("cpu memory pids\n")
    table = tmp_path / "mountinfo"
    escaped = str(root).replace(" ", "\\040")
    table.write_text(f"31 23 0:28 / {escaped} rw - cgroup2 cgroup2 rw\n")
    layout = detect(str(root), str(table))
    assert layout.mode == "v2"
    assert layout.controllers == dict.fromkeys(("cpu", "memory", "pids"), str(root))


def test_detect_this_machine() -> None:
    layout = detect()
    assert layout.mode in {"v1", "hybrid", "v2"}
    assert all(Path(mount, "cgroup.procs").exists() for mount in layout.hierarchies)
