"""Broken and hostile config.json: one line with the field's path, and nothing left behind."""

from __future__ import annotations

import contextlib
import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pier.runtime.command.bundle import SPEC, BundleError, judge, load, parse_json
from pier.runtime.command.schema import BadField, without_nulls
from pier.runtime.process.program import SELINUX_ROOT

from ..bundles import Bench, a_bench

GOOD: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "process": {"cwd": "/", "args": ["sh"], "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]},
    "root": {"path": "rootfs"},
    "hostname": "h",
    "mounts": [{"destination": "/proc", "type": "proc"}],
    "hooks": {"poststop": [{"path": "/bin/true"}]},
    "linux": {
        "namespaces": [{"type": "mount"}, {"type": "uts"}],
        "devices": [{"type": "c", "path": "/dev/x", "major": 1, "minor": 2}],
        "resources": {"memory": {"limit": 1 << 30}},
        "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["kill"], "action": "SCMP_ACT_ERRNO"}]},
    },
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """GOOD with another value at `a.0.b`."""
    spec = copy.deepcopy(GOOD)
    place: Any = spec
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        place = place.setdefault(part, {}) if isinstance(place, dict) else place[part]
    place[last] = value
    return spec


def check(spec: Any) -> None:
    SPEC(spec, "")
    judge(without_nulls(spec))


def test_a_good_one_passes() -> None:
    check(GOOD)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("ociVersion", 3, "ociVersion: must be a string, is a number"),
        ("ociVersion", "2.0.0", "ociVersion: '2.0.0' is not supported"),
        ("process", [], "process: must be an object, is an array"),
        ("process", None, "process: must not be empty"),
        ("process.args", [], "process.args: must not be empty"),
        ("process.args", ["a", None], "process.args[1]: must be a string, is null"),
        ("process.args", ["a\0b"], "process.args[0]: must not contain a NUL character"),
        ("process.args", ["x" * 200_000], "process.args[0]: is longer than"),
        ("process.cwd", "relative", "process.cwd: must be an absolute path"),
        ("process.cwd", "/a/../..", "process.cwd: must not contain `..`"),
        ("process.user", {"uid": -1}, "process.user.uid: must be from 0 to 2147483647, is -1"),
        ("process.user", {"uid": 2**32}, "process.user.uid: must be from 0 to 2147483647"),
        ("process.user", {"uid": 1.5}, "process.user.uid: must be an integer"),
        ("process.user", {"uid": True}, "process.user.uid: must be an integer, is a boolean"),
        ("process.oomScoreAdj", 1001, "process.oomScoreAdj: must be from -1000 to 1000"),
        ("process.rlimits.0.type", "RLIMIT_X", "process.rlimits[0].type: 'RLIMIT_X' is no resource limit"),
        ("process.rlimits.0.soft", 5, "process.rlimits[0].soft: is above the hard limit of 0"),
        ("process.scheduler", {"policy": "SCHED_X"}, "process.scheduler.policy: 'SCHED_X' is no scheduling policy"),
        ("process.ioPriority", {"class": "X"}, "process.ioPriority.class: 'X' is no I/O priority class"),
        ("process.execCPUAffinity", {"final": "0-x"}, "process.execCPUAffinity.final: is no list of CPUs"),
        (
            "process.capabilities",
            {"effective": ["CAP_KILL"], "permitted": []},
            "process.capabilities.effective: CAP_KILL is not among the permitted ones",
        ),
        ("linux.intelRdt", {}, "linux.intelRdt: Intel RDT is not implemented by Pier"),
        ("linux.personality", {"flags": []}, "linux.personality.domain: must not be empty"),
        ("process.terminal", "yes", "process.terminal: must be a boolean, is a string"),
        ("root.readonly", 3, "root.readonly: must be a boolean, is a number"),
        ("root.path", "", "root.path: must not be empty"),
        ("hostname", "x" * 65, "hostname: is longer than 64 bytes"),
        ("mounts", {}, "mounts: must be an array, is an object"),
        ("mounts.0.destination", "/a/../../etc", "mounts[0].destination: must not contain `..`"),
        ("mounts.0.destination", "/", "mounts[0].destination: the root itself"),
        ("mounts.0.type", "", "mounts[0].type: must not be empty"),
        ("mounts.0.options", ["bind"], "mounts[0].source: must not be empty for a bind mount"),
        ("hooks.poststop.0.path", "true", "hooks.poststop[0].path: must be an absolute path"),
        ("hooks.poststop.0.timeout", 0, "hooks.poststop[0].timeout: must be from 1"),
        ("linux.namespaces.1.type", "nope", "linux.namespaces[1].type: 'nope' is no namespace"),
        ("linux.namespaces.1.type", "mount", "linux.namespaces[1].type: the mount namespace is named twice"),
        ("linux.namespaces", [], "linux.namespaces: a mount namespace is needed"),
        ("linux.namespaces", [{"type": "mount"}], "hostname: cannot be set without a uts namespace"),
        ("linux.namespaces.1", {"type": "user"}, "hostname: cannot be set"),
        (
            "linux.uidMappings",
            [{"containerID": 0, "hostID": 0, "size": 1}],
            "linux.uidMappings: needs a user namespace",
        ),
        ("linux.timeOffsets", {"monotonic": {"secs": 1}}, "linux.timeOffsets: needs a time namespace"),
        ("linux.devices.0.type", "z", "linux.devices[0].type: 'z' is no type of a device"),
        ("linux.devices.0.minor", None, "linux.devices[0].major: major and minor must be given"),
        ("linux.rootfsPropagation", "x", "linux.rootfsPropagation: 'x' is no kind of mount propagation"),
        ("linux.resources.memory.limit", 2**63, "linux.resources.memory.limit: must be from"),
        ("linux.resources.memory.limit", 10**4000, "is a number of more than 30 digits"),
        ("linux.resources.unified", {"": "1"}, "linux.resources.unified, a key: must not be empty"),
        ("linux.seccomp.syscalls.0.names", "kill", "linux.seccomp.syscalls[0].names: must be an array"),
        ("linux.personality", {"domain": "BSD"}, "linux.personality.domain: 'BSD' is no personality"),
        ("linux.maskedPaths", ["proc"], "linux.maskedPaths[0]: must be an absolute path"),
    ],
)
def test_a_field_that_is_wrong_is_named(path: str, value: Any, message: str) -> None:
    with pytest.raises(BadField) as caught:
        check(changed(path, value))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [None, True, 7, -1, "text", [], {}, [[]], [{}], {"a": {"b": []}}])
