"""`pierd` where systemd is init: the driver it chooses, and a container's life with it."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from netlab import Machine, machines
from pier.kernel.netlink import NetlinkSocket, VethPair

from .test_systemd import MIB, UNIFIED, is_gone, show

START_S = 120.0


@dataclass
class Daemon:
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> str:
        return str(self.folder / "run/pier.sock")

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def start(self) -> None:
        """Start it and wait until it answers."""
        config = self.folder / "daemon.json"
        config.write_text("{}")
        command = [
            *(sys.executable, "-m", "pier.api.daemon", "--bridge", "none", "--config-file", str(config)),
            *("--data-root", str(self.folder / "data"), "--exec-root", str(self.folder / "run")),
            *("--pidfile", str(self.folder / "pid"), "-H", f"unix://{self.socket}"),
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError):
                if self.ask("GET", "/_ping")[0] == 200:
                    return
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def end(self, number: int) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(START_S)
            self.process = None

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """The answer's status and, where there is one, its JSON."""
        connection = http.client.HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        with contextlib.closing(connection):
            connection.sock.settimeout(START_S)
            connection.sock.connect(self.socket)
            data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
            kind = "application/x-tar" if isinstance(body, bytes) else "application/json"
            connection.request(method, path, data, {"Content-Type": kind})
            answer = connection.getresponse()
            text = answer.read().decode()
            with contextlib.suppress(ValueError):
                return answer.status, json.loads(text)
            return answer.status, text

    def ok(self, method: str, path: str, body: Any = None) -> Any:
        status, answer = self.ask(method, path, body)
        assert status < 300, answer
        return answer


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path)
    made.start()
    yield made
    made.end(signal.SIGTERM)


def archive(root: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(root, ".")
    return buffer.getvalue()


def test_a_container_of_the_daemons_from_its_making_to_its_end(daemon: Daemon, busybox_root: Path) -> None:
    info = daemon.ok("GET", "/info")
    assert (info["CgroupDriver"], info["CgroupVersion"]) == ("systemd", "2"), "where systemd is init, and nobody asked"
    daemon.ok("POST", "/images/create?fromSrc=-&repo=busybox", archive(busybox_root))

    wanted = {"Image": "busybox", "Cmd": ["sleep", "1000"], "StopSignal": "KILL"}
    status, answer = daemon.ask("POST", "/containers/create", wanted | {"HostConfig": {"CgroupParent": "/a/b"}})
    assert (status, answer["message"].startswith("cgroup-parent for systemd cgroup should be")) == (400, True)
    limits = {"Memory": 64 * MIB, "PidsLimit": 9, "NetworkMode": "none", "CgroupParent": "vm-deep.slice"}
    id = daemon.ok("POST", "/containers/create", wanted | {"HostConfig": limits})["Id"]
    daemon.ok("POST", f"/containers/{id}/start")

    unit, path = f"pier-{id}.scope", f"/vm.slice/vm-deep.slice/pier-{id}.scope"
    pid = daemon.ok("GET", f"/containers/{id}/json")["State"]["Pid"]
    assert Path(f"/proc/{pid}/cgroup").read_text() == f"0::{path}\n"
    assert show(unit, "MemoryMax", "TasksMax") == {"MemoryMax": str(64 * MIB), "TasksMax": "9"}

    daemon.ok("POST", f"/containers/{id}/update", {"Memory": 48 * MIB, "MemorySwap": 48 * MIB})
    assert show(unit, "MemoryMax") == {"MemoryMax": str(48 * MIB)}
    assert Path(f"{UNIFIED}{path}/memory.max").read_text() == f"{48 * MIB}\n"
    daemon.ok("POST", f"/containers/{id}/pause")
    assert Path(f"{UNIFIED}{path}/cgroup.freeze").read_text() == "1\n"
    stats = daemon.ok("GET", f"/containers/{id}/stats?stream=false&one-shot=true")
    assert (stats["memory_stats"]["limit"], stats["pids_stats"]["current"]) == (48 * MIB, 1)
    daemon.ok("POST", f"/containers/{id}/unpause")
    assert [row[-1] for row in daemon.ok("GET", f"/containers/{id}/top")["Processes"]] == ["sleep 1000"]

    daemon.end(signal.SIGKILL)
    os.kill(pid, 0)
    daemon.start()
    assert daemon.ok("GET", f"/containers/{id}/json")["State"]["Status"] == "running"
    daemon.ok("POST", f"/containers/{id}/stop")
    assert not Path(f"{UNIFIED}{path}").exists()
    assert is_gone(unit)
    daemon.ok("DELETE", f"/containers/{id}")


def test_networks_on_a_device_of_the_host(daemon: Daemon, busybox_root: Path) -> None:
    """ipvlan, and macvlan on an 802.1q sub-interface, which the development host's kernel lacks."""
    daemon.ok("POST", "/images/create?fromSrc=-&repo=busybox", archive(busybox_root))
    with machines(1) as (peer,):
        with NetlinkSocket() as sock:
            sock.create_bridge("br0", mac="02:42:0a:00:00:01")
            sock.create_veth(VethPair("lan0", sock.link_index("br0"), "eth0", "02:42:0a:00:00:09", peer.fd, 1500))
            sock.delete_link(sock.link_index("br0"))
        with peer.run(NetlinkSocket) as sock:
            sock.set_up(sock.link_index("eth0"))
            sock.create_vlan("eth0.50", sock.link_index("eth0"), 50)
            sock.add_address(sock.link_index("eth0"), "10.0.0.9/24")
            sock.add_address(sock.link_index("eth0.50"), "10.0.50.9/24")

        def network(name: str, driver: str, subnet: str, **options: str) -> tuple[int, Any]:
            ipam = {"Config": [{"Subnet": subnet, "Gateway": subnet.replace("0/24", "9")}]}
            body = {"Name": name, "Driver": driver, "Options": options, "IPAM": ipam}
            return daemon.ask("POST", "/networks/create", body)

        def container(name: str) -> tuple[str, Machine]:
            wanted = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": name}}
            id = daemon.ok("POST", "/containers/create", wanted)["Id"]
            daemon.ok("POST", f"/containers/{id}/start")
            return id, Machine(f"/proc/{daemon.ok('GET', f'/containers/{id}/json')['State']['Pid']}/ns/net")

        assert network("flat", "ipvlan", "10.0.0.0/24", parent="lan0")[0] == 201
        assert network("again", "ipvlan", "10.1.0.0/24", parent="lan0")[0] == 403, "one network a parent"
        assert network("tagged", "macvlan", "10.0.50.0/24", parent="lan0.50")[0] == 201
        ids, inside = zip(*(container(name) for name in ("flat", "flat", "tagged")), strict=True)
        try:
            assert inside[0].ping("10.0.0.9")
            assert inside[0].ping("10.0.0.2")
            assert inside[0].ping("10.0.0.1")
            assert inside[2].ping("10.0.50.9")
            assert not inside[2].ping("10.0.0.2", 0.5), "on no VLAN"
        finally:
            for machine in inside:
                machine.close()
            for id in ids:
                daemon.ok("DELETE", f"/containers/{id}?force=1")
        daemon.end(signal.SIGKILL)
        with NetlinkSocket() as sock:
            sock.delete_link(sock.link_index("lan0.50"))
        daemon.start()
        with NetlinkSocket() as sock:
            assert sock.link("lan0.50").kind == "vlan", "made again"
        for name in ("flat", "tagged"):
            daemon.ok("DELETE", f"/networks/{name}")
        with NetlinkSocket() as sock:
            assert [link.name for link in sock.links() if "lan0" in link.name] == ["lan0"]
