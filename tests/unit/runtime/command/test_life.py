"""The verbs of `pier-runtime`: what each says and returns, as runc 1.3 does."""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import os
import pty
import select
import shutil
import signal
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pier.kernel.cgroup_layout import detect

from ..bundles import Bench, a_bench
from ..conftest import CGROUP_PARENT

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def bench(tmp_path: Path, busybox_root: Path) -> Iterator[Bench]:
    yield from a_bench(tmp_path, busybox_root)


LIVES = int(os.environ.get("PIER_TEST_LIVES", "20"))
"""How many containers in a row must leave nothing."""


def wait_for(bench: Bench, container_id: str, status: str) -> None:
    deadline = time.monotonic() + 10
    while bench.state(container_id)["status"] != status:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_create_start_kill_delete(bench: Bench) -> None:
    bench.spec["process"]["args"] = ["sh", "-c", "echo up; sleep 100"]
    created = bench.make("create", "life")
    assert (created.code, created.out, created.err) == (0, "", "")
    assert bench.state("life")["status"] == "created"
    assert bench.call("start", "life").code == 0
    state = bench.state("life")
    assert list(state) == ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner"]
    assert (state["status"], state["id"], state["bundle"]) == ("running", "life", str(bench.bundle))
    assert bench.call("start", "life").message == "cannot start an already running container"
    assert bench.call("delete", "life").message == "cannot delete container life that is not stopped: running"
    assert bench.call("kill", "life", "KILL").code == 0
    wait_for(bench, "life", "stopped")
    assert bench.state("life")["pid"] == 0
    assert bench.call("kill", "life").message == "container not running"
    assert bench.call("start", "life").message == "cannot start a container that has stopped"
    assert bench.call("delete", "life").code == 0
    assert bench.call("state", "life").message == "container does not exist"
    assert bench.call("delete", "--force", "life").code == 0


def test_a_created_container_can_be_deleted(bench: Bench) -> None:
    bench.make("create", "never")
    assert bench.call("delete", "never").code == 0
    assert not Path(f"{detect().controllers['pids']}{CGROUP_PARENT}/never").exists()


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 9", 9), ("exec kill -9 $$", 0), ("true", 0)],
)
def test_run_returns_the_programs_code(bench: Bench, script: str, code: int) -> None:
    assert bench.run("sh", "-c", script).code == code


def test_run_gives_streams_and_removes_the_container(bench: Bench) -> None:
    result = bench.run("sh", "-c", "hostname; echo err >&2")
    assert (result.code, result.out, result.err) == (0, "bench\n", "err\n")
    assert list(bench.root.iterdir()) == []


def test_run_keep_leaves_a_stopped_container(bench: Bench) -> None:
    assert bench.make("run", "kept", "--keep").code == 0
    assert bench.state("kept")["status"] == "stopped"


def test_run_passes_signals_on(bench: Bench) -> None:
    bench.spec["process"]["args"] = ["sh", "-c", "trap 'exit 7' TERM; echo ready; while true; do sleep 0.05; done"]
    bench.write("signals")
    command = bench.command("run", "-b", str(bench.bundle), "signals")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 7


def test_run_detached_writes_the_pid_file(bench: Bench, tmp_path: Path) -> None:
    bench.spec["process"]["args"] = ["sleep", "100"]
    assert bench.make("run", "away", "-d", "--pid-file", str(tmp_path / "pid")).code == 0
    assert int((tmp_path / "pid").read_text()) == bench.state("away")["pid"]


@pytest.mark.parametrize("container_id", ["", ".", "..", "a/b", "a b", "é", "x" * 2000])
def test_attack_17_ids_that_are_no_names(bench: Bench, container_id: str) -> None:
    result = bench.call("state", container_id)
    assert result.code == 1
    assert result.message in ("invalid container ID format", "container id cannot be empty")


def test_a_taken_id_is_refused_and_the_holder_left_alone(bench: Bench) -> None:
    bench.spec["process"]["args"] = ["sleep", "100"]
    bench.make("run", "taken", "-d")
    result = bench.make("create", "taken")
    assert result.code == 1
    assert "container with given ID already exists" in result.message or "cgroup is not empty" in result.message
    assert bench.state("taken")["status"] == "running"


