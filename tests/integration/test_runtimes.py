"""Other OCI runtimes under the daemon, driven by Docker's command line: Pier's own command in that part, and runc."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from .client import Client
from .conftest import BIN, FIRST, Daemon, client_of, made_daemon, poll

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def engine(starter_images: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that knows pier-runtime as `shell`, and some that do not work."""
    scripts = tmp_path_factory.mktemp("runtimes")
    (scripts / "failing").write_text("#!/bin/sh\necho oops >&2; exit 3\n")
    (scripts / "failing").chmod(0o755)
    (scripts / "garbage").write_text("garbage")
    (scripts / "garbage").chmod(0o755)
    with made_daemon(FIRST + 1) as daemon:
        daemon.flags = ["--add-runtime", f"shell={BIN / 'pier-runtime'}"]
        runtimes = {
            "failing": {"path": str(scripts / "failing")},
            "garbage": {"path": str(scripts / "garbage")},
            "missing": {"path": "/nonexistent/runtime", "runtimeArgs": ["--fast"]},
        }
        (daemon.root / "daemon.json").write_text(json.dumps({"runtimes": runtimes}))
        daemon.start()
        assert daemon.pier("import", "--change", 'CMD ["sh"]', str(starter_images[0]), "busybox:latest").status == 0
        yield daemon


@pytest.fixture
def cli(engine: Daemon) -> Iterator[Client]:
    if engine.has_ended():
        engine.start()
    yield from client_of(engine.environment, "busybox")
    left = engine.exec_root / "containers"
    assert os.listdir(left) == []


@pytest.fixture(params=["shell", "runc"])
def runtime(request: pytest.FixtureRequest) -> str:
    if request.param == "runc" and shutil.which("runc") is None:
        pytest.skip("runc is not installed")
    return str(request.param)


def inspect(cli: Client, name: str, template: str) -> str:
    return cli("inspect", "--format", template, name).out.strip()


def test_runs_and_ends(cli: Client, runtime: str) -> None:
    done = cli("run", "--rm", "--runtime", runtime, "busybox", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.status, done.out, done.err) == (7, "out\n", "err\n")
    assert cli("run", "--rm", "-i", "--runtime", runtime, "busybox", "cat", stdin=b"over\n").out == "over\n"
    done = cli(
        "run", "--rm", "--runtime", runtime, "-u", "1000:7", "-w", "/made", "busybox", "sh", "-c", "id -u; id -g; pwd"
    )
    assert done.out == "1000\n7\n/made\n"


@pytest.mark.parametrize(("program", "status"), [("nosuch", 127), ("/etc", 126)])
def test_program_that_cannot_be_executed(cli: Client, runtime: str, program: str, status: int) -> None:
    done = cli("run", "--rm", "--runtime", runtime, "busybox", program)
    assert done.status == status
    assert "failed to create shim task: OCI runtime create failed: " in done.err


def test_seccomp_and_capabilities_are_the_containers(cli: Client, runtime: str) -> None:
    words = ["grep", "-E", "^(Seccomp|CapEff|NoNewPrivs):", "/proc/self/status"]
    own = cli("run", "--rm", "busybox", *words).out
    assert cli("run", "--rm", "--runtime", runtime, "busybox", *words).out == own
    unconfined = cli("run", "--rm", "--runtime", runtime, "--security-opt", "seccomp=unconfined", "busybox", *words)
    assert "Seccomp:\t0" in unconfined.out
    denied = cli("run", "--rm", "--runtime", runtime, "busybox", "unshare", "-U", "true")
    assert denied.status != 0


def test_terminal(cli: Client, runtime: str) -> None:
    session = cli.terminal("run", "--rm", "-it", "--runtime", runtime, "busybox", rows=31, columns=91)
    until = (
        "until [ \"$(stty size)\" = '{}' ]; do sleep 0.02; done; {}\n"  # the client says its size when it comes to it
    )
    session.send(until.format("31 91", "echo begun''so").encode())
    session.read_until("begunso")
    session.resize(20, 60)
    session.send(until.format("20 60", "exit 5").encode())
    assert session.wait().status == 5


