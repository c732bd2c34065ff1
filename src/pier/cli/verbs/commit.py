"""`pier commit`: an image from what a container changed."""

from __future__ import annotations

from pier.cli.errors import Failure
from pier.cli.flags import Command, Flag
from pier.cli.out import line
from pier.cli.reference import split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    flags=(
        Flag("author", "a", "string", "Who made it: 'Jane Doe <jane@example.org>'"),
        Flag("change", "c", "list", "Dockerfile instruction for the image's configuration: 'CMD [\"sh\"]'"),
        Flag("message", "m", "string", "Message for the image's history"),
        Flag("pause", "p", "bool", "Let the container stand still meanwhile", "true"),
    ),
    arity=(1, 2),
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    container, *rest = args
    name, tag = _target(rest[0]) if rest else ("", "")
    answer = cx.client.post(
        "/commit",
        author=opts["author"],
        changes=opts["change"],
        comment=opts["message"],
        container=container,
        pause=None if not opts.given("pause") or opts["pause"] else "0",
        repo=name,
        tag=tag,
    )
    line(answer["Id"])
    return 0


def _target(text: str) -> tuple[str, str]:
    try:
        name, tag, digest = split(text)
    except ValueError as error:
        raise Failure(str(error)) from None
    if digest:
        raise Failure("refusing to create a tag with a digest reference")
    return name, tag