def test_two_containers_do_not_share_a_cgroup(bench: Bench) -> None:
    bench.spec["process"]["args"] = ["sleep", "100"]
    bench.spec["linux"]["cgroupsPath"] = f"{CGROUP_PARENT}/shared"
    bench.make("run", "one", "-d")
    assert "container's cgroup is not empty: 1 process(es) found" in bench.make("run", "two", "-d").message
    assert bench.state("one")["status"] == "running"


def test_exec_code_and_errors(bench: Bench) -> None:
    bench.spec["process"]["args"] = ["sleep", "100"]
    bench.make("run", "host", "-d")
    result = bench.call("exec", "host", "sh", "-c", "hostname; cat /proc/1/comm; exit 7")
    assert (result.code, result.out) == (7, "bench\nsleep\n")
    missing = bench.call("exec", "host", "nosuch")
    assert missing.code == 255
    assert missing.message.endswith('exec: "nosuch": executable file not found in $PATH')
    assert bench.call("exec", "host").message == "exec failed: exec args cannot be empty"
    away = bench.call("exec", "--cwd", "/nosuch", "host", "true")
    assert 'chdir to cwd ("/nosuch") set in config.json failed: no such file or directory' in away.message
    assert bench.call("exec", "-u", "bob", "host", "true").code == 255


def test_exec_options(bench: Bench, tmp_path: Path) -> None:
    bench.spec["process"]["args"] = ["sleep", "100"]
    bench.make("run", "host", "-d")
    options = ["-u", "1000:10", "-g", "77", "-e", "A=b", "--cwd", "/tmp", "--no-new-privs", "--cap", "CAP_SYS_TIME"]
    script = "id -u; id -g; id -G; echo $A; pwd; grep -E 'NoNewPrivs|CapBnd' /proc/self/status"
    done = bench.call("exec", *options, "host", "sh", "-c", script)
    lines = done.out.splitlines()
    assert lines[:5] == ["1000", "10", "10 77", "b", "/tmp"]
    assert done.err == ""
    assert lines[5:] == ["CapBnd:\t00000000aa0425fb", "NoNewPrivs:\t1"]
    (tmp_path / "process.json").write_text(json.dumps({"args": ["pwd"], "cwd": "/etc", "env": ["PATH=/bin"]}))
    assert bench.call("exec", "-p", str(tmp_path / "process.json"), "host").out == "/etc\n"


def test_exec_of_a_broken_process_file_names_the_field(bench: Bench, tmp_path: Path) -> None:
    bench.spec["process"]["args"] = ["sleep", "100"]
    bench.make("run", "host", "-d")
    (tmp_path / "process.json").write_text(json.dumps({"args": ["pwd", 3], "cwd": "/etc"}))
    result = bench.call("exec", "-p", str(tmp_path / "process.json"), "host")
    assert (result.code, result.message) == (255, "exec failed: process.args[1]: must be a string, is a number")


def test_pause_resume(bench: Bench) -> None:
    bench.spec["process"]["args"] = ["sleep", "100"]
    bench.make("run", "still", "-d")
    assert bench.call("resume", "still").message == "container not paused"
    assert bench.call("pause", "still").code == 0
    assert bench.state("still")["status"] == "paused"
    assert "cannot exec in a paused container" in bench.call("exec", "still", "true").message
    assert bench.call("pause", "still").message == "container not running"
    assert bench.call("resume", "still").code == 0
    assert bench.state("still")["status"] == "running"
    bench.call("pause", "still")
    assert bench.call("kill", "still", "KILL").code == 0
    wait_for(bench, "still", "stopped")


def test_update_changes_limits(bench: Bench, tmp_path: Path) -> None:
    bench.spec["process"]["args"] = ["sleep", "100"]
    bench.spec["linux"]["resources"] = {"memory": {"limit": 128 << 20}}
    bench.make("run", "wide", "-d")
    assert bench.call("update", "--memory", "64m", "--pids-limit", "33", "wide").err == ""
    stats = json.loads(bench.call("events", "--stats", "wide").out)
    assert (stats["type"], stats["id"]) == ("stats", "wide")
    assert stats["data"]["memory"]["usage"]["limit"] == 64 << 20
    assert stats["data"]["pids"]["limit"] == 33
    (tmp_path / "more.json").write_text('{"pids": {"limit": 44}}')
    bench.call("update", "-r", str(tmp_path / "more.json"), "wide")
    assert json.loads(bench.call("events", "--stats", "wide").out)["data"]["pids"]["limit"] == 44
    assert bench.call("update", "--memory", "x", "wide").message == "invalid value for memory: invalid size: 'x'"


