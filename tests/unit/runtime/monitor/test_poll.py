"""The monitor's event loop."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from pier.runtime.monitor.poll import READ, Poller


@pytest.fixture
def poller() -> Iterator[Poller]:
    made = Poller()
    yield made
    made.close()


def test_what_is_due_is_called_once_and_in_time(poller: Poller) -> None:
    called: list[str] = []
    poller.after("late", 1000, lambda: called.append("late"))
    poller.after("soon", 0.01, lambda: called.append("soon"))
    began = time.monotonic()
    poller.run_once(None)
    assert time.monotonic() - began >= 0.01
    poller.run_once(0)
    assert called == ["soon"]


def test_a_deadline_can_be_cancelled_and_moved(poller: Poller) -> None:
    called: list[str] = []
    poller.after("a", 0, lambda: called.append("cancelled"))
    poller.cancel("a")
    poller.after("b", 0, lambda: called.append("replaced"))
    poller.after("b", 1000, lambda: called.append("moved"))
    poller.run_once(0)
    assert called == []


def test_a_callback_may_set_its_own_deadline_anew_and_cancel_others(poller: Poller) -> None:
    called: list[str] = []

    def again() -> None:
        called.append("again")
        poller.cancel("other")
        poller.after("a", 0, again)

    poller.after("a", 0, again)
    poller.after("other", 0, lambda: called.append("other"))
    poller.run_once(0)
    poller.run_once(0)
    assert called == ["again", "again"]


def test_a_descriptor_is_served_while_deadlines_wait(poller: Poller) -> None:
    read, write = os.pipe()
    try:
        got: list[bytes] = []
        poller.watch(read, READ, lambda events: got.append(os.read(read, 10)))
        poller.after("late", 1000, lambda: got.append(b"late"))
        os.write(write, b"x")
        poller.run_once(None)
        assert got == [b"x"]
        poller.forget(read)
    finally:
        os.close(read)
        os.close(write)
