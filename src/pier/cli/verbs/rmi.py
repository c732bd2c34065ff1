"""`pier rmi`: remove images, or the names they go by."""

from __future__ import annotations

from pier.cli.each import path
from pier.cli.errors import ApiError
from pier.cli.flags import Command, Flag
from pier.cli.out import complain, line
from pier.cli.platform import platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    flags=(
        Flag("force", "f", "bool", "Remove it though stopped containers use it"),
        Flag("no-prune", "", "bool", "Keep untagged parents"),
        Flag("platform", "", "strings", "Remove only this platform's variant"),
    ),
    arity=(1, None),
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    platforms = [platform(text) for one in opts["platform"] for text in one.split(",")]
    problems: list[str] = []
    only_missing = True
    for name in args:
        try:
            items = cx.client.delete(
                path("images", name), force=opts["force"], noprune=opts["no-prune"], platforms=platforms
            )
        except ApiError as error:
            problems.append(error.text)
            only_missing &= error.code == 404
            continue
        for item in items or []:
            line(f"Deleted: {item['Deleted']}" if item.get("Deleted") else f"Untagged: {item['Untagged']}")
    if problems:
        complain("\n".join(problems))
    return 1 if problems and not (opts["force"] and only_missing) else 0
