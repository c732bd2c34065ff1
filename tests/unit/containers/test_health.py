from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest

from pier.containers import health
from pier.containers.probing import Output
from pier.containers.record import State
from pier.errors import InvalidParameter
from pier.model.container import ContainerConfig, ContainerCreateRequest, HealthcheckResult, HealthConfig
from pier.model.filters import Filters
from pier.model.host_config import HostConfig

NS = 1_000_000_000
STARTED_NS = 1_700_000_000 * NS
FAST_NS = 1_000_000


def check(**values: Any) -> health.Check:
    found = health.check_of(ContainerConfig(healthcheck=HealthConfig(test=["CMD", "ok"], **values)))
    assert found is not None
    return found


def fresh(check: health.Check) -> State:
    state = State(status="running", started_at_ns=STARTED_NS)
    health.begin(state, check)
    return state


@pytest.mark.parametrize(
    ("test", "shell", "command"),
    [
        (None, None, None),
        ([], None, None),
        (["NONE"], None, None),
        (["WHAT", "x"], None, None),
        (["CMD", "a", "b c"], None, ["a", "b c"]),
        (["CMD-SHELL", "a && b"], None, ["/bin/sh", "-c", "a && b"]),
        (["CMD-SHELL", "a && b"], ["/bin/ash", "-ec"], ["/bin/ash", "-ec", "a && b"]),
    ],
)
def test_what_is_run(test: list[str] | None, shell: list[str] | None, command: list[str] | None) -> None:
    found = health.check_of(ContainerConfig(healthcheck=HealthConfig(test=test), shell=shell))
    assert (found and found.command) == command


def test_defaults_are_dockers() -> None:
    assert check() == health.Check(["ok"], 30 * NS, 30 * NS, 0, 5 * NS, 3)


def test_the_pause_is_short_while_it_starts() -> None:
    slow = check(interval=60 * NS, start_period=20 * NS, start_interval=2 * NS)
    state = fresh(slow)
    assert slow.pause_ns(state, STARTED_NS + 19 * NS) == 2 * NS
    assert slow.pause_ns(state, STARTED_NS + 20 * NS) == 60 * NS
    health.take(state, slow, HealthcheckResult(exit_code=0), started_ns=STARTED_NS + NS)
    assert slow.pause_ns(state, STARTED_NS + 3 * NS) == 60 * NS


def story(check: health.Check, codes: list[int], *, each_ns: int = NS) -> list[tuple[str, int, bool]]:
    """(status, streak, changed) after each probe."""
    state = fresh(check)
    told = []
    for number, code in enumerate(codes):
        result = HealthcheckResult(exit_code=code)
        changed = health.take(state, check, result, started_ns=STARTED_NS + number * each_ns)
        assert state.health is not None
        told.append((state.health.status, state.health.failing_streak, changed))
    return told


def test_so_many_failures_in_a_row_are_unhealthy() -> None:
    assert story(check(retries=2), [1, 0, 1, 2, -1, 0]) == [
        ("starting", 1, False),
        ("healthy", 0, True),
        ("healthy", 1, False),
        ("unhealthy", 2, True),
        ("unhealthy", 3, False),
        ("healthy", 0, True),
    ]


def test_failures_while_it_starts_do_not_count() -> None:
    assert story(check(retries=1, start_period=2 * NS), [1, 1, 1]) == [
        ("starting", 0, False),
        ("starting", 0, False),
        ("unhealthy", 1, True),
    ]


def test_once_healthy_the_start_period_is_over() -> None:
    assert story(check(retries=1, start_period=9 * NS), [0, 1])[-1] == ("unhealthy", 1, True)


def test_five_results_are_kept() -> None:
    state, asked = State(started_at_ns=1), check()
    for code in range(7):
        health.take(state, asked, HealthcheckResult(exit_code=code), started_ns=2)
    assert state.health is not None
    assert [result.exit_code for result in state.health.log or ()] == [2, 3, 4, 5, 6]


def test_a_new_run_knows_nothing_but_the_log() -> None:
    state, asked = State(started_at_ns=1), check(retries=1)
    health.take(state, asked, HealthcheckResult(exit_code=1), started_ns=2)
    health.begin(state, asked)
    assert state.health is not None
    assert (state.health.status, state.health.failing_streak, len(state.health.log or ())) == ("starting", 0, 1)


def frame(stream: int, data: bytes) -> bytes:
    return struct.pack(">BxxxI", stream, len(data)) + data


def test_output_is_taken_out_of_its_frames_however_they_are_cut() -> None:
    data = frame(1, b"one ") + frame(2, b"two ") + frame(1, b"") + frame(1, b"three")
    for step in (1, 3, 8, len(data)):
        output = Output()
        for at in range(0, len(data), step):
            output.feed(data[at : at + step])
        assert output.text() == "one two three"


@pytest.mark.parametrize(("size", "shown"), [(4096, 4096), (4097, 4099), (200_000, 4099)])
def test_output_is_bounded(size: int, shown: int) -> None:
    output = Output()
    output.feed(frame(1, b"x" * size))
    assert len(output.text()) == shown
    assert output.text().endswith("...") == (size > 4096)


