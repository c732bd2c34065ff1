"""Real containers through zygote and monitor, without the daemon."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import ANY

import pytest

from pier.kernel.cgroup_layout import detect
from pier.kernel.cgroups import Cgroup
from pier.runtime.client import ExecFailed, MonitorError, StartFailed
from pier.runtime.request import AttachEnd, ExecRequest, ExitRecord, OverlayRoot, StartRequest

from .conftest import CGROUP_PARENT, DEFAULT_CAPS, Lab, unframe

pytestmark = pytest.mark.root


def exec_request(args: list[str], **process: object) -> ExecRequest:
    base = {
        "args": args,
        "env": ["PATH=/bin"],
        "cwd": "/",
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), DEFAULT_CAPS),
    }
    return ExecRequest(exec_id=os.urandom(32).hex(), process={**base, **process})


async def run_exec(lab: Lab, container, request: ExecRequest) -> tuple[ExitRecord, str]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    try:
        with theirs:
            await container.running.exec(request, AttachEnd(theirs.fileno(), False, True, True))
        record = await asyncio.wait_for(container.running.wait_exec(request.exec_id), 10)
        output = b""
        while data := await asyncio.wait_for(asyncio.get_running_loop().sock_recv(ours, 65536), 10):
            output += data
        return record, output.decode() if request.process.get("terminal") else unframe(output)
    finally:
        ours.close()


def parent(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("PPid:")))


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def is_ready(pid: int) -> bool:
    """Whether a process has no more privileges than the program it will be."""
    return "CapEff:\t00000000a80425fb" in Path(f"/proc/{pid}/status").read_text()


async def until(condition: Callable[[], bool], what: str) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"not after 10 s: {what}")


async def readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await asyncio.wait_for(ready.wait(), 10)
    finally:
        loop.remove_reader(fd)


async def test_exit_code_output_log_and_exit_file(lab: Lab) -> None:
    request = lab.request(["sh", "-c", "echo out; echo err >&2; exit 3"])
    container = await lab.start(request)
    record = await container.running.wait()
    assert record.exit_code == 3
    assert sorted(unframe(await container.read()).split()) == ["err", "out"]
    lines = [json.loads(line) for line in Path(request.log.path).read_text().splitlines()]
    assert {(line["stream"], line["log"]) for line in lines} == {("stdout", "out\n"), ("stderr", "err\n")}
    assert ExitRecord.from_json(Path(request.exit_file).read_bytes()) == record


async def test_killed_by_signal_is_128_and_the_number(lab: Lab) -> None:
    container = await lab.start(lab.request(["sleep", "100"]))
    await container.running.signal(signal.SIGKILL)
    assert (await container.running.wait()).exit_code == 137


async def test_nothing_of_the_container_shows_on_the_host(lab: Lab) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    container = await lab.start(lab.request(["sh", "-c", "echo ready; sleep 100"]))
    await container.read_until(b"ready")
    assert Path("/proc/self/mountinfo").read_text() == before
    pid = container.running.pid
    for kind in ("mnt", "pid", "uts", "ipc", "net", "cgroup"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}"), kind


async def test_pid_one_hostname_and_loopback(lab: Lab) -> None:
    _, text = await lab.run(["sh", "-c", "echo $$; hostname; cat /proc/net/dev | grep -c lo:"])
    assert text.split() == ["1", "lab", "1"]


async def test_default_devices_masks_and_read_only_paths(lab: Lab) -> None:
    script = """
    ls /dev | tr '\\n' ' '; echo
    wc -c < /proc/timer_list; ls /sys/firmware | wc -l
    exec 2>/dev/null
    echo 1 > /proc/sys/kernel/panic || echo denied
    echo x > /sys/x || echo denied
    """
    _, text = await lab.run(["sh", "-c", script.replace("tr", "busybox tr")])
    lines = text.splitlines()
    assert lines[0].split() == "core fd full null ptmx pts random stderr stdin stdout tty urandom zero".split()
    assert lines[1:3] == ["0", "0"]
    assert lines.count("denied") == 2


async def test_stdin_reaches_the_program_and_its_end_too(lab: Lab) -> None:
    container = await lab.start(lab.request(["cat"], open_stdin=True, stdin_once=True), stdin=True)
    container.client.sendall(b"hello\n")
    container.client.shutdown(socket.SHUT_WR)
    assert (await asyncio.wait_for(container.running.wait(), 10)).exit_code == 0
    assert unframe(await container.read()) == "hello\n"


async def test_terminal_with_size_resize_and_controlling_terminal(lab: Lab) -> None:
    request = lab.request(
        ["sh", "-c", "tty; stty size; cat; stty size; ps -o tty | tail -1"], terminal=True, open_stdin=True
    )
    request.spec["process"]["consoleSize"] = {"height": 33, "width": 111}
    container = await lab.start(request, stdin=True)
    await container.read_until(b"33 111")
    await container.running.resize(height=44, width=122)
    container.client.send(b"\x04")
    await container.read_until(b"44 122")
    assert b"/dev/pts/0" in container.output


async def test_a_program_that_is_not_there_leaves_nothing(lab: Lab) -> None:
    request = lab.request(["nosuch"])
    with pytest.raises(StartFailed) as caught:
        await lab.start(request)
    assert caught.value.exit_code == 127
    assert 'exec: "nosuch": executable file not found in $PATH' in str(caught.value)
    assert not Path(detect().controllers["pids"] + request.spec["linux"]["cgroupsPath"]).exists()
    assert os.listdir(request.exec_dir) == []


@pytest.mark.parametrize(
    ("program", "code", "words"),
    [
        ("/etc/passwd", 126, "permission denied"),
        ("/etc", 126, "is a directory"),
        ("/nosuch", 127, "no such file or directory"),
    ],
)
async def test_why_a_program_cannot_run(lab: Lab, program: str, code: int, words: str) -> None:
    with pytest.raises(StartFailed, match=words) as caught:
        await lab.start(lab.request([program]))
    assert caught.value.exit_code == code


async def test_trap_07_missing_loader_is_named(lab: Lab, tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    (layer / "bin").mkdir(parents=True)
    script = layer / "bin" / "tool"
    script.write_text("#!/opt/perl/bin/perl\n")
    script.chmod(0o755)
    request = lab.request(["tool"])
    root = OverlayRoot([str(layer), *request.root.lower], request.root.upper, request.root.work)
    with pytest.raises(StartFailed, match="its loader /opt/perl/bin/perl is not in the image") as caught:
        await lab.start(lab.request(["tool"], root=root))
    assert caught.value.exit_code == 127


async def test_user_groups_home_and_umask(lab: Lab) -> None:
    _, text = await lab.run(["sh", "-c", "id; echo $HOME; umask"], user="ana")
    assert text.splitlines() == ["uid=1000(ana) gid=1000(ana) groups=10(wheel),1000(ana)", "/home", "0022"]


async def test_unknown_user_is_refused_in_dockers_words(lab: Lab) -> None:
    with pytest.raises(StartFailed, match="unable to find user bob: no matching entries in passwd file"):
        await lab.start(lab.request(["true"], user="bob"))


async def test_attack_14_no_inheritable_capabilities(lab: Lab) -> None:
    container = await lab.start(lab.request(["sh", "-c", "cat /proc/self/status; sleep 100"]))
    await container.read_until(b"CapAmb")
    _, text = await run_exec(lab, container, exec_request(["cat", "/proc/self/status"]))
    for status in (container.output.decode(errors="replace"), text):
        assert "CapInh:\t0000000000000000" in status
        assert "CapBnd:\t00000000a80425fb" in status
        assert "CapAmb:\t0000000000000000" in status


@pytest.mark.parametrize("number", range(3, 24))
async def test_attack_02_workdir_of_a_leaked_descriptor(lab: Lab, number: int) -> None:
    request = lab.request(["pwd"])
    request.spec["process"]["cwd"] = f"/proc/self/fd/{number}"
    with pytest.raises(StartFailed):
        await lab.start(request)


async def test_attack_02_only_standard_streams_are_open(lab: Lab) -> None:
    container = await lab.start(lab.request(["sh", "-c", "echo /proc/self/fd/*; sleep 100"]))
    await container.read_until(b"\n")
    assert sorted(os.listdir(f"/proc/{container.running.pid}/fd")) == ["0", "1", "2"]
    _, text = await run_exec(lab, container, exec_request(["ls", "/proc/self/fd"]))
    assert text.split() == ["0", "1", "2", "3"]  # 3 is ls's own


async def test_attack_06_dev_as_a_link_in_the_image(lab: Lab, tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    victim = tmp_path / "victim"
    victim.mkdir()
    os.mknod(layer / "dev", 0o600 | 0o020000, 0)  # a whiteout over the base's directory, then the link above it
    top = tmp_path / "top"
    top.mkdir()
    (top / "dev").symlink_to(victim)
    request = lab.request(["true"])
    root = OverlayRoot([str(top), str(layer), *request.root.lower], request.root.upper, request.root.work)
    with pytest.raises(StartFailed, match="/dev in the image is not a directory"):
        await lab.start(lab.request(["true"], root=root))
    assert list(victim.iterdir()) == []


async def test_attack_22_no_abstract_socket_and_a_private_control_socket(lab: Lab) -> None:
    container = await lab.start(lab.request(["sleep", "100"]))
    path = Path(container.request.exec_dir) / "monitor.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    listed = [line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines()]
    assert not [name for name in listed if name.startswith("@") and "pier" in name]


async def test_exec_joins_everything_and_reports_its_end(lab: Lab) -> None:
    container = await lab.start(lab.request(["sh", "-c", "echo up; sleep 100"]))
    await container.read_until(b"up")
    record, text = await run_exec(
        lab, container, exec_request(["sh", "-c", "hostname; readlink /proc/1/exe; cat /proc/self/cgroup; exit 5"])
    )
    assert record.exit_code == 5
    assert text.startswith("lab\n/bin/busybox\n")
    assert all(line.endswith(":/") for line in text.splitlines()[2:])


async def test_an_exec_is_made_ahead(lab: Lab) -> None:
    """What is to be run is found when the exec is prepared: its folder may be gone when it is started."""
    container = await lab.start(lab.request(["sh", "-c", "mkdir /here; echo up; sleep 100"]))
    await container.read_until(b"up")
    init, request = container.running.pid, exec_request(["readlink", "/proc/self/cwd"], cwd="/here")
    container.running.prepare(request)
    await until(lambda: any(is_ready(pid) for pid in set(children(parent(init))) - {init}), "an exec waits")
    os.rmdir(f"/proc/{init}/root/here")
    record, text = await run_exec(lab, container, request)
    assert (record.exit_code, text) == (0, "/here (deleted)\n")
    assert children(parent(init)) == [init]


async def test_a_container_ends_before_the_exec_that_was_made_ahead(lab: Lab) -> None:
    container = await lab.start(lab.request(["sleep", "100"]))
    init = container.running.pid
    container.running.prepare(exec_request(["true"]))
    await until(lambda: len(children(parent(init))) == 2, "an exec waits")
    waiting = next(pid for pid in children(parent(init)) if pid != init)
    await container.running.signal(signal.SIGKILL)
    assert (await asyncio.wait_for(container.running.wait(), 10)).exit_code == 137
    await until(lambda: not os.path.exists(f"/proc/{waiting}"), "what waited is gone")


async def test_a_background_process_does_not_hold_its_exec(lab: Lab) -> None:
    """It ends once its process has, and what the other one prints goes on being read: a full pipe would stop it."""
    container = await lab.start(lab.request(["sleep", "100"]))
    # yes prints more than a pipe holds, after the exec has been told to be over, which is when /go appears.
    script = "(while ! [ -e /go ]; do sleep 0.05; done; yes | head -c 1000000; echo $? > /done) & echo begun"
    record, text = await run_exec(lab, container, exec_request(["sh", "-c", script]))
    assert (record.exit_code, text) == (0, "begun\n")
    script = "touch /go; while ! [ -s /done ]; do sleep 0.05; done; cat /done"
    assert await run_exec(lab, container, exec_request(["sh", "-c", script])) == (ANY, "0\n")


async def test_a_background_process_on_a_terminal_does_not_hold_its_exec(lab: Lab) -> None:
    container = await lab.start(lab.request(["sleep", "100"]))
    script = "(trap '' HUP; while ! [ -e /go ]; do sleep 0.05; done; echo late; echo $? > /done) & echo begun"
    record, text = await run_exec(lab, container, exec_request(["sh", "-c", script], terminal=True))
    assert (record.exit_code, text) == (0, "begun\r\n")


async def test_a_background_process_with_the_hosts_pids_does_not_hold_the_container(lab: Lab) -> None:
    request = lab.request(["sh", "-c", "sleep 1000 & echo begun"])
    namespaces = request.spec["linux"]["namespaces"]
    request.spec["linux"]["namespaces"] = [item for item in namespaces if item["type"] != "pid"]
    container = await lab.start(request)
    assert (await asyncio.wait_for(container.running.wait(), 10)).exit_code == 0
    assert unframe(await container.read()) == "begun\n"


async def test_execs_are_found_again_with_what_became_of_them(lab: Lab) -> None:
    container = await lab.start(lab.request(["sleep", "100"]))
    script = "while ! [ -e /go ]; do sleep 0.05; done; exit 7"
    ending, staying, known = (
        exec_request(["sh", "-c", script]),
        exec_request(["sleep", "100"]),
        exec_request(["true"]),
    )
    for number, request in enumerate((ending, staying, known)):
        await container.running.exec(replace(request, note=f"note {number}"), None)
    await container.running.wait_exec(known.exec_id)
    pid = container.running.pid
    pidfd = os.pidfd_open(next(pid for pid in children(parent(pid)) if b"/go" in command_line(pid)))
    container.running.close()
    try:
        Path(f"/proc/{pid}/root/go").touch()
        await readable(pidfd)
    finally:
        os.close(pidfd)
    again = await lab.runtime.reconnect(container.request.exec_dir)
    assert again is not None
    container.monitor = again
    found = {item.id: item for item in again.execs_found}
    assert [found[item.exec_id].note for item in (ending, staying, known)] == ["note 0", "note 1", "note 2"]
    assert (found[known.exec_id].told, found[known.exec_id].ended.exit_code) == (True, 0)
    assert (found[staying.exec_id].told, found[staying.exec_id].ended) == (False, None)
    if found[ending.exec_id].ended is None:  # it was told just after
        assert (await asyncio.wait_for(again.wait_exec(ending.exec_id), 10)).exit_code == 7
    else:
        assert (found[ending.exec_id].told, found[ending.exec_id].ended.exit_code) == (False, 7)
    await again.signal(signal.SIGKILL)
    assert (await asyncio.wait_for(again.wait_exec(staying.exec_id), 10)).exit_code == 137


def limited(lab: Lab, script: str) -> StartRequest:
    request = lab.request(["sh", "-c", script])
    request.spec["linux"]["resources"] = {"memory": {"limit": 8 << 20, "swap": 8 << 20}}
    return request


EAT = "tail /dev/zero"


async def test_an_oom_kill_is_told_while_the_container_runs(lab: Lab) -> None:
    container = await lab.start(limited(lab, f"{EAT}; echo $?; {EAT}; echo $?; sleep 100"))
    told = asyncio.Event()
    container.running.on_oom = told.set
    await container.read_until(b"137\n")
    await asyncio.wait_for(told.wait(), 10)
    await container.running.signal(signal.SIGKILL)
    record = await container.running.wait()
    assert (record.exit_code, record.oom_killed) == (137, True)
    assert ExitRecord.from_json(Path(container.request.exit_file).read_bytes()) == record


async def test_an_oom_kill_of_the_program_itself(lab: Lab) -> None:
    container = await lab.start(limited(lab, f"exec {EAT}"))
    record = await container.running.wait()
    assert (record.exit_code, record.oom_killed, container.running.ooms) == (137, True, 1)


async def test_an_oom_kill_is_told_to_the_next_daemon(lab: Lab) -> None:
    container = await lab.start(limited(lab, f"while ! [ -e /go ]; do sleep 0.05; done; {EAT}; echo $?; sleep 100"))
    container.running.close()
    Path(f"/proc/{container.running.pid}/root/go").touch()
    await container.read_until(b"137\n")
    container.monitor = await lab.runtime.reconnect(container.request.exec_dir)
    told = asyncio.Event()
    container.running.on_oom = told.set
    if not container.running.ooms:
        await asyncio.wait_for(told.wait(), 10)
    assert container.running.ooms == 1


async def test_exec_of_a_missing_program(lab: Lab) -> None:
    container = await lab.start(lab.request(["sleep", "100"]))
    with pytest.raises(ExecFailed, match="executable file not found") as caught:
        await container.running.exec(exec_request(["nosuch"]), None)
    assert caught.value.exit_code == 127


async def test_exec_with_a_terminal(lab: Lab) -> None:
    container = await lab.start(lab.request(["sleep", "100"]))
    request = exec_request(["sh", "-c", "tty; stty size"], terminal=True, consoleSize={"height": 5, "width": 7})
    record, text = await run_exec(lab, container, request)
    assert record.exit_code == 0
    assert text.split() == ["/dev/pts/0", "5", "7"]


async def test_init_reaps_orphans_and_passes_signals_on(lab: Lab) -> None:
    script = "trap 'echo got; exit 7' TERM; (sleep 0 & exit) ; echo ready; while true; do sleep 0.1; done"
    container = await lab.start(lab.request(["sh", "-c", script], init=True))
    await container.read_until(b"ready")
    await container.running.signal(signal.SIGTERM)
    assert (await asyncio.wait_for(container.running.wait(), 10)).exit_code == 7


async def test_the_reaper_is_listed_as_dockers(lab: Lab) -> None:
    container = await lab.start(lab.request(["sh", "-c", "echo ready; sleep 100"], init=True))
    await container.read_until(b"ready")
    proc = Path(f"/proc/{container.running.pid}")
    assert (proc / "comm").read_text() == "docker-init\n"
    assert (proc / "cmdline").read_bytes() == b"/sbin/docker-init\0--\0sh\0-c\0echo ready; sleep 100\0"


async def test_a_killed_monitor_takes_a_reaper_of_another_user_with_it(lab: Lab) -> None:
    request = lab.request(["sh", "-c", "echo ready; sleep 1000"], init=True, user="ana")
    container = await lab.start(request)
    await container.read_until(b"ready")
    pidfd = os.pidfd_open(container.running.pid)
    try:
        monitor_pid = parent(container.running.pid)
        container.running.close()  # so that no daemon ends it by its cgroup
        os.kill(monitor_pid, signal.SIGKILL)
        await readable(pidfd)
    finally:
        os.close(pidfd)
    cgroup = Cgroup(detect(), request.spec["linux"]["cgroupsPath"])
    cgroup.remove()


async def test_reconnect_after_the_daemon_is_gone(lab: Lab) -> None:
    container = await lab.start(lab.request(["cat"], open_stdin=True, stdin_once=True))
    pid = container.running.pid
    container.running.close()
    again = await lab.runtime.reconnect(container.request.exec_dir)
    assert again is not None
    assert (again.id, again.pid) == (container.request.id, pid)
    container.monitor = again
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            await again.attach(AttachEnd(theirs.fileno(), True, True, True))
        ours.sendall(b"still here\n")
        ours.shutdown(socket.SHUT_WR)
        ours.settimeout(10)
        assert ours.recv(100)[8:] == b"still here\n"
    assert (await again.wait()).exit_code == 0


async def test_a_killed_monitor_takes_its_container_with_it(lab: Lab) -> None:
    container = await lab.start(lab.request(["sh", "-c", "sleep 1000 & echo up; sleep 1000"]))
    await container.read_until(b"up")
    os.kill(parent(container.running.pid), signal.SIGKILL)
    assert (await asyncio.wait_for(container.running.wait(), 10)).exit_code == 137
    assert not Path(detect().controllers["pids"] + container.request.spec["linux"]["cgroupsPath"]).exists()


async def test_trap_02_a_stopped_client_does_not_hold_the_others(lab: Lab) -> None:
    container = await lab.start(
        lab.request(
            ["sh", "-c", "cat; busybox yes | head -c 8000000; echo; echo end"], open_stdin=True, stdin_once=True
        ),
        stdin=True,
    )
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            await container.running.attach(AttachEnd(theirs.fileno(), False, True, True))
        container.client.shutdown(socket.SHUT_WR)
        # `ours` is never read: a terminal stopped with Ctrl-S
        assert unframe(await asyncio.wait_for(container.read(), 30)).endswith("end\n")


async def test_a_single_slow_client_loses_nothing(lab: Lab) -> None:
    container = await lab.start(lab.request(["sh", "-c", "busybox yes | head -c 8000000"]))
    await container.read_until(b"y")  # from here on the monitor's buffer fills while nobody reads
    assert len(unframe(await asyncio.wait_for(container.read(), 30))) == 8000000


async def test_resize_without_terminal_is_refused(lab: Lab) -> None:
    container = await lab.start(lab.request(["sleep", "100"]))
    with pytest.raises(MonitorError, match="no terminal"):
        await container.running.resize(height=1, width=1)


async def test_a_malformed_spec_is_one_sentence(lab: Lab) -> None:
    request = lab.request(["true"])
    request.spec["mounts"].append({"destination": "/x", "type": "nosuchfs"})
    with pytest.raises(StartFailed, match="nosuchfs"):
        await lab.start(request)
    del request.spec["process"]["args"]
    with pytest.raises(StartFailed):
        await lab.start(lab.request(["true"], spec=request.spec | {"mounts": []}))


async def test_the_kernels_host_parameters_are_out_of_reach(lab: Lab) -> None:
    request = lab.request(["true"])
    request.spec["linux"]["sysctl"] = {"kernel.core_pattern": "|/bin/evil"}
    with pytest.raises(StartFailed, match="not in a separate kernel namespace"):
        await lab.start(request)


async def test_cgroup_limits_are_in_place_before_the_program_runs(lab: Lab) -> None:
    request = lab.request(["sleep", "100"])
    request.spec["linux"]["resources"] = {"pids": {"limit": 17}, "memory": {"limit": 64 << 20}}
    container = await lab.start(request)
    cgroup = Cgroup(detect(), f"{CGROUP_PARENT}/{request.id}")
    assert container.running.pid in cgroup.pids()
    stats = cgroup.stats()
    assert "17" in repr(stats)
