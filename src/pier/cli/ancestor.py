"""`--ancestor IMAGE` of stop, kill, restart and rm: containers by the image they were made from (wish 5)."""

from __future__ import annotations

from pier.cli.flags import Command, Flag, check_arity
from pier.cli.out import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

ANCESTOR = Flag("ancestor", "", "list", "Instead of names: all containers of this image, or of one made from it")


def targets(cx: Context, command: Command, opts: Options, args: list[str], *, running: bool) -> list[str]:
    """The containers named, and those of the images given, which are shown first; `running`: those that run only.

    Raises ArgumentError where neither is given.
    """
    images = opts["ancestor"]
    if not images:
        check_arity(Command(command.usage, arity=(1, None)), cx.path, len(args))
        return args
    found = list(args)
    for image in images:
        listed = cx.client.get("/containers/json", all=not running, filters={"ancestor": {image: True}})
        names = [container["Names"][0].removeprefix("/") for container in listed]
        shown = "".join(f"\n  {name}  {row['Status']}" for name, row in zip(names, listed, strict=True))
        state = "running containers" if running else "containers"
        complain(f"{state} of {image}:{shown}" if names else f"no {state} of {image}")
        found += [name for name in names if name not in found]
    return found
