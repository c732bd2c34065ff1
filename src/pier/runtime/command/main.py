"""`pier-runtime`, a drop-in for `runc`: reads the command line, calls the verb's function, says why it failed.

Each verb is a function of (Context, Line) in the module that `flags.VERBS` names; it returns the exit code.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from pier import __version__
from pier.errors import PierError
from pier.runtime.command.flags import GLOBAL, NOT_YET, VERBS, UsageError, WrongCount, general_help, help_of, parse
from pier.runtime.command.output import Log
from pier.runtime.command.state import VERSION, StartError, StateError
from pier.runtime.process.blame import FieldError

FAILED, EXEC_FAILED, NO_SUCH_VERB = 1, 255, 3
DEFAULT_ROOT = "/run/pier-runtime"
PREFIXES = {
    "create": "pier-runtime create failed: ",
    "run": "pier-runtime run failed: ",
    "exec": "exec failed: ",
}
INIT = "unable to start container process: error during container init: "


class Context(NamedTuple):
    """What every verb needs of the global options."""

    root: str
    log: Log
    systemd: bool = False
    """Cgroups of new containers are scopes of systemd's."""


def run(words: list[str]) -> int:
    """Run one command line; returns its exit code."""
    log = Log()
    name = ""
    try:
        general = parse(GLOBAL, words)
        if general.text("log-format") not in ("text", "json"):
            raise StateError(f"invalid log-format: {general.text('log-format')}")
        wanted = Log(general.text("log"), general.text("log-format"), debug=general.on("debug"))
        wanted.check()
        log = wanted
        if general.on("version"):
            sys.stdout.write(version())
            return 0
        name, *rest = general.arguments or ["help"]
        if general.on("help") or name in ("help", "h"):
            return _help(log, rest)
        systemd = general.on("systemd-cgroup")
        context = Context(os.path.abspath(general.text("root") or DEFAULT_ROOT), log, systemd)
        return _dispatch(context, name, rest)
    except UsageError as error:
        what = "Incorrect Usage." if isinstance(error, WrongCount) else f"Incorrect Usage: {error}"
        sys.stdout.write(f"{what}\n\n{help_of(name) if name in VERBS else general_help()}\n")
        log.fatal(str(error))
        return FAILED
    except KeyboardInterrupt:
        return 130
    except (StartError, StateError, PierError, OSError, ValueError) as error:
        log.fatal(PREFIXES.get(name, "") + explain(error))
        return EXEC_FAILED if name == "exec" else FAILED


def _dispatch(context: Context, name: str, words: list[str]) -> int:
    if name in NOT_YET:
        raise StateError(f"{name}: checkpoint and restore are not implemented by Pier")
    if name not in VERBS:
        context.log.fatal(f"No help topic for '{name}'")
        return NO_SUCH_VERB
    verb = VERBS[name]
    if words and words[0] in ("--help", "-h", "-help"):
        sys.stdout.write(help_of(name))
        return 0
    line = parse(verb.flags, words)
    least, most = verb.arguments
    if not least <= len(line.arguments) <= most:
        how = (
            f"exactly {least}"
            if least == most
            else f"a minimum of {least}"
            if line.arguments == []
            else f"at most {most}"
        )
        raise WrongCount(f'pier-runtime: "{name}" requires {how} argument(s)')
    module = __import__(f"pier.runtime.command.{verb.module}", fromlist=[name])
    code: int = getattr(module, name if name != "list" else "list_")(context, line)
    sys.stdout.flush()
    return code


def _help(log: Log, words: list[str]) -> int:
    if words and words[0] not in VERBS:
        log.fatal(f"No help topic for '{words[0]}'")
        return NO_SUCH_VERB
    sys.stdout.write(help_of(words[0]) if words else general_help())
    return 0


def explain(error: BaseException) -> str:
    """One line for an error."""
    if isinstance(error, StartError):
        return INIT + str(error)
    if isinstance(error, (PierError, FieldError)):
        return error.wire
    if isinstance(error, OSError) and error.strerror:
        # As Go words it, which is what tools above us look for.
        return f"open {error.filename}: {error.strerror.lower()}" if error.filename else error.strerror
    return str(error)


def version() -> str:
    return f"pier-runtime version {__version__}\nspec: {VERSION}\n"