def test_list_and_ps(bench: Bench) -> None:
    bench.spec["process"]["args"] = ["sleep", "100"]
    bench.make("run", "alpha", "-d")
    (entry,) = json.loads(bench.call("list", "-f", "json").out)
    assert (entry["id"], entry["status"], entry["owner"]) == ("alpha", "running", "root")
    assert bench.call("list", "-q").out == "alpha\n"
    heading, row = bench.call("list").out.splitlines()
    assert heading.split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert row.index("running") == heading.index("STATUS")
    assert json.loads(bench.call("ps", "-f", "json", "alpha").out) == [entry["pid"]]


@pytest.mark.skipif(shutil.which("ps") is None, reason="its table is the host's own ps, which is not installed")
def test_ps_as_a_table(bench: Bench) -> None:
    bench.spec["process"]["args"] = ["sleep", "100"]
    bench.make("run", "alpha", "-d")
    (entry,) = json.loads(bench.call("list", "-f", "json").out)
    assert bench.call("ps", "alpha", "-o", "pid,args").out.splitlines()[1].split() == [
        str(entry["pid"]),
        "sleep",
        "100",
    ]


def test_a_list_of_nothing(bench: Bench) -> None:
    gone = bench.call("list")
    assert (gone.code, gone.message) == (1, f"open {bench.root}: no such file or directory")
    bench.root.mkdir()
    assert bench.call("list", "-f", "json").out == "null"


def test_a_pid_that_another_process_got_is_not_ours(bench: Bench) -> None:
    bench.make("create", "old")
    path = bench.root / "old" / "state.json"
    state = json.loads(path.read_text())
    os.kill(state["pid"], signal.SIGKILL)
    path.write_text(json.dumps(state | {"pid": os.getpid()}))
    assert bench.state("old")["status"] == "stopped"
    assert bench.call("kill", "old", "KILL").message == "container not running"


def receive_terminal(listener: socket.socket) -> int:
    connection, _ = listener.accept()
    with connection:
        _, ancillary, _, _ = connection.recvmsg(100, 100)
        return array.array("i", ancillary[0][2])[0]


def test_console_socket_gets_the_master(bench: Bench, tmp_path: Path) -> None:
    bench.spec["process"] |= {"terminal": True, "consoleSize": {"height": 33, "width": 111}}
    bench.spec["process"]["args"] = ["sh", "-c", "tty; stty size; sleep 100"]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "sock"))
        listener.listen()
        listener.settimeout(10)
        assert bench.make("create", "tty", "--console-socket", str(tmp_path / "sock")).code == 0
        master = receive_terminal(listener)
        bench.call("start", "tty")
        text = b""
        while b"111" not in text:
            text += os.read(master, 1000)
        assert text.split() == [b"/dev/pts/0", b"33", b"111"]
        command = bench.command("exec", "-t", "-d", "--console-socket", str(tmp_path / "sock"), "tty", "tty")
        subprocess.run(command, check=True, timeout=10)
        other = receive_terminal(listener)
        assert os.read(other, 100) == b"/dev/pts/1\r\n"
        os.close(other)
        os.close(master)


@dataclass
class Seat:
    """A terminal of ours with `pier-runtime` before it, and what it has shown so far."""

    master: int
    slave: int
    shown: bytes = b""

    def read_until(self, text: bytes) -> None:
        while text not in self.shown:
            assert select.select([self.master], [], [], 10)[0], f"nothing more after {self.shown!r}"
            self.shown += os.read(self.master, 1000)

    @contextlib.contextmanager
    def command(self, argv: list[str]) -> Iterator[subprocess.Popen[bytes]]:
        with subprocess.Popen(argv, stdin=self.slave, stdout=self.slave, stderr=self.slave) as process:
            try:
                yield process
            finally:
                process.kill()  # leaving the block waits without a limit


