"""The mount plan is data: what is asked becomes which operations, in which order."""

from __future__ import annotations

from typing import Any

import pytest

from pier.kernel import mounts
from pier.runtime.process.rootfs import (
    BindMount,
    MakeDevices,
    MaskPath,
    MountCgroups,
    MountFilesystem,
    ProtectPath,
    WriteSysctl,
    parse_options,
    plan,
)
from pier.runtime.process.sysctl import check_sysctl

OWN = {"mount", "pid", "uts", "ipc", "network", "cgroup"}


def test_options_are_sorted_by_who_understands_them() -> None:
    options = parse_options(["nosuid", "noexec", "ro", "rw", "rslave", "size=64m", "mode=1777", "defaults", "rro"])
    assert options.set == mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NOEXEC
    assert options.clear == mounts.MOUNT_ATTR_RDONLY
    assert options.recursive_set == mounts.MOUNT_ATTR_RDONLY
    assert options.propagation == [mounts.MS_SLAVE | mounts.MS_REC]
    assert options.filesystem == [("size", "64m"), ("mode", "1777")]
    assert not options.bind


@pytest.mark.parametrize(("words", "recursive"), [(["bind"], False), (["rbind", "ro"], True)])
def test_bind(words: list[str], recursive: bool) -> None:
    options = parse_options(words)
    assert (options.bind, options.recursive_bind) == (True, recursive)


def test_the_last_word_on_access_time_wins() -> None:
    options = parse_options(["noatime", "relatime"])
    assert options.set & mounts.MOUNT_ATTR__ATIME == mounts.MOUNT_ATTR_RELATIME
    assert options.clear & mounts.MOUNT_ATTR__ATIME == mounts.MOUNT_ATTR__ATIME


def spec(**linux: Any) -> dict[str, Any]:
    return {
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
            {"destination": "/dev", "type": "tmpfs", "options": ["mode=755"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["ro"]},
            {"destination": "/data", "type": "bind", "source": "/srv", "options": ["rbind", "ro"]},
        ],
        "linux": linux,
    }


def test_order_devices_after_dev_covers_last() -> None:
    steps = plan(
        spec(maskedPaths=["/proc/keys"], readonlyPaths=["/proc/sys"], sysctl={"net.ipv4.ip_forward": "1"}),
        [("cpu", "cpu")],
        OWN,
    )
    assert [type(step.operation) for step in steps] == [
        MountFilesystem,
        MountFilesystem,
        MakeDevices,
        MountCgroups,
        BindMount,
        WriteSysctl,
        ProtectPath,
        MaskPath,
    ]
    assert all(step.describe() for step in steps)
    assert [step.field for step in steps] == [
        "mounts[0]",
        "mounts[1]",
        "linux.devices",
        "mounts[2]",
        "mounts[3]",
        "linux.sysctl.net.ipv4.ip_forward",
        "linux.readonlyPaths[0]",
        "linux.maskedPaths[0]",
    ]


def test_a_mount_label_is_an_option_of_file_systems_of_the_containers_own() -> None:
    steps = plan(spec(mountLabel="system_u:object_r:container_file_t:s0:c1,c2"), [("cpu", "cpu")], OWN)
    labelled = {
        step.operation.destination: ("context", "system_u:object_r:container_file_t:s0:c1,c2")
        in step.operation.options.filesystem
        for step in steps
        if isinstance(step.operation, (MountFilesystem, BindMount))
    }
    assert labelled == {"/proc": False, "/dev": True, "/data": False}


def test_devices_are_made_even_without_a_dev_of_its_own() -> None:
    assert [type(step.operation) for step in plan({"linux": {}}, [], OWN)] == [MakeDevices]


@pytest.mark.parametrize("key", ["net.core.somaxconn", "kernel.shmmax", "fs.mqueue.msg_max", "net/ipv4/ip_forward"])
def test_sysctls_of_own_namespaces_pass(key: str) -> None:
    check_sysctl(key, OWN)


@pytest.mark.parametrize(
    "key",
    [
        "kernel.core_pattern",
        "vm.overcommit_memory",
        "kernel.shmmaxx",
        "net",
        "net/../kernel/core_pattern",
        "../kernel/core_pattern",
        "kernel.sem.x",
        "",
    ],
)
def test_sysctls_of_the_host_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match=r"not in a separate kernel namespace|not allowed"):
        check_sysctl(key, OWN)


def test_a_sysctl_of_a_namespace_shared_with_the_host_is_refused() -> None:
    with pytest.raises(ValueError, match="not allowed in host network namespace"):
        check_sysctl("net.core.somaxconn", OWN - {"network"})
