"""docs/transcript.md: a session of Docker's own command line against Pier, run for real.

A daemon of its own is started, with its own folders, bridge and firewall table, and removed afterwards. Needs root and
the `docker` command.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "demo"))

import starter

from integration.archives import docker_archive, tar_of
from integration.client import Session
from integration.conftest import Daemon, made_daemon, poll

TARGET = Path(__file__).resolve().parents[1] / "docs" / "transcript.md"
NUMBER = 9
"""Of the daemon: see `integration.conftest.Daemon`."""


@dataclass(frozen=True)
class Step:
    """One command line. With `keys`, (what is waited for, what is typed then), it is run at a terminal."""

    command: str
    keys: tuple[tuple[str, str], ...] = ()
    hidden: str = ""
    """A command that makes this one end, run once its container runs."""


def typed(command: str, *keys: tuple[str, str]) -> Step:
    return Step(command, keys)


SESSION: dict[str, tuple[Step, ...]] = {
    "Who is there": (Step("docker version"), Step("docker info")),
    "Images": (
        Step("docker import --change 'CMD [\"sh\"]' busybox.tar busybox"),
        Step("docker load -i hello.tar"),
        Step("docker load -i broken.tar"),
        Step("docker images"),
        Step("docker inspect -f '{{.Os}}/{{.Architecture}} {{json .Config.Cmd}}' hello"),
    ),
    "In the foreground": (
        Step("docker run --rm busybox echo hello"),
        Step("echo some input | docker run --rm -i busybox tr a-z A-Z"),
        Step("docker run --rm -t busybox tty"),
        Step("docker run --rm hello"),
        typed("docker run --rm -it busybox", ("# ", "stty size\n"), ("# ", "exit 3\n")),
        typed(
            "docker run -it --name shell busybox",
            ("# ", "echo detach with ctrl-p ctrl-q\n"),
            ("\n/ # ", "\x10\x11"),
        ),
        typed("docker attach shell", ("# ", "echo here again\n"), ("\n/ # ", "exit\n")),
        typed(
            "docker run --rm -it busybox sh -c "
            "'trap \"echo caught; exit 5\" INT; echo ready; while sleep 0.1; do :; done'",
            ("ready", "\x03"),
        ),
    ),
    "In the background": (
        Step("docker run -d --name web -p 127.0.0.1:18980:80 busybox sh -c "
             "'echo served by a container >/var/www/index.html; echo ready; exec httpd -f -vv -p 80 -h /var/www'"),
        Step("docker run -d --name talker busybox sh -c 'for n in 1 2 3; do echo line $n; sleep 0.2; done'"),
        Step("docker logs -f talker"),
        Step("curl -s http://127.0.0.1:18980/"),
        Step("docker ps -a"),
        Step("docker port web"),
        Step("docker inspect -f '{{.State.Status}} {{.NetworkSettings.IPAddress}}' web"),
        Step("docker exec web ps -o pid,args"),
        typed("docker exec -it web sh", ("# ", "hostname -i\n"), ("# ", "exit\n")),
        Step("docker stats --no-stream --format '{{.Name}} {{.PIDs}} process' web"),
        Step("docker stop -t 1 web"),
        Step("docker inspect -f '{{.State.Status}} {{.State.ExitCode}}' web"),
        Step("docker start web"),
        Step("docker kill web"),
        Step("docker wait web"),
        Step("docker rm web talker"),
        Step("docker rm -f shell nosuch"),
    ),
    "Exit statuses": (
        Step("docker run --rm busybox sh -c 'exit 42'"),
        Step("docker run --bogus busybox"),
        Step("docker run --rm -m 1k busybox true"),
        Step("docker run --rm busybox /etc"),
        Step("docker run --rm busybox nosuch"),
        Step("docker run --rm --name victim busybox sleep 1000", hidden="docker kill victim"),
        Step("docker run --rm 127.0.0.1:9/nobody/nothing"),
    ),
    "What has happened": (
        Step("docker events --since 1h --until $(date +%s.%N) -f container=victim "
             "--format '{{.Type}} {{.Action}} {{.Actor.Attributes.exitCode}}'"),
    ),
}  # fmt: skip


def play(daemon: Daemon, folder: Path) -> Iterator[str]:
    """Run the session; the lines of the document's body."""
    for title, steps in SESSION.items():
        yield f"## {title}\n"
        yield "```console"
        for step in steps:
            try:
                status, shown = run(step, daemon, folder)
            except AssertionError as error:
                raise AssertionError(f"{step.command}: {error}") from error
            yield f"$ {step.command}"
            if shown:
                yield shown
            if status:
                yield f"[exit status {status}]"
        yield "```\n"