def test_life(cli: Client, runtime: str) -> None:
    script = "trap 'echo bye; exit 4' TERM; echo hello; while true; do sleep 0.1; done"
    assert cli("run", "-d", "--name", "life", "--runtime", runtime, "busybox", "sh", "-c", script).status == 0
    poll(lambda: cli("logs", "life").out == "hello\n", "the log")
    assert inspect(cli, "life", "{{.HostConfig.Runtime}} {{.State.Status}}") == f"{runtime} running"
    done = cli("exec", "-i", "life", "sh", "-c", "cat; echo $HOME; exit 3", stdin=b"in\n")
    assert (done.status, done.out) == (3, "in\n/root\n")
    assert cli("exec", "life", "nosuch").status == 127
    assert "sleep" in cli("top", "life").out
    shown = ("stats", "--no-stream", "--format", "{{.PIDs}}", "life")
    poll(lambda: cli(*shown).out.strip() not in ("", "0", "--"), "a reading")
    assert cli("pause", "life").status == 0
    assert inspect(cli, "life", "{{.State.Status}}") == "paused"
    assert cli("unpause", "life").status == 0
    assert cli("update", "--pids-limit", "33", "life").status == 0
    assert cli("kill", "-s", "TERM", "life").status == 0
    assert cli("wait", "life").out == "4\n"
    assert cli("logs", "life").out == "hello\nbye\n"
    assert cli("start", "life").status == 0
    assert cli("restart", "-t", "5", "life").status == 0
    assert cli("stop", "-t", "5", "life").status == 0
    assert inspect(cli, "life", "{{.State.ExitCode}}") == "4"
    assert cli("logs", "life").out == "hello\nbye\n" * 3


def test_attach_and_exec_at_a_terminal(cli: Client, runtime: str) -> None:
    assert cli("run", "-dit", "--name", "shell", "--runtime", runtime, "busybox").status == 0
    session = cli.terminal("exec", "-it", "shell", "sh", rows=22, columns=77)
    session.send(b"stty size; exit 9\n")
    session.read_until("22 77")
    assert session.wait().status == 9
    session = cli.terminal("attach", "shell", rows=24, columns=80)
    session.send(b"echo to''gether; exit 6\n")
    session.read_until("together")
    assert session.wait().status == 6


def test_published_port_and_memory_limit(cli: Client, runtime: str) -> None:
    page = "echo served >/var/www/index.html; exec httpd -f -p 80 -h /var/www"
    ports = ["-p", "127.0.0.1:18117:80", "-m", "64m"]
    done = cli("run", "-d", "--name", "web", *ports, "--runtime", runtime, "busybox", "sh", "-c", page)
    assert done.status == 0, done.err

    def served() -> bool:
        try:
            with urllib.request.urlopen("http://127.0.0.1:18117/", timeout=2) as answer:
                return bool(answer.read() == b"served\n")
        except OSError:
            return False

    poll(served, "the page")
    poll(lambda: "64MiB" in cli("stats", "--no-stream", "web").out, "a reading")


def test_out_of_memory_is_noticed(cli: Client, runtime: str) -> None:
    hog = "x=a; while true; do x=$x$x; done"
    limits = ["-m", "16m", "--memory-swap", "16m"]
    assert cli("run", "--name", "hog", *limits, "--runtime", runtime, "busybox", "sh", "-c", hog).status == 137
    assert inspect(cli, "hog", "{{.State.OOMKilled}}") == "true"


def test_container_outlives_kill_9_of_the_daemon(engine: Daemon, cli: Client, runtime: str) -> None:
    assert cli("run", "-d", "--name", "through", "--runtime", runtime, "busybox", "sleep", "1000").status == 0
    before = inspect(cli, "through", "{{.State.Pid}}")
    engine.kill()
    engine.start()
    assert inspect(cli, "through", "{{.State.Pid}} {{.State.Status}}") == f"{before} running"
    assert cli("exec", "through", "echo", "there").out == "there\n"
    assert cli("stop", "-t", "0", "through").status == 0
    assert inspect(cli, "through", "{{.State.ExitCode}}") == "137"


