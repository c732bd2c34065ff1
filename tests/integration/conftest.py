"""A real daemon for the tests, beside whatever else runs on the machine: its own folders, bridge, table and cgroups."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from .client import Client, Done

BIN = Path(os.environ.get("PIER_BIN") or sysconfig.get_path("scripts"))
DEMO = Path(__file__).resolve().parents[2] / "demo"
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
FIRST = int(os.environ.get("PIER_TEST_NUMBER", "1")) + 2 * WORKER
"""Number of the session's daemon; another one lets two sessions share a machine, as two workers of one session do."""
START_S = 20.0
COMMAND_S = 60.0
LOG_LINES = 60
"""Of a daemon's log, shown with a test that fails."""


def poll(condition: Callable[[], object], what: str, timeout_s: float = 10.0) -> None:
    """Wait until the condition holds; fails the test when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s in vain for {what}"
        time.sleep(0.02)


@dataclass
class Daemon:
    """One pierd. `number` (1 to 99) keeps apart the names that a machine has only one of."""

    root: Path
    number: int
    flags: list[str] = field(default_factory=list)
    within: list[str] = field(default_factory=list)
    """The beginning of a command line that executes the rest of it."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def data_root(self) -> Path:
        return self.root / "data"

    @property
    def exec_root(self) -> Path:
        return self.root / "run"

    @property
    def socket(self) -> Path:
        return self.exec_root / "pier.sock"

    @property
    def log(self) -> Path:
        return self.root / "pierd.log"

    @property
    def bridge(self) -> str:
        return f"piert{self.number}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_CONFIG": str(self.root / "client"),
            "PATH": f"{BIN}:{os.environ['PATH']}",
        }

    @property
    def command(self) -> list[str]:
        return [
            *self.within,
            str(BIN / "pierd"),
            *("--data-root", str(self.data_root), "--exec-root", str(self.exec_root), "--debug"),
            *("--bridge", self.bridge, "--bip", f"10.213.{self.number}.1/24"),
            *("--cgroup-parent", f"/pier-test-{self.number}", "--config-file", str(self.root / "daemon.json")),
            *self.flags,
        ]

    def log_tail(self, lines: int) -> str:
        with self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - lines * 200))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])

    def start(self) -> None:
        """Start it and wait until it answers."""
        config = self.root / "daemon.json"
        if not config.exists():
            config.write_text("{}")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        poll(lambda: self.answers() or self.has_ended(), "the daemon to answer", START_S)
        assert not self.has_ended(), f"pierd ended at once:\n{self.log.read_text()[-3000:]}"

    def has_ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def answers(self) -> bool:
        return self.socket.exists() and self.pier("version").status == 0

    def stop(self) -> int:
        """End it in order; returns its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(START_S)

    def kill(self) -> None:
        """kill -9: no code of the daemon's runs."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def pier(self, *arguments: str, stdin: bytes = b"") -> Done:
        return self._run("pier", arguments, stdin)

    def docker(self, *arguments: str, stdin: bytes = b"") -> Done:
        """Docker's own command; the test is skipped where it is not installed."""
        if shutil.which("docker") is None:
            pytest.skip("Docker's command line is not installed")
        return self._run("docker", arguments, stdin)

    def exec(self, id: str) -> dict[str, Any]:
        """GET /exec/ID/json, which no command asks."""
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        with contextlib.closing(connection):
            connection.sock.settimeout(COMMAND_S)
            connection.sock.connect(str(self.socket))
            connection.request("GET", f"/exec/{id}/json")
            answer = connection.getresponse()
            assert answer.status == 200, answer.reason
            found: dict[str, Any] = json.load(answer)
            return found

    def _run(self, program: str, arguments: tuple[str, ...], stdin: bytes) -> Done:
        ended = subprocess.run(
            [program, *arguments],
            env=self.environment,
            input=stdin,
            capture_output=True,
            timeout=COMMAND_S,
            check=False,
        )
        return Done(ended.returncode, ended.stdout.decode(errors="replace"), ended.stderr.decode(errors="replace"))

    def clear(self) -> None:
        """Remove every container and stop; starts the daemon again if it is down."""
        if self.has_ended():
            self.start()
        ids = self.pier("ps", "-aq").out.split()
        if ids:
            self.pier("rm", "--force", *ids)
        self.stop()


