"""Annotations of a create request that the engine itself reads: what Pier can do and Docker's API has no word for.

Any client can send them (`docker run --annotation pier.health-on-failure=restart`). Images cannot: what an image says
never becomes an annotation (attack 15).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pier.errors import InvalidParameter

PREFIX = "pier."
HEALTH_ON_FAILURE = "pier.health-on-failure"
TIMEZONE = "pier.timezone"

ACTIONS = ("none", "restart", "stop", "kill")
"""What becomes of a container whose health check says `unhealthy`."""

_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,40}(/[A-Za-z0-9_+-]{1,40}){0,3}")


class UnknownAnnotation(InvalidParameter):
    """invalid annotation {key}: unknown"""

    remedy = f"annotations that begin with {PREFIX} are the engine's own: {HEALTH_ON_FAILURE}, {TIMEZONE}"


class InvalidAnnotation(InvalidParameter):
    """invalid value {value!r} of {key}: {reason}"""


def check(annotations: Mapping[str, str] | None) -> None:
    """Raises UnknownAnnotation, InvalidAnnotation."""
    for key, value in (annotations or {}).items():
        if not key.startswith(PREFIX):
            continue
        if key == HEALTH_ON_FAILURE:
            if value not in ACTIONS:
                raise InvalidAnnotation(key=key, value=value[:40], reason=f"must be one of {', '.join(ACTIONS)}")
        elif key == TIMEZONE:
            if not _ZONE.fullmatch(value):
                raise InvalidAnnotation(key=key, value=value[:40], reason="not the name of a time zone (Area/City)")
        else:
            raise UnknownAnnotation(key=key[:80])


def health_action(annotations: Mapping[str, str] | None) -> str:
    """One of ACTIONS."""
    return (annotations or {}).get(HEALTH_ON_FAILURE, "none")


def timezone(annotations: Mapping[str, str] | None) -> str:
    """A zone's name such as `Asia/Shanghai`; empty: none asked for."""
    return (annotations or {}).get(TIMEZONE, "")