@pytest.fixture
def seat() -> Iterator[Seat]:
    seat = Seat(*pty.openpty())
    fcntl.ioctl(seat.master, termios.TIOCSWINSZ, struct.pack("HHHH", 21, 83, 0, 0))
    before = termios.tcgetattr(seat.slave)
    yield seat
    assert termios.tcgetattr(seat.slave) == before
    os.close(seat.master)
    os.close(seat.slave)


def test_foreground_terminal_is_joined_to_ours(bench: Bench, seat: Seat) -> None:
    bench.spec["process"] |= {"terminal": True, "args": ["sh", "-c", "stty size; read line; echo got $line; exit 4"]}
    bench.write("front")
    with seat.command(bench.command("run", "-b", str(bench.bundle), "front")) as process:
        seat.read_until(b"83")
        os.write(seat.master, b"hello\r")
        assert process.wait(10) == 4
    seat.read_until(b"got hello")
    assert b"21 83" in seat.shown


def test_the_terminal_of_an_exec_is_joined_to_ours_and_follows_its_size(bench: Bench, seat: Seat) -> None:
    bench.spec["process"]["args"] = ["sleep", "100"]
    bench.make("run", "host", "-d")
    script = "trap 'stty size; exit 5' WINCH; stty size; while :; do sleep 0.05; done"
    with seat.command(bench.command("exec", "-t", "host", "sh", "-c", script)) as process:
        seat.read_until(b"21 83")
        fcntl.ioctl(seat.master, termios.TIOCSWINSZ, struct.pack("HHHH", 22, 84, 0, 0))
        process.send_signal(signal.SIGWINCH)
        assert process.wait(10) == 5
    seat.read_until(b"22 84")


def test_a_paste_that_the_program_does_not_read_yet_holds_nothing_up(bench: Bench, seat: Seat) -> None:
    """The program shows more than the kernel keeps while we have more to type than it takes."""
    script = "stty raw -echo; echo ready; head -c 200000 /dev/zero | tr '\\0' x; head -c 300000 | wc -c"
    bench.spec["process"] |= {"terminal": True, "args": ["sh", "-c", script]}
    bench.write("paste")
    with seat.command(bench.command("run", "-b", str(bench.bundle), "paste")) as process:
        seat.read_until(b"ready")
        typed, deadline = 0, time.monotonic() + 20
        os.set_blocking(seat.master, False)
        while process.poll() is None:
            assert time.monotonic() < deadline
            readable, writable, _ = select.select([seat.master], [seat.master] if typed < 300_000 else [], [], 0.05)
            if writable:
                with contextlib.suppress(BlockingIOError):
                    typed += os.write(seat.master, bytes(min(4096, 300_000 - typed)))
            if readable:
                seat.shown += os.read(seat.master, 65536)
    seat.read_until(b"300000")
    assert seat.shown.count(b"x") == 200_000


def test_a_program_may_close_its_terminal_and_open_it_again(bench: Bench, seat: Seat) -> None:
    script = "exec </dev/null >/dev/null 2>&1; sleep 0.3; exec </dev/console >/dev/console; echo again; read x; exit 6"
    bench.spec["process"] |= {"terminal": True, "args": ["sh", "-c", script]}
    bench.write("again")
    with seat.command(bench.command("run", "-b", str(bench.bundle), "again")) as process:
        seat.read_until(b"again")
        os.write(seat.master, b"\r")
        assert process.wait(10) == 6


@pytest.mark.parametrize("options", [[], ["--console-socket", "/nosuch"]])
def test_where_a_terminal_cannot_go(bench: Bench, options: list[str]) -> None:
    bench.spec["process"]["terminal"] = True
    assert bench.make("create", "none", *options).code == 1
    assert not (bench.root / "none").exists()


def test_preserved_descriptors_reach_the_program_and_no_others(bench: Bench, tmp_path: Path) -> None:
    bench.spec["process"]["args"] = ["sh", "-c", "cat <&3; ls /proc/self/fd"]
    bench.write("fds")
    command = bench.command("run", "-b", str(bench.bundle), "--preserve-fds", "1", "fds")
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" 3</etc/hostname', "sh", *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    lines = done.stdout.split()
    assert lines[0] == Path("/etc/hostname").read_text().strip()
    assert lines[1:] == ["0", "1", "2", "3", "4"]  # 4 is ls's own


def test_attack_02_nothing_but_the_streams_is_open(bench: Bench) -> None:
    assert bench.run("ls", "/proc/self/fd").out.split() == ["0", "1", "2", "3"]


