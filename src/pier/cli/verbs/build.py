"""`pier build`: an image of a Dockerfile and the files beside it."""

from __future__ import annotations

import os
import time

from pier.cli import build_progress
from pier.cli.build_context import Context
from pier.cli.errors import Failure, reason
from pier.cli.flags import Command, Flag
from pier.cli.jsontext import dumps, loads
from pier.cli.out import line, write
from pier.cli.platform import platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from pier.cli.flags import Options
    from pier.cli.main import Context as Call

COMMAND = Command(
    "[OPTIONS] PATH | URL | -",
    flags=(
        Flag("add-host", "", "hosts", "Extra line for the steps' /etc/hosts: name:ip"),
        Flag("build-arg", "", "env", "Value for an ARG: name=value, or name for the variable of this shell"),
        Flag("call", "", "string", "Ask instead of building: check, outline or targets, with ,format=json for JSON"),
        Flag("cgroup-parent", "", "string", "Parent of the steps' cgroups"),
        Flag("check", "", "bool", "Only check the Dockerfile, as --call=check does"),
        Flag("cpu-period", "", "int", "Length of a CPU accounting period in microseconds"),
        Flag("cpu-quota", "", "int", "CPU time a period in microseconds"),
        Flag("cpu-shares", "c", "int", "Share of CPU time when CPUs are busy (1024 is one share)"),
        Flag("cpuset-cpus", "", "string", "CPUs the steps may use: 0-2,4"),
        Flag("cpuset-mems", "", "string", "Memory nodes the steps may use: 0-1"),
        Flag("file", "f", "string", "The Dockerfile; - for stdin", "PATH/Dockerfile"),
        Flag("force-rm", "", "bool", "Accepted for compatibility: nothing is left to remove", hidden=True),
        Flag("iidfile", "", "string", "File to write the image's id to"),
        Flag("label", "", "map", "Label for the image: name=value"),
        Flag("memory", "m", "bytes", "Memory limit of a step, such as 512m"),
        Flag("memory-swap", "", "swap", "Limit of memory and swap together; -1 for no limit of swap"),
        Flag("metadata-file", "", "string", "File to write what is known of the result to, as JSON"),
        Flag("network", "", "string", "Network of the steps: default, none, host or a network's name"),
        Flag("no-cache", "", "bool", "Run every step"),
        Flag("no-cache-filter", "", "list", "Run every step of this stage"),
        Flag("output", "o", "string", "Also write the image to a file: type=docker|oci,dest=FILE"),
        Flag("platform", "", "string", "Platform to build for: os/arch[/variant]"),
        Flag("progress", "", "string", "auto, plain, tty, rawjson or quiet", "auto"),
        Flag("pull", "", "bool", "Look for newer base images at their registries"),
        Flag("quiet", "q", "bool", "Print only the image's id"),
        Flag("rm", "", "bool", "Accepted for compatibility: nothing is left to remove", hidden=True),
        Flag("secret", "", "list", "Secret for RUN --mount=type=secret: id=NAME,src=FILE or id=NAME,env=VARIABLE"),
        Flag("shm-size", "", "bytes", "Size of the steps' /dev/shm"),
        Flag("squash", "", "bool", "Make one layer of the new ones"),
        Flag("tag", "t", "list", "Name for the image: name[:tag]"),
        Flag("target", "", "string", "Stage to build"),
        Flag("ulimit", "", "ulimit", "Resource limit of the steps: name=soft[:hard]"),
    ),
    arity=(1, 1),
)
REMOTE = ("http://", "https://", "git://", "ssh://", "git@", "github.com/")
ARCHIVE_KINDS = ("docker", "oci")


def run(cx: Call, opts: Options, args: list[str]) -> int:
    if opts["check"] or opts["call"] not in ("", "build"):
        from pier.cli.build_call import ask  # noqa: PLC0415 - most builds ask nothing

        return ask(cx, opts, context_of(args[0], opts["file"]), query_of(opts))
    begun = time.monotonic()
    output = parse_output(opts["output"])
    progress = progress_of(opts)
    context = context_of(args[0], opts["file"])
    query = query_of(opts)
    if isinstance(context, str):
        query["remote"], query["dockerfile"] = context, opts["file"]
    elif isinstance(context, Context):
        query["dockerfile"] = context.dockerfile
    else:
        query["dockerfile"] = opts["file"]
    sent = context if isinstance(context, Context) else None
    built = _shown(_lines(cx, context, query, secrets_of(opts["secret"])), progress)
    if not built:
        raise Failure("the daemon has ended the build's stream before the build")
    if isinstance(progress, build_progress.Plain | build_progress.Terminal):
        seconds = time.monotonic() - begun
        large = sent.large if sent else []
        progress.say(build_progress.summary(progress, seconds, sent.sent_bytes if sent else 0, large))
    return _finish(cx, opts, built, output)