def monitor_of(pid: str) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def has_ended(pid: str) -> bool:
    """Gone, or a zombie that the machine's init has not buried yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_killed_monitor_is_noticed(cli: Client, runtime: str) -> None:
    assert cli("run", "-d", "--name", "orphan", "--runtime", runtime, "busybox", "sleep", "1000").status == 0
    pid = inspect(cli, "orphan", "{{.State.Pid}}")
    os.kill(monitor_of(pid), signal.SIGKILL)
    poll(lambda: inspect(cli, "orphan", "{{.State.Status}} {{.State.ExitCode}}") == "exited 137", "the end")
    assert has_ended(pid)
    assert cli("start", "orphan").status == 0
    assert cli("rm", "-f", "orphan").status == 0


def test_monitor_killed_without_a_daemon(engine: Daemon, cli: Client, runtime: str) -> None:
    assert cli("run", "-d", "--name", "both", "--runtime", runtime, "busybox", "sleep", "1000").status == 0
    pid = inspect(cli, "both", "{{.State.Pid}}")
    folder = engine.exec_root / "containers" / inspect(cli, "both", "{{.Id}}")
    engine.kill()
    os.kill(monitor_of(pid), signal.SIGKILL)
    engine.start()
    assert inspect(cli, "both", "{{.State.Status}} {{.State.ExitCode}}") == "exited 137"
    assert has_ended(pid)
    assert "oci" not in os.listdir(folder)


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("nope", 125, "unknown or invalid runtime name: nope"),
        ("failing", 127, "failing did not terminate successfully: exit status 3"),
        ("garbage", 127, "exec format error"),
        ("missing", 127, "error while looking up the specified runtime path: exec: "
         '"/nonexistent/runtime": stat /nonexistent/runtime: no such file or directory'),
    ],
)  # fmt: skip
def test_bad_runtime(cli: Client, name: str, status: int, words: str) -> None:
    done = cli("run", "--rm", "--runtime", name, "busybox", "true")
    assert done.status == status
    assert words in done.err
    assert cli("ps", "-aq").out == ""


def test_runc_is_known_where_it_is_installed_alone(cli: Client) -> None:
    done = cli("create", "--runtime", "runc", "busybox")
    assert ("unknown or invalid runtime name: runc" in done.err) == (shutil.which("runc") is None)


def test_info(engine: Daemon, cli: Client) -> None:
    found = json.loads(cli("info", "--format", "{{json .}}").out)
    assert found["DefaultRuntime"] == "pier"
    runtimes = found["Runtimes"]
    assert {"pier", "shell", "failing", "garbage", "missing"} <= runtimes.keys()
    assert ("runc" in runtimes) == (shutil.which("runc") is not None)
    assert runtimes["shell"]["path"] == str(BIN / "pier-runtime")
    key = "org.opencontainers.runtime-spec.features"
    for name in ("shell", "pier"):
        assert "ociVersionMax" in json.loads(runtimes[name]["status"][key])
    assert runtimes["missing"] == {"path": "/nonexistent/runtime", "runtimeArgs": ["--fast"]}


def test_reload(engine: Daemon, cli: Client) -> None:
    config = engine.root / "daemon.json"
    text = config.read_text()
    changed = json.loads(text)
    changed["runtimes"]["second"] = {"path": str(BIN / "pier-runtime")}
    changed["default-runtime"] = "second"
    assert engine.process is not None
    try:
        config.write_text(json.dumps(changed))
        engine.process.send_signal(signal.SIGHUP)
        poll(lambda: cli("info", "--format", "{{.DefaultRuntime}}").out == "second\n", "the reload")
        done = cli("run", "--name", "by-default", "busybox", "echo", "hi")
        assert done.out == "hi\n"
        assert inspect(cli, "by-default", "{{.HostConfig.Runtime}}") == "second"
        now = f"{time.time():.9f}"  # the client cuts relative times to whole seconds
        events = cli("events", "--since", "1m", "--until", now, "--filter", "type=daemon", "--format", "{{json .}}").out
        assert json.loads(events.splitlines()[-1])["Actor"]["Attributes"]["default-runtime"] == "second"
        changed["default-runtime"] = "absent"
        config.write_text(json.dumps(changed))
        engine.process.send_signal(signal.SIGHUP)
        words = "specified default runtime 'absent' does not exist"
        poll(lambda: words in engine.log.read_text(), "the refusal")
        assert cli("info", "--format", "{{.DefaultRuntime}}").out == "second\n"
    finally:
        config.write_text(text)
        engine.process.send_signal(signal.SIGHUP)
        poll(lambda: cli("info", "--format", "{{.DefaultRuntime}}").out == "pier\n", "the reload")