def test_any_type_in_any_place_is_a_sentence_or_fine(kind: Any) -> None:
    for path in (
        "process",
        "root",
        "mounts",
        "hooks",
        "linux",
        "annotations",
        "process.capabilities",
        "linux.resources",
    ):
        with contextlib.suppress(BadField):
            check(changed(path, kind))


@pytest.mark.parametrize("data", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b"{" + b'"a":{' * 70 + b"}" * 71])
def test_what_is_no_json_or_nested_too_deeply(data: bytes) -> None:
    with pytest.raises(BundleError):
        parse_json(data, "config.json")


def test_a_bundle_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="chdir /nosuch: no such file or directory"):
        load("/nosuch")
    with pytest.raises(BundleError, match=r"JSON specification file config\.json not found"):
        load(str(tmp_path))


def test_a_root_that_is_the_hosts_or_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, words in (("/", "the host's own root"), ("file", "is not a directory"), ("nosuch", "no such file")):
        (tmp_path / "config.json").write_text(json.dumps(changed("root.path", path)))
        with pytest.raises(BundleError, match=words):
            load(str(tmp_path))


@pytest.fixture
def bench(tmp_path: Path, busybox_root: Path) -> Iterator[Bench]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    yield from a_bench(tmp_path, busybox_root)


def seccomp_with(**rule: Any) -> dict[str, Any]:
    """A profile whose second rule is changed."""
    good = {"names": ["kill"], "action": "SCMP_ACT_ERRNO"}
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [good, {**good, **rule}]}


