"""The execs of a monitor, without a container: what becomes of one that hangs."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest

from pier.runtime.monitor import execs, prepared
from pier.runtime.monitor.execs import KEPT_MAX, Client, Execs
from pier.runtime.monitor.maker import OwnMaker
from pier.runtime.monitor.poll import Poller
from pier.runtime.process.init import Report, Stdio
from pier.runtime.request import ExecRequest


class ForkMaker(OwnMaker):
    """Forks what does as the bench says."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def exec(self, request: ExecRequest, report: Report, stdio: Stdio, init_pid: int) -> int:
        return self._fork(self._bench.become)

    def exec_ahead(self, request: ExecRequest, report: Report, stdio: Stdio, init_pid: int) -> int:
        def become() -> NoReturn:
            report.wait_for_word()
            self._bench.become()

        return self._fork(become)

    def _fork(self, become: Callable[[], NoReturn]) -> int:
        pid = os.fork()
        if pid == 0:
            become()
        self._bench.pids.append(pid)
        return pid


def request_of(exec_id: str, **process: Any) -> ExecRequest:
    return ExecRequest(exec_id, {"terminal": False, **process}, note=f"note of {exec_id}")


class Bench:
    """Execs whose processes do what `become` says, and what was told of them."""

    def __init__(self) -> None:
        self.poller = Poller()
        self.told: list[dict[str, Any]] = []
        self.heard = True
        self.pids: list[int] = []
        self.control, self._other = socket.socketpair()
        self.become: Callable[[], NoReturn] = end
        self.execs = Execs(self.poller, ForkMaker(self), self.tell, self.broadcast)

    def tell(self, sock: socket.socket, message: dict[str, Any]) -> bool:
        self.told.append(message)
        return True

    def broadcast(self, message: dict[str, Any]) -> bool:
        self.told.append(message)
        return self.heard

    def start(self, exec_id: str, **process: Any) -> None:
        self.execs.start(request_of(exec_id, **process), -1, Client(self.control, {"id": 1}, []))

    def prepare(self, exec_id: str) -> int:
        """The process that waits."""
        self.execs.prepare(request_of(exec_id), -1)
        return self.pids[-1]

    def run_until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self.poller.run_once(10)

    def run_to_the_end(self, exec_id: str, **process: Any) -> None:
        self.start(exec_id, **process)
        self.run_until(lambda: any(message.get("exec_ended") == exec_id for message in self.told))

    def run_until_buried(self, pid: int) -> None:
        self.run_until(lambda: not os.path.exists(f"/proc/{pid}"))

    def close(self) -> None:
        for pid in self.pids:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                continue
        self.poller.close()
        self.control.close()
        self._other.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def hang() -> NoReturn:
    while True:
        signal.pause()


def end() -> NoReturn:
    os._exit(3)


def test_a_start_that_hangs_is_given_up_and_its_process_buried(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.become = hang
    monkeypatch.setattr(execs, "START_TIMEOUT_S", 0.05)
    bench.start("a")
    bench.run_until(lambda: bench.told)
    (answer,) = bench.told
    assert answer["id"] == 1
    assert "was not ready after" in answer["error"]
    bench.poller.run_once(10)
    with pytest.raises(ChildProcessError):
        os.waitpid(bench.pids[0], os.WNOHANG)
    assert bench.execs.describe() == {}


def test_those_never_told_are_kept_and_of_the_others_some(bench: Bench) -> None:
    bench.heard = False
    bench.run_to_the_end("untold")
    bench.heard = True
    for number in range(KEPT_MAX + 2):
        bench.run_to_the_end(str(number))
    found = bench.execs.describe()
    assert list(found) == ["untold", *(str(number) for number in range(2, KEPT_MAX + 2))]
    assert found["untold"]["note"] == "note of untold"
    assert found["untold"]["ended"]["exit_code"] == 3
    assert [item["told"] for item in found.values()] == [False, *[True] * KEPT_MAX]
    bench.execs.all_told()
    bench.run_to_the_end("last")
    assert "untold" not in bench.execs.describe()
    assert not bench.execs.any_running


def test_what_was_made_ahead_goes_on_at_the_start(bench: Bench) -> None:
    waiting = bench.prepare("a")
    bench.run_to_the_end("a")
    assert bench.pids == [waiting]
    assert bench.told[0] == {"id": 1, "pid": waiting, "warnings": []}
    assert bench.execs.describe()["a"]["ended"]["exit_code"] == 3


def test_what_was_made_ahead_of_another_request_ends(bench: Bench) -> None:
    waiting = bench.prepare("a")
    bench.run_to_the_end("a", consoleSize={"height": 2, "width": 3})
    assert len(bench.pids) == 2
    bench.run_until_buried(waiting)


def test_what_waits_and_is_killed_costs_the_start_nothing(bench: Bench) -> None:
    waiting = bench.prepare("a")
    os.kill(waiting, signal.SIGKILL)
    bench.run_until_buried(waiting)
    bench.run_to_the_end("a")
    assert bench.execs.describe()["a"]["ended"]["exit_code"] == 3


def test_what_is_never_started_ends(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "WAIT_S", 0.01)
    bench.run_until_buried(bench.prepare("a"))
    assert bench.told == []
    assert not bench.execs.any_running


def test_only_so_many_wait(bench: Bench) -> None:
    for number in range(prepared.WAITING_MAX + 2):
        bench.prepare(str(number))
    bench.prepare("0")
    assert len(bench.pids) == prepared.WAITING_MAX
    bench.run_to_the_end("0")
    bench.prepare("more")
    assert len(bench.pids) == prepared.WAITING_MAX + 1
