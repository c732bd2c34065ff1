"""`pier pull`: fetch an image from a registry."""

from __future__ import annotations

from pier.cli.errors import Failure
from pier.cli.flags import Command, Flag
from pier.cli.out import STDOUT, line
from pier.cli.pulling import pull
from pier.cli.reference import split, with_tag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] NAME[:TAG|@DIGEST]",
    flags=(
        Flag("all-tags", "a", "bool", "Pull all tags of the repository"),
        Flag("disable-content-trust", "", "bool", "Accepted for compatibility", "true"),
        Flag("platform", "", "string", "Platform to pull: os/arch[/variant]"),
        Flag("quiet", "q", "bool", "Print only the image's name"),
    ),
    arity=(1, 1),
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    try:
        _, tag, digest = split(args[0])
    except ValueError as error:
        raise Failure(str(error)) from None
    every = opts["all-tags"]
    if every and (tag or digest):
        raise Failure("tag can't be used with --all-tags/-a")
    if not (every or tag or digest or opts["quiet"]):
        line("Using default tag: latest")
    pull(cx, args[0], platform=opts["platform"], fd=None if opts["quiet"] else STDOUT, all_tags=every)
    line(full_name(args[0] if every else with_tag(args[0])))
    return 0


def full_name(name: str) -> str:
    """`busybox:latest` -> `docker.io/library/busybox:latest`."""
    host, slash, _ = name.partition("/")
    if slash and (host == "localhost" or "." in host or ":" in host):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"
