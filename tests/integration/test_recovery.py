"""Containers outlive the daemon, and are found again with their logs, streams and exit codes."""

import urllib.request
from pathlib import Path

import pytest

from .conftest import Daemon, poll

pytestmark = pytest.mark.root


@pytest.fixture
def busy_daemon(own_daemon: Daemon, starter_images: list[Path]) -> Daemon:
    own_daemon.start()
    assert own_daemon.pier("import", str(starter_images[0]), "busybox:latest").status == 0
    return own_daemon


def state(daemon: Daemon, name: str) -> str:
    return daemon.pier("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", name).out.strip()


def pid(daemon: Daemon, name: str) -> str:
    return daemon.pier("inspect", "--format", "{{.State.Pid}}", name).out.strip()


def test_a_running_container_outlives_kill_9(busy_daemon: Daemon) -> None:
    script = "n=0; while true; do n=$((n+1)); echo line $n; sleep 0.1; done"
    started = busy_daemon.pier("run", "-d", "--name", "ticker", "busybox", "sh", "-c", script)
    assert started.status == 0, started.err
    before = pid(busy_daemon, "ticker")
    busy_daemon.kill()
    busy_daemon.start()
    assert state(busy_daemon, "ticker") == "running 0"
    assert pid(busy_daemon, "ticker") == before
    seen = len(busy_daemon.pier("logs", "ticker").out.splitlines())
    poll(lambda: len(busy_daemon.pier("logs", "ticker").out.splitlines()) > seen, "the log to go on")
    lines = busy_daemon.pier("logs", "ticker").out.splitlines()
    assert lines == [f"line {number}" for number in range(1, len(lines) + 1)], "no line is lost or doubled"
    assert busy_daemon.pier("exec", "ticker", "echo", "hello").out == "hello\n"
    assert busy_daemon.pier("rm", "-f", "ticker").status == 0


def test_an_end_that_no_daemon_saw_is_known_afterwards(busy_daemon: Daemon) -> None:
    script = "echo before; sleep 1; echo after; exit 7"
    assert busy_daemon.pier("run", "-d", "--name", "brief", "busybox", "sh", "-c", script).status == 0
    host_pid = pid(busy_daemon, "brief")
    busy_daemon.kill()
    poll(lambda: not Path(f"/proc/{host_pid}").exists(), "the container to end")
    busy_daemon.start()
    poll(lambda: state(busy_daemon, "brief") == "exited 7", "the exit code")
    assert busy_daemon.pier("logs", "brief").out == "before\nafter\n"
    assert busy_daemon.pier("wait", "brief").out == "7\n"


@pytest.mark.parametrize("ends", ["while no daemon runs", "after the restart"])
def test_removal_on_exit_survives_the_daemon(busy_daemon: Daemon, ends: str) -> None:
    script = "while [ ! -e /host/end ]; do sleep 0.05; done"
    shared = ["-v", f"{busy_daemon.root}:/host:ro"]
    assert busy_daemon.pier("run", "-d", "--rm", "--name", "brief", *shared, "busybox", "sh", "-c", script).status == 0
    host_pid = pid(busy_daemon, "brief")
    busy_daemon.kill()
    if ends == "after the restart":
        busy_daemon.start()
        assert state(busy_daemon, "brief") == "running 0"
    (busy_daemon.root / "end").touch()
    poll(lambda: not Path(f"/proc/{host_pid}").exists(), "the container to end")
    if busy_daemon.has_ended():
        busy_daemon.start()
    poll(lambda: busy_daemon.pier("ps", "-aq").out == "", "the removal")
    assert list((busy_daemon.data_root / "containers").iterdir()) == []


def test_a_published_port_outlives_an_orderly_stop(busy_daemon: Daemon) -> None:
    page = "echo served >/var/www/index.html; exec httpd -f -p 80 -h /var/www"
    arguments = ["-p", "127.0.0.1:18099:80", "busybox", "sh", "-c", page]
    assert busy_daemon.pier("run", "-d", "--name", "web", *arguments).status == 0
    url = "http://127.0.0.1:18099/"

    def served() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return bool(answer.read() == b"served\n")
        except OSError:
            return False

    poll(served, "the page")
    assert busy_daemon.stop() == 0
    assert served(), "the port stays while no daemon runs"
    busy_daemon.start()
    assert served()
    assert state(busy_daemon, "web") == "running 0"
