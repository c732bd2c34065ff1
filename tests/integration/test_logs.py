"""`docker logs`: all of it, some of it, and what is still to come."""

import re
import socket
from pathlib import Path

import pytest

from .client import Client
from .conftest import Daemon, poll

pytestmark = pytest.mark.root

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"


def test_streams_stay_apart(docker: Client) -> None:
    docker("run", "--name", "t-log", docker.image, "sh", "-c", "echo out; echo err >&2")
    done = docker("logs", "t-log")
    assert (done.out, done.err, done.status) == ("out\n", "err\n", 0)


def test_follow_ends_with_the_container(docker: Client) -> None:
    script = "echo one; while ! [ -e /go ]; do sleep 0.02; done; echo two; exit 3"
    docker.run(docker.image, "sh", "-c", script, name="t-follow")
    session = docker.start("logs", "-f", "t-follow")
    session.read_until("one\n")
    docker.ok("exec", "t-follow", "touch", "/go")
    done = session.wait()
    assert (done.out, done.status) == ("two\n", 0)


def test_follow_goes_on_over_a_restart(docker: Client) -> None:
    docker.run(docker.image, "sh", "-c", "echo begun; exec sleep 1000", name="t-again")
    session = docker.start("logs", "-f", "t-again")
    session.read_until("begun\n")
    docker.ok("rm", "-f", "t-again")
    assert session.wait().status == 0


def test_tail_since_and_until(docker: Client) -> None:
    docker("run", "--name", "t-some", docker.image, "sh", "-c", "for n in 1 2 3 4 5; do echo $n; sleep 0.02; done")
    assert docker.ok("logs", "--tail", "2", "t-some") == "4\n5"
    assert docker.ok("logs", "-n", "0", "t-some") == ""
    stamped = docker.ok("logs", "-t", "t-some").splitlines()
    assert all(re.fullmatch(rf"{STAMP} \d", line) for line in stamped)
    third = stamped[2].split()[0]
    assert docker.ok("logs", "--since", third, "t-some") == "3\n4\n5"
    assert docker.ok("logs", "--until", third, "t-some").startswith("1\n2")
    assert docker.ok("logs", "--since", third, "--tail", "1", "t-some") == "5"


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_rotated_files_are_compressed_and_read(docker: Client, daemon: Daemon, driver: str) -> None:
    options = [f"--log-opt={option}" for option in ("compress=true", "max-size=10k", "max-file=100")]
    script = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; exec sleep 1000"
    id = docker.run("--log-driver", driver, *options, docker.image, "sh", "-c", script, name=f"t-{driver}")
    folder = daemon.data_root / "containers" / id
    text = "".join(f"line {number}\n" for number in range(2000))
    poll(lambda: docker("logs", "-n1", id).out == "line 1999\n", "the last line")
    # Each file is flushed to a disk that other tests keep busy, by a process that lets all others go first.
    poll(lambda: len(list(folder.glob("*.gz"))) > 2 and not list(folder.glob("*.[0-9]")), "all to be compressed", 60)
    assert docker("logs", id).out == text
    assert docker("logs", "--tail", "1500", id).out == text[text.index("line 500\n") :]
    docker.ok("rm", "-f", id)
    assert not folder.exists()


def test_compression_takes_a_second_file(docker: Client) -> None:
    done = docker("run", "--rm", "--log-opt", "compress=true", "--log-opt", "max-size=1m", docker.image, "true")
    assert done.status == 125
    assert "compress cannot be true when max-file is less than 2 or max-size is not set" in done.err


def test_bytes_are_kept_as_they_are(docker: Client) -> None:
    """U+2028, \\x85 and \\r are no ends of lines; a last line needs none."""
    text = 'a\u2028b\x85c\rd \t<&>\\"\u00e9\u4e16\nlast'
    docker("run", "-i", "--name", "t-bytes", docker.image, "cat", stdin=text.encode())
    assert docker("logs", "t-bytes").out == text


def test_a_line_longer_than_a_record(docker: Client) -> None:
    docker("run", "--name", "t-long", docker.image, "sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x; echo; echo y")
    assert docker("logs", "t-long").out == "x" * 100_000 + "\ny\n"
    assert docker.ok("logs", "--tail", "1", "t-long") == "y"


def test_a_terminals_log(docker: Client) -> None:
    docker("run", "-t", "--name", "t-tty", docker.image, "echo", "x")
    assert docker("logs", "t-tty").out == "x\r\n"


