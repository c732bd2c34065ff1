"""`pier inspect` and `pier container|image|volume inspect`: everything about objects, as JSON or by template."""

from __future__ import annotations

from pier.cli.each import path
from pier.cli.errors import ApiError, Failure
from pier.cli.flags import Command, Flag
from pier.cli.out import complain, out
from pier.cli.platform import platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] NAME|ID [NAME|ID...]",
    flags=(
        Flag("as-run", "", "bool", "Show the run command that makes a container like this one"),
        Flag("format", "f", "string", "json, or a Go template"),
        Flag("platform", "", "string", "Show an image's variant for this platform: os/arch[/variant]"),
        Flag("size", "s", "bool", "Show the sizes of a container or a volume"),
        Flag("type", "", "string", "Kind of object: container, image, network or volume"),
    ),
    arity=(1, None),
)
_PATHS = {"container": "containers", "image": "images", "network": "networks", "volume": "volumes"}
_TYPES = ("config", "container", "image", "network", "node", "plugin", "secret", "service", "task", "volume")
_ABSENT = (404, 501, 503)
"""Statuses that mean "not of this kind": not there, not implemented by this daemon, no swarm."""


def run(cx: Context, opts: Options, args: list[str]) -> int:
    if opts["as-run"]:
        return _as_run(cx, args)
    kind = _kind(cx.path, opts)
    if opts["platform"] and kind != "image":
        raise Failure("--platform chooses among the variants of images: `pier image inspect --platform …`")

    def fetch(name: str) -> Any:
        item = _object(cx, kind, name, size=opts["size"], wanted=opts["platform"])
        if cx.path == "image inspect":
            _add_argv(item, name)
        return item

    return show(args, opts["format"], fetch)


def show(names: list[str], layout: str, fetch: Callable[[str], Any]) -> int:
    """Print what `fetch` returns for each name, all as one list of JSON or each by the template `layout`.

    A Failure of `fetch` is told at the end, and makes the exit status 1.
    """
    template = _template(layout)
    found: list[Any] = []
    problems: list[str] = []
    for name in names:
        try:
            found.append(fetch(name))
        except Failure as failure:
            problems.append(failure.text)
    return _print(found, template, layout, "\n".join(problems))


def _add_argv(image: dict[str, Any], name: str) -> None:
    """What containers of the image execute, as a member of its own; what is odd about it goes to stderr."""
    from pier.cli.argv import effective, notes  # noqa: PLC0415 - only here

    config = image.get("Config") or {}
    image["EffectiveArgv"] = effective(config)
    for sentence in notes(config):
        complain(f"Note: {name}: {sentence}.")


def _as_run(cx: Context, names: list[str]) -> int:
    """One command line a container, ready for a shell; what it cannot say goes to stderr."""
    from shlex import join  # noqa: PLC0415 - only here

    from pier.cli import as_run  # noqa: PLC0415

    daemon = cx.client.get("/info")
    problems: list[str] = []
    for name in names:
        try:
            container = cx.client.get(path("containers", name, "json"))
        except ApiError as failure:
            problems.append(failure.text)
            continue
        try:
            image = cx.client.get(path("images", container["Image"], "json"))
        except ApiError:
            image = None
            complain(f"{name}: its image is gone, so what came from it is given as flags")
        out(f"pier {join(as_run.words(container, image, daemon))}\n")
        for sentence in as_run.unsaid(container):
            complain(f"{name}: {sentence}")
    if problems:
        complain("\n".join(problems))
    return 1 if problems else 0


def _kind(command_path: str, opts: Options) -> str:
    group, space, _ = command_path.partition(" ")
    kind: str = group if space else opts["type"]
    if kind and kind not in _TYPES:
        choices = ", ".join(f'"{name}"' for name in _TYPES)
        raise Failure(f'unknown type: "{kind}": must be one of {choices}')
    if kind and kind not in _PATHS:
        raise Failure(f"pier inspect --type {kind} is not implemented by Pier yet")
    return kind


def _template(layout: str) -> Any:
    if layout in ("", "json"):
        return None
    from pier.cli.format import EXIT_TEMPLATE, compile_template  # noqa: PLC0415 - only with --format

    return compile_template(layout, EXIT_TEMPLATE, "template parsing error")


def _object(cx: Context, kind: str, name: str, *, size: bool, wanted: str) -> Any:
    """The first object of that name, looked for in every kind when none is given."""
    if wanted:
        return cx.client.get(path("images", name, "json"), platform=platform(wanted))
    if kind:
        return _get(cx, kind, name, size=size)
    for candidate in _PATHS:
        try:
            return _get(cx, candidate, name, size=size)
        except ApiError as error:
            if error.code not in _ABSENT and not (error.code == 400 and candidate != "container"):
                raise
    raise Failure(f"Error: No such object: {name}")


def _get(cx: Context, kind: str, name: str, *, size: bool) -> Any:
    location = path(_PATHS[kind], name) if kind in ("network", "volume") else path(_PATHS[kind], name, "json")
    return cx.client.get(location, size=size and kind in ("container", "volume"))


def _print(found: list[Any], template: Any, layout: str, problem: str) -> int:
    """What was found comes out even when something else was not."""
    if template is not None:
        problem = _templated(found, template) or problem
    else:
        from pier.cli.jsontext import dumps, pretty  # noqa: PLC0415 - loaded with the client

        out((dumps(found) if layout == "json" else pretty(found)) + "\n")
    if problem:
        complain(problem)
    return 1 if problem else 0


def _templated(found: list[Any], template: Any) -> str:
    """Print one line an object; the text of a template error, "" when there was none."""
    from pier.cli.template import TemplateError, mark  # noqa: PLC0415 - only with --format

    if not found:
        out("\n")
    for item in found:
        try:
            out(template.render(mark(item)) + "\n")
        except TemplateError as error:
            out("\n")
            return f"template parsing error: {error}"
    return ""