def _finish(cx: Call, opts: Options, image: str, output: str) -> int:
    if opts["iidfile"]:
        _write(opts["iidfile"], image)
    if opts["metadata-file"]:
        facts = {"containerimage.config.digest": image, "image.name": ",".join(opts["tag"])}
        _write(opts["metadata-file"], dumps(facts) + "\n")
    if output:
        names = opts["tag"] or [image]
        response = cx.client.request("GET", "/images/get", query={"names": names})
        fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            for chunk in response.chunks():
                write(fd, chunk)
        finally:
            os.close(fd)
    if opts["quiet"] or opts["progress"] == "quiet":
        line(image)
    return 0


def _lines(cx: Call, context: Context | str | None, query: dict[str, Any], secrets: dict[str, str]) -> Iterator[bytes]:
    """Begin the build; what it tells."""
    if isinstance(context, Context):
        from pier.cli import build_sync  # noqa: PLC0415 - for a folder

        try:
            return build_sync.build(cx, context, query, secrets, _accounts(cx))
        except build_sync.NotUtf8:
            pass  # an archive can have any names
    stream = _body((dumps({"secrets": secrets}) + "\n").encode(), context)
    response = cx.client.request("POST", "/build", query=query, stream=stream, headers=_accounts(cx))
    return called_as_given(response.lines(), context if isinstance(context, Context) else None)


def called_as_given(lines: Iterable[bytes], context: Context | None) -> Iterator[bytes]:
    """JSON messages in which a Dockerfile from outside the context has its own name, not that it was sent under."""
    if context is None or context.called == context.dockerfile:
        yield from lines
        return
    sent, called = context.dockerfile.encode(), dumps(context.called)[1:-1].encode()
    for text in lines:
        yield text.replace(sent, called)


def _shown(lines: Iterator[bytes], progress: build_progress.Progress) -> str:
    """The id of the image, all told on the way. Failure for a build that fails."""
    image = ""
    try:
        for text in lines:
            message = loads(text)
            if error := message.get("errorDetail"):
                progress.close()
                progress.say(build_progress.failure(progress, error))
                raise Failure(error.get("message", ""))
            if "aux" in message:
                image = message["aux"]["ID"]
            elif "stream" in message and message["stream"].startswith("sha256:"):
                image = message["stream"].strip()
            else:
                progress.take(message)
    finally:
        progress.close()
    return image


def progress_of(opts: Options) -> build_progress.Progress:
    """What to show it with. Failure for a word that is none."""
    try:
        return build_progress.way("quiet" if opts["quiet"] else opts["progress"])
    except KeyError:
        words = ", ".join(("auto", *build_progress.WAYS))
        raise Failure(f"invalid progress {opts['progress']!r}: one of {words}") from None


def context_of(place: str, dockerfile: str) -> Context | str | None:
    """A folder to be sent, an address to be fetched by the daemon, or None: stdin as it is."""
    if place.startswith(REMOTE):
        return place
    if place == "-":
        if dockerfile == "-":
            raise Failure("the Dockerfile and the context cannot both come from stdin")
        return None
    if not os.path.isdir(place):
        raise Failure(f'unable to prepare context: path "{place}" not found')
    folder = os.path.abspath(place)
    if dockerfile == "-":
        return Context(folder, _random_name(), outside=_all_of(0, "stdin"), called="Dockerfile")
    path = os.path.abspath(dockerfile or os.path.join(folder, "Dockerfile"))
    if not dockerfile and not os.path.lexists(path) and os.path.exists(os.path.join(folder, "dockerfile")):
        path = os.path.join(folder, "dockerfile")
    inside = os.path.relpath(path, folder)
    if inside.startswith("../"):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise Failure(f"failed to read dockerfile: open {dockerfile}: {reason(error)}") from None
        return Context(folder, _random_name(), outside=_all_of(fd, path), called=dockerfile)
    return Context(folder, inside)


def _random_name() -> str:
    return f".dockerfile.{os.urandom(8).hex()}"


def _all_of(fd: int, what: str) -> bytes:
    try:
        with open(fd, "rb", closefd=fd != 0) as file:
            return file.read()
    except OSError as error:
        raise Failure(f"read {what}: {reason(error)}") from None


