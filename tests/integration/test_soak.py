"""Whatever is killed, and whenever: containers keep their state, those that should run do, and nothing is left over.

PIER_TEST_CYCLES says how many lives the soak has (40); PIER_TEST_SEED repeats one.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pier.kernel.cgroup_layout import detect

from .client import Client
from .conftest import Daemon, poll
from .remains import too_much
from .test_leaks import Api, descendants

pytestmark = pytest.mark.root

CYCLES = int(os.environ.get("PIER_TEST_CYCLES", "40"))
SEED = int(os.environ.get("PIER_TEST_SEED", str(time.time_ns() % 10**9)))
AT_ONCE = 4
KILLED_AFTER_S = (0.0, 1.2)
"""How long a daemon lives, from its first answer on."""
PATIENCE_S = 60.0


class Gone(Exception):
    """The daemon was killed while it was asked."""


@dataclass
class Worker:
    """Leads containers through their lives, again and again, however often the daemon goes away meanwhile."""

    daemon: Daemon
    image: str
    choose: random.Random
    faults: list[str] = field(default_factory=list)

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """One request on a connection of its own. Raises Gone."""
        api = Api(self.daemon.socket)
        try:
            api.request(method, path, json.dumps(body) if body is not None else None, _JSON)
            answer = api.getresponse()
            data = answer.read()
            return answer.status, json.loads(data) if data.strip() else None
        except (OSError, http.client.HTTPException, ValueError):
            raise Gone from None
        finally:
            api.close()

    def insist(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """The same until a daemon answers."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self.ask(method, path, body)
            except Gone:
                assert time.monotonic() < deadline, "no daemon answers any more"
                time.sleep(0.05)

    def life(self, name: str) -> None:
        """Create, start, exec, stop and remove; every step may be the one that the daemon dies in."""
        code = self.choose.randrange(1, 100)
        script = f"trap 'exit {code}' TERM; echo begun; while :; do sleep 0.05; done"
        body = {
            "Image": self.image,
            "Cmd": ["sh", "-c", script],
            "ExposedPorts": {"80/tcp": {}},
            "Volumes": {"/etc": {}},
            "HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1"}]}, "AutoRemove": False},
        }
        made = self.insist("POST", f"/containers/create?name={name}", body)
        self.expect(name, "create", made, 201, 409)  # 409: the daemon that was killed had made it
        self.expect(name, "start", self.insist("POST", f"/containers/{name}/start"), 204, 304)
        with contextlib.suppress(Gone):
            self.exec(name)
        status, found = self.insist("GET", f"/containers/{name}/json")
        self.expect(name, "inspect", (status, found), 200)
        if not found["State"]["Running"]:
            self.faults.append(f"{name} does not run after its start: {found['State']}")
        self.expect(name, "stop", self.insist("POST", f"/containers/{name}/stop?t=10"), 204, 304)
        _, found = self.insist("GET", f"/containers/{name}/json")
        state = found["State"]
        if (state["Status"], state["ExitCode"]) not in (("exited", code), ("exited", 137)):
            self.faults.append(f"{name} ended with {state}, not {code}")
        if state["FinishedAt"] < state["StartedAt"]:
            self.faults.append(f"{name} ended before it began: {state}")
        removed = self.insist("DELETE", f"/containers/{name}?force=1&v=1")
        self.expect(name, "remove", removed, 204, 404, 409)
        deadline = time.monotonic() + PATIENCE_S
        while self.insist("GET", f"/containers/{name}/json")[0] != 404:
            assert time.monotonic() < deadline, f"{name} stays"
            self.insist("DELETE", f"/containers/{name}?force=1&v=1")

    def exec(self, name: str) -> None:
        status, made = self.ask("POST", f"/containers/{name}/exec", {"Cmd": ["true"]})
        if status == 201:
            self.ask("POST", f"/exec/{made['Id']}/start", {"Detach": True})

    def expect(self, name: str, what: str, answer: tuple[int, Any], *expected: int) -> None:
        if answer[0] not in expected:
            self.faults.append(f"{what} of {name}: {answer}")


_JSON = {"Content-Type": "application/json"}


