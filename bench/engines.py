"""Who is compared: a Pier of this checkout started for the occasion, and a Docker Engine where there is one."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import processes

CHECKOUT = Path(__file__).resolve().parents[1]
BIN = CHECKOUT / ".venv" / "bin"
REFERENCE = CHECKOUT.parent / "shared" / "tools" / "reference-docker"
"""A Docker Engine with runc and crun in a box of its own; used where it is there."""
OWN = os.getpid()
"""Keeps what a machine has only one of apart from another benchmark's."""
IMAGE = f"pier-bench-busybox-{OWN}"
START_S = 30.0


@dataclass(frozen=True)
class Engine:
    """One engine, as its clients see it."""

    name: str
    host: str
    """As in DOCKER_HOST."""
    box: Path | None = None
    """For an engine in a box: the program that runs a command beside it."""

    @property
    def socket(self) -> str | None:
        return self.host.removeprefix("unix://") if self.host.startswith("unix://") else None

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "DOCKER_HOST": self.host}

    @property
    def pid(self) -> int | None:
        """The daemon, known by the socket it listens on (unix(7), SO_PEERCRED)."""
        if self.socket is None:
            return None
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(self.socket)
            return int(struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])

    def command(self, *argv: str | Path) -> str:
        """Run a client against this engine; its output. Raises CalledProcessError."""
        done = subprocess.run(
            argv,
            env=self.environment,
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.stdout.strip()

    def docker(self, *arguments: str) -> str:
        return self.command("docker", *arguments)

    def remove(self, containers: list[str]) -> None:
        if containers:
            self.docker("rm", "-f", *containers)


@contextmanager
def pier(folder: Path) -> Iterator[Engine]:
    """A daemon with folders, bridge and cgroups of its own."""
    process = start_pierd(folder)
    try:
        yield Engine("pier", f"unix://{folder}/run/pier.sock")
    finally:
        process.terminate()
        process.wait(START_S)
        forget_bridge()


def bridge(number: int) -> str:
    return f"pierb{OWN}n{number}"


def forget_bridge(number: int = 1) -> None:
    """A daemon leaves its bridge for the next one."""
    subprocess.run(["ip", "link", "delete", bridge(number)], check=False, capture_output=True)


def start_pierd(
    folder: Path, number: int = 1, *, within: Sequence[str] = (), more: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """Start a daemon on `folder`; returns when it answers. `number` keeps apart what a machine has only one of.

    `within` is the beginning of a command line that executes the rest, `more` are flags that go before the usual ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "daemon.json").write_text("{}")
    flags = {
        "--data-root": folder / "data",
        "--exec-root": folder / "run",
        "--bridge": bridge(number),
        "--bip": f"10.{200 + OWN % 50}.{214 + number}.1/24",
        "--cgroup-parent": f"/pier-bench-{OWN}-{number}",
        "--config-file": folder / "daemon.json",
        "--host": f"unix://{folder}/run/pier.sock",
        "--pidfile": folder / "pier.pid",
    }
    for flag in more[::2]:
        flags.pop(flag, None)
    if "--bridge" in more:
        del flags["--bip"]
    argv = [*within, str(BIN / "pierd"), *[str(word) for flag in flags.items() for word in flag], *more]
    with (folder / "pierd.log").open("ab") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    wait_for(f"{folder}/run/pier.sock", process)
    return process


def wait_for(path: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the engine behind a socket answers a ping."""
    deadline = time.monotonic() + START_S
    while not answers(path):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the daemon does not answer on {path}")
        time.sleep(0.002)


def answers(path: str) -> bool:
    with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(START_S)
        client.connect(path)
        client.sendall(b"GET /_ping HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n")
        return client.recv(64).startswith(b"HTTP/1.1 200")
    return False


def peer() -> Engine | None:
    """The Docker Engine to compare with; None without one."""
    host = os.environ.get("PEER_DOCKER_HOST")
    if host:
        return Engine("docker", host)
    if not REFERENCE.exists():
        return None
    done = subprocess.run([REFERENCE, "start"], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"the peer does not start, Pier is measured alone: {done.stderr.strip()}", file=sys.stderr)
        return None
    return Engine("docker", done.stdout.strip().splitlines()[-1].removeprefix("DOCKER_HOST="), REFERENCE)


@contextmanager
def image(engine: Engine, archive: Path) -> Iterator[None]:
    """The same root file system on every engine, while it is measured."""
    engine.docker("import", "--change", "ENV PATH=/bin:/sbin:/usr/bin", str(archive), IMAGE)
    try:
        yield
    finally:
        engine.docker("rmi", "-f", IMAGE)


def busybox(folder: Path) -> Path:
    """The archive of the image that the demo uses."""
    sys.path.append(str(CHECKOUT / "demo"))
    import starter  # type: ignore[import-not-found]  # noqa: PLC0415 - the demo is no package

    archive: Path = starter.busybox(folder).archive
    return archive


def daemon_processes(engine: Engine) -> list[int]:
    """The daemon and the helpers it keeps while idle: containerd, or the zygote; not what it keeps per container."""
    pid = engine.pid
    if pid is None or not processes.command_line(pid):
        return []
    return [
        pid,
        *[child for child in processes.children(pid) if processes.name(child) in ("containerd", "pier-zygote")],
    ]


def has_docker() -> bool:
    return shutil.which("docker") is not None
