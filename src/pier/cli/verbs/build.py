"""`pier build`: an image of a Dockerfile and the files beside it."""

from __future__ import annotations

import os
import time

from pier.cli import build_progress
from pier.cli.build_context import Context, all_of, from_stdin
from pier.cli.build_outputs import Output, Receiver, outputs_of
from pier.cli.errors import Failure, reason
from pier.cli.flags import Command, Flag
from pier.cli.jsontext import dumps, loads, pretty
from pier.cli.out import line

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
        Flag("allow", "", "list", "Entitlement for the steps: network.host or security.insecure"),
        Flag("annotation", "", "list", "Annotation of the image: [PLACE[os/arch]:]name=value"),
        Flag("attest", "", "list", "Not there: attestations are refused"),
        Flag("build-arg", "", "env", "Value for an ARG: name=value, or name for the variable of this shell"),
        Flag("build-context", "", "list", "Further context: name=PATH, =URL or =docker-image://NAME"),
        Flag("cache-from", "", "list", "Cache to use: an image's name, or type=registry|local,ref=NAME|src=PATH,…"),
        Flag("cache-to", "", "list", "Where the cache goes to: type=inline|registry|local,ref=NAME|dest=PATH,…"),
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
        Flag("load", "", "bool", "Keep the image here too, where --output says something else"),
        Flag("memory", "m", "bytes", "Memory limit of a step, such as 512m"),
        Flag("memory-swap", "", "swap", "Limit of memory and swap together; -1 for no limit of swap"),
        Flag("metadata-file", "", "string", "File to write what is known of the result to, as JSON"),
        Flag("network", "", "string", "Network of the steps: default, none, host or a network's name"),
        Flag("no-cache", "", "bool", "Run every step"),
        Flag("no-cache-filter", "", "list", "Run every step of this stage"),
        Flag("output", "o", "list", "PATH, or type=local|tar|oci|docker|image|registry|cacheonly,dest=PATH,…"),
        Flag("platform", "", "list", "Platforms to build for: os/arch[/variant],…"),
        Flag("progress", "", "string", "auto, plain, tty, rawjson or quiet", "auto"),
        Flag("provenance", "", "string", "Not there: anything but false is refused"),
        Flag("pull", "", "bool", "Look for newer base images at their registries"),
        Flag("push", "", "bool", "Send the image to its registry"),
        Flag("quiet", "q", "bool", "Print only the image's id"),
        Flag("rm", "", "bool", "Accepted for compatibility: nothing is left to remove", hidden=True),
        Flag("sbom", "", "string", "Not there: anything but false is refused"),
        Flag("secret", "", "list", "Secret for RUN --mount=type=secret: id=NAME,src=FILE or id=NAME,env=VARIABLE"),
        Flag("shm-size", "", "bytes", "Size of the steps' /dev/shm"),
        Flag("ssh", "", "list", "Agent for RUN --mount=type=ssh: default, or ID=SOCKET"),
        Flag("squash", "", "bool", "Make one layer of the new ones"),
        Flag("tag", "t", "list", "Name for the image: name[:tag]"),
        Flag("target", "", "string", "Stage to build"),
        Flag("ulimit", "", "ulimit", "Resource limit of the steps: name=soft[:hard]"),
    ),
    arity=(1, 1),
)
REMOTE = ("http://", "https://", "git://", "ssh://", "git@", "github.com/")
ENTITLEMENTS = ("network.host", "security.insecure")