def test_a_soak_under_kill_9(own_daemon: Daemon, own_docker: Client) -> None:
    print(f"PIER_TEST_SEED={SEED}")
    choose = random.Random(SEED)
    workers = [Worker(own_daemon, own_docker.image, random.Random(choose.random())) for _ in range(AT_ONCE)]
    over = threading.Event()

    def lives(number: int) -> None:
        for cycle in range(CYCLES // AT_ONCE):
            workers[number].life(f"soak-{number}-{cycle}")

    def kill_again_and_again() -> None:
        while not over.wait(choose.uniform(*KILLED_AFTER_S)):  # no synchronisation: it chooses the moment
            own_daemon.kill()
            own_daemon.start()

    with ThreadPoolExecutor(AT_ONCE + 1) as pool:
        killer = pool.submit(kill_again_and_again)
        try:
            for done in [pool.submit(lives, number) for number in range(AT_ONCE)]:
                done.result()
        finally:
            over.set()
            killer.result()
    assert [fault for worker in workers for fault in worker.faults] == []
    assert own_docker.ids() == set()
    assert own_docker.ok("volume", "ls", "-q") == "", "each went with its container"
    poll(lambda: not too_much(own_daemon, own_docker), f"nothing to be left: {too_much(own_daemon, own_docker)}", 20)
    assert "Traceback" not in own_daemon.log.read_text()


def power_loss(daemon: Daemon, pids: list[int]) -> None:
    """All processes end at once, the caches are dropped, and what lies in memory alone is gone: cgroups and /run."""
    assert daemon.process is not None
    family = [int(pid) for pid in descendants(daemon.process.pid)]
    monitors = [parent_of(pid) for pid in pids]
    for pid in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)  # so that none of them sees another's end
    for pid in [*family, *monitors, *pids]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    daemon.process.wait()
    poll(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the containers to be gone")
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")
    shutil.rmtree(daemon.exec_root)
    for mount in detect().hierarchies:
        for path in sorted(Path(f"{mount}/pier-test-{daemon.number}").glob("**/"), reverse=True):
            poll(lambda path=path: _removed(path), f"{path} to be empty")


def _removed(path: Path) -> bool:
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_power_loss(own_daemon: Daemon, own_docker: Client) -> None:
    docker = own_docker
    forever = (docker.image, "sh", "-c", "echo begun; exec sleep 1000")
    docker.run("--restart", "always", "-p", "127.0.0.1:18417:80", *forever, name="always")
    docker.run("--restart", "unless-stopped", *forever, name="unless")
    docker.run("--restart", "unless-stopped", *forever, name="stopped-unless")
    docker.run("--restart", "on-failure:3", *forever, name="on-failure")
    docker.run(*forever, name="plain")
    docker.run("--rm", *forever, name="removes-itself")
    docker.run(docker.image, "sh", "-c", "exit 9", name="ended")
    docker.ok("create", "--name", "created", *forever)
    docker.ok("kill", "stopped-unless")
    docker.ok("wait", "stopped-unless", "ended")
    finished = docker.field("ended", "{{.State.FinishedAt}}")
    running = ["always", "unless", "on-failure", "plain", "removes-itself"]
    begun = docker.field("always", "{{.State.StartedAt}}")
    power_loss(own_daemon, [int(docker.field(name, "{{.State.Pid}}")) for name in running])
    own_daemon.start()
    for name in ("always", "unless", "on-failure"):
        poll(lambda name=name: docker.state(name) == "running", f"{name} to run")
    assert docker.field("always", "{{.State.StartedAt}}") > begun
    assert docker.ok("port", "always") == "80/tcp -> 127.0.0.1:18417"
    assert docker.field("plain", "{{.State.Status}} {{.State.ExitCode}} {{.State.Pid}}") == "exited 137 0"
    assert docker.field("stopped-unless", "{{.State.Status}} {{.State.ExitCode}}") == "exited 137"
    assert docker.field("ended", "{{.State.ExitCode}} {{.State.FinishedAt}}") == f"9 {finished}"
    assert docker.state("created") == "created"
    poll(lambda: "removes-itself" not in docker.ok("ps", "-a"), "the one that removes itself to be gone")
    poll(lambda: docker.ok("logs", "always") == "begun\nbegun", "both runs in the log")
    docker.ok("exec", "always", "true")
    docker.ok("rm", "-f", "always", "unless", "stopped-unless", "on-failure", "plain", "ended", "created")
    poll(lambda: not too_much(own_daemon, docker), f"nothing to be left: {too_much(own_daemon, docker)}", 20)
    assert "Traceback" not in own_daemon.log.read_text()
