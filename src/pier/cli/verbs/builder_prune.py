"""`pier builder prune`: remove what of the build cache nothing uses, after a question."""

from __future__ import annotations

from pier.cli.flags import Command, Flag
from pier.cli.format import filters_query
from pier.cli.out import line
from pier.cli.units import human_size
from pier.cli.verbs.prune import confirmed, removed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS]",
    flags=(
        Flag("all", "a", "bool", "Also what images have too"),
        Flag("filter", "", "filter", "Only what fits: until=, type=, id=, description="),
        Flag("force", "f", "bool", "Do not ask"),
        Flag("keep-storage", "", "bytes", "How much may stay, such as 10g"),
    ),
)
QUESTION = "WARNING! This will remove all dangling build cache."
QUESTION_ALL = "WARNING! This will remove all build cache."


def run(cx: Context, opts: Options, args: list[str]) -> int:
    if not opts["force"] and not confirmed(QUESTION_ALL if opts["all"] else QUESTION):
        return 0
    filters = filters_query(list(opts["filter"]))
    keep = opts["keep-storage"] or None
    answer = cx.client.post("/build/prune", all=opts["all"], filters=filters, **{"keep-storage": keep})
    for text in removed("build", answer):
        line(text)
    line(f"Total reclaimed space: {human_size(answer.get('SpaceReclaimed', 0))}")
    return 0
