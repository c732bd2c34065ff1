"""`pier network prune`: remove the networks that no container uses, after a question."""

from __future__ import annotations

from pier.cli.flags import Command, Flag
from pier.cli.format import filters_query
from pier.cli.out import line
from pier.cli.verbs.prune import confirmed, removed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS]",
    flags=(
        Flag("filter", "", "filter", "Only what fits: until=, label="),
        Flag("force", "f", "bool", "Do not ask"),
    ),
)
QUESTION = "WARNING! This will remove all custom networks not used by at least one container."


def run(cx: Context, opts: Options, args: list[str]) -> int:
    if not opts["force"] and not confirmed(QUESTION):
        return 0
    answer = cx.client.post("/networks/prune", filters=filters_query(opts["filter"]))
    for text in removed("network", answer):
        line(text)
    return 0
