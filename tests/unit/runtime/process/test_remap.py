"""Containers in a user namespace of their own, through zygote and monitor, without the daemon."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from pier.runtime.client import StartFailed
from pier.runtime.process import remap
from pier.runtime.request import LogFile, StartRequest, Supervision

from ..conftest import Lab, unframe
from ..test_runtime import exec_request, run_exec

FIRST_UID, FIRST_GID, SIZE = 300_000, 400_000, 65_536


def remapped(lab: Lab, args: list[str], **changes: Any) -> StartRequest:
    """A request whose container's ids are the host's from FIRST_UID and FIRST_GID on."""
    request = lab.request(args, **changes)
    linux = request.spec["linux"]
    linux["namespaces"].append({"type": "user"})
    linux["uidMappings"] = [{"containerID": 0, "hostID": FIRST_UID, "size": SIZE}]
    linux["gidMappings"] = [{"containerID": 0, "hostID": FIRST_GID, "size": SIZE}]
    os.chown(request.root.upper, FIRST_UID, FIRST_GID)
    return request


async def run(lab: Lab, request: StartRequest) -> tuple[int, str]:
    container = await lab.start(request)
    record = await container.running.wait()
    return record.exit_code, unframe(await container.read())


def test_wanted_by_the_configuration_alone(start_request) -> None:
    assert not remap.wanted(start_request().spec)
    assert remap.wanted({"linux": {"uidMappings": []}})


@pytest.mark.parametrize(("inside", "outside"), [(0, 100), (9, 109), (10, 500), (29, 519)])
def test_host_id(inside: int, outside: int) -> None:
    maps = [{"containerID": 0, "hostID": 100, "size": 10}, {"containerID": 10, "hostID": 500, "size": 20}]
    assert remap.host_id(maps, inside) == outside


def test_host_id_of_one_that_is_not_mapped() -> None:
    with pytest.raises(ValueError, match="id 10 of the container is not mapped"):
        remap.host_id([{"containerID": 0, "hostID": 100, "size": 10}], 10)


def test_the_pid_namespace_is_left_to_who_enters_the_user_namespace(start_request) -> None:
    def supervision(*kinds: str) -> Supervision:
        linux = {"cgroupsPath": "/x", "namespaces": [{"type": kind} for kind in kinds]}
        return Supervision.of(start_request(spec={"process": {}, "linux": linux}))

    assert supervision("pid", "mount").pid_namespace == ""
    assert supervision("pid", "mount", "user").pid_namespace is None


@pytest.mark.root
async def test_root_inside_is_nobody_outside(lab: Lab) -> None:
    script = "cat /proc/self/uid_map /proc/self/gid_map; id; ls -ldn / /etc/passwd /proc/1; echo $$ > /made; cat /made"
    request = remapped(lab, ["sh", "-c", script])
    code, output = await run(lab, request)
    lines = [" ".join(line.split()) for line in output.splitlines()]
    assert code == 0, output
    assert lines[:2] == [f"0 {FIRST_UID} {SIZE}", f"0 {FIRST_GID} {SIZE}"]
    assert lines[2].startswith("uid=0(root) gid=0(root)")
    assert all(line.split()[2:4] == ["0", "0"] for line in lines[3:6])
    assert lines[6] == "1"
    info = os.stat(f"{request.root.upper}/made")
    assert (info.st_uid, info.st_gid) == (FIRST_UID, FIRST_GID)


@pytest.mark.root
async def test_layers_keep_their_owners_and_a_changed_file_its_own(lab: Lab, tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    for name, owner in (("ana", 1000), ("root", 0), ("far", SIZE + 5)):
        (layer / name).write_text(name)
        os.chown(layer / name, owner, owner)
    shutil.copy("/bin/busybox", layer / "su")
    (layer / "su").chmod(0o4755)
    request = remapped(lab, ["sh", "-c", "ls -n /ana /root /far; echo more >> /ana; chmod 600 /ana; ls -ln /su"])
    root = request.root.__class__([str(layer), *request.root.lower], request.root.upper, request.root.work)
    code, output = await run(lab, request.having(root=root))
    owners = {line.split()[-1]: line.split()[2] for line in output.splitlines() if line.startswith("-")}
    assert code == 0, output
    assert (owners["/ana"], owners["/far"]) == ("1000", "65534")
    assert "-rwsr-xr-x" in output
    assert os.stat(f"{request.root.upper}/ana").st_uid == FIRST_UID + 1000
    assert os.stat(layer / "ana").st_uid == 1000  # the image itself is never chowned


@pytest.mark.root
async def test_every_namespace_belongs_to_the_user_namespace(lab: Lab) -> None:
    request = remapped(lab, ["sh", "-c", "hostname; cat /proc/self/cgroup; ls /sys/class/net; mount -t tmpfs x /tmp"])
    held = ["CAP_SYS_ADMIN"]
    request.spec["process"]["capabilities"] = {"bounding": held, "effective": held, "permitted": held}
    code, output = await run(lab, request)
    assert code == 0, output
    assert output.startswith("lab\n")
    assert "\nlo\n" in output
    assert all(line.endswith(":/") for line in output.splitlines() if line[0].isdigit())


@pytest.mark.root
async def test_exec_joins_it(lab: Lab) -> None:
    request = remapped(lab, ["sh", "-c", "trap 'exit 0' TERM; echo up; while :; do sleep 0.1; done"])
    container = await lab.start(request)
    await container.read_until(b"up")
    ids = [FIRST_UID, FIRST_GID]
    script = "readlink /proc/1/ns/user; readlink /proc/self/ns/user; id -u; cat /proc/self/uid_map; echo x >/dev/stdout"
    for user, uid in (("0", "0"), ("ana", "1000")):
        wanted = exec_request(["sh", "-c", script])
        wanted = wanted.__class__(wanted.exec_id, wanted.process, user=user, remapped_root=ids)
        record, output = await run_exec(lab, container, wanted)
        lines = output.split()
        assert record.exit_code == 0, output
        if uid == "0":
            assert lines[0] == lines[1] != os.readlink("/proc/self/ns/user")
        assert {uid, str(FIRST_UID)} <= set(lines)
        assert lines[-1] == "x"


@pytest.mark.root
async def test_terminal_of_another_user(lab: Lab) -> None:
    request = remapped(lab, ["sh", "-c", "tty; id -u; ls -ln /dev/pts/0; echo x >/dev/tty"], terminal=True)
    container = await lab.start(request.having(user="ana"))
    await container.running.wait()
    output = (await container.read()).decode()
    assert "/dev/pts/0" in output or "/dev/console" in output
    assert "\r\n1000\r\n" in output
    assert output.endswith("x\r\n")


@pytest.mark.root
async def test_stdout_can_be_opened_by_name(lab: Lab) -> None:
    request = remapped(lab, ["sh", "-c", "echo named >/dev/stdout"])
    assert await run(lab, request.having(user="ana")) == (0, "named\n")


@pytest.mark.root
async def test_bind_mounts_show_the_hosts_owners(lab: Lab, tmp_path: Path) -> None:
    shared = tmp_path / "deep" / "shared"
    shared.mkdir(parents=True)
    shared.parent.chmod(0o700)  # the mapped root has no way to it by its path
    (shared / "theirs").write_text("x")
    (shared / "ours").write_text("x")
    os.chown(shared / "ours", FIRST_UID + 7, FIRST_GID + 8)
    request = remapped(lab, ["sh", "-c", "ls -n /data; echo no > /data/theirs"])
    request.spec["mounts"].append(
        {"destination": "/data", "type": "bind", "source": str(shared), "options": ["rbind", "rprivate"]}
    )
    code, output = await run(lab, request)
    owners = {line.split()[-1]: line.split()[2:4] for line in output.splitlines() if line.startswith("-")}
    assert owners == {"theirs": ["65534", "65534"], "ours": ["7", "8"]}
    assert code != 0
    assert (shared / "theirs").read_text() == "x"


@pytest.mark.root
async def test_attack_23_mapped_root_cannot_walk_to_its_own_layers(lab: Lab) -> None:
    """The folders above the root file system stay closed to the ids of the container."""
    request = remapped(lab, ["true"])
    os.chmod(os.path.dirname(request.root.upper), 0o700)
    assert (await run(lab, request))[0] == 0


@pytest.mark.root
async def test_a_limit_of_one_process(lab: Lab) -> None:
    request = remapped(lab, ["cat", "/proc/self/uid_map"])
    request.spec["linux"]["resources"] = {"pids": {"limit": 1}}
    assert (await run(lab, request))[0] == 0


@pytest.mark.root
async def test_limits_above_the_monitors_own(lab: Lab) -> None:
    request = remapped(lab, ["sh", "-c", "ulimit -n"])
    request.spec["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 4096, "hard": 8192}]
    assert await run(lab, request.having(requested=["process.rlimits.RLIMIT_NOFILE"])) == (0, "4096\n")


@pytest.mark.root
async def test_a_file_system_without_idmapped_mounts_is_named(lab: Lab, tmp_path: Path) -> None:
    """An overlay as a layer: overlayfs itself cannot be idmapped."""
    from pier.kernel import mounts  # noqa: PLC0415

    for name in ("l", "u", "w", "merged"):
        (tmp_path / name).mkdir()
    request = remapped(lab, ["true"], log=LogFile(str(tmp_path / "log")))
    options = f"lowerdir={tmp_path}/l,upperdir={tmp_path}/u,workdir={tmp_path}/w"
    mounts.mount("overlay", str(tmp_path / "merged"), "overlay", 0, options)
    try:
        root = request.root.__class__([str(tmp_path / "merged")], request.root.upper, request.root.work)
        with pytest.raises(StartFailed, match=r"merged: its files cannot be shown with other ids .*--userns=host"):
            await lab.start(request.having(root=root))
    finally:
        mounts.umount(str(tmp_path / "merged"))


@pytest.mark.root
async def test_a_missing_program_is_127_and_nothing_is_left(lab: Lab) -> None:
    request = remapped(lab, ["/nowhere"])
    with pytest.raises(StartFailed) as caught:
        await lab.start(request)
    assert caught.value.exit_code == 127
