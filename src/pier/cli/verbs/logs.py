"""`pier logs`: what a container has written."""

from __future__ import annotations

import time

from pier.cli.each import path
from pier.cli.errors import Failure
from pier.cli.flags import Command, Flag
from pier.cli.out import line
from pier.cli.stream import Sink
from pier.cli.units import human_size, time_flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] CONTAINER",
    flags=(
        Flag("details", "", "bool", "Show what the log driver adds"),
        Flag("follow", "f", "bool", "Go on with what comes"),
        Flag("since", "", "string", "Only lines after a time (2024-01-02T13:23:37Z) or a duration ago (42m)"),
        Flag("tail", "n", "string", "How many lines from the end", "all"),
        Flag("truncate", "", "bool", "Empty the log instead of showing it, also while the container runs"),
        Flag("timestamps", "t", "bool", "Show when each line was written"),
        Flag("until", "", "string", "Only lines before a time or a duration ago"),
    ),
    arity=(1, 1),
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    if opts["truncate"]:
        freed = cx.client.post(path("containers", args[0], "logs/truncate"))["SpaceReclaimed"]
        line(f"{args[0]}: log emptied, {human_size(freed)} freed")
        return 0
    now = time.time()
    query = {
        "details": opts["details"],
        "follow": opts["follow"],
        "since": time_flag("since", opts["since"], now),
        "stderr": True,
        "stdout": True,
        "tail": opts["tail"] or "all",
        "timestamps": opts["timestamps"],
        "until": time_flag("until", opts["until"], now),
    }
    response = cx.client.request("GET", path("containers", args[0], "logs"), query=query)
    sink = Sink(multiplexed=response.multiplexed)
    for chunk in response.chunks():
        sink.write(chunk)
    if sink.daemon_error:
        raise Failure(f"Error grabbing logs: {sink.daemon_error.decode('utf-8', 'replace')}")
    return 0