ALIVE: list[Daemon] = []
"""The daemons of the tests that run."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails shows what its daemons said last: on another machine nobody can look."""
    report = yield
    if report.failed:
        for daemon in ALIVE:
            if daemon.log.exists():
                report.sections.append((f"log of {daemon.root.name}", daemon.log_tail(LOG_LINES)))
    return report


@contextlib.contextmanager
def made_daemon(number: int) -> Iterator[Daemon]:
    """A daemon's folder, and the daemon itself once `start` is called; nothing of it is left afterwards."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    root = Path(tempfile.mkdtemp(prefix="pier-", dir="/var/tmp"))  # short: a socket's path has 107 bytes
    daemon = Daemon(root, number)
    ALIVE.append(daemon)
    try:
        yield daemon
    finally:
        ALIVE.remove(daemon)
        try:
            if daemon.process is not None:
                daemon.clear()
        finally:
            shutil.rmtree(root)


@pytest.fixture(scope="session")
def starter_images() -> list[Path]:
    """Archives of the starter images, made when they are not cached."""
    made = subprocess.run(
        [sys.executable, DEMO / "starter.py"], capture_output=True, text=True, check=False, timeout=600
    )
    if made.returncode:
        pytest.skip(f"the starter images cannot be made: {made.stderr.strip()[-300:]}")
    return [Path(line) for line in made.stdout.split()]


@pytest.fixture(scope="session")
def daemon(starter_images: list[Path]) -> Iterator[Daemon]:
    """The session's daemon, with the image `busybox`. Tests remove what they make."""
    with made_daemon(FIRST) as running:
        running.start()
        imported = running.pier("import", "--change", 'CMD ["sh"]', str(starter_images[0]), "busybox:latest")
        assert imported.status == 0, imported.err
        yield running


@pytest.fixture
def own_daemon() -> Iterator[Daemon]:
    """A daemon of the test's own, not started, without images: to be configured, stopped and killed."""
    with made_daemon(FIRST + 1) as fresh:
        yield fresh


def client_of(environment: Mapping[str, str], image: str) -> Iterator[Client]:
    """Docker's command line against a daemon; containers and images it has made are removed afterwards."""
    if shutil.which("docker") is None:
        pytest.skip("Docker's command line is not installed")
    client = Client(environment, image)
    containers, images = client.ids(), client.names()
    try:
        yield client
    finally:
        client.close()
        if left := client.ids() - containers:
            client("rm", "--force", *left)
        if left := client.names() - images:
            client("rmi", "--force", *left)


@pytest.fixture
def docker(request: pytest.FixtureRequest) -> Iterator[Client]:
    """Docker's command line against the session's daemon.

    PIER_SCENARIO_HOST (with PIER_SCENARIO_IMAGE, a busybox there) puts any other Docker Engine in its place: what the
    tests say of Pier must be true of Docker too.
    """
    if host := os.environ.get("PIER_SCENARIO_HOST"):
        yield from client_of({**os.environ, "DOCKER_HOST": host}, os.environ["PIER_SCENARIO_IMAGE"])
    else:
        daemon: Daemon = request.getfixturevalue("daemon")
        yield from client_of(daemon.environment, "busybox")


@pytest.fixture
def pier(docker: Client) -> Client:
    """Pier's own command line against the same daemon."""
    return replace(docker, program="pier", sessions=[])


@pytest.fixture
def own_docker(own_daemon: Daemon, starter_images: list[Path]) -> Iterator[Client]:
    """Docker's command line against a daemon of the test's own, started, with the image `busybox`."""
    own_daemon.start()
    assert own_daemon.pier("import", "--change", 'CMD ["sh"]', str(starter_images[0]), "busybox:latest").status == 0
    client = Client(own_daemon.environment, "busybox")
    try:
        yield client
    finally:
        client.close()