def test_the_timeout_is_told_as_go_prints_it() -> None:
    assert health.timeout_text(check(timeout=90 * NS), "") == "Health check exceeded timeout (1m30s)"
    assert health.timeout_text(check(timeout=NS // 2), "so far") == "Health check exceeded timeout (500ms): so far"


# --- in the service


async def run(house: Any, *, annotations: dict[str, str] | None = None, **values: Any) -> Any:
    check = HealthConfig(test=["CMD", "probe"], **{"interval": FAST_NS, "retries": 2} | values)
    host = HostConfig(annotations=annotations)
    body = ContainerCreateRequest(image="bb", healthcheck=check, host_config=host)
    id = (await house.service.create(body, name="web", platform="")).id
    await house.service.start_container(id)
    return house.monitor(id)


async def until(house: Any, status: str) -> Any:
    async with asyncio.timeout(5):
        while True:
            found = (await house.service.inspect("web", size=False)).state.health
            if found.status == status:
                return found
            await asyncio.sleep(0.001)


async def test_a_container_is_asked_and_its_answers_are_shown(house: Any) -> None:
    monitor = await run(house)
    assert (await house.service.inspect("web", size=False)).state.health.status == "starting"
    monitor.exec_answer = (0, frame(1, b"fine\n") + frame(2, b"mostly\n"))
    found = await until(house, "healthy")
    assert (found.log[-1].exit_code, found.log[-1].output) == (0, "fine\nmostly\n")
    assert found.log[-1].start <= found.log[-1].end
    (line,) = await house.service.list(all=False, limit=0, size=False, filters=Filters.parse('{"health": ["healthy"]}'))
    assert line.status.endswith("(healthy)")
    assert (line.health.status, line.health.failing_streak) == ("healthy", 0)
    assert "health_status: healthy" in house.actions()
    assert monitor.exec_requests[0].process["args"] == ["probe"]


async def test_a_probe_that_does_not_end_in_time_is_killed(house: Any) -> None:
    monitor = await run(house, timeout=2 * FAST_NS, retries=1)
    found = await until(house, "unhealthy")
    assert (found.log[0].exit_code, found.log[0].output) == (-1, "Health check exceeded timeout (2ms)")
    assert monitor.execs[monitor.exec_requests[0].exec_id].result().exit_code == 137
    assert (await house.service.inspect("web", size=False)).exec_ids in (None, [monitor.exec_requests[-1].exec_id])


async def test_nobody_asks_what_is_paused_or_has_ended(house: Any) -> None:
    monitor = await run(house)
    monitor.exec_answer = (0, b"")
    await until(house, "healthy")
    monitor.foreign = True  # its runtime pauses it, which needs no cgroup
    await house.service.pause("web")
    asked = len(monitor.exec_requests)
    await asyncio.sleep(0.02)
    assert len(monitor.exec_requests) == asked
    assert (await house.service.inspect("web", size=False)).state.health.status == "unhealthy"
    await house.service.unpause("web")
    await until(house, "healthy")
    await house.service.stop("web")
    assert (await house.service.inspect("web", size=False)).state.health.status == "unhealthy"


async def test_a_new_daemon_goes_on_asking_with_what_was_known(house: Any) -> None:
    monitor = await run(house)
    monitor.exec_answer = (0, b"")
    await until(house, "healthy")
    monitor.exec_answer = None
    await house.again()
    assert (await house.service.inspect("web", size=False)).state.health.status == "healthy"
    monitor.exec_answer = (1, b"")
    await until(house, "unhealthy")


@pytest.mark.parametrize(("action", "told"), [("restart", "start"), ("stop", "stop"), ("kill", "die")])
async def test_health_on_failure(house: Any, action: str, told: str) -> None:
    monitor = await run(house, annotations={"pier.health-on-failure": action}, retries=1)
    monitor.exec_answer = (1, b"")
    async with asyncio.timeout(5):
        while told not in (after := house.actions())[after.index("start") + 1 :]:
            await asyncio.sleep(0.001)
    assert "health_status: unhealthy" in house.actions()
    assert monitor.ended.done()
    if action == "restart":
        assert (await house.service.inspect("web", size=False)).state.health.status == "starting"


@pytest.mark.parametrize(
    ("annotations", "words"),
    [({"pier.health-on-failure": "shout"}, "must be one of none, restart, stop, kill"), ({"pier.x": ""}, "unknown")],
)
async def test_annotations_of_the_engines_own_are_judged(house: Any, annotations: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidParameter, match=words):
        await house.create(annotations=annotations)


async def test_an_action_without_a_check_is_warned_about(house: Any) -> None:
    body = ContainerCreateRequest(image="bb", host_config=HostConfig(annotations={"pier.health-on-failure": "kill"}))
    (warning,) = (await house.service.create(body, name="", platform="")).warnings
    assert "no health check" in warning


async def test_attack_15_a_label_of_the_image_orders_nothing(house: Any) -> None:
    house.images.known["bb"].config.config.labels["pier.health-on-failure"] = "kill"
    monitor = await run(house, retries=1)
    monitor.exec_answer = (1, b"")
    await until(house, "unhealthy")
    await asyncio.sleep(0.02)
    assert monitor.signals == []
    assert (await house.service.inspect("web", size=False)).host_config.annotations is None