def run(cx: Call, opts: Options, args: list[str]) -> int:
    if opts["check"] or opts["call"] not in ("", "build"):
        from pier.cli.build_call import ask  # noqa: PLC0415 - most builds ask nothing

        return ask(cx, opts, context_of(args[0], opts["file"]), query_of(opts))
    begun = time.monotonic()
    refuse_attestations(opts)
    outputs = outputs_of(opts)
    agents = agents_of(opts)
    progress = progress_of(opts)
    context = context_of(args[0], opts["file"])
    query = query_of(opts)
    if isinstance(context, str):
        query["remote"], query["dockerfile"] = context, opts["file"]
    elif isinstance(context, Context):
        query["dockerfile"] = context.dockerfile
    else:
        query["dockerfile"] = opts["file"]
    query["buildid"] = os.urandom(16).hex()
    if agents:
        from pier.cli.build_agents import forward  # noqa: PLC0415 - few builds have agents

        forward(cx.client, query["buildid"], agents)
    sent = context if isinstance(context, Context) else None
    head = head_of(opts, outputs, agents)
    lent = lend_folders(cx, query["buildid"], opts["build-context"], head)
    receiver = Receiver([*outputs, *_caches(cx, opts, head, progress)])
    try:
        told = receiver.lines(_begun(cx, context, query, head))
        built = _shown(called_as_given(told, sent), progress)
    finally:
        receiver.close()
        for connection in lent:
            connection.close()
    if not built:
        raise Failure("the daemon has ended the build's stream before the build")
    if isinstance(progress, build_progress.Plain | build_progress.Terminal):
        seconds = time.monotonic() - begun
        large = sent.large if sent else []
        progress.say(build_progress.summary(progress, seconds, sent.sent_bytes if sent else 0, large))
    return _finish(opts, built)


def _caches(cx: Call, opts: Options, head: dict[str, Any], progress: build_progress.Progress) -> list[Output]:
    """Ask for caches elsewhere in the head, and send those that lie here; folders that the build's goes to."""
    if not opts["cache-from"] and not opts["cache-to"]:
        return []
    from pier.cli import build_caches  # noqa: PLC0415 - most builds have their daemon's own cache

    asked_from, asked_to = build_caches.caches_of(opts["cache-from"]), build_caches.caches_of(opts["cache-to"])
    folders = build_caches.folders_of(asked_to)
    head["caches_from"] = [each.as_asked() for each in asked_from if each.kind != "local"]
    head["caches_to"] = [each.as_asked() for each in asked_to]
    for text in build_caches.send(cx.client, [each for each in asked_from if each.kind == "local"]):
        progress.take({"warned": {"text": text}})
    return folders


def _finish(opts: Options, built: dict[str, Any]) -> int:
    image, facts = built["ID"], built["Facts"]
    if opts["iidfile"]:
        _write(opts["iidfile"], image)
    if opts["metadata-file"]:
        _write(opts["metadata-file"], pretty(_readable(facts)) + "\n")
    if image and (opts["quiet"] or opts["progress"] == "quiet"):
        line(image)
    return 0


def _begun(cx: Call, context: Context | str | None, query: dict[str, Any], head: dict[str, Any]) -> Iterator[bytes]:
    """Begin the build; what it tells, in pieces."""
    if isinstance(context, Context):
        from pier.cli import build_sync  # noqa: PLC0415 - for a folder

        try:
            return build_sync.build(cx, context, query, head, _accounts(cx))
        except build_sync.NotUtf8:
            pass  # an archive can have any names
    stream = _body((dumps(head) + "\n").encode(), context)
    return cx.client.request("POST", "/build", query=query, stream=stream, headers=_accounts(cx)).chunks()


def _readable(facts: dict[str, str]) -> dict[str, Any]:
    """What is known of the result, a descriptor as JSON."""
    import binascii  # noqa: PLC0415 - for --metadata-file

    decoded = {}
    for key, value in sorted(facts.items()):
        decoded[key] = loads(binascii.a2b_base64(value)) if key.endswith(".descriptor") else value
    return decoded


def head_of(opts: Options, outputs: list[Output], agents: dict[str, str]) -> dict[str, Any]:
    """What of a build has no place in an address. Failure for a flag that is wrong."""
    for name in opts["allow"]:
        if name not in ENTITLEMENTS:
            raise Failure(f"unknown entitlement {name}")
    return {
        "secrets": secrets_of(opts["secret"]),
        "outputs": [output.as_asked() for output in outputs],
        "agents": list(agents),
        "entitlements": opts["allow"],
    }