def test_rotation_keeps_the_newest(docker: Client) -> None:
    options = ["--log-opt", "max-size=10k", "--log-opt", "max-file=2"]
    script = "n=0; while [ $n -lt 1000 ]; do n=$((n+1)); echo line $n; done"
    docker("run", "--name", "t-rotate", *options, docker.image, "sh", "-c", script)
    lines = docker.ok("logs", "t-rotate").splitlines()
    assert lines == [f"line {number}" for number in range(1001 - len(lines), 1001)]
    assert 50 < len(lines) < 1000


def test_follow_crosses_a_rotation(docker: Client) -> None:
    options = ["--log-opt", "max-size=4k", "--log-opt", "max-file=3"]
    script = (
        "while ! [ -e /go ]; do sleep 0.02; done; n=0; while [ $n -lt 300 ]; do n=$((n+1)); echo $n; sleep 0.002; done"
    )
    docker.run(*options, docker.image, "sh", "-c", f"echo ready; {script}", name="t-cross")
    session = docker.start("logs", "-f", "t-cross")
    session.read_until("ready\n")
    docker.ok("exec", "t-cross", "touch", "/go")
    assert session.wait().out.split() == [str(number) for number in range(1, 301)]


def test_the_local_driver(docker: Client) -> None:
    script = "echo out; echo err >&2; sleep 0.2; printf 'a\\377b\\n'; echo last"
    docker("run", "--log-driver", "local", "--name", "t-local", docker.image, "sh", "-c", script)
    done = docker("logs", "t-local")
    assert (done.out, done.err) == ("out\na\ufffdb\nlast\n", "err\n")
    assert docker.ok("logs", "--tail", "1", "t-local") == "last"
    stamped = docker.ok("logs", "-t", "--tail", "2", "t-local").splitlines()
    assert docker.ok("logs", "--since", stamped[0].split()[0], "--tail", "1", "t-local") == "last"
    assert docker.ok("inspect", "-f", "{{.LogPath}}", "t-local") == ""
    assert "local" in docker.ok("info", "-f", "{{.Plugins.Log}}")


def test_follow_the_local_driver_across_a_rotation(docker: Client) -> None:
    options = ["--log-driver", "local", "--log-opt", "max-size=4k", "--log-opt", "max-file=9"]
    script = "while ! [ -e /go ]; do sleep 0.02; done; n=0; while [ $n -lt 600 ]; do n=$((n+1)); echo $n; done"
    docker.run(*options, docker.image, "sh", "-c", f"echo ready; {script}", name="t-local-follow")
    session = docker.start("logs", "-f", "t-local-follow")
    session.read_until("ready\n")
    docker.ok("exec", "t-local-follow", "touch", "/go")
    assert session.wait().out.split() == [str(number) for number in range(1, 601)]


def test_no_log(docker: Client) -> None:
    docker("run", "--name", "t-none", "--log-driver", "none", docker.image, "echo", "x")
    done = docker("logs", "t-none")
    message = "Error response from daemon: configured logging driver does not support reading\n"
    assert (done.out, done.err, done.status) == ("", message, 1)


def test_while_it_is_written(docker: Client) -> None:
    docker.run(docker.image, "sh", "-c", "while :; do echo tick; done", name="t-flood")
    poll(lambda: docker.ok("logs", "--tail", "100", "t-flood").splitlines() == ["tick"] * 100, "a hundred lines")


def test_details(docker: Client) -> None:
    options = ["--label", "app=web", "-e", "A=1", "--log-opt", "labels=app", "--log-opt", "env=A,B"]
    docker("run", "--name", "t-details", *options, docker.image, "echo", "text")
    assert docker.ok("logs", "--details", "t-details") == "A=1,app=web text"
    assert docker.ok("logs", "t-details") == "text"


def test_syslog_and_the_log_beside_it(daemon: Daemon, tmp_path: Path) -> None:
    docker = Client(daemon.environment, "busybox")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "log"))
        server.settimeout(20)
        options = ["--log-opt", f"syslog-address=unixgram://{tmp_path}/log", "--log-opt", "tag={{.Name}}"]
        program = (docker.image, "sh", "-c", "echo out; echo err >&2")
        docker("run", "--rm=false", "--name", "t-syslog", "--log-driver", "syslog", *options, *program)
        messages = sorted(server.recv(4096) for _ in range(2))
        assert re.fullmatch(rb"<27>.* t-syslog\[\d+\]: err\n", messages[0])
        assert re.fullmatch(rb"<30>.* t-syslog\[\d+\]: out\n", messages[1])
        done = docker("logs", "t-syslog")
        assert (done.out, done.err) == ("out\n", "err\n")
    (tmp_path / "log").unlink()
    (tmp_path / "log").touch()
    refused = docker("start", "t-syslog")
    assert refused.status == 1
    assert "failed to initialize logging driver" in refused.err
    docker.ok("rm", "t-syslog")