def _body(head: bytes, context: Context | str | None) -> Iterator[bytes]:
    yield head
    if isinstance(context, Context):
        yield from context.chunks()
    elif context is None:
        yield from from_stdin()


def from_stdin() -> Iterator[bytes]:
    """An archive as it is; what is none is a Dockerfile without a context."""
    import tarfile  # noqa: PLC0415 - only for a Dockerfile without a context

    first = os.read(0, 1 << 16)
    packed = first[:2] in (b"\x1f\x8b", b"BZ") or first[:4] in (b"\xfd7zX", b"\x28\xb5\x2f\xfd")
    if packed or first[257:262] == b"ustar":
        yield first
        while data := os.read(0, 1 << 16):
            yield data
        return
    text = first + _all_of(0, "stdin")
    entry = tarfile.TarInfo("Dockerfile")
    entry.size, entry.mode = len(text), 0o644
    yield entry.tobuf() + text + bytes(-len(text) % tarfile.BLOCKSIZE) + bytes(2 * tarfile.BLOCKSIZE)


def query_of(opts: Options) -> dict[str, Any]:
    """The parameters of POST /build that flags stand for."""
    return {
        "events": 1,
        "q": 1 if opts["quiet"] else 0,
        "t": opts["tag"],
        "buildargs": _pairs(opts["build-arg"]),
        "labels": dict(opts["label"]) or None,
        "nocache": opts["no-cache"],
        "nocachefilter": opts["no-cache-filter"],
        "pull": opts["pull"],
        "squash": opts["squash"],
        "target": opts["target"],
        "platform": platform(opts["platform"]),
        "networkmode": opts["network"],
        "extrahosts": opts["add-host"],
        "cgroupparent": opts["cgroup-parent"],
        "memory": opts["memory"] or None,
        "memswap": opts["memory-swap"] or None,
        "cpuperiod": opts["cpu-period"] or None,
        "cpuquota": opts["cpu-quota"] or None,
        "cpushares": opts["cpu-shares"] or None,
        "cpusetcpus": opts["cpuset-cpus"],
        "cpusetmems": opts["cpuset-mems"],
        "shmsize": opts["shm-size"] or None,
        "ulimits": dumps(opts["ulimit"]) if opts["ulimit"] else None,
    }


def _pairs(entries: list[str]) -> dict[str, str] | None:
    return {name: value for name, equals, value in (entry.partition("=") for entry in entries) if equals} or None


def secrets_of(flags: list[str]) -> dict[str, str]:
    """Id -> content, base64. Failure for a flag that is wrong, or a file that cannot be read."""
    import binascii  # noqa: PLC0415 - only with secrets

    found = {}
    for text in flags:
        fields = dict(part.partition("=")[::2] for part in text.split(","))
        unknown = set(fields) - {"id", "src", "source", "env", "type"}
        if unknown or "id" not in fields:
            raise Failure(f"invalid secret {text!r}: id=NAME,src=FILE or id=NAME,env=VARIABLE is wanted")
        path = fields.get("src") or fields.get("source")
        variable = fields.get("env") or (fields["id"] if not path and fields["id"] in os.environ else "")
        if variable:
            content = os.environ.get(variable, "").encode("utf-8", "surrogateescape")
        else:
            try:
                fd = os.open(path or fields["id"], os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise Failure(f"failed to stat {path or fields['id']}: {reason(error)}") from None
            content = _all_of(fd, path or fields["id"])
        found[fields["id"]] = binascii.b2a_base64(content, newline=False).decode()
    return found


def parse_output(text: str) -> str:
    """The file of `type=docker|oci,dest=FILE`; empty: none is asked for. Failure for what is not there."""
    if not text:
        return ""
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    if fields.get("type") not in ARCHIVE_KINDS or not fields.get("dest"):
        raise Failure(
            f"invalid output {text!r}: type=docker,dest=FILE or type=oci,dest=FILE is wanted; "
            "`docker buildx build` has the others"
        )
    return fields["dest"]


def _accounts(cx: Call) -> tuple[str, ...]:
    import binascii  # noqa: PLC0415 - only for a build

    from pier.cli.auth import Accounts  # noqa: PLC0415

    accounts = Accounts(cx.options)
    found = {server: account for server, _, _ in accounts.listed() if (account := accounts.get(server))}
    if not found:
        return ()
    text = binascii.b2a_base64(dumps(found).encode(), newline=False).decode()
    return (f"X-Registry-Config: {text.replace('+', '-').replace('/', '_')}",)


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise Failure(f"{path}: {reason(error)}") from None
