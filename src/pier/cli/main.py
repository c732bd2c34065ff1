"""Entry point of `pier`: global flags, dispatch, and the end of the process.

Only what every command needs is imported here; a verb's module is imported when it is named. The process ends with
`os._exit` once everything is written, because tearing down an interpreter takes longer than answering `pier ps`.
"""

from __future__ import annotations

import os
import sys

from pier.cli.catalog import ABSENT, GROUPS, SYNONYMS, VERBS
from pier.cli.errors import PROGRAM, Failure
from pier.cli.flags import HelpWanted, Options, parse, parse_flags
from pier.cli.global_flags import GLOBAL_FLAGS, GLOBAL_USAGE
from pier.cli.out import complain, line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn, Protocol

    from pier.cli.endpoint import Tls
    from pier.cli.flags import Command
    from pier.cli.http import Client

    class Verb(Protocol):
        """A module of `pier.cli.verbs`."""

        COMMAND: Command

        def run(self, cx: Context, opts: Options, args: list[str]) -> int: ...


EXIT_INTERRUPTED = 128 + 2
EXIT_DEFECT = 70  # EX_SOFTWARE of sysexits.h

_LOG_LEVELS = frozenset(("debug", "info", "warn", "warning", "error", "fatal", "panic", "trace"))


class Context:
    """What a verb works with: its own path (`"container ls"`), the global options, a client on demand."""

    def __init__(self, path: str, options: Options) -> None:
        self.path = path
        self.options = options
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """The connection to the daemon, made when first used. Failure when its address makes no sense."""
        if self._client is None:
            self._client = self.another_client()
        return self._client

    def another_client(self) -> Client:
        """A client of its own, for a verb that does two things at once."""
        from pier.cli.endpoint import resolve  # noqa: PLC0415 - not needed for --help
        from pier.cli.http import API_VERSION, Client  # noqa: PLC0415

        endpoint = resolve(self.options["host"], _tls(self.options))
        return Client(endpoint, os.environ.get("DOCKER_API_VERSION") or API_VERSION)


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the command line and end the process with its exit status."""
    words = sys.argv[1:] if argv is None else argv
    try:
        status = run(words)
    except Failure as failure:
        if failure.text:
            complain(failure.text)
        status = failure.status
    except KeyboardInterrupt:
        status = EXIT_INTERRUPTED
    except Exception as defect:
        complain(_defect(defect, traceback=bool({"-D", "--debug"} & set(words))))
        status = EXIT_DEFECT
    os._exit(status)


def _defect(defect: Exception, *, traceback: bool) -> str:
    """What is said when pier itself is wrong; the traceback with -D."""
    if not traceback:
        return f"{PROGRAM}: a defect in {PROGRAM} itself: {type(defect).__name__}: {defect}\n(-D shows where)"
    from traceback import format_exception  # noqa: PLC0415 - only for defects

    return "".join(format_exception(defect)).rstrip("\n")


def run(words: list[str]) -> int:
    """Parse the global flags, find the verb, run it. Failure carries the message and the exit status."""
    try:
        options, rest = parse_flags(GLOBAL_FLAGS, words, "", GLOBAL_USAGE, interspersed=False)
    except HelpWanted:
        return _help([])
    if options["version"]:
        from pier import __version__  # noqa: PLC0415

        line(f"Pier version {__version__}")
        return 0
    _check_globals(options)
    if not rest:
        from pier.cli.help import overview  # noqa: PLC0415

        complain(overview().rstrip("\n"))
        return 0
    if rest[0] == "help":
        return _help(rest[1:])
    return _dispatch(options, rest)


def find(words: list[str]) -> tuple[str, list[str]]:
    """The command path at the start of `words`, and the words after it. Failure for an unknown one."""
    if words[0] in GROUPS:
        path = " ".join(words[:2])
        path = SYNONYMS.get(path, path)
        taken = 2
    else:
        path, taken = words[0], 1
    if path in VERBS:
        return path, words[taken:]
    if path in ABSENT or words[0] in ABSENT:
        shown = path if path in ABSENT else words[0]
        raise Failure(f"{PROGRAM}: '{PROGRAM} {shown}' is not implemented by Pier yet")
    if path in GROUPS:
        return path, []
    if words[0] in GROUPS:
        group = words[0]
        if words[1].startswith("-"):
            return group, words[1:]
        raise Failure(
            f"{PROGRAM}: unknown command: {PROGRAM} {path}\n\nUsage:  {PROGRAM} {group}\n\n"
            f"Run '{PROGRAM} {group} --help' for more information"
        )
    raise Failure(f"{PROGRAM}: unknown command: {PROGRAM} {path}\n\nRun '{PROGRAM} --help' for more information")


def load(path: str) -> Verb:
    """The verb module behind a command path."""
    name = VERBS[path][0]
    return getattr(__import__(f"pier.cli.verbs.{name}").cli.verbs, name)  # type: ignore[no-any-return]


def _dispatch(options: Options, words: list[str]) -> int:
    path, rest = find(words)
    if path in GROUPS:
        from pier.cli.help import group_overview  # noqa: PLC0415

        if "--help" in rest:
            line(group_overview(path).rstrip("\n"))
        else:
            complain(group_overview(path).rstrip("\n"))
        return 0
    verb = load(path)
    try:
        opts, args = parse(verb.COMMAND, path, rest)
    except HelpWanted as wanted:
        if wanted.text:
            complain(wanted.text)
        return _help(path.split(" "))
    return verb.run(Context(path, options), opts, args)


def _help(words: list[str]) -> int:
    from pier.cli.help import command_help, group_overview, overview  # noqa: PLC0415

    if not words:
        line(overview().rstrip("\n"))
        return 0
    try:
        path, _ = find(words)
    except Failure:
        raise Failure(f"unknown help topic: {' '.join(words)}") from None
    text = group_overview(path) if path in GROUPS else command_help(path, load(path).COMMAND)
    line(text.rstrip("\n"))
    return 0


def _check_globals(options: Options) -> None:
    if options.given("log-level") and options["log-level"] not in _LOG_LEVELS:
        raise Failure(f"Unable to parse logging level: {options['log-level']}")
    context = options["context"]
    if context and context != "default":
        raise Failure(
            f'Failed to initialize: unable to resolve docker endpoint: context "{context}": context not found\n'
            "(Pier has no contexts yet: use -H or DOCKER_HOST)"
        )


def _tls(options: Options) -> Tls | None:
    """TLS settings from the flags and DOCKER_TLS_VERIFY, DOCKER_TLS, DOCKER_CERT_PATH."""
    verify = options["tlsverify"] or bool(os.environ.get("DOCKER_TLS_VERIFY"))
    if not (verify or options["tls"] or os.environ.get("DOCKER_TLS")):
        return None
    from pier.cli.endpoint import Tls  # noqa: PLC0415

    folder = os.environ.get("DOCKER_CERT_PATH") or options["config"] or os.path.expanduser("~/.docker")
    return Tls(
        ca=options["tlscacert"] or f"{folder}/ca.pem",
        cert=options["tlscert"] or f"{folder}/cert.pem",
        key=options["tlskey"] or f"{folder}/key.pem",
        verify=verify,
    )


if __name__ == "__main__":
    main()
