"""`docker exec`: one more process in a running container."""

import pytest

from .client import Client
from .conftest import poll

pytestmark = pytest.mark.root

FAILED = "OCI runtime exec failed: exec failed: unable to start container process: "


@pytest.fixture
def running(docker: Client) -> str:
    """A container that runs, by its name."""
    docker.run("-e", "FROM=create", "-w", "/tmp", docker.image, "sleep", "1000", name="t-box")
    return "t-box"


def test_streams_and_status(docker: Client, running: str) -> None:
    done = docker("exec", running, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.out, done.err, done.status) == ("out\n", "err\n", 7)


def test_it_is_in_the_container(docker: Client, running: str) -> None:
    assert docker.ok("exec", running, "sh", "-c", "pwd; echo $FROM; hostname") == "\n".join(
        ("/tmp", "create", docker.field(running, "{{.Config.Hostname}}"))
    )
    assert "sleep 1000" in docker.ok("exec", running, "ps", "-o", "args")


def test_its_own_settings(docker: Client, running: str) -> None:
    words = ["-e", "A=1", "-e", "FROM=exec", "-w", "/etc", "-u", "65534:1"]
    script = "echo $A $FROM; pwd; id -u; id -g"
    assert docker.ok("exec", *words, running, "sh", "-c", script) == "1 exec\n/etc\n65534\n1"


@pytest.mark.parametrize(
    ("words", "text", "status"),
    [
        (["nosuch"], 'exec: "nosuch": executable file not found in $PATH', 127),
        (["/etc"], 'exec: "/etc": is a directory: permission denied', 126),
    ],
)
def test_a_program_that_cannot_be_executed(
    docker: Client, running: str, words: list[str], text: str, status: int
) -> None:
    done = docker("exec", running, *words)
    assert (done.out.rstrip("\r\n"), done.err, done.status) == (FAILED + text, "", status)


def test_a_working_directory_that_is_not_there_is_not_made(docker: Client, running: str) -> None:
    done = docker("exec", "-w", "/nope", running, "true")
    assert done.status == 127
    assert 'chdir to cwd ("/nope") set in config.json failed: no such file or directory' in done.out
    assert docker("exec", running, "ls", "/nope").status == 1


def test_an_unknown_user(docker: Client, running: str) -> None:
    done = docker("exec", "-u", "nosuch", running, "true")
    message = "Error response from daemon: unable to find user nosuch: no matching entries in passwd file\n"
    assert (done.out, done.err, done.status) == ("", message, 1)


def test_a_stopped_container(docker: Client) -> None:
    id = docker.ok("create", docker.image, "true")
    done = docker("exec", id, "true")
    assert (done.err, done.status) == (f"Error response from daemon: container {id} is not running\n", 1)


def test_input_of_a_megabyte_comes_back_whole(docker: Client, running: str) -> None:
    text = "".join(f"line {number}\n" for number in range(100_000))
    assert docker("exec", "-i", running, "cat", stdin=text.encode()).out == text


def test_a_terminal(docker: Client, running: str) -> None:
    session = docker.terminal("exec", "-it", running, "sh", rows=33, columns=99)
    session.read_until("# ")
    session.send(b"stty size; tty\n")
    session.read_until("33 99\r\n/dev/pts/")
    poll(lambda: session.resize(20, 60) or "20 60" in sized(docker, running), "the new size")
    session.send(b"exit 9\n")
    assert session.wait().status == 9


def sized(docker: Client, name: str) -> str:
    return docker.ok("exec", name, "sh", "-c", "for t in /dev/pts/[0-9]*; do stty size <$t; done")


def test_ctrl_c_ends_its_program_and_not_the_container(docker: Client, running: str) -> None:
    session = docker.terminal("exec", "-it", running, "sh", "-c", "echo ready; sleep 1000")
    session.read_until("ready\r\n")
    session.send(b"\x03")
    assert session.wait().status == 130
    assert docker.state(running) == "running"


def test_detach_keys_leave_it_running(docker: Client, running: str) -> None:
    session = docker.terminal("exec", "-it", running, "sh", "-c", "echo ready; sleep 2000")
    session.read_until("ready\r\n")
    session.send(b"\x10\x11")
    assert "read escape sequence" in session.wait().out
    assert "sleep 2000" in docker.ok("exec", running, "ps", "-o", "args")


def test_in_the_background(docker: Client, running: str) -> None:
    assert docker.ok("exec", "-d", running, "sh", "-c", "echo x >/done") == ""
    poll(lambda: docker("exec", running, "cat", "/done").out == "x\n", "the file")


def test_a_background_process_does_not_hold_it(docker: Client, running: str) -> None:
    """containerd waits for two seconds for the output of what is left behind, and so is Docker's client held."""
    assert docker.ok("exec", running, "sh", "-c", "sleep 2000 & echo done") == "done"
    assert "sleep 2000" in docker.ok("exec", running, "ps", "-o", "args")


def test_it_ends_with_the_container(docker: Client, running: str) -> None:
    session = docker.start("exec", running, "sh", "-c", "echo ready; exec sleep 1000")
    session.read_until("ready\n")
    docker.ok("kill", running)
    assert session.wait().status == 137


def test_ten_at_once(docker: Client, running: str) -> None:
    sessions = [docker.start("exec", running, "echo", str(number)) for number in range(10)]
    assert [session.wait().out for session in sessions] == [f"{number}\n" for number in range(10)]
