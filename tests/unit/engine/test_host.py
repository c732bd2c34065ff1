import pytest

from pier.engine.host import Host, limits, look, parse_kernel, parse_memory
from pier.engine.prerequisites import misses
from pier.kernel.cgroups import Layout

V1_NAMES = "blkio cpu cpuset devices freezer memory pids".split()
V1 = Layout("v1", {name: f"/cg/{name}" for name in V1_NAMES}, ())
V2 = Layout("v2", dict.fromkeys("cpu cpuset io memory pids".split(), "/cg"), ("/cg",), "/cg")
HOST = Host("box", "6.1.0-18-amd64", "Debian", "12", "x86_64", 2, 1 << 30)
OLD = Host("box", "5.10.0", "Debian", "11", "x86_64", 2, 1 << 30)


@pytest.mark.parametrize(
    ("release", "kernel"), [("6.1.0-18-amd64", (6, 1)), ("5.15", (5, 15)), ("6.18.44-fc", (6, 18)), ("odd", (0, 0))]
)
def test_parse_kernel(release: str, kernel: tuple[int, int]) -> None:
    assert parse_kernel(release) == kernel


def test_parse_memory() -> None:
    assert parse_memory("MemTotal:       24684092 kB\nMemFree: 1 kB\n") == 24684092 * 1024
    assert parse_memory("") == 0


def test_this_machine() -> None:
    host = look()
    assert host.cpus >= 1
    assert host.memory_bytes > 1 << 20
    assert host.kernel > (2, 6)


def test_v1_limits_come_from_the_files() -> None:
    everything = limits(V1, lambda _: True)
    assert everything.warnings("v1") == []
    no_swap = limits(V1, lambda path: "memsw" not in path and "throttle" not in path)
    assert no_swap.warnings("v1") == [
        "WARNING: No swap limit support",
        "WARNING: No blkio throttle.read_bps_device support",
        "WARNING: No blkio throttle.write_bps_device support",
    ]
    assert "WARNING: No memory limit support" in limits(Layout("v1", {}, ()), lambda _: True).warnings("v1")


def test_v2_limits_come_with_the_controllers() -> None:
    found = limits(V2, lambda _: False)
    assert found.warnings("v2") == []
    assert not found.oom_kill_disable
    assert not found.kernel_memory_tcp


@pytest.mark.parametrize(
    ("euid", "host", "layout", "filesystems", "lines"),
    [
        (0, HOST, V1, {"overlay"}, []),
        (0, HOST, V2, {"overlay"}, []),
        (1000, OLD, Layout("v1", {}, ()), set(), ["pierd must run as root"]),
        (0, OLD, V1, {"overlay"}, ["the kernel 5.10.0 is too old"]),
        (0, HOST, V1, {"ext4"}, ["no overlay file system"]),
        (
            0,
            OLD,
            Layout("v2", {"cpu": "/cg", "pids": "/cg"}, ("/cg",), "/cg"),
            set(),
            [
                "too old",
                "controller memory is missing (enable it: echo +memory > /cg/cgroup.subtree_control)",
                "overlay",
            ],
        ),
        (
            0,
            HOST,
            Layout("v1", {name: f"/cg/{name}" for name in V1_NAMES if name not in ("devices", "memory")}, ()),
            {"overlay"},
            ["controller memory is missing", "controller devices is missing"],
        ),
    ],
)
def test_misses(euid: int, host: Host, layout: Layout, filesystems: set[str], lines: list[str]) -> None:
    found = [str(miss) for miss in misses(euid=euid, host=host, layout=layout, filesystems=filesystems)]
    assert len(found) == len(lines)
    for line, part in zip(found, lines, strict=True):
        assert part in line
        assert "(" in line
        assert "\n" not in line
