"""`docker attach`: joining a container's streams, leaving them, and several clients at once (trap 2)."""

import signal

import pytest

from .client import Client
from .conftest import poll

pytestmark = pytest.mark.root

LATER = "while ! [ -e /go ]; do sleep 0.02; done; echo now; while ! [ -e /end ]; do sleep 0.02; done; exit 4"


def let(docker: Client, name: str, file: str) -> None:
    """Let the program of `LATER` go on."""
    docker.ok("exec", name, "touch", file)


def test_what_comes_after_joining_and_the_programs_status(docker: Client) -> None:
    docker.run(docker.image, "sh", "-c", f"echo before; {LATER}", name="t-attach")
    session = docker.start("attach", "t-attach")
    poll(lambda: attached(docker, "t-attach") == 1, "the client to be attached")
    let(docker, "t-attach", "/go")
    assert session.read_until("now\n") == "now\n"
    let(docker, "t-attach", "/end")
    assert session.wait().status == 4


def attached(docker: Client, name: str) -> int:
    """How many clients have joined, by the daemon's own account."""
    return len(docker.events("-f", f"container={name}", "-f", "event=attach"))


def test_input_reaches_a_detached_program_and_outlives_the_client(docker: Client) -> None:
    docker.run("-i", docker.image, "sh", "-c", "while read line; do echo got $line; done", name="t-in")
    session = docker.start("attach", "t-in")
    session.send(b"hello\n")
    session.read_until("got hello\n")
    session.close()
    again = docker.start("attach", "t-in")
    again.send(b"more\n")
    again.read_until("got more\n")
    assert docker.ok("logs", "t-in") == "got hello\ngot more"


def test_no_stdin_leaves_the_input_open(docker: Client) -> None:
    docker.run("-i", docker.image, "sh", "-c", "read line; echo got $line", name="t-nostdin")
    session = docker.start("attach", "--no-stdin", "t-nostdin")
    session.close_stdin()
    poll(lambda: attached(docker, "t-nostdin") == 1, "the client to be attached")
    other = docker.start("attach", "t-nostdin")
    other.send(b"x\n")
    assert session.wait().out == "got x\n"
    assert other.wait().status == 0


def test_detach_keys_at_a_terminal_and_back_again(docker: Client) -> None:
    docker.run("-it", docker.image, "sh", name="t-tty")
    for number in (1, 2):
        session = docker.terminal("attach", "t-tty")
        session.send(b"echo round $((%d))\n" % number)
        session.read_until(f"round {number}\r\n")
        session.send(b"\x10\x11")
        done = session.wait()
        assert done.status == 1, "as with Docker: the client was detached, the program goes on"
        assert "read escape sequence" in done.out
        assert docker.state("t-tty") == "running"
    session = docker.terminal("attach", "t-tty")
    session.send(b"exit 3\n")
    assert session.wait().status == 3


def test_signals_are_passed_on(docker: Client) -> None:
    script = 'trap "echo caught; exit 5" TERM; while :; do echo tick; sleep 0.1; done'
    docker.run(docker.image, "sh", "-c", script, name="t-proxy")
    session = docker.start("attach", "t-proxy")
    session.read_until("tick\n")
    session.signal(signal.SIGTERM)
    session.read_until("caught\n")
    assert session.wait().status == 5


def test_trap_02_terminals_mirror_each_other(docker: Client) -> None:
    docker.run("-it", docker.image, "cat", name="t-mirror")
    one, two = docker.terminal("attach", "t-mirror"), docker.terminal("attach", "t-mirror")
    poll(lambda: attached(docker, "t-mirror") == 2, "both to be attached")
    one.send(b"from one\n")
    one.read_until("from one\r\nfrom one\r\n")
    two.read_until("from one\r\nfrom one\r\n")
    two.send(b"from two\n")
    one.read_until("from two\r\nfrom two\r\n")


def test_trap_02_a_client_that_does_not_read_blocks_nobody(docker: Client) -> None:
    """Docker stops the program when one of its clients sleeps; here it goes on, and so do the others."""
    script = f"while ! [ -e /go ]; do sleep 0.02; done; yes | head -c 20000000 >&2; echo done; {LATER}"
    docker.run(docker.image, "sh", "-c", script, name="t-slow")
    slow = docker.start("attach", "t-slow")
    slow.signal(signal.SIGSTOP)
    quick = docker.start("attach", "t-slow")
    poll(lambda: attached(docker, "t-slow") >= 1, "a client")
    let(docker, "t-slow", "/go")
    quick.read_until("done\n")
    slow.signal(signal.SIGCONT)


@pytest.mark.parametrize("kind", ["stopped", "nosuch"])
def test_what_cannot_be_attached(docker: Client, kind: str) -> None:
    docker.ok("create", "--name", "t-stopped", docker.image, "true")
    done = docker("attach", f"t-{kind}")
    words = {
        "stopped": "You cannot attach to a stopped container, start it first\n",
        "nosuch": "Error response from daemon: No such container: t-nosuch\n",
    }
    assert (done.out, done.err, done.status) == ("", words[kind], 1)


def test_start_attached(docker: Client) -> None:
    docker.ok("create", "-i", "--name", "t-start", docker.image, "sh", "-c", "cat; echo err >&2; exit 7")
    done = docker("start", "-ai", "t-start", stdin=b"text\n")
    assert (done.out, done.err, done.status) == ("text\n", "err\n", 7)
