"""`pier system prune`: remove stopped containers, and networks, volumes, images and caches that nothing uses."""

from __future__ import annotations

from pier.cli.errors import Failure
from pier.cli.flags import Command, Flag
from pier.cli.format import filters_query
from pier.cli.out import line, out
from pier.cli.units import human_size
from pier.cli.verbs.prune import confirmed, removed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS]",
    flags=(
        Flag("all", "a", "bool", "Remove all unused images, not only those without a name"),
        Flag("filter", "", "filter", "Only what fits: until=, label="),
        Flag("force", "f", "bool", "Do not ask"),
        Flag("volumes", "", "bool", "Remove anonymous volumes too"),
    ),
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    if opts["volumes"] and any(name == "until" for name, _ in opts["filter"]):
        raise Failure('ERROR: The "until" filter is not supported with "--volumes"')
    if not opts["force"] and not confirmed(question(opts)):
        return 0
    freed = 0
    for kind, path, filters in _steps(opts):
        answer = cx.client.post(path, filters=filters_query(filters))
        out("".join(f"{text}\n" for text in removed(kind, answer)))
        freed += answer.get("SpaceReclaimed", 0)
    line(f"Total reclaimed space: {human_size(freed)}")
    return 0


def _steps(opts: Options) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """(kind, path, filters), in Docker's order: containers first, for they hold the rest."""
    filters = list(opts["filter"])
    dangling = ("dangling", "false" if opts["all"] else "true")
    by_age = [pair for pair in filters if pair[0] == "until"]  # build caches have no labels
    steps = [("container", "/containers/prune", filters), ("network", "/networks/prune", filters)]
    if opts["volumes"]:
        steps.append(("volume", "/volumes/prune", filters))
    return [*steps, ("image", "/images/prune", [*filters, dangling]), ("build", "/build/prune", by_age)]


def question(opts: Options) -> str:
    """What is going to be removed, in Docker's words."""
    deeds = ["all stopped containers", "all networks not used by at least one container"]
    if opts["volumes"]:
        deeds.append("all anonymous volumes not used by at least one container")
    if opts["all"]:
        deeds += ["all images without at least one container associated to them", "all build cache"]
    else:
        deeds += ["all dangling images", "unused build cache"]
    text = "WARNING! This will remove:\n" + "".join(f"  - {deed}\n" for deed in deeds)
    if opts["filter"]:
        text += "\n  Items to be pruned will be filtered with:\n"
        text += "".join(f"  - {name}={value}\n" for name, value in opts["filter"])
    return text
