"""RUN: processes in real containers."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
from pathlib import Path

import pytest

from pier.builder import progress
from pier.builder.graph import (
    CacheMount,
    CacheSharing,
    Copy,
    Device,
    Exec,
    HostIP,
    Limits,
    Meta,
    Mount,
    MountType,
    NetMode,
    Note,
    SecretEnv,
    SecretMount,
    SecurityMode,
    Vertex,
)
from pier.builder.progress import Started
from pier.builder.solver import StepFailed
from pier.kernel.mounts import kernel_version

from .conftest import Lab, base, file, local, sh

pytestmark = pytest.mark.root


async def test_what_a_process_changes_is_one_layer(lab: Lab) -> None:
    [result] = await lab.solve(sh("echo hello > /made; rm /etc/group"))
    tree = lab.read(result)
    assert tree["made"] == b"hello\n"
    assert tree["etc"] == ["passwd"]
    assert len(result.layers) == 2
    assert lab.problems() == []


async def test_a_process_that_changes_nothing_leaves_no_layer_and_no_mount_point(lab: Lab) -> None:
    [result] = await lab.solve(sh("true"))
    assert len(result.layers) == 1


@pytest.mark.skipif(kernel_version() < (5, 10), reason="overlays are volatile from Linux 5.10 on")
async def test_a_steps_root_waits_for_no_disk(lab: Lab) -> None:
    await lab.solve(sh("cat /proc/self/mountinfo"))
    [root] = [line for line in (await lab.printed()).splitlines() if line.split()[4] == "/"]
    assert {"volatile", "fsync=volatile"} & {*root.split()[-1].split(",")}  # the older and the newer spelling


async def test_output_is_told_as_it_comes(lab: Lab) -> None:
    await lab.solve(sh("echo out; echo err >&2; hostname; pwd", meta={"cwd": "/tmp"}))
    assert sorted((await lab.printed()).splitlines()) == ["/tmp", "buildkitsandbox", "err", "out"]


async def test_a_failure_says_command_and_exit_code(lab: Lab) -> None:
    words = r'process "/bin/sh -c exit \"7\"" did not complete successfully: exit code: 7'
    with pytest.raises(StepFailed, match=re.escape(words)):
        await lab.solve(sh('exit "7"'))
    assert lab.problems() == []
    assert not lab.service.cache.records


async def test_an_exit_code_that_is_said_to_be_valid(lab: Lab) -> None:
    await lab.solve(sh("exit 7", meta={"valid_exit_codes": (0, 7)}))


async def test_a_program_that_is_not_there(lab: Lab) -> None:
    step = Vertex(Exec(Meta(("/nothing",)), (Mount("/", input=0, output=0),), network=NetMode.NONE), (base(),))
    with pytest.raises(StepFailed, match='exec: "/nothing": stat /nothing: no such file or directory'):
        await lab.solve(step.output())
    assert lab.problems() == []


async def test_a_cancelled_build_leaves_no_process_and_no_half_layer(lab: Lab) -> None:
    task = asyncio.create_task(lab.solve(sh("echo begun; touch /half; sleep 1000")))
    while not lab.journals or "begun" not in str(lab.journals[-1].journal._events):
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert lab.problems() == []
    assert not lab.service.cache.records


async def test_branches_run_in_containers_side_by_side(lab: Lab) -> None:
    """Each waits for the other by a cache mount that both have."""
    mount = Mount("/c", type=MountType.CACHE, cache=CacheMount("meet"))
    left = sh("touch /c/l; until [ -e /c/r ]; do :; done; echo l > /l", None, mount)
    right = sh("touch /c/r; until [ -e /c/l ]; do :; done; echo r > /r", None, mount)
    mounts = [Mount(f"/{name}", input=number, readonly=True) for number, name in ((1, "a"), (2, "b"))]
    tree = await lab.tree(sh("cat /a/l /b/r > /both", None, *mounts, inputs=(left, right)))
    assert tree["both"] == b"l\nr\n"
    assert "a" not in tree
    assert "c" not in tree


@pytest.mark.parametrize("sharing", list(CacheSharing))
async def test_a_cache_mount_keeps_its_files_between_steps(lab: Lab, sharing: CacheSharing) -> None:
    mount = Mount("/c", type=MountType.CACHE, cache=CacheMount("pkg", sharing))
    await lab.solve(sh("echo 1 > /c/kept", None, mount))
    await lab.solve(sh("cat /c/kept", None, mount))
    assert await lab.printed() == "1\n"
    [record] = [each for each in lab.service.cache.records.values() if each.folder]
    assert record.size_bytes == 2


async def test_a_private_cache_mount_is_nobody_elses_at_the_time(lab: Lab) -> None:
    private = Mount("/c", type=MountType.CACHE, cache=CacheMount("pkg", CacheSharing.PRIVATE))
    meet = Mount("/m", type=MountType.CACHE, cache=CacheMount("meet"))
    steps = [
        sh(f"touch /c/{me} /m/{me}; until [ -e /m/{other} ]; do :; done; ls /c", None, private, meet)
        for me, other in ("ab", "ba")
    ]
    await lab.solve(*steps)
    assert sorted((await lab.printed()).split()) == ["a", "b"]


async def test_a_cache_mount_begins_with_files_of_another_step(lab: Lab) -> None:
    mount = Mount("/c", input=1, selector="/etc", type=MountType.CACHE, cache=CacheMount("begin"))
    await lab.solve(sh("ls /c", None, mount, inputs=(base(),)))
    assert (await lab.printed()).split() == ["group", "passwd"]


async def test_a_secret_is_a_file_of_memory_and_in_no_layer(lab: Lab) -> None:
    mount = Mount("/run/secrets/key", type=MountType.SECRET, secret=SecretMount("key", uid=5, mode=0o440))
    step = sh("cat /run/secrets/key; stat -c '%u %a' /run/secrets/key; mount | grep -c secrets", None, mount)
    [result] = await lab.solve(step, secrets={"key": b"s3cret\n"})
    assert (await lab.printed()).splitlines()[:2] == ["s3cret", "5 440"]
    assert len(result.layers) == 1
    assert not await _mentions(lab, b"s3cret")


async def _mentions(lab: Lab, text: bytes) -> bool:
    for folder, _, names in os.walk(lab.folder):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path):
                with open(path, "rb") as file:
                    if text in file.read():
                        return True
    return False


async def test_a_secret_that_is_missing(lab: Lab) -> None:
    mount = Mount("/s", type=MountType.SECRET, secret=SecretMount("key"))
    with pytest.raises(StepFailed, match="secret key: not found"):
        await lab.solve(sh("true", None, mount))
    optional = Mount("/s", type=MountType.SECRET, secret=SecretMount("key", optional=True))
    await lab.solve(sh("[ ! -e /s ]", None, optional))


async def test_a_secret_as_a_variable(lab: Lab) -> None:
    step = sh("echo $TOKEN", secret_env=(SecretEnv("t", "TOKEN"), SecretEnv("no", "NO", optional=True)))
    await lab.solve(step, secrets={"t": b"abc"})
    assert await lab.printed() == "abc\n"


async def test_a_bind_mount_reads_the_context_and_what_is_written_is_thrown_away(lab: Lab) -> None:
    files = lab.context({"dir/a": b"A"})
    read = Mount("/in", input=1, selector="/dir", readonly=True)
    write = Mount("/rw", input=1, selector="dir")
    step = sh("cat /in/a; touch /in/b; echo changed > /rw/a; cat /rw/a", None, read, write, inputs=(local(),))
    [result] = await lab.solve(step, locals={"context": files})
    printed = await lab.printed()
    assert printed.startswith("A")
    assert "Read-only" in printed
    assert "changed\n" in printed
    assert len(result.layers) == 1
    assert lab.read(files)["dir/a"] == b"A"
    assert lab.problems() == []


async def test_a_second_mount_may_become_an_output_of_its_own(lab: Lab) -> None:
    op = Exec(
        Meta(("/bin/sh", "-c", "echo x > /out/x; echo y > /y"), env=("PATH=/bin",)),
        (Mount("/", input=0, output=1), Mount("/out", input=0, output=0)),
        network=NetMode.NONE,
    )
    vertex = Vertex(op, (base(),))
    out, root = await lab.solve(vertex.output(0), vertex.output(1))
    assert lab.read(out)["x"] == b"x\n"
    assert lab.read(root)["y"] == b"y\n"
    assert "x" not in lab.read(root)


async def test_mount_points_are_taken_away_unless_something_is_in_them(lab: Lab) -> None:
    mounts = [Mount(path, type=MountType.TMPFS) for path in ("/new/deep", "/var/run/x")]
    tree = await lab.tree(sh("echo > /new/kept", None, *mounts))
    assert tree["new"] == ["kept"]
    assert "run" not in tree


async def test_attack_19_mount_point_swapped_for_a_link(lab: Lab) -> None:
    """CVE-2024-23652: the step replaces the parent of a mount point by a link to a directory of the host."""
    victim = lab.folder / "victim"
    (victim / "deep").mkdir(parents=True)
    mount = Mount("/new/deep/at", type=MountType.TMPFS)
    command = f"(sleep 0; true); mount | true; rm -rf /new 2>/dev/null; ln -s {victim} /link; ln -s {victim} /new; true"
    await lab.solve(sh(command, None, mount))
    assert (victim / "deep").is_dir()


async def test_attack_19_a_step_asks_for_what_the_build_was_not_given(lab: Lab) -> None:
    with pytest.raises(StepFailed, match=r"security\.insecure is not allowed"):
        await lab.solve(sh("true", security=SecurityMode.INSECURE))
    with pytest.raises(StepFailed, match=r"network\.host is not allowed"):
        await lab.solve(sh("true", network=NetMode.HOST))
    await lab.solve(sh("true", network=NetMode.HOST), entitlements={"network.host"})
    assert lab.networks.modes == ["host"]


@pytest.mark.parametrize("number", [3, 7, 12])
async def test_attack_02_working_directory_through_a_leaked_descriptor(lab: Lab, number: int) -> None:
    with pytest.raises(StepFailed):
        await lab.solve(sh("ls /proc/self/cwd/../../..", meta={"cwd": f"/proc/self/fd/{number}"}))
    await lab.solve(sh("ls -l /proc/self/fd 2>/dev/null | grep -c '^l'"))
    assert int(await lab.printed()) <= 4  # 0, 1, 2 and the directory that ls reads


async def test_extra_hosts_limits_and_the_user(lab: Lab) -> None:
    meta = {"extra_hosts": (HostIP("db", "10.1.2.3"),), "user": "ana"}
    note = Note("x", limits=Limits(memory=64 << 20))
    limit = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null"
    await lab.solve(sh(f"grep db /etc/hosts; id -u; {limit}; true", meta=meta, note=note))
    assert (await lab.printed()).split() == ["10.1.2.3", "db", "1000", str(64 << 20)]


async def test_a_process_over_an_empty_root(lab: Lab) -> None:
    files = lab.context({"busybox": Path("/bin/busybox").read_bytes()})
    copied = file(Copy("/busybox", "/sh", mode=0o755), source=local())
    op = Exec(Meta(("/sh", "-c", "echo x > /made")), (Mount("/", input=0, output=0),), network=NetMode.NONE)
    [result] = await lab.solve(Vertex(op, (copied,)).output(), locals={"context": files})
    assert lab.read(result) == {"sh": lab.read(result)["sh"], "made": b"x\n"}
    assert len(result.layers) == 2


async def test_steps_are_told_with_their_names(lab: Lab) -> None:
    await lab.solve(sh("true"))
    started = [event.step.name for event in await lab.events() if isinstance(event, Started)]
    assert started == ["docker-image://base", "RUN true"]


async def test_devices_of_the_machine(lab: Lab) -> None:
    folder = lab.folder / "cdi"
    folder.mkdir()
    device = {"name": "one", "containerEdits": {"env": ["GIVEN=yes"], "deviceNodes": [{"path": "/dev/null"}]}}
    (folder / "v.json").write_text(json.dumps({"cdiVersion": "0.6.0", "kind": "v.com/c", "devices": [device]}))
    lab.ground.config = dataclasses.replace(lab.ground.config, cdi_spec_dirs=[str(folder)])
    await lab.solve(sh("echo $GIVEN", devices=(Device("v.com/c=one"), Device("v.com/c=other", optional=True))))
    assert await lab.printed() == "yes\n"
    with pytest.raises(StepFailed, match=r"v\.com/c=other"):
        await lab.solve(sh("true", devices=(Device("v.com/c=other"),)))
    assert lab.problems() == []


async def test_attack_12_output_without_end_is_cut(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "OUTPUT_MAX_BYTES", 1000)
    await lab.solve(sh("while :; do echo 0123456789; n=x$n; [ ${#n} = 500 ] && break; done; true"))
    printed = await lab.printed()
    assert len(printed) < 3000
    assert "output clipped" in printed
