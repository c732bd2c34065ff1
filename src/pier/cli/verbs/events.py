"""`pier events`: what happens in the daemon, as it happens."""

from __future__ import annotations

import time

from pier.cli.flags import Command, Flag
from pier.cli.format import compile_template, execute, filters_query
from pier.cli.jsontext import loads
from pier.cli.out import line
from pier.cli.units import rfc3339_nano, time_flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS]",
    flags=(
        Flag("filter", "f", "filter", "Only events that fit: type=, event=, container=, image=, label=, …"),
        Flag("format", "", "string", "json, or a Go template"),
        Flag("since", "", "string", "Begin with events since a time or a duration ago"),
        Flag("until", "", "string", "End at a time"),
    ),
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    now, layout = time.time(), opts["format"]
    template = None if layout in ("", "json") else compile_template(layout, 64, "Error parsing format")
    response = cx.client.request(
        "GET",
        "/events",
        query={
            "filters": filters_query(opts["filter"]),
            "since": time_flag("since", opts["since"], now),
            "until": time_flag("until", opts["until"], now),
        },
    )
    for text in response.lines():
        if template is not None:
            line(execute(template, go_fields(loads(text))))
        elif layout == "json":
            line(text.decode("utf-8", "surrogateescape"))
        else:
            line(event_line(loads(text)))
    return 0


def event_line(event: dict[str, Any]) -> str:
    """`2026-11-21T09:01:44.592233220Z container create ID (image=busybox, name=web)`."""
    moment = event.get("timeNano") or event.get("time", 0) * 1_000_000_000
    actor = event.get("Actor") or {}
    attributes = actor.get("Attributes") or {}
    text = f"{rfc3339_nano(moment)} {event['Type']} {event['Action']} {actor.get('ID', '')}"
    if attributes:
        text += " (" + ", ".join(f"{key}={attributes[key]}" for key in sorted(attributes)) + ")"
    return text


def go_fields(event: dict[str, Any]) -> Any:
    """The event with the capitalised names templates use, beside the names of the JSON."""
    from pier.cli.template import mark  # noqa: PLC0415 - only with a template

    names = {"status": "Status", "id": "ID", "from": "From", "scope": "Scope", "time": "Time", "timeNano": "TimeNano"}
    return mark({**{names.get(key, key): value for key, value in event.items()}})