@pytest.mark.root
@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (
            "sysctl",
            {"kernel.core_pattern": "|/evil"},
            'linux.sysctl.kernel.core_pattern: sysctl "kernel.core_pattern" is',
        ),
        ("sysctl", {"net.ipv4.nosuch": "1"}, "linux.sysctl.net.ipv4.nosuch: sysctl net.ipv4.nosuch=1: "),
        ("sysctl", {"net.ipv4.ip_forward": "x"}, "linux.sysctl.net.ipv4.ip_forward: sysctl net.ipv4.ip_forward=x: "),
        ("devices", [{"type": "c", "path": "/proc/x", "major": 1, "minor": 3}], "linux.devices[0]: make devices "),
        ("cgroupsPath", "/../../etc", "linux.cgroupsPath: name cgroup "),
        ("seccomp", {"defaultAction": "SCMP_ACT_NOPE"}, "linux.seccomp.defaultAction: "),
        ("seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["NOPE"]}, "NOPE"),
        ("seccomp", seccomp_with(action="SCMP_ACT_NOPE"), "linux.seccomp.syscalls[1].action: seccomp profile: unknown"),
        ("seccomp", seccomp_with(errnoRet=99_999), "linux.seccomp.syscalls[1].errnoRet: seccomp profile: "),
        (
            "seccomp",
            seccomp_with(args=[{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 0, "op": "X"}]),
            "linux.seccomp.syscalls[1].args[1].op: seccomp profile: ",
        ),
        ("resources", {"unified": {"../../x": "1"}}, "linux.resources.unified"),
        ("resources", {"memory": {"limit": 1 << 30, "swap": 1}}, "linux.resources.memory.swap: Minimum memoryswap"),
        ("resources", {"cpu": {"cpus": "9999"}}, "linux.resources.cpu.cpus: failed to write '9999' to cpuset.cpus"),
        ("resources", {"cpu": {"quota": 1}}, "linux.resources.cpu.quota: failed to write "),
        ("resources", {"blockIO": {"weight": 5}}, "linux.resources.blockIO.weight: range of blkio weight"),
        (
            "resources",
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 0}, {"pageSize": "3MB", "limit": 1}]},
            "linux.resources.hugepageLimits[1]: ",
        ),
        ("resources", {"devices": [{"allow": True, "access": "rx"}]}, "linux.resources.devices[0].access: "),
        (
            "namespaces",
            [{"type": "mount"}, {"type": "network", "path": "/etc/passwd"}],
            "linux.namespaces[1].path: network namespace /etc/passwd: ",
        ),
        (
            "namespaces",
            [{"type": "mount"}, {"type": "pid", "path": "/etc/passwd"}],
            "linux.namespaces: /etc/passwd: setns",
        ),
        ("namespaces", [{"type": "mount"}, {"type": "pid", "path": "/nosuch"}], "linux.namespaces: /nosuch: No such"),
        ("rootfsPropagation", "unbindable", "root.path: open_tree "),
        pytest.param(
            "mountLabel",
            "x",
            "linux.mountLabel: the SELinux label 'x' is asked for, this kernel has no SELinux",
            marks=pytest.mark.skipif(os.path.exists(SELINUX_ROOT), reason="it has"),
        ),
    ],
)
def test_what_only_the_start_can_tell_leaves_nothing(bench: Bench, key: str, value: Any, words: str) -> None:
    bench.spec["linux"][key] = value
    bench.spec.pop("hostname")
    result = bench.make("create", "bad")
    assert result.code == 1
    assert words in result.message
    assert result.err.count("\n") == 1
    assert not (bench.root / "bad").exists()


@pytest.mark.root
@pytest.mark.parametrize(
    ("mount", "words"),
    [
        (
            {"destination": "/d", "type": "bind", "source": "/nosuch", "options": ["bind"]},
            "source: bind /nosuch on /d ",
        ),
        ({"destination": "/d", "type": "nosuchfs"}, "type: mount nosuchfs on /d "),
        ({"destination": "/d", "type": "tmpfs", "options": ["nosuch=1"]}, "options: mount tmpfs on /d (nosuch=1) "),
        ({"destination": "/bin/busybox/d", "type": "tmpfs"}, "destination: mount tmpfs on /bin/busybox/d "),
        (
            {"destination": "/proc/d", "type": "bind", "source": "/etc", "options": ["bind"]},
            "destination: bind /etc on /proc/d ",
        ),
        (
            {
                "destination": "/d",
                "type": "bind",
                "source": "/nosuch",
                "options": ["bind"],
                "uidMappings": [{"containerID": 0, "hostID": 5, "size": 1}],
                "gidMappings": [{"containerID": 0, "hostID": 5, "size": 1}],
            },
            "source: ",
        ),
    ],
    ids=["source", "type", "options", "destination", "inside proc", "idmap"],
)
def test_a_mount_that_fails_is_named(bench: Bench, mount: dict[str, Any], words: str) -> None:
    bench.spec["mounts"].append(mount)
    index = len(bench.spec["mounts"]) - 1
    result = bench.make("create", "bad")
    assert result.code == 1
    assert f"mounts[{index}].{words}" in result.message
    assert result.err.count("\n") == 1
    assert not (bench.root / "bad").exists()


@pytest.mark.root
@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("cwd", "/bin/busybox", "process.cwd: openat2 "),
        (
            "rlimits",
            [
                {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
                {"type": "RLIMIT_NOFILE", "soft": 2**40, "hard": 2**40},
            ],
            "process.rlimits[1]: error setting rlimit type RLIMIT_NOFILE",
        ),
        ("execCPUAffinity", {"initial": "900"}, "process.execCPUAffinity.initial: sched_setaffinity"),
        ("capabilities", {"ambient": ["CAP_KILL"]}, "process.capabilities: prctl(PR_CAP_AMBIENT_RAISE) CAP_KILL"),
    ],
)
def test_what_a_process_cannot_have_is_named(bench: Bench, key: str, value: Any, words: str) -> None:
    bench.spec["process"][key] = value
    result = bench.make("run", "bad")
    assert result.code == 1
    assert words in result.message
    assert result.err.count("\n") == 1


@pytest.mark.root
@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_attack_05_and_06_links_where_the_kernels_files_go(bench: Bench, tmp_path: Path, name: str) -> None:
    root = tmp_path / "hostile"
    root.mkdir()
    victim = tmp_path / "victim"
    victim.mkdir()
    (root / name).symlink_to(victim)
    bench.spec["root"]["path"] = str(root)
    assert f"/{name} in the image is not a directory" in bench.run().message
    assert list(victim.iterdir()) == []
