"""The device policy of cgroup v2: a BPF program on the container's cgroup."""

from __future__ import annotations

import os
import stat

import pytest

from pier.kernel import bpf_devices
from pier.kernel.bpf_devices import BPF_DEVCG_ACC_READ, DeviceRule
from pier.kernel.cgroups import Cgroup
from pier.kernel.namespaces import fork_into_cgroup

from .conftest import Lab, folder_of, text_of

pytestmark = pytest.mark.root
NOTHING = {"allow": False, "access": "rwm"}


async def test_a_container_opens_what_it_may_and_nothing_else(lab: Lab) -> None:
    script = """
    echo x >/dev/null && echo null
    head -c 1 /dev/urandom >/dev/null && echo urandom
    busybox mknod /kmsg c 1 11 && echo made
    head -c 1 /kmsg
    busybox mknod /disk b 254 0 && head -c 1 /disk
    echo end
    """
    request = lab.request(["sh", "-c", script])
    request.spec["linux"]["resources"] = {"devices": [NOTHING]}
    container = await lab.start(request)
    await container.running.wait()
    text = await text_of(container)
    for word in ("null", "urandom", "made", "end"):
        assert word in text.split(), text
    assert "/kmsg: Operation not permitted" in text
    assert "/disk: Operation not permitted" in text


async def test_a_listed_device_is_open_for_what_is_listed(lab: Lab) -> None:
    script = "busybox mknod /disk b 254 0; head -c 1 /disk >/dev/null && echo read; echo x >/disk; echo end"
    request = lab.request(["sh", "-c", script])
    request.spec["linux"]["resources"] = {
        "devices": [NOTHING, {"allow": True, "type": "b", "major": 254, "minor": 0, "access": "r"}]
    }
    container = await lab.start(request)
    await container.running.wait()
    text = await text_of(container)
    assert "read" in text.split(), text
    assert "can't create /disk: Operation not permitted" in text


async def test_everything_is_allowed_when_privileged(lab: Lab) -> None:
    request = lab.request(
        ["sh", "-c", "busybox mknod /disk b 254 0; head -c 1 /disk >/dev/null && echo read; sleep 100"]
    )
    request.spec["linux"]["resources"] = {"devices": [{"allow": True, "access": "rwm"}]}
    container = await lab.start(request)
    await container.read_until(b"read")
    assert attached(str(folder_of(container))) == 0, "no program need run for that"


def test_mknod_of_an_unlisted_device_is_refused(group: Cgroup) -> None:
    policy(group, [DeviceRule(False), DeviceRule(True, "c", 1, 3)])
    for _ in range(2):
        assert verdicts(group, 1, 3) == {"mknod": True, "read": True, "write": True}
        assert verdicts(group, 1, 5) == {"mknod": False, "read": False, "write": False}
        policy(group, [DeviceRule(False), DeviceRule(True, "c", 1, 3)])  # the same again, in place of the first
    assert attached(path_of(group)) == 1


def test_the_last_rule_decides_for_each_access(group: Cgroup) -> None:
    policy(group, [DeviceRule(True), DeviceRule(False, "c", 1, None), DeviceRule(True, "c", 1, 5, BPF_DEVCG_ACC_READ)])
    assert verdicts(group, 1, 3) == {"mknod": False, "read": False, "write": False}
    assert verdicts(group, 1, 5) == {"mknod": False, "read": True, "write": False}
    assert verdicts(group, 5, 2) == {"mknod": True, "read": True, "write": True}


def test_a_new_policy_replaces_the_old(group: Cgroup) -> None:
    policy(group, [DeviceRule(False)])
    assert verdicts(group, 1, 3)["read"] is False
    policy(group, [DeviceRule(True)])
    assert attached(path_of(group)) == 0
    assert verdicts(group, 1, 3)["read"] is True


def path_of(group: Cgroup) -> str:
    return f"{group.layout.unified}{group.path}"


def policy(group: Cgroup, rules: list[DeviceRule]) -> None:
    fd = os.open(path_of(group), os.O_RDONLY | os.O_DIRECTORY)
    try:
        bpf_devices.attach(fd, rules)
    finally:
        os.close(fd)


def attached(folder: str) -> int:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return len(bpf_devices._attached(fd))
    finally:
        os.close(fd)


def verdicts(group: Cgroup, major: int, minor: int) -> dict[str, bool]:
    """What a process in `group` may do with a device: it tries mknod, and open(2) of a node made outside."""
    made, outside = f"/tmp/made-{major}-{minor}", f"/dev/vm-{major}-{minor}"
    os.mknod(outside, stat.S_IFCHR | 0o666, os.makedev(major, minor))
    fd = group.open_unified()
    pid = fork_into_cgroup(fd)
    if pid == 0:
        deeds = (
            lambda: os.mknod(made, stat.S_IFCHR | 0o666, os.makedev(major, minor)),
            lambda: os.open(outside, os.O_RDONLY | os.O_NOCTTY),
            lambda: os.open(outside, os.O_WRONLY | os.O_NOCTTY),
        )
        os._exit(sum(1 << number for number, deed in enumerate(deeds) if not refused(deed)))
    os.close(fd)
    _, status = os.waitpid(pid, 0)
    os.unlink(outside)
    if os.path.exists(made):
        os.unlink(made)
    bits = os.waitstatus_to_exitcode(status)
    return {name: bool(bits & 1 << number) for number, name in enumerate(("mknod", "read", "write"))}


def refused(deed) -> bool:
    try:
        deed()
    except PermissionError:
        return True
    return False
