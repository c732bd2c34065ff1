"""Health checks: what is asked of a container, when, and what its answers mean. Pure.

The rules are dockerd's: a probe that exits with 0 makes a container healthy, so many others in a row unhealthy;
failures within the start period do not count while it has never been healthy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pier.containers.record import State
from pier.model.container import ContainerConfig, Health, HealthcheckResult
from pier.model.time import format_duration

NS = 1_000_000_000
INTERVAL_NS = 30 * NS
TIMEOUT_NS = 30 * NS
START_INTERVAL_NS = 5 * NS
RETRIES = 3
KEPT_RESULTS = 5
OUTPUT_MAX = 4096
"""Bytes of a probe's output that are kept."""
CUT = "..."
NO_ANSWER = -1
"""Exit code of a probe that could not be run or did not end in time."""
SHELL = ("/bin/sh", "-c")


@dataclass(frozen=True, slots=True)
class Check:
    """How one container is asked; times in nanoseconds."""

    command: Sequence[str]
    interval_ns: int
    timeout_ns: int
    start_period_ns: int
    start_interval_ns: int
    retries: int

    def pause_ns(self, state: State, now_ns: int) -> int:
        """The time between the end of one probe, or the start of the container, and the next probe."""
        if now_ns - state.started_at_ns >= self.start_period_ns:
            return self.interval_ns
        starting = state.health is None or state.health.status == "starting"
        return self.start_interval_ns if starting else self.interval_ns


def check_of(config: ContainerConfig) -> Check | None:
    """The check that a container has, Docker's defaults filled in; None: it has none."""
    health = config.healthcheck
    test = (health.test if health is not None else None) or []
    if health is None or test[:1] not in (["CMD"], ["CMD-SHELL"]):
        return None
    shell = (config.shell or SHELL) if test[0] == "CMD-SHELL" else ()
    return Check(
        command=[*shell, *test[1:]],
        interval_ns=health.interval or INTERVAL_NS,
        timeout_ns=health.timeout or TIMEOUT_NS,
        start_period_ns=health.start_period,
        start_interval_ns=health.start_interval or START_INTERVAL_NS,
        retries=health.retries or RETRIES,
    )


def begin(state: State, check: Check | None) -> None:
    """A new run: nothing is known yet; what earlier runs answered stays in the log."""
    if check is not None:
        state.health = Health(status="starting", log=state.health.log if state.health is not None else None)


def lapse(state: State) -> None:
    """Nobody asks any more, as the container is paused or has ended: Docker calls that unhealthy."""
    if state.health is not None:
        state.health.status = "unhealthy"


def take(state: State, check: Check, result: HealthcheckResult, *, started_ns: int) -> bool:
    """Enter a probe's result; `started_ns` is when the probe began. Whether the status is another one now."""
    health = state.health
    if health is None:
        health = state.health = Health(status="starting")
    before = health.status
    health.log = [*(health.log or ()), result][-KEPT_RESULTS:]
    if result.exit_code == 0:
        health.failing_streak, health.status = 0, "healthy"
    elif health.status != "starting" or started_ns - state.started_at_ns >= check.start_period_ns:
        health.failing_streak += 1
        if health.failing_streak >= check.retries:
            health.status = "unhealthy"
    return health.status != before


def output_text(data: bytes, *, cut: bool) -> str:
    """A probe's output as it is shown."""
    return data[:OUTPUT_MAX].decode(errors="replace") + (CUT if cut else "")


def timeout_text(check: Check, output: str) -> str:
    """What the log says of a probe that did not end in time."""
    text = f"Health check exceeded timeout ({format_duration(check.timeout_ns)})"
    return f"{text}: {output}" if output else text


def status_of(state: State) -> str:
    """`none`, `starting`, `healthy` or `unhealthy`, as filters and the list know it."""
    return state.health.status if state.health is not None else "none"
