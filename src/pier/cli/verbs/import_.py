"""`pier import`: an image from the archive of a root file system, out of a file, stdin (`-`) or a URL."""

from __future__ import annotations

from pier.cli.errors import Failure
from pier.cli.flags import Command, Flag
from pier.cli.out import STDOUT
from pier.cli.progress import show
from pier.cli.reference import split
from pier.cli.verbs.load import open_input, read_chunks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    flags=(
        Flag("change", "c", "list", "Dockerfile instruction for the image's configuration: 'CMD [\"sh\"]'"),
        Flag("message", "m", "string", "Message for the image's history"),
        Flag("platform", "", "string", "Platform of the image: os/arch[/variant]"),
    ),
    arity=(1, None),
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    source, *rest = args
    repository, tag = _target(rest[0]) if rest else ("", "")
    is_url = source.startswith(("http://", "https://"))
    query = {
        "changes": opts["change"],
        "fromSrc": source if is_url else "-",
        "message": opts["message"],
        "platform": opts["platform"].lower(),
        "repo": repository,
        "tag": tag,
    }
    stream = None if is_url else read_chunks(0) if source == "-" else read_chunks(open_input(source), source)
    show(cx.client.request("POST", "/images/create", query=query, stream=stream).lines(), STDOUT)
    return 0


def _target(text: str) -> tuple[str, str]:
    try:
        name, tag, _ = split(text)
    except ValueError as error:
        raise Failure(str(error)) from None
    return name, tag
