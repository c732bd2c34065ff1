"""`make demo`: a guided tour of Pier on this machine, about a minute long.

Every command line is shown before it runs; one that fails ends the tour with its output and exit status 1. Containers
of the tour carry the label `pier.tour`, and are removed at the end, at Ctrl-C too. A daemon that already answers is
used and left running; one that the tour started is stopped.
"""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import starter

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
SOCKET = "/run/pier/pier.sock"
LABEL = "pier.tour"
WEB_PORT = 8765
STEP_TIMEOUT_S = 60.0

BOLD, DIM, GREEN, RED, OFF = (
    ("\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[31m", "\x1b[0m") if sys.stdout.isatty() else 5 * ("",)
)


class StepFailed(Exception):
    """A command of the tour did not do what the tour said it would."""


def say(text: str) -> None:
    print(f"\n{BOLD}{text}{OFF}", flush=True)


def show(command: list[str]) -> None:
    print(f"{GREEN}$ {shlex.join(command)}{OFF}", flush=True)


class Tour:
    """The steps, driven by one client: `pier`, or Docker's own command on Pier's socket."""

    def __init__(self, client: str, prefix: str) -> None:
        self.client = client
        self.prefix = prefix
        self.environment = {
            **os.environ,
            "DOCKER_HOST": f"unix://{SOCKET}",
            "DOCKER_BUILDKIT": "0",  # Docker's command builds by itself only so; with buildx it needs no such word
            "PATH": f"{BIN}:{os.environ['PATH']}",
        }

    def run(self, *arguments: str, want: str = "", status: int = 0, hidden: bool = False) -> str:
        """Show and run a command; its output must contain `want`. A hidden one shows nothing. Raises StepFailed."""
        command = [self.client, *arguments]
        if not hidden:
            show(command)
        done = subprocess.run(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=STEP_TIMEOUT_S,
            check=False,
        )
        output = done.stdout.decode(errors="replace")
        if not hidden:
            print(output, end="", flush=True)
        if done.returncode != status:
            raise StepFailed(f"it ended with status {done.returncode}, not {status}")
        if want not in output:
            raise StepFailed(f"its output lacks {want!r}")
        return output

    def terminal(self, *arguments: str, typed: list[tuple[str, str]]) -> None:
        """Show and run a command on a terminal: each text is typed once what is awaited has appeared."""
        command = [self.client, *arguments]
        show(command)
        pid, fd = pty.fork()
        if pid == 0:
            os.execvpe(command[0], command, self.environment)  # noqa: S606
        try:
            seen = ""
            for awaited, text in typed:
                seen = read_until(fd, awaited, seen)
                os.write(fd, text.encode())
            read_until(fd, None, seen)
        finally:
            os.close(fd)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 1)
            _, how = os.waitpid(pid, 0)
        if status := os.waitstatus_to_exitcode(how):
            raise StepFailed(f"it ended with status {status}")

    def name(self, what: str) -> str:
        return f"{self.prefix}-{what}"

    def version(self) -> None:
        say("Who is there")
        self.run("version", want="Pier")

    def take_images(self, starters: list[starter.Starter]) -> None:
        say("Images: made from this distribution's own packages, no registry needed")
        for image in starters:
            if self.has(image):
                print(f"{DIM}{image.name} is there already{OFF}", flush=True)
                continue
            changes = [part for change in image.changes for part in ("--change", change)]
            message = ["--message", image.recipe]
            self.run("import", *changes, *message, str(image.archive), image.name, want="sha256:")
        self.run("images", want="busybox")

    def has(self, image: starter.Starter) -> bool:
        """Was the image imported from this very archive?"""
        try:
            comment = self.run("image", "inspect", "--format", "{{.Comment}}", image.name, hidden=True)
        except StepFailed:
            return False
        return image.recipe in comment

    def foreground(self) -> None:
        say("A container in the foreground: own processes, own host name, own network, exit status handed on")
        label = ["--label", LABEL]
        self.run("run", "--rm", *label, "busybox", "echo", "hello from a container", want="hello from a container")
        self.run("run", "--rm", *label, "--hostname", "quay", "busybox", "sh", "-c", "hostname; ps; ip addr show eth0")
        self.run("run", "--rm", *label, "busybox", "sh", "-c", "exit 42", status=42)
        self.run("run", "--rm", *label, "debian-python", "python3", "-c", PYTHON_HELLO, want="Python 3")

    def interactive(self) -> None:
        say("Interactively, on a terminal of its own")
        typed = [("# ", "tty\n"), ("/dev/", "id -un\n"), ("root", "exit\n")]
        self.terminal(
            "run", "--rm", "-it", "--label", LABEL, "--name", self.name("shell"), "busybox", "sh", typed=typed
        )

    def detached(self) -> None:
        say("Detached, with limits and a published port")
        name = self.name("web")
        page = "echo '<h1>served by a container</h1>' >/var/www/index.html; exec httpd -f -v -p 80 -h /var/www"
        limits = ["--memory", "64m", "--cpus", "0.5", "--pids-limit", "50"]
        publish = ["-p", f"127.0.0.1:{WEB_PORT}:80"]
        own = ["--name", name, "--label", LABEL, "--init"]
        self.run("run", "-d", *own, *limits, *publish, "busybox", "sh", "-c", page)
        url = f"http://127.0.0.1:{WEB_PORT}/"
        show(["curl", url])
        print(fetch(url), end="", flush=True)
        self.run("ps", "--filter", f"label={LABEL}", want=name)
        self.run("exec", name, "wget", "-qO-", "http://localhost/", want="served by a container")
        self.run("logs", name, want="response:200")
        self.run("stats", "--no-stream", name, want="64MiB")
        self.run("inspect", "--format", "{{.State.Status}} as pid {{.State.Pid}}", name, want="running as pid")
        self.run("stop", name, want=name)
        self.run("ps", "--all", "--filter", f"label={LABEL}", want="Exited")
        self.run("rm", name, want=name)

    def together(self) -> None:
        say("Two containers on a network of their own, which find each other by name, and data that outlives both")
        net, data, label = self.name("net"), self.name("data"), ["--label", LABEL]
        self.run("network", "create", *label, net)
        self.run("volume", "create", *label, data, want=data)
        serve = "echo kept in a volume >/data/f; exec httpd -f -p 80 -h /data"
        server = ["--name", self.name("store"), "--network-alias", "store", "--init", "-v", f"{data}:/data"]
        self.run("run", "-d", *label, *server, "--network", net, "busybox", "sh", "-c", serve)
        ask = "until wget -qO- http://store/f 2>/dev/null; do sleep 0.1; done"
        self.run("run", "--rm", *label, "--network", net, "busybox", "sh", "-c", ask, want="kept in a volume")
        self.run("rm", "--force", self.name("store"))
        self.run("run", "--rm", *label, "-v", f"{data}:/data", "busybox", "cat", "/data/f", want="kept in a volume")
        self.run("volume", "rm", data)
        self.run("network", "rm", net)

    def built(self) -> None:
        say("An image built from a Dockerfile; a second time every step comes from the cache")
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "Dockerfile").write_text(DOCKERFILE)
            Path(folder, "greeting").write_text("built and run by Pier\n")
            print(f"{DIM}{DOCKERFILE}{OFF}", end="", flush=True)
            name = self.name("built")
            self.run("build", "--label", LABEL, "--tag", name, folder)
            self.run("build", "--label", LABEL, "--tag", name, folder)
            self.run("run", "--rm", "--label", LABEL, name, want="BUILT AND RUN BY PIER")
            self.run("rmi", name)

    def explain(self) -> None:
        """Show what a step that failed has left, before it is cleared away."""
        with contextlib.suppress(StepFailed, subprocess.SubprocessError, OSError):
            for id in self.run("ps", "--all", "--quiet", "--filter", f"label={LABEL}", hidden=True).split():
                self.run("ps", "--all", "--filter", f"id={id}")
                self.run("logs", id)

    def clean(self) -> None:
        """Remove what the tour left, if it was cut short; says nothing."""
        with contextlib.suppress(StepFailed, subprocess.SubprocessError, OSError):
            ids = self.run("ps", "-aq", "--filter", f"label={LABEL}", hidden=True).split()
            if ids:
                self.run("rm", "--force", *ids, hidden=True)
            for kind in ("volume", "network", "image"):
                ids = self.run(kind, "ls", "-q", "--filter", f"label={LABEL}", hidden=True).split()
                if ids:
                    self.run(kind, "rm", *ids, hidden=True)


