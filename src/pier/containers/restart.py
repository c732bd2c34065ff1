"""Restart policies: whether a container that ended is started again, and after how long. Pure."""

from __future__ import annotations

from pier.containers.record import Record
from pier.model.host_config import RestartPolicy

FIRST_DELAY_S = 0.1
MAX_DELAY_S = 60.0
LONG_RUN_NS = 10_000_000_000
"""A run of ten seconds counts as a success: the delay starts over."""


def should_restart(
    policy: RestartPolicy, *, exit_code: int, restarts: int, stopped_by_user: bool = False, called_off: bool = False
) -> bool:
    """Docker's rules for a container that has just ended; `restarts` is how often it was restarted already.

    `called_off`: the user has sent what is to end this run. `stopped_by_user`: or any signal at all, which only
    `unless-stopped` minds.
    """
    if called_off:
        return False
    match policy.name:
        case "always":
            return True
        case "unless-stopped":
            return not stopped_by_user
        case "on-failure":
            return exit_code != 0 and (not policy.maximum_retry_count or restarts < policy.maximum_retry_count)
        case _:
            return False


def starts_with_daemon(record: Record) -> bool:
    """Whether a container that is not running is started when the daemon starts."""
    match record.host_config.restart_policy.name:
        case "always":
            return True
        case "unless-stopped":
            return not record.stopped_by_user
        case "on-failure":
            policy = record.host_config.restart_policy
            tries_left = not policy.maximum_retry_count or record.restart_count < policy.maximum_retry_count
            return tries_left and not record.stopped_by_user and record.state.exit_code != 0
        case _:
            return False


def next_failures(failures: int, ran_ns: int) -> int:
    """How many short runs there have been in a row, this one included."""
    return 0 if ran_ns >= LONG_RUN_NS else failures + 1


def delay_s(failures: int) -> float:
    """Seconds before the next try after so many short runs in a row: 0.1, 0.2, 0.4, … up to a minute."""
    return min(FIRST_DELAY_S * 2.0 ** min(max(failures - 1, 0), 20), MAX_DELAY_S)
