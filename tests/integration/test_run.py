"""`docker run`: streams, terminals, signals, exit statuses, what is left afterwards."""

import re
import signal
from pathlib import Path

import pytest

from .client import Client
from .conftest import Daemon, poll

pytestmark = pytest.mark.root

TRAP = 'trap "echo caught; exit 5" INT TERM; echo ready; while :; do sleep 0.1; done'
START_FAILED = (
    "docker: Error response from daemon: failed to create task for container: failed to create shim task: OCI runtime "
    "create failed: runc create failed: unable to start container process: error during container init: "
)
HELP = "\n\nRun 'docker run --help' for more information\n"


def test_streams_stay_apart_and_the_status_is_the_programs(docker: Client) -> None:
    done = docker("run", "--rm", docker.image, "sh", "-c", "echo out; echo err >&2; exit 42")
    assert (done.out, done.err, done.status) == ("out\n", "err\n", 42)


@pytest.mark.parametrize(
    ("command", "status", "reason"),
    [
        (["nosuch"], 127, 'exec: "nosuch": executable file not found in $PATH'),
        (["/no/such"], 127, 'exec: "/no/such": stat /no/such: no such file or directory'),
        (["/etc"], 126, 'exec: "/etc": is a directory: permission denied'),
        (["/etc/passwd"], 126, 'exec: "/etc/passwd": permission denied'),
    ],
)
def test_a_program_that_cannot_be_executed(docker: Client, command: list[str], status: int, reason: str) -> None:
    done = docker("run", "--rm", docker.image, *command)
    assert (done.out, done.err, done.status) == ("", START_FAILED + reason + HELP, status)


def test_such_a_container_stays_created_and_says_why(docker: Client) -> None:
    assert docker("run", "--name", "t-failed", docker.image, "nosuch").status == 127
    assert docker.field("t-failed", "{{.State.Status}} {{.State.ExitCode}} {{.State.Pid}}") == "created 127 0"
    assert docker.field("t-failed", "{{.State.Error}}").endswith("executable file not found in $PATH")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--user", "nosuch"], "unable to find user nosuch: no matching entries in passwd file"),
        (["--network", "container:nosuch"], "joining network namespace of container: No such container: nosuch"),
        (["-m", "1k"], "Minimum memory limit allowed is 6MB"),
        (["-w", "relative"], "the working directory 'relative' is invalid, it needs to be an absolute path"),
    ],
)
def test_what_the_daemon_refuses_is_125(docker: Client, words: list[str], message: str) -> None:
    done = docker("run", "--rm", *words, docker.image, "true")
    assert (done.out, done.err, done.status) == ("", f"docker: Error response from daemon: {message}{HELP}", 125)


def test_a_bad_flag_is_125(docker: Client) -> None:
    done = docker("run", "--bogus", docker.image)
    assert (done.out, done.status) == ("", 125)
    assert done.err.startswith("unknown flag: --bogus\n")


def test_input_of_a_megabyte_comes_back_whole(docker: Client) -> None:
    text = "".join(f"line {number}\n" for number in range(100_000))
    done = docker("run", "--rm", "-i", docker.image, "cat", stdin=text.encode())
    assert done.out == text


def test_without_i_the_program_has_no_input(docker: Client) -> None:
    assert docker.ok("run", "--rm", docker.image, "cat", stdin=b"unread") == ""


def test_the_end_of_input_reaches_the_program(docker: Client) -> None:
    session = docker.start("run", "--rm", "-i", docker.image, "sh", "-c", "cat; echo end; exit 3")
    session.send(b"some\n")
    session.read_until("some\n")
    session.close_stdin()
    assert session.wait() == type(session.wait())(3, "end\n", "")


def test_rm_leaves_nothing_and_d_prints_the_id(docker: Client) -> None:
    docker.ok("run", "--rm", "--name", "t-gone", docker.image, "true")
    assert docker.ok("ps", "-aq", "-f", "name=t-gone") == ""
    id = docker.run("--rm", docker.image, "sleep", "1000")
    assert re.fullmatch("[0-9a-f]{64}", id)
    assert docker.state(id) == "running"
    docker.ok("kill", id)
    poll(lambda: id not in docker.ids(), "the container to remove itself")


# --- signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_the_client_reach_the_program(docker: Client, number: int) -> None:
    session = docker.start("run", "--rm", docker.image, "sh", "-c", TRAP)
    session.read_until("ready\n")
    session.signal(number)
    done = session.wait()
    assert (done.out, done.status) == ("caught\n", 5)


def test_trap_02_without_the_proxy_a_signal_ends_the_client_alone(docker: Client) -> None:
    session = docker.start("run", "--sig-proxy=false", "--name", "t-noproxy", docker.image, "sh", "-c", TRAP)
    session.read_until("ready\n")
    for _ in range(3):  # Docker's client gives up at the third
        session.signal(signal.SIGTERM)
    poll(lambda: session.has_ended() or session.signal(signal.SIGTERM), "the client to end")
    assert docker.state("t-noproxy") == "running"
    assert docker.ok("logs", "t-noproxy") == "ready"


def test_a_killed_program_is_128_and_its_signal(docker: Client) -> None:
    session = docker.start("run", "--name", "t-killed", docker.image, "sh", "-c", "echo ready; exec sleep 1000")
    session.read_until("ready\n")
    docker.ok("kill", "t-killed")
    assert session.wait().status == 128 + signal.SIGKILL
    assert docker.field("t-killed", "{{.State.ExitCode}} {{.State.OOMKilled}}") == "137 false"