def run(step: Step, daemon: Daemon, folder: Path) -> tuple[int, str]:
    """Run one step as a shell would; its exit status and what a terminal shows of it."""
    shell = ["sh", "-c", f"cd {shlex.quote(str(folder))}; {step.command}" + ("" if step.keys else " 2>&1")]
    session = Session(shell, daemon.environment, (24, 80) if step.keys else None)
    try:
        shown = ""
        if not step.keys:
            session.close_stdin()
        for wanted, keys in step.keys:
            shown += session.read_until(wanted)
            session.send(keys.encode())
        if step.hidden:
            interfere(step, daemon)
        done = session.wait()
        return done.status, readable(shown + done.out)
    finally:
        session.close()


def interfere(step: Step, daemon: Daemon) -> None:
    """Run the hidden command at its moment."""
    poll(lambda: daemon.docker(*shlex.split(step.hidden)[1:]).status == 0, f"a container of {step.command}")


def readable(text: str) -> str:
    """What is left on the screen: no carriage returns, no escape sequences, no blanks at the ends of lines."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.replace("\r\n", "\n")).replace("\r", "")
    return "\n".join(line.rstrip() for line in text.strip("\n").split("\n"))


def of_any_machine(text: str, daemon: Daemon, folder: Path) -> str:
    """The text without what names the machine it was made on."""
    text = text.replace(str(daemon.socket), "/run/pier/pier.sock").replace(str(daemon.data_root), "/var/lib/pier")
    text = text.replace(f"{folder}/", "")
    text = text.replace(f"10.213.{NUMBER}.", "172.17.0.")
    return re.sub(r"^( Kernel Version| Name| ID| CPUs| Total Memory): .*$", r"\1: …", text, flags=re.MULTILINE)


def document(daemon: Daemon) -> str:
    """The whole file."""
    folder = daemon.root / "work"
    folder.mkdir()
    (folder / "busybox.tar").symlink_to(starter.busybox(starter.CACHE).archive)
    layers = [tar_of({"bin/busybox": starter.BUSYBOX.read_bytes()}), tar_of({"etc/hello": b"Hello from a layer.\n"})]
    archive = docker_archive(["hello:latest"], layers, Cmd=["/bin/busybox", "cat", "/etc/hello"])
    (folder / "hello.tar").write_bytes(archive)
    (folder / "broken.tar").write_bytes(archive[: len(archive) // 2])
    version = daemon.docker("--version").out.strip()
    head = (
        "# A session of Docker's own command line\n\n"
        "Written by `tools/transcript.py`, which ran each line against `pierd`. The client is Docker's, unchanged:\n"
        f"{version}. What names the machine is left out (`…`); paths and addresses are those of a\n"
        "daemon with the usual settings. `[exit status N]` is the command's, where it is not 0.\n\n"
    )
    return of_any_machine(head + "\n".join(play(daemon, folder)), daemon, folder).rstrip("\n") + "\n"


def main() -> None:
    with made_daemon(NUMBER) as daemon:
        daemon.flags = ["--debug=false"]
        daemon.start()
        TARGET.write_text(document(daemon))


if __name__ == "__main__":
    main()
