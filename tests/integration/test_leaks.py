"""Containers started, killed and removed, one after another: nothing of them stays, on the host or in the daemon.

PIER_TEST_LIVES says how many (120).
"""

import contextlib
import http.client
import json
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pier.kernel.cgroup_layout import detect
from pier.runtime.zygote import PARKED

from .client import Client
from .conftest import Daemon, poll

pytestmark = pytest.mark.root

LIVES = int(os.environ.get("PIER_TEST_LIVES", "120"))
AT_ONCE = 4
WARM_UP = 12
"""Containers before the count: threads, connections and caches are made with the first ones."""


class Api(http.client.HTTPConnection):
    """One connection to the daemon's socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("engine", timeout=60)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(self.path))

    def call(self, method: str, path: str, body: Any = None) -> Any:
        self.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
        answer = self.getresponse()
        data = answer.read()
        assert answer.status < 300, (method, path, answer.status, data)
        return json.loads(data) if data.strip() else None


def live(daemon: Daemon, image: str, count: int) -> None:
    """So many lives, one after the other on a connection of their own."""
    api = Api(daemon.socket)
    host = {
        "Memory": 64 << 20,
        "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1"}]},
        "Tmpfs": {"/tmp": ""},
        "Init": True,
    }
    for _ in range(count):
        body = {"Image": image, "Cmd": ["sleep", "1000"], "ExposedPorts": {"80/tcp": {}}, "HostConfig": host}
        made = api.call("POST", "/containers/create", body)["Id"]
        api.call("POST", f"/containers/{made}/start")
        api.call("POST", f"/containers/{made}/kill")
        api.call("DELETE", f"/containers/{made}")
    api.close()


def census(daemon: Daemon) -> dict[str, list[str]]:
    """All that containers of this daemon are made of, and what the daemon and its zygote hold open."""
    assert daemon.process is not None
    family = descendants(daemon.process.pid)
    return {
        "processes": family,
        "descriptors": [f"{pid} {os.readlink(f'/proc/{pid}/fd/{fd}')}" for pid in family for fd in descriptors(pid)],
        "namespaces": sorted({os.readlink(link) for pid in family for link in namespaces(pid)}),
        "mounts": [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(daemon.root) in line],
        "cgroups": [
            str(path)
            for mount in detect().hierarchies
            for path in Path(f"{mount}/pier-test-{daemon.number}").glob("*/")
        ],
        "devices": sorted(os.listdir(f"/sys/class/net/{daemon.bridge}/brif")),
        "files": sorted(
            str(path)
            for folder in (daemon.data_root / "containers", daemon.exec_root, daemon.exec_root / "containers")
            for path in folder.iterdir()
        )
        + sorted(str(path) for path in (daemon.data_root / "snapshots" / "overlay2").glob("[ct]*/*")),
    }


def descendants(pid: int) -> list[str]:
    """A process and all below it, zombies included."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parents[int(entry)] = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return [str(one) for one in found]


def descriptors(pid: str) -> Iterator[str]:
    """Descriptors but those of connections, which come and go with clients."""
    for fd in os.listdir(f"/proc/{pid}/fd"):
        if not os.readlink(f"/proc/{pid}/fd/{fd}").startswith("socket:"):
            yield fd


def namespaces(pid: str) -> Iterator[str]:
    for kind in os.listdir(f"/proc/{pid}/ns"):
        if kind != "pid_for_children":  # a link to nothing until the first process of a new namespace is born
            yield f"/proc/{pid}/ns/{kind}"


def sockets(pid: int) -> Iterator[str]:
    """What the kernel's lists say of each: for the reader of a failure."""
    listed = {}
    for name in ("unix", "netlink", "packet", "raw", "tcp", "udp"):
        lines = Path(f"/proc/{pid}/net/{name}").read_text().splitlines()
        listed |= {word: f"{name}: {line}" for line in lines for word in line.split()}
    for entry in os.scandir(f"/proc/{pid}/fd"):
        link = os.readlink(entry.path)
        if link.startswith("socket:"):
            yield listed.get(link[len("socket:[") : -1], "another")


def held(daemon: Daemon) -> list[str]:
    """The sockets of the daemon and its zygote."""
    assert daemon.process is not None
    return [f"{pid} {found}" for pid in descendants(daemon.process.pid) for found in sockets(int(pid))]


def counted(daemon: Daemon) -> dict[str, int]:
    """The census as numbers; none where it meets a process or a descriptor in its last moment."""
    assert daemon.process is not None
    try:
        return {kind: len(found) for kind, found in census(daemon).items()} | {"sockets": len(held(daemon))}
    except FileNotFoundError:
        return {}


def test_nothing_grows(own_daemon: Daemon, own_docker: Client) -> None:
    live(own_daemon, own_docker.image, WARM_UP)
    seen: list[dict[str, int]] = []  # the daemon is at rest when it stays the same
    poll(
        lambda: seen.append(counted(own_daemon)) or (len(seen) > 3 and seen[-4] == seen[-1] != {}),
        "the daemon to be at rest",
    )
    before = seen[-1]
    assert before["processes"] == 2 + 2 * PARKED, "the daemon, its zygote, the parked monitors and first processes"
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(live, own_daemon, own_docker.image, LIVES // AT_ONCE) for _ in range(AT_ONCE)]:
            done.result()
    after: list[dict[str, int]] = []

    def at_rest() -> bool:
        after.append(counted(own_daemon))
        return after[-1] != {} and all(after[-1][kind] <= before[kind] for kind in before)

    with contextlib.suppress(AssertionError):
        poll(at_rest, "the daemon to be at rest", 15)
    assert at_rest(), "\n".join([f"before {LIVES} lives {before}, after them {after[-1]}; sockets:", *held(own_daemon)])
    assert own_docker.ids() == set()
