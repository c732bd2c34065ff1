"""`--health-*` of `run` and `create` as the Healthcheck member. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.flags import Options


def health_check(opts: Options) -> dict[str, Any] | None:
    """The Healthcheck member (times in nanoseconds), or None when no health flag was used."""
    times = {
        "Interval": "health-interval",
        "Timeout": "health-timeout",
        "StartPeriod": "health-start-period",
        "StartInterval": "health-start-interval",
    }
    given = opts["health-cmd"] or opts["health-retries"] or any(opts[flag] for flag in times.values())
    if opts["no-healthcheck"]:
        if given:
            raise ValueError("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    if not given:
        return None
    for flag in times.values():
        if opts[flag] < 0:
            raise ValueError(f"--{flag} cannot be negative")
    if opts["health-retries"] < 0:
        raise ValueError("--health-retries cannot be negative")
    health: dict[str, Any] = {member: opts[flag] for member, flag in times.items() if opts[flag]}
    if opts["health-cmd"]:
        health["Test"] = ["CMD-SHELL", opts["health-cmd"]]
    if opts["health-retries"]:
        health["Retries"] = opts["health-retries"]
    return health