def test_memory_over_the_limit_is_an_oom_kill(docker: Client) -> None:
    done = docker("run", "--name", "t-oom", "-m", "16m", "--memory-swap", "16m", docker.image, "tail", "/dev/zero")
    assert done.status == 137
    assert docker.field("t-oom", "{{.State.OOMKilled}}") == "true"


# --- terminals


def test_a_terminal_has_size_and_takes_another(docker: Client) -> None:
    script = 'trap "stty size" WINCH; stty size; while :; do sleep 0.1; done'
    session = docker.terminal("run", "--rm", "-it", docker.image, "sh", "-c", script, rows=30, columns=100)
    session.read_until("30 100\r\n")
    # Docker's client listens to the kernel's signal only a moment after the program has begun.
    poll(lambda: session.resize(41, 132) or session.shows("41 132\r\n"), "the new size")


def test_keys_reach_the_program_and_are_echoed(docker: Client) -> None:
    session = docker.terminal("run", "--rm", "-it", docker.image, "sh")
    session.read_until("# ")
    session.send(b"echo $((6 * 7)); tty\n")
    assert "echo $((6 * 7)); tty\r\n42\r\n/dev/pts/0\r\n" in session.read_until("/dev/pts/0\r\n")
    session.send(b"exit 9\n")
    assert session.wait().status == 9


def test_ctrl_c_is_the_programs(docker: Client) -> None:
    session = docker.terminal("run", "--rm", "-it", docker.image, "sh", "-c", TRAP)
    session.read_until("ready\r\n")
    session.send(b"\x03")
    done = session.wait()
    assert done.status == 5
    assert done.out.endswith("caught\r\n")


def test_detach_keys_leave_it_running(docker: Client) -> None:
    session = docker.terminal("run", "-it", "--name", "t-detach", docker.image, "sh")
    session.read_until("# ")
    session.send(b"\x10\x11")
    done = session.wait()
    assert done.status == 0
    assert docker.state("t-detach") == "running"
    assert docker.ok("exec", "t-detach", "echo", "still") == "still"


def test_other_detach_keys(docker: Client) -> None:
    session = docker.terminal("run", "-it", "--name", "t-keys", "--detach-keys", "ctrl-a,x", docker.image, "cat")
    session.send(b"\x10\x11one\n")
    session.read_until("one\r\n")
    session.send(b"\x01x")
    assert session.wait().status == 0
    assert docker.state("t-keys") == "running"


def test_a_terminal_in_the_container_alone(docker: Client) -> None:
    done = docker("run", "--rm", "-t", docker.image, "sh", "-c", "tty; echo err >&2")
    assert (done.out, done.err) == ("/dev/pts/0\r\nerr\r\n", "")


def test_trap_12_input_that_is_no_terminal(docker: Client) -> None:
    done = docker("run", "--rm", "-it", docker.image, "true")
    assert (done.err, done.status) == ("the input device is not a TTY\n", 1)


# --- options that act together with the life of a container


def test_restart_on_failure_counts(docker: Client) -> None:
    id = docker.run("--restart", "on-failure:2", docker.image, "sh", "-c", "echo try; exit 3")
    assert docker.ok("wait", id) == "3"
    poll(lambda: docker.field(id, "{{.State.Status}} {{.RestartCount}}") == "exited 2", "two restarts")
    assert docker.ok("logs", id) == "try\ntry\ntry"


def test_cidfile(docker: Client, tmp_path: Path) -> None:
    file = tmp_path / "cid"
    id = docker.run("--cidfile", str(file), docker.image, "sleep", "1000")
    assert file.read_text() == id


def test_an_init_reaps(docker: Client) -> None:
    """The orphan becomes a child of pid 1, which is not the program."""
    script = "(sleep 0.01 & ) ; while ps -o comm,stat | grep -q '^sleep'; do sleep 0.05; done; echo reaped; exit 6"
    done = docker("run", "--rm", "--init", docker.image, "sh", "-c", script)
    assert (done.out, done.status) == ("reaped\n", 6)


def test_bind_mounts(docker: Client, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from the host")
    volumes = ["-v", f"{tmp_path}:/data", "-v", f"{tmp_path}:/closed:ro"]
    script = "cat /data/in; echo back >/data/out; echo no 2>&1 >/closed/out || true"
    done = docker("run", "--rm", *volumes, docker.image, "sh", "-c", script)
    assert done.out.startswith("from the host")
    assert "Read-only file system" in done.out + done.err
    assert (tmp_path / "out").read_text() == "back\n"


def test_twenty_at_once(docker: Client) -> None:
    sessions = [docker.start("run", "--rm", docker.image, "echo", str(number)) for number in range(20)]
    assert [session.wait().out for session in sessions] == [f"{number}\n" for number in range(20)]


def test_the_whole_host_as_a_bind_mount(docker: Client, daemon: Daemon) -> None:
    """The container's own root must not lie over what it shows of the host."""
    seen = docker.ok("run", "--rm", "-v", "/:/host:ro", docker.image, "cat", "/host/etc/os-release")
    assert seen == Path("/etc/os-release").read_text().removesuffix("\n")