DOCKERFILE = """\
FROM busybox AS made
COPY greeting /
RUN tr a-z A-Z </greeting >/loud
FROM busybox
COPY --from=made /loud /
CMD ["cat", "/loud"]
"""
PYTHON_HELLO = "import platform, os; print('Python', platform.python_version(), 'as pid', os.getpid())"


def read_until(fd: int, awaited: str | None, seen: str) -> str:
    """Copy a terminal's output to ours until a text appears (None: until it ends); returns what followed that text.

    Raises StepFailed when it does not come in time, or the terminal ends before it.
    """
    deadline = time.monotonic() + STEP_TIMEOUT_S
    while awaited is None or awaited not in seen:
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not select.select([fd], [], [], left_s)[0]:
            raise StepFailed(f"it did not print {awaited!r} within {STEP_TIMEOUT_S:.0f} s")
        try:
            part = os.read(fd, 4096)
        except OSError:  # EIO: the other end of the terminal is closed
            part = b""
        if not part:
            if awaited is None:
                return seen
            raise StepFailed(f"it ended without printing {awaited!r}")
        text = part.decode(errors="replace")
        sys.stdout.write(text)
        sys.stdout.flush()
        seen += text
    return seen.partition(awaited)[2]


def fetch(url: str) -> str:
    """The page, once the server in the container has come up."""
    for attempt in range(50):
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own http URL
                page: bytes = answer.read()
                return page.decode()
        except OSError as error:
            if attempt == 49:
                raise StepFailed(f"{url} does not answer: {error}") from error
        time.sleep(0.1)
    raise AssertionError