def lend_folders(cx: Call, build_id: str, texts: list[str], head: dict[str, Any]) -> list[Any]:
    """Named contexts: addresses go into the head, folders are lent over the connections that are returned.

    Failure in buildx's words.
    """
    found, folders = {}, {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise Failure(f"invalid context value: {text}, expected key=value")
        if value.startswith(("docker-image://", *REMOTE)):
            found[name] = value
        elif value.startswith("oci-layout://"):
            raise Failure(
                f"build context {name}: {value} is not there: `load` the layout, and name docker-image://NAME"
            )
        elif not os.path.exists(value):
            raise Failure(f"failed to get build context {name}: stat {value}: no such file or directory")
        elif not os.path.isdir(value):
            raise Failure(f"failed to get build context {name}: {value} is not a directory")
        else:
            folders[name] = os.path.abspath(value)
    head["contexts"], head["folders"] = found, list(folders)
    if not folders:
        return []
    from pier.cli.build_sync import lend  # noqa: PLC0415 - few builds have further folders

    return [lend(cx, build_id, name, folder) for name, folder in folders.items()]


def agents_of(opts: Options) -> dict[str, str]:
    """Sockets of ssh agents, by id."""
    if not opts["ssh"]:
        return {}
    from pier.cli.build_agents import parse_agents  # noqa: PLC0415 - few builds have agents

    return parse_agents(opts["ssh"])


def refuse_attestations(opts: Options) -> None:
    """Failure where an attestation is asked for; `--provenance=false`, as scripts have it, is what is done."""
    wanted = [text for text in opts["attest"] if "disabled=true" not in text.split(",")]
    wanted += [f"type={name}" for name in ("provenance", "sbom") if opts[name] not in ("", "false", "0")]
    if wanted:
        raise Failure(f"Attestations are not supported by the current BuildKit daemon: {wanted[0]}")


def called_as_given(lines: Iterable[bytes], context: Context | None) -> Iterator[bytes]:
    """JSON messages in which a Dockerfile from outside the context has its own name, not that it was sent under."""
    if context is None or context.called == context.dockerfile:
        yield from lines
        return
    sent, called = context.dockerfile.encode(), dumps(context.called)[1:-1].encode()
    for text in lines:
        yield text.replace(sent, called)


def _shown(lines: Iterator[bytes], progress: build_progress.Progress) -> dict[str, Any]:
    """`ID` and `Facts` of the result, all told on the way. Failure for a build that fails."""
    built: dict[str, Any] = {}
    try:
        for text in lines:
            message = loads(text)
            if error := message.get("errorDetail"):
                progress.close()
                progress.say(build_progress.failure(progress, error))
                raise Failure(error.get("message", ""))
            if "aux" in message:
                built = message["aux"]
            else:
                progress.take(message)
    finally:
        progress.close()
    return built


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
        return Context(folder, _random_name(), outside=all_of(0, "stdin"), called="Dockerfile")
    path = os.path.abspath(dockerfile or os.path.join(folder, "Dockerfile"))
    if not dockerfile and not os.path.lexists(path) and os.path.exists(os.path.join(folder, "dockerfile")):
        path = os.path.join(folder, "dockerfile")
    inside = os.path.relpath(path, folder)
    if inside.startswith("../"):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise Failure(f"failed to read dockerfile: open {dockerfile}: {reason(error)}") from None
        return Context(folder, _random_name(), outside=all_of(fd, path), called=dockerfile)
    return Context(folder, inside)


def _random_name() -> str:
    return f".dockerfile.{os.urandom(8).hex()}"


def _body(head: bytes, context: Context | str | None) -> Iterator[bytes]:
    yield head
    if isinstance(context, Context):
        yield from context.chunks()
    elif context is None:
        yield from from_stdin()


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
        "platform": ",".join(opts["platform"]),
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
            content = all_of(fd, path or fields["id"])
        found[fields["id"]] = binascii.b2a_base64(content, newline=False).decode()
    return found


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
