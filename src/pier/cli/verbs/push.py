"""`pier push`: send an image to its registry."""

from __future__ import annotations

from pier.cli.auth import registry_auth_header
from pier.cli.each import path
from pier.cli.errors import Failure
from pier.cli.flags import Command, Flag
from pier.cli.jsontext import loads
from pier.cli.out import STDOUT, complain, line
from pier.cli.platform import platform
from pier.cli.progress import show
from pier.cli.reference import split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] NAME[:TAG]",
    flags=(
        Flag("all-tags", "a", "bool", "Push all tags of the repository"),
        Flag("disable-content-trust", "", "bool", "Accepted for compatibility", "true"),
        Flag("platform", "", "string", "Push only this platform of the image: os/arch[/variant]"),
        Flag("quiet", "q", "bool", "Print only the image's name"),
    ),
    arity=(1, 1),
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    try:
        name, tag, digest = split(args[0])
    except ValueError as error:
        raise Failure(str(error)) from None
    if digest:
        raise Failure("cannot push a digest reference")
    every = opts["all-tags"]
    if every and tag:
        raise Failure("tag can't be used with --all-tags/-a")
    if not (every or tag):
        tag = "latest"
        if not opts["quiet"]:
            line("Using default tag: latest")
    response = cx.client.request(
        "POST",
        path("images", name, "push"),
        query={"tag": tag, "platform": platform(opts["platform"])},
        headers=registry_auth_header(cx.options, name),
    )
    if opts["quiet"]:
        for text in response.lines():
            if problem := loads(text).get("error"):
                raise Failure(str(problem))
        line(f"{name}:{tag}" if tag else name)
        return 0
    show(response.lines(), STDOUT, _tell)
    return 0


def _tell(aux: Any) -> None:
    """What the machine's part of the stream means for people (wish 7)."""
    if aux.get("manifestPushedInsteadOfIndex"):
        index, selected = aux["originalIndex"]["digest"], aux["selectedManifest"]["digest"]
        complain(
            "Not all platforms of this image are here: only the one that is was pushed\n"
            f"{index} -> {selected}\n(pull the others with --platform to push the index whole)"
        )
    elif aux.get("Previous") and aux["Previous"] == aux.get("Digest"):
        line(f"{aux.get('Tag')}: up to date")
