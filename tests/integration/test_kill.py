"""kill -9 of the daemon and of monitors at many moments: what runs goes on, what ended is known, nothing is left."""

from __future__ import annotations

import datetime
import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from .archives import docker_archive, tar_of
from .client import Client
from .conftest import Daemon, poll
from .remains import too_much

pytestmark = pytest.mark.root

WAITING = "echo begun; while ! [ -e /go ]; do sleep 0.02; done; "


def pid_of(docker: Client, name: str) -> int:
    return int(docker.field(name, "{{.State.Pid}}"))


def monitor_of(pid: int) -> int:
    """The parent of a container's first process."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^PPid:\t(\d+)$", status, re.MULTILINE)
    assert found is not None
    assert Path(f"/proc/{found[1]}/comm").read_text().startswith("pier")
    return int(found[1])


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def restart(daemon: Daemon) -> None:
    daemon.kill()
    daemon.start()


def check(daemon: Daemon, docker: Client) -> None:
    poll(lambda: not too_much(daemon, docker), f"nothing to be left over, but {too_much(daemon, docker)}")
    assert "Traceback" not in daemon.log.read_text()


# --- the daemon


def test_streams_can_be_joined_again(own_daemon: Daemon, own_docker: Client) -> None:
    script = "while read line; do echo got $line; done; exit 6"
    own_docker.run("-it", own_docker.image, "sh", "-c", "stty -echo; " + script, name="term")
    own_docker.run("-i", own_docker.image, "sh", "-c", script, name="pipe")
    restart(own_daemon)
    pipe = own_docker.start("attach", "pipe")
    pipe.send(b"one\n")
    pipe.read_until("got one\n")
    term = own_docker.terminal("attach", "term")
    term.send(b"two\n")
    term.read_until("got two\r\n")
    poll(
        lambda: term.resize(17, 71) or "17 71" in own_docker("exec", "term", "stty", "-F", "/dev/pts/0", "size").out,
        "17 71",
    )
    term.send(b"\x04")
    assert term.wait().status == 6
    assert own_docker.ok("logs", "pipe") == "got one"
    own_docker.ok("rm", "-f", "pipe", "term")
    check(own_daemon, own_docker)


def test_a_client_that_is_attached_is_let_go(own_daemon: Daemon, own_docker: Client) -> None:
    """Its connection ends with the daemon; the program neither hangs nor dies of it."""
    session = own_docker.start(
        "run", "--name", "told", own_docker.image, "sh", "-c", WAITING + "yes | head -c 300000; exit 4"
    )
    session.read_until("begun\n")
    own_daemon.kill()
    assert session.wait().status != 0
    own_daemon.start()
    own_docker.ok("exec", "told", "touch", "/go")
    assert own_docker.ok("wait", "told") == "4"
    assert len(own_docker("logs", "told").out) == 300_006


def test_an_end_meanwhile_has_its_code_its_time_and_its_log(
    own_daemon: Daemon, own_docker: Client, tmp_path: Path
) -> None:
    script = "echo begun; while ! [ -e /flag/go ]; do sleep 0.02; done; echo last; exit 9"
    for name, words in (("kept", []), ("unkept", ["--rm"]), ("port", ["-p", "18311:80"])):
        own_docker.run("-v", f"{tmp_path}:/flag", *words, own_docker.image, "sh", "-c", script, name=name)
    pids = [pid_of(own_docker, name) for name in ("kept", "unkept", "port")]
    own_daemon.kill()
    before = time.time()
    (tmp_path / "go").touch()
    poll(lambda: all(map(is_gone, pids)), "the containers to end")
    after = time.time()
    own_daemon.start()
    assert own_docker.field("kept", "{{.State.Status}} {{.State.ExitCode}} {{.State.Pid}}") == "exited 9 0"
    finished = datetime.datetime.fromisoformat(own_docker.field("kept", "{{.State.FinishedAt}}")[:26] + "+00:00")
    assert before <= finished.timestamp() <= after
    assert own_docker.ok("logs", "kept") == "begun\nlast"
    assert own_docker.ok("wait", "kept") == "9"
    poll(lambda: "unkept" not in own_docker.ok("ps", "-a", "--format", "{{.Names}}"), "--rm to be done")
    own_docker.ok("run", "--rm", "-p", "18311:80", own_docker.image, "true")
    own_docker.ok("rm", "kept", "port")
    check(own_daemon, own_docker)


def test_execs_go_on_and_are_known_afterwards(own_daemon: Daemon, own_docker: Client, tmp_path: Path) -> None:
    """dockerd forgets them with its end."""
    own_docker.run("-v", f"{tmp_path}:/flag", own_docker.image, "sleep", "1000", name="box")
    script = "while ! [ -e /flag/go ]; do sleep 0.02; done; exit 9"
    own_docker.ok("exec", "-d", "box", "sh", "-c", script)
    own_docker.ok("exec", "-d", "-u", "1", "box", "sleep", "2000")
    ending, staying = sorted(
        own_docker.field("box", "{{json .ExecIDs}}").strip("[]").replace('"', "").split(","),
        key=lambda id: b"2000" in Path(f"/proc/{own_daemon.exec(id)['Pid']}/cmdline").read_bytes(),
    )
    pid = own_daemon.exec(ending)["Pid"]
    before = own_daemon.exec(staying)
    own_daemon.kill()
    (tmp_path / "go").touch()
    poll(lambda: is_gone(pid), "the exec's end")
    own_daemon.start()
    assert own_daemon.exec(staying) == before
    assert own_docker.field("box", "{{json .ExecIDs}}") == f'["{staying}"]'
    poll(lambda: not own_daemon.exec(ending)["Running"], "its end to be known")
    assert own_daemon.exec(ending)["ExitCode"] == 9
    os.kill(before["Pid"], signal.SIGKILL)
    poll(lambda: own_daemon.exec(staying)["ExitCode"] == 137, "the other's end to be known")
    own_docker.ok("rm", "-f", "box")
    check(own_daemon, own_docker)


def test_an_oom_kill_meanwhile_is_known_afterwards(own_daemon: Daemon, own_docker: Client, tmp_path: Path) -> None:
    script = "echo begun; while ! [ -e /flag/go ]; do sleep 0.02; done; tail /dev/zero; touch /flag/killed; "
    words = ["-m", "16m", "--memory-swap", "16m", "-v", f"{tmp_path}:/flag", own_docker.image, "sh", "-c"]
    own_docker.run(*words, script + "sleep 1000", name="on")
    own_docker.run(*words, script + "exit 5", name="over")
    pid = pid_of(own_docker, "over")
    own_daemon.kill()
    (tmp_path / "go").touch()
    poll(lambda: is_gone(pid), "the end of one")
    own_daemon.start()
    assert own_docker.field("over", "{{.State.OOMKilled}} {{.State.Status}} {{.State.ExitCode}}") == "true exited 5"
    poll(lambda: own_docker.field("on", "{{.State.OOMKilled}} {{.State.Status}}") == "true running", "the kill")
    restart(own_daemon)
    assert own_docker.field("on", "{{.State.OOMKilled}} {{.State.Status}}") == "true running"
    own_docker.ok("rm", "-f", "on", "over")
    check(own_daemon, own_docker)


def test_a_policy_goes_on(own_daemon: Daemon, own_docker: Client) -> None:
    own_docker.run("--restart", "always", own_docker.image, "sh", "-c", "exec sleep 1000", name="always")
    pid = pid_of(own_docker, "always")
    own_daemon.kill()
    os.kill(pid, signal.SIGKILL)
    poll(lambda: is_gone(pid), "the program to end")
    own_daemon.start()
    poll(lambda: own_docker.state("always") == "running" and pid_of(own_docker, "always") != pid, "the next run")
    restart(own_daemon)
    os.kill(pid_of(own_docker, "always"), signal.SIGKILL)
    poll(lambda: own_docker.field("always", "{{.RestartCount}} {{.State.Status}}") == "1 running", "one more run")
    own_docker.ok("rm", "-f", "always")
    check(own_daemon, own_docker)


def test_right_after_create(own_daemon: Daemon, own_docker: Client) -> None:
    id = own_docker.ok("create", "--name", "new", "-p", "18312:80", own_docker.image, "echo", "hello")
    restart(own_daemon)
    assert own_docker.field("new", "{{.Id}} {{.State.Status}}") == f"{id} created"
    assert own_docker.ok("start", "-a", "new") == "hello"
    own_docker.ok("rm", "new")
    check(own_daemon, own_docker)


@pytest.mark.parametrize("pause_s", [0.02, 0.11])
def test_in_the_middle_of_runs(own_daemon: Daemon, own_docker: Client, pause_s: float) -> None:
    """Containers are started and removed as fast as it goes when the daemon is killed; the moment differs each time."""
    stop = threading.Event()

    def loop(words: list[str]) -> None:
        while not stop.is_set():
            own_docker("run", *words, own_docker.image, "echo", "x")

    kinds = (["--rm"], ["--rm", "-p", "80"], ["-d"], ["--rm", "-t"])
    loops = [threading.Thread(target=loop, args=(kind,)) for kind in kinds]
    for thread in loops:
        thread.start()
    try:
        for round_ in range(4):
            poll(lambda: own_docker.ok("ps", "-aq", "-n", "1") != "", "a container")
            stop.wait(pause_s + round_ * 0.027)  # no synchronisation: it chooses the moment
            own_daemon.kill()
            own_daemon.start()
    finally:
        stop.set()
        for thread in loops:
            thread.join(30)
    poll(lambda: own_docker.ok("ps", "-q") == "", "every run to end")
    if left := own_docker.ids():
        own_docker.ok("rm", *left)
    check(own_daemon, own_docker)


@pytest.mark.parametrize("pause_s", [0.0, 0.03, 0.1, 0.25])
def test_in_the_middle_of_load_and_import(own_daemon: Daemon, own_docker: Client, pause_s: float) -> None:
    layers = [tar_of({f"file{number}": os.urandom(8 << 20)}) for number in range(4)]
    archive = docker_archive(["big:1"], layers)
    results = []
    commands = (["load"], archive), (["import", "-", "big:2"], layers[0])
    threads = [
        threading.Thread(target=lambda words, data: results.append(own_docker(*words, stdin=data)), args=command)
        for command in commands
    ]
    for thread in threads:
        thread.start()
    time.sleep(pause_s)  # no synchronisation: it chooses the moment
    restart(own_daemon)
    for thread in threads:
        thread.join(30)
    check(own_daemon, own_docker)
    for words, data in commands:
        own_docker.ok(*words, stdin=data)
    images = set(own_docker.ok("images", "-q").split()) - {own_docker.ok("images", "-q", "busybox")}
    own_docker.ok("rmi", "-f", *images)
    blobs = len(list((own_daemon.data_root / "content/blobs/sha256").iterdir()))
    assert blobs == 3, "busybox: a manifest, a configuration, a layer"
    check(own_daemon, own_docker)


def test_sigterm_lets_containers_go_on(own_daemon: Daemon, own_docker: Client) -> None:
    own_docker.run(own_docker.image, "sh", "-c", WAITING + "exit 3", name="on")
    pid = pid_of(own_docker, "on")
    session = own_docker.start("logs", "-f", "on")
    session.read_until("begun\n")
    assert own_daemon.stop() == 0
    assert session.wait().out == ""
    assert not is_gone(pid)
    own_daemon.start()
    assert pid_of(own_docker, "on") == pid
    own_docker.ok("exec", "on", "touch", "/go")
    assert own_docker.ok("wait", "on") == "3"


# --- a monitor


def test_a_killed_monitor_is_the_containers_end(own_daemon: Daemon, own_docker: Client) -> None:
    own_docker.run("-p", "18313:80", own_docker.image, "sh", "-c", "sleep 1000 & sleep 2000", name="orphan")
    pid = pid_of(own_docker, "orphan")
    waiting = own_docker.start("wait", "orphan")
    os.kill(monitor_of(pid), signal.SIGKILL)
    assert waiting.wait().out == "137\n"
    assert own_docker.field("orphan", "{{.State.Status}} {{.State.ExitCode}}") == "exited 137"
    poll(lambda: is_gone(pid), "the program's end")
    own_docker.ok("start", "orphan")
    own_docker.ok("rm", "-f", "orphan")
    check(own_daemon, own_docker)


def test_a_monitor_killed_while_no_daemon_runs(own_daemon: Daemon, own_docker: Client) -> None:
    own_docker.run("--rm", own_docker.image, "sleep", "1000", name="unkept")
    own_docker.run(own_docker.image, "sleep", "1000", name="kept")
    pids = [pid_of(own_docker, name) for name in ("unkept", "kept")]
    monitors = [monitor_of(pid) for pid in pids]
    own_daemon.kill()
    for monitor in monitors:
        os.kill(monitor, signal.SIGKILL)
    poll(lambda: all(map(is_gone, pids)), "the programs to end with their monitors")
    own_daemon.start()
    assert own_docker.field("kept", "{{.State.Status}} {{.State.ExitCode}}") == "exited 137"
    poll(lambda: own_docker.ok("ps", "-aq").count("\n") == 0, "--rm to be done")
    own_docker.ok("rm", "kept")
    check(own_daemon, own_docker)


def test_the_zygote_is_replaced(own_daemon: Daemon, own_docker: Client) -> None:
    assert own_daemon.process is not None
    tasks = Path(f"/proc/{own_daemon.process.pid}/task").glob("*/children")
    children = [pid for task in tasks for pid in task.read_text().split()]
    (zygote,) = [int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text() == "pier-zygote\n"]
    own_docker.run(own_docker.image, "sleep", "1000", name="before")
    os.kill(zygote, signal.SIGKILL)
    assert own_docker.ok("run", "--rm", own_docker.image, "echo", "after") == "after"
    assert own_docker.state("before") == "running"
    assert own_docker.ok("exec", "before", "echo", "hello") == "hello"
    own_docker.ok("rm", "-f", "before")
    check(own_daemon, own_docker)