def test_attack_01_the_interpreter_is_on_a_read_only_mount(bench: Bench) -> None:
    """CVE-2019-5736: until its program runs, the first process is the host's interpreter.

    Its text is busy now; what holds it open past its end must not get to write it either.
    """
    bench.make("create", "waiting")
    exe = f"/proc/{bench.state('waiting')['pid']}/exe"
    own = os.stat(os.path.realpath("/proc/self/exe"))
    assert (os.stat(exe).st_dev, os.stat(exe).st_ino) == (own.st_dev, own.st_ino)
    assert os.statvfs(exe).f_flag & os.ST_RDONLY


@pytest.mark.skipif(os.path.isdir("/run/systemd/system"), reason="systemd is init here")
def test_without_systemd_the_driver_is_refused_in_a_sentence(bench: Bench) -> None:
    bench.spec["linux"]["cgroupsPath"] = "system.slice:pier:none"
    bench.write("none")
    result = bench.call("--systemd-cgroup", "create", "-b", str(bench.bundle), "none")
    assert result.code == 1
    assert "systemd not running on this host, cannot use systemd cgroups manager (use cgroupfs" in result.message


def test_the_log_file_is_json_for_the_program_above(bench: Bench, tmp_path: Path) -> None:
    log = tmp_path / "log"
    result = bench.call("--log", str(log), "--log-format", "json", "state", "nosuch")
    entry = json.loads(log.read_text())
    assert (result.code, entry["level"], entry["msg"]) == (1, "error", "container does not exist")


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["nosuch"], 3, "No help topic for 'nosuch'"),
        (["state"], 1, 'pier-runtime: "state" requires exactly 1 argument(s)'),
        (["run", "--nosuch", "x"], 1, "flag provided but not defined: -nosuch"),
        (["--nosuch", "list"], 1, "flag provided but not defined: -nosuch"),
        (["checkpoint", "x"], 1, "checkpoint and restore are not implemented"),
        (["kill", "x", "NOPE"], 1, "container does not exist"),
        (["help", "nosuch"], 3, "No help topic for 'nosuch'"),
        (["--log-format", "xml", "list"], 1, "invalid log-format: xml"),
        (["--log", "/nosuch/log", "list"], 1, "open /nosuch/log: no such file or directory"),
        (["spec", "-b", "/nosuch"], 1, "chdir /nosuch: no such file or directory"),
    ],
)
def test_wrong_command_lines(bench: Bench, args: list[str], code: int, words: str) -> None:
    result = bench.call(*args)
    assert result.code == code
    assert words in result.message


def test_spec_writes_what_run_takes(bench: Bench) -> None:
    bench.bundle.mkdir()
    assert bench.call("spec", "-b", str(bench.bundle)).code == 0
    assert bench.call("spec", "-b", str(bench.bundle)).message == "File config.json exists. Remove it first"
    bench.spec = json.loads((bench.bundle / "config.json").read_text())
    bench.spec["process"] |= {"terminal": False, "env": ["PATH=/bin"]}
    bench.spec["root"]["path"] = str(bench.rootfs)
    assert bench.run("hostname").out == "pier\n"


def test_features_are_runcs_fields(bench: Bench) -> None:
    document = json.loads(bench.call("features").out)
    assert (document["ociVersionMin"], document["ociVersionMax"]) == ("1.0.0", "1.2.1")
    assert {"rro", "tmpcopyup", "idmap", "ridmap", "rshared", "sync"} <= set(document["mountOptions"])
    assert document["linux"]["seccomp"]["enabled"]


def test_many_lives_leave_nothing(bench: Bench) -> None:
    bench.spec["process"]["args"] = ["sleep", "100"]
    for number in range(LIVES):
        name = f"n{number}"
        assert bench.make("create", name).code == 0
        assert bench.call("start", name).code == 0
        assert bench.call("kill", name, "KILL").code == 0
        assert bench.call("delete", "--force", name).code == 0
    assert list(bench.root.iterdir()) == []
    assert str(bench.folder) not in Path("/proc/self/mountinfo").read_text()
    assert [path for mount in detect().hierarchies for path in Path(f"{mount}{CGROUP_PARENT}").glob("n[0-9]*")] == []
