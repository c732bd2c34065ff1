"""A small root file system and a runtime of one's own, for tests that start real containers without the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pier.errors import PierError
from pier.kernel.cgroup_layout import detect
from pier.kernel.cgroups import Cgroup
from pier.runtime.client import Monitor, Runtime
from pier.runtime.request import AttachEnd, ExitRecord, LogFile, OverlayRoot, StartRequest

BUSYBOX = Path("/bin/busybox")
CGROUP_PARENT = f"/pier-unit-runtime-{os.getpid()}"

DEFAULT_CAPS = [
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT "
        "KILL AUDIT_WRITE"
    ).split()
]
NAMESPACES = ("mount", "pid", "uts", "ipc", "network", "cgroup")
MOUNTS = [
    {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
    {
        "destination": "/dev",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
    {
        "destination": "/sys/fs/cgroup",
        "type": "cgroup",
        "source": "cgroup",
        "options": ["nosuid", "noexec", "nodev", "ro"],
    },
]


@dataclass
class Container:
    """One container of a test: its request, and what it printed once it has ended."""

    request: StartRequest
    monitor: Monitor | None = None
    client: socket.socket | None = None
    output: bytes = b""

    async def read(self) -> bytes:
        """Everything the container prints until its streams end."""
        assert self.client is not None
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self.client, 65536):
            self.output += data
        return self.output

    async def read_until(self, text: bytes) -> bytes:
        assert self.client is not None
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(10):
            while text not in self.output:
                data = await loop.sock_recv(self.client, 65536)
                assert data, f"the streams ended without {text!r}: {self.output!r}"
                self.output += data
        return self.output

    @property
    def running(self) -> Monitor:
        assert self.monitor is not None
        return self.monitor


@dataclass
class Lab:
    """Starts containers of a busybox root."""

    runtime: Runtime
    folder: Path
    rootfs: Path
    containers: list[Container] = field(default_factory=list)

    def request(self, args: list[str], *, terminal: bool = False, **changes: Any) -> StartRequest:
        container_id = os.urandom(32).hex()
        base = self.folder / container_id[:12]
        for name in ("upper", "work", "run"):
            (base / name).mkdir(parents=True)
        spec: dict[str, Any] = {
            "ociVersion": "1.2.1",
            "process": {
                "args": args,
                "env": ["PATH=/bin"],
                "cwd": "/",
                "terminal": terminal,
                "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), DEFAULT_CAPS),
            },
            "hostname": "lab",
            "mounts": [dict(mount) for mount in MOUNTS],
            "linux": {
                "cgroupsPath": f"{CGROUP_PARENT}/{container_id}",
                "namespaces": [{"type": kind} for kind in NAMESPACES],
                "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
                "readonlyPaths": ["/proc/sys", "/proc/bus"],
            },
        }
        fields: dict[str, Any] = {
            "id": container_id,
            "spec": spec,
            "root": OverlayRoot([str(self.rootfs)], str(base / "upper"), str(base / "work")),
            "exec_dir": str(base / "run"),
            "exit_file": str(base / "exit.json"),
            "log": LogFile(str(base / "json.log")),
        }
        return StartRequest(**(fields | changes))

    async def start(self, request: StartRequest, *, stdin: bool = False) -> Container:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        container = Container(request, client=ours)
        self.containers.append(container)
        try:
            container.monitor = await self.runtime.launch(request, [AttachEnd(theirs.fileno(), stdin, True, True)])
        finally:
            theirs.close()
        return container

    async def run(self, args: list[str], **changes: Any) -> tuple[ExitRecord, str]:
        """Run to the end: the record, and stdout and stderr together without Docker's frames."""
        container = await self.start(self.request(args, **changes))
        async with asyncio.timeout(30):
            record = await container.running.wait()
            return record, unframe(await container.read())

    async def end(self) -> None:
        """Kill what still runs."""
        for container in self.containers:
            if container.client is not None:
                container.client.close()
            if container.monitor is not None:
                await _end(container.monitor)


def unframe(data: bytes) -> str:
    text = b""
    while data:
        size = int.from_bytes(data[4:8], "big")
        text += data[8 : 8 + size]
        data = data[8 + size :]
    return text.decode()


@pytest.fixture(scope="session")
def busybox_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not BUSYBOX.exists():
        pytest.skip("busybox-static is not installed")
    root = tmp_path_factory.mktemp("rootfs")
    for name in ("bin", "etc", "tmp", "root", "proc", "sys", "dev", "home"):
        (root / name).mkdir()
    shutil.copy(BUSYBOX, root / "bin" / "busybox")
    applets = (
        "sh cat true false id ls mount hostname sleep echo stty tty head kill ps readlink pwd chmod dd env wc grep tr "
        "yes touch tail"
    )
    for applet in applets.split():
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\nana:x:1000:1000::/home:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\nana:x:1000:\nwheel:x:10:ana\n")
    return root


@pytest.fixture
async def runtime() -> AsyncIterator[Runtime]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    started = Runtime()
    await started.start()
    yield started
    await started.close()


@pytest.fixture
async def lab(tmp_path: Path, busybox_root: Path, runtime: Runtime) -> AsyncIterator[Lab]:
    laboratory = Lab(runtime, tmp_path, busybox_root)
    try:
        yield laboratory
    finally:
        await laboratory.end()
        await runtime.close()


async def _end(monitor: Monitor) -> None:
    with contextlib.suppress(PierError):  # it has ended already
        await monitor.signal(9)
    async with asyncio.timeout(10):
        await monitor.wait()
    monitor.close()


@pytest.fixture(scope="session", autouse=True)
def no_cgroup_left() -> Iterator[None]:
    yield
    if os.geteuid() == 0:
        parent = Cgroup(detect(), CGROUP_PARENT)
        assert parent.pids() == []
        parent.remove()


@pytest.fixture
def start_request() -> Callable[..., StartRequest]:
    def make(**changes: Any) -> StartRequest:
        fields: dict[str, Any] = {
            "id": "a" * 64,
            "spec": {"process": {"args": ["true"]}, "linux": {"cgroupsPath": "/x"}},
            "root": OverlayRoot(["/lower"], "/upper", "/work"),
            "exec_dir": "/run/x",
            "exit_file": "/run/x/exit.json",
        }
        return StartRequest(**(fields | changes))

    return make
