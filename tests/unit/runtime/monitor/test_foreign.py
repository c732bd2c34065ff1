"""Containers made by other OCI runtimes: Pier's own command line in that part, runc where it is, and bad scripts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import shlex
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from pier.kernel.cgroup_layout import detect
from pier.kernel.cgroups import Cgroup
from pier.kernel.paths import closing
from pier.runtime.client import ExecFailed, Monitor, MonitorError, StartFailed, clear_lost
from pier.runtime.monitor import foreign, oci_call
from pier.runtime.monitor.oci_call import OciRuntime, RuntimeFailed, exit_code_of, last_error
from pier.runtime.process.program import Program
from pier.runtime.process.users import Identity
from pier.runtime.request import AttachEnd, ExecRequest, StartRequest

from ..bundles import BOOT
from ..conftest import Container, Lab, unframe

PIER_RUNTIME = [sys.executable, "-I", "-S", "-c", BOOT]


@pytest.fixture(params=["pier-runtime", "runc"])
def oci_runtime(request: pytest.FixtureRequest) -> list[str]:
    """The command of an OCI runtime."""
    if request.param == "pier-runtime":
        return PIER_RUNTIME
    path = shutil.which("runc")
    if path is None:
        pytest.skip("runc is not installed")
    return [path]


def assert_nothing_left(request: StartRequest) -> None:
    assert os.listdir(request.exec_dir) == []
    cgroup = Cgroup(detect(), request.spec["linux"]["cgroupsPath"])
    assert not [path for path in cgroup._directories if os.path.exists(path)]
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        assert request.exec_dir not in file.read()


async def end(container: Container) -> int:
    await container.running.signal(signal.SIGKILL)
    async with asyncio.timeout(20):
        return (await container.running.wait()).exit_code


@pytest.mark.root
async def test_another_runtime_runs_a_program_and_leaves_nothing(lab: Lab, oci_runtime: list[str]) -> None:
    request = lab.request(["sh", "-c", "echo hi; id -u; hostname; exit 3"], oci_runtime=oci_runtime)
    container = await lab.start(request)
    record = await container.running.wait()
    assert record.exit_code == 3
    assert unframe(await container.read()) == "hi\n0\nlab\n"
    assert Path(request.log.path if request.log else "").read_bytes().count(b"\n") == 3
    assert_nothing_left(request)


@pytest.mark.root
async def test_program_ended_by_a_signal(lab: Lab, oci_runtime: list[str]) -> None:
    record, _ = await lab.run(["sh", "-c", "kill -TERM $$; sleep 0.1"], oci_runtime=oci_runtime)
    assert record.exit_code in (143, 0)  # pid 1 of a pid namespace ignores what it does not handle
    container = await lab.start(lab.request(["sleep", "100"], oci_runtime=oci_runtime))
    assert await end(container) == 137


@pytest.mark.root
async def test_user_is_looked_up_in_the_containers_files(lab: Lab, oci_runtime: list[str]) -> None:
    record, output = await lab.run(["sh", "-c", "id; echo $HOME"], oci_runtime=oci_runtime, user="ana")
    assert record.exit_code == 0
    assert "uid=1000" in output
    assert "10(wheel)" in output
    assert output.endswith("/home\n")
    with pytest.raises(StartFailed, match="unable to find user bob"):
        await lab.run(["id"], oci_runtime=oci_runtime, user="bob")


@pytest.mark.root
@pytest.mark.parametrize(("args", "code"), [(["nosuch"], 127), (["/etc"], 126)])
async def test_program_that_cannot_be_executed(lab: Lab, oci_runtime: list[str], args: list[str], code: int) -> None:
    request = lab.request(args, oci_runtime=oci_runtime)
    with pytest.raises(StartFailed) as raised:
        await lab.start(request)
    begin = "failed to create task for container: failed to create shim task: OCI runtime create failed: "
    assert raised.value.message.startswith(begin)
    assert (raised.value.exit_code, raised.value.status) == (code, 400)
    assert_nothing_left(request)


@pytest.mark.root
async def test_terminal_and_resize(lab: Lab, oci_runtime: list[str]) -> None:
    request = lab.request(["sh", "-c", "tty; stty size; read x; stty size"], terminal=True, oci_runtime=oci_runtime)
    request.spec["process"]["consoleSize"] = {"height": 30, "width": 90}
    request = request.having(open_stdin=True)
    container = await lab.start(request, stdin=True)
    await container.read_until(b"30 90")
    assert b"/dev/pts/0" in container.output or b"/dev/console" in container.output
    await container.running.resize(height=11, width=22)
    assert container.client is not None
    await asyncio.get_running_loop().sock_sendall(container.client, b"\n")
    await container.read_until(b"11 22")
    assert (await container.running.wait()).exit_code == 0


@pytest.mark.root
async def test_standard_input(lab: Lab, oci_runtime: list[str]) -> None:
    container = await lab.start(
        lab.request(["cat"], oci_runtime=oci_runtime, open_stdin=True, stdin_once=True), stdin=True
    )
    assert container.client is not None
    await asyncio.get_running_loop().sock_sendall(container.client, b"over\n")
    container.client.shutdown(1)
    assert (await container.running.wait()).exit_code == 0
    assert unframe(await container.read()) == "over\n"


@pytest.mark.root
async def test_exec(lab: Lab, oci_runtime: list[str]) -> None:
    container = await lab.start(lab.request(["sleep", "100"], oci_runtime=oci_runtime))
    code, output = await run_exec(
        container.running,
        ["sh", "-c", "id -u; echo $HOME; pwd; ps | grep -c [s]leep.100; exit 7"],
        user="ana",
        cwd="/tmp",
    )
    assert (code, unframe(output)) == (7, "1000\n/home\n/tmp\n1\n")
    code, output = await run_exec(container.running, ["sh", "-c", "tty; stty size"], terminal=True)
    assert code == 0
    assert b"40 100" in output
    with pytest.raises(ExecFailed) as raised:
        await run_exec(container.running, ["nosuch"])
    assert raised.value.exit_code == 127
    assert raised.value.message.startswith("OCI runtime exec failed: ")
    assert await end(container) == 137
    assert_nothing_left(container.request)


async def run_exec(
    monitor: Monitor, args: list[str], *, user: str = "", cwd: str = "/", terminal: bool = False
) -> tuple[int, bytes]:
    process: dict[str, Any] = {"args": args, "env": ["PATH=/bin"], "cwd": cwd, "terminal": terminal}
    if terminal:
        process["consoleSize"] = {"height": 40, "width": 100}
    mine, theirs = socket.socketpair()
    with mine:
        mine.setblocking(False)
        request = ExecRequest(os.urandom(32).hex(), process, user=user)
        with theirs:
            pid = await monitor.exec(request, AttachEnd(theirs.fileno(), False, True, True))
        assert pid > 0
        output = b""
        async with asyncio.timeout(20):
            while data := await asyncio.get_running_loop().sock_recv(mine, 65536):
                output += data
            return (await monitor.wait_exec(request.exec_id)).exit_code, output


def frozen(request: StartRequest) -> bool:
    cgroup = Cgroup(detect(), request.spec["linux"]["cgroupsPath"])
    v1 = cgroup.directory("freezer")
    if v1 is not None:
        return Path(f"{v1}/freezer.state").read_text() == "FROZEN\n"
    return "frozen 1" in Path(f"{cgroup.layout.unified}{cgroup.path}/cgroup.events").read_text()


@pytest.mark.root
async def test_another_runtime_pauses(lab: Lab, oci_runtime: list[str]) -> None:
    container = await lab.start(lab.request(["sleep", "100"], oci_runtime=oci_runtime))
    monitor = container.running
    assert monitor.foreign
    await monitor.pause()
    assert frozen(container.request)
    await monitor.resume()
    assert not frozen(container.request)
    assert await end(container) == 137


@pytest.mark.root
async def test_update(lab: Lab, oci_runtime: list[str]) -> None:
    container = await lab.start(lab.request(["sleep", "100"], oci_runtime=oci_runtime))
    await container.running.update({"pids": {"limit": 17}})
    cgroup = Cgroup(detect(), container.request.spec["linux"]["cgroupsPath"])
    assert cgroup.stats().pids_limit == 17
    with pytest.raises(MonitorError, match="OCI runtime update failed: "):
        await container.running.update({"pids": {"limit": "many"}})
    assert await end(container) == 137


@pytest.mark.root
async def test_killed_monitor_leaves_nothing(lab: Lab, oci_runtime: list[str]) -> None:
    container = await lab.start(lab.request(["sleep", "100"], oci_runtime=oci_runtime))
    parent = int(Path(f"/proc/{container.running.pid}/stat").read_text().rpartition(")")[2].split()[1])
    assert Path(f"/proc/{parent}/comm").read_text() == "pier-monitor\n"
    os.kill(parent, signal.SIGKILL)
    async with asyncio.timeout(20):
        assert (await container.running.wait()).exit_code == 137
    assert not os.path.exists(f"/proc/{container.running.pid}/root/bin")
    assert os.listdir(container.request.exec_dir) == ["monitor.sock"]
    again = await lab.start(container.request)
    assert await end(again) == 137


@pytest.mark.root
async def test_start_clears_what_a_killed_monitor_has_left(lab: Lab, oci_runtime: list[str]) -> None:
    request = lab.request(["sleep", "100"], oci_runtime=oci_runtime)
    container = await lab.start(request)
    parent = int(Path(f"/proc/{container.running.pid}/stat").read_text().rpartition(")")[2].split()[1])
    container.running.close()  # no daemon is there to notice
    os.kill(parent, signal.SIGKILL)
    again = await lab.start(request)
    lab.containers.remove(container)
    assert await end(again) == 137
    assert_nothing_left(request)


@pytest.mark.root
async def test_killed_when_the_runtime_is_gone(lab: Lab, tmp_path: Path) -> None:
    link = tmp_path / "some-runtime"
    link.write_text(f'#!/bin/sh\nexec {shlex.join(PIER_RUNTIME)} "$@"\n')
    link.chmod(0o755)
    container = await lab.start(lab.request(["sleep", "100"], oci_runtime=[str(link)]))
    link.unlink()
    assert await end(container) == 137
    left = f"{container.request.exec_dir}/oci"
    assert os.path.isdir(left)  # the runtime alone knows what else there may be
    link.write_text("#!/bin/sh\nexit 0\n")
    link.chmod(0o755)
    await clear_lost(OciRuntime([str(link)], left, container.request.id))
    assert not os.path.exists(left)


@pytest.mark.root
@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("#!/bin/sh\necho oops >&2; exit 3\n", "did not terminate successfully: exit status 3"),
        ("#!/bin/sh\nkill -9 $$\n", "did not terminate successfully: signal 9"),
        ("#!/bin/sh\nexit 0\n", "failed to retrieve OCI runtime container pid: open "),
        ("garbage", "exec format error"),
        (None, "fork/exec {path}: no such file or directory"),
        ('#!/bin/sh\nwhile [ "$1" != --log ]; do shift; done\n'
         'echo \'{"level":"error","msg":"not today"}\' >"$2"; exit 1\n', "OCI runtime create failed: not today"),
        ('#!/bin/sh\nwhile [ $# -gt 0 ]; do [ "$1" = --pid-file ] && echo 1 >"$2"; shift; done\n',
         "is no child of the container's monitor"),
        ('#!/bin/sh\nwhile [ $# -gt 0 ]; do [ "$1" = --pid-file ] && echo x >"$2"; shift; done\n',
         "failed to retrieve OCI runtime container pid: invalid literal"),
    ],
)  # fmt: skip
async def test_bad_runtime(lab: Lab, tmp_path: Path, script: str | None, words: str) -> None:
    path = tmp_path / "bad-runtime"
    if script is not None:
        path.write_text(script)
        path.chmod(0o755)
    request = lab.request(["true"], oci_runtime=[str(path)])
    with pytest.raises(StartFailed) as raised:
        await lab.start(request)
    assert words.format(path=path) in raised.value.message
    assert_nothing_left(request)


def test_hanging_runtime_is_killed_with_its_children(tmp_path: Path) -> None:
    script = tmp_path / "hang"
    script.write_text(f"#!/bin/sh\nsleep 1000 & echo $! >{tmp_path}/child\nwait\n")
    script.chmod(0o755)
    runtime = OciRuntime([str(script)], str(tmp_path), "a" * 64)
    with pytest.raises(RuntimeFailed, match="hang did not answer in 1 s"):
        runtime.call("create", timeout_s=1)
    child = int((tmp_path / "child").read_text())
    with contextlib.suppress(ProcessLookupError), closing(os.pidfd_open(child)) as pidfd:
        ended = select.poll()
        ended.register(pidfd, select.POLLIN)
        assert ended.poll(10_000)


def test_runtime_gets_three_streams_and_an_environment_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "1")
    script = tmp_path / "show"
    script.write_text(f'#!/bin/sh\nenv >{tmp_path}/env; ls /proc/self/fd >{tmp_path}/fds; echo "$@" >{tmp_path}/args\n')
    script.chmod(0o755)
    OciRuntime([str(script), "--fast"], str(tmp_path), "x").call("kill", "x", "15")
    assert "SECRET" not in (tmp_path / "env").read_text()
    assert set((tmp_path / "fds").read_text().split()) <= {"0", "1", "2", "3", "10"}  # ls's own, and the shell's
    log = f"{tmp_path}/kill-{os.getpid()}.log"
    args = f"--fast --root {tmp_path}/state --log {log} --log-format json kill x 15\n"
    assert (tmp_path / "args").read_text() == args


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('exec: "x": executable file not found in $PATH', 127),
        ("stat /x: no such file or directory", 127),
        ('exec: "/etc": is a directory: permission denied', 126),
        ("cgroups in hybrid mode not supported", 128),
    ],
)
def test_exit_code_of_the_runtimes_words(text: str, code: int) -> None:
    assert exit_code_of(text) == code


def test_last_error_of_a_log() -> None:
    log = b'{"level":"error","msg":"one"}\nno json\n[1]\n{"level":"error","msg":"two"}\n{"level":"info","msg":"x"}\n'
    assert last_error(log) == "two"
    assert last_error(b"") == ""


def test_bundle_config() -> None:
    spec = {
        "process": {"args": ["true"]},
        "root": {"path": "rootfs", "readonly": True},
        "linux": {"namespaces": [{"type": "mount"}, {"type": "network"}], "cgroupsPath": "/x"},
    }
    found = foreign.bundle_config(spec, {"args": ["true"], "cwd": "/"}, "/r", "/proc/1/fd/9")
    assert found["root"] == {"path": "/r", "readonly": True}
    assert found["linux"]["namespaces"] == [{"type": "mount"}, {"type": "network", "path": "/proc/1/fd/9"}]
    assert spec["linux"]["namespaces"][1] == {"type": "network"}  # type: ignore[index]


def test_oci_process_has_the_user_in_numbers() -> None:
    ready = Program({"user": {"umask": 18}, "args": ["x"]}, Identity(5, 6, [6, 7], ""), {b"A": b"1"}, None, [])
    assert foreign.oci_process(ready) == {
        "user": {"umask": 18, "uid": 5, "gid": 6, "additionalGids": [6, 7]},
        "args": ["x"],
        "env": ["A=1"],
    }


def test_removed_tree_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep" / "file").write_text("x")
    (tmp_path / "gone" / "sub").mkdir(parents=True)
    (tmp_path / "gone" / "file").write_text("x")
    (tmp_path / "gone" / "sub" / "link").symlink_to(tmp_path / "keep")
    oci_call.remove_tree(str(tmp_path / "gone"))
    assert sorted(os.listdir(tmp_path)) == ["keep"]
    assert os.listdir(tmp_path / "keep") == ["file"]