def answers() -> bool:
    command = [BIN / "pier", "-H", f"unix://{SOCKET}", "version"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def daemon() -> Iterator[None]:
    """A running daemon: the one that is there, or one for the length of the tour."""
    if answers():
        say(f"The daemon already answers on unix://{SOCKET}")
        yield
        return
    say("The daemon")
    control("start")
    try:
        yield
    finally:
        say("The end")
        control("stop")


def control(action: str) -> None:
    """Start or stop the daemon, as make does."""
    show(["make", action])
    subprocess.run([ROOT / "tools" / "daemon", action], check=True)


def clients() -> list[tuple[str, str]]:
    """(command, prefix of its containers' names): Pier's own, and Docker's where it is installed."""
    found = [("pier", "tour")]
    if shutil.which("docker"):
        found.append(("docker", "tour-docker"))
    return found


def main() -> int:
    if os.geteuid() != 0:
        print("the tour starts a daemon and containers: run it as root (sudo make demo)", file=sys.stderr)
        return 1
    try:
        os.makedirs(starter.CACHE, exist_ok=True)
        say("Making the starter images (the Debian one takes half a minute, once)")
        images = [starter.busybox(starter.CACHE), starter.debian_python(starter.CACHE)]
        with daemon():
            for client, prefix in clients():
                walk(Tour(client, prefix), images)
    except (StepFailed, starter.CannotMake, subprocess.SubprocessError) as error:
        print(f"{RED}the tour ended early: {error}{OFF}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; everything of the tour was removed", file=sys.stderr)
        return 130
    say("That was Pier. `pier --help` lists what it can do.")
    return 0


def walk(tour: Tour, images: list[starter.Starter]) -> None:
    if tour.client == "docker":
        say("The same with Docker's own command, talking to Pier's socket")
    steps: tuple[Callable[[], None], ...] = (
        tour.version,
        lambda: tour.take_images(images),
        tour.foreground,
        tour.interactive,
        tour.detached,
        tour.together,
        tour.built,
    )
    try:
        for step in steps:
            step()
    except StepFailed:
        tour.explain()
        raise
    finally:
        tour.clean()


if __name__ == "__main__":
    sys.exit(main())
