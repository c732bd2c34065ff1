"""The options of `pier-runtime`: tables, and the one function that reads a command line by them.

Names and meanings are runc's. As in Go's `flag`, `-name` and `--name` are one, a value follows after a blank or `=`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pier import __version__


class UsageError(Exception):
    """A command line that cannot be read."""


class WrongCount(UsageError):
    """Too few arguments, or too many."""


class Flag(NamedTuple):
    name: str
    """Long name."""
    help: str
    kind: str = "text"
    """`text`, `flag`, `list` (may be repeated), `number`."""
    short: str = ""
    default: Any = None


class Verb(NamedTuple):
    usage: str
    """What follows the verb's name."""
    help: str
    module: str
    """Of `pier.runtime.command`; the function has the verb's name."""
    flags: tuple[Flag, ...] = ()
    arguments: tuple[int, int] = (1, 1)
    """Fewest and most."""
    description: str = ""
    """What the help says beyond `help`: indented lines."""


class Line(NamedTuple):
    """A command line that has been read."""

    options: dict[str, Any]
    arguments: list[str]

    def text(self, name: str) -> str:
        return self.options[name] or ""

    def on(self, name: str) -> bool:
        return bool(self.options[name])


def parse(flags: Sequence[Flag], words: Sequence[str]) -> Line:
    """Options up to the first word that is none (or after `--`), then arguments. Raises UsageError."""
    known = {spelling: flag for flag in flags for spelling in (flag.name, flag.short) if spelling}
    options: dict[str, Any] = {flag.name: [] if flag.kind == "list" else flag.default for flag in flags}
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        spelling, equals, value = word.lstrip("-").partition("=")
        if spelling not in known:
            raise UsageError(f"flag provided but not defined: -{spelling}")
        flag = known[spelling]
        if flag.kind == "flag":
            options[flag.name] = _boolean(flag, value) if equals else True
            continue
        if not equals:
            if not rest:
                raise UsageError(f"flag needs an argument: -{spelling}")
            value = rest.pop(0)
        if flag.kind == "list":
            options[flag.name].append(value)
        else:
            options[flag.name] = _number(flag, value) if flag.kind == "number" else value
    return Line(options, rest)


def _boolean(flag: Flag, value: str) -> bool:
    words = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}
    if value.lower() not in words:
        raise UsageError(f'invalid boolean value "{value}" for -{flag.name}')
    return words[value.lower()]


def _number(flag: Flag, value: str) -> int:
    try:
        return int(value, 0)
    except ValueError:
        raise UsageError(f'invalid value "{value}" for flag -{flag.name}: not a number') from None


GLOBAL = (
    Flag("debug", "enable debug logging", "flag"),
    Flag("log", "set the log file to write pier-runtime logs to (default is '/dev/stderr')"),
    Flag("log-format", "set the log format ('text' (default), or 'json')", default="text"),
    Flag("root", "root directory for storage of container state (this should be located in tmpfs)", default=""),
    Flag("systemd-cgroup", "enable systemd cgroup support", "flag"),
    Flag("rootless", "ignore cgroup permission errors ('true', 'false', or 'auto')", default="auto"),
    Flag("criu", "(not used)", default=""),
    Flag("help", "show help", "flag", "h"),
    Flag("version", "print the version", "flag", "v"),
)

_CONSOLE = Flag(
    "console-socket", "path to an AF_UNIX socket which will receive the master end of the console's pseudoterminal"
)
_PIDFD = Flag("pidfd-socket", "path to an AF_UNIX socket which will receive a descriptor of the process")
_PID_FILE = Flag("pid-file", "specify the file to write the process id to")
_PRESERVE = Flag(
    "preserve-fds",
    "Pass N additional file descriptors to the container (stdio + $LISTEN_FDS + N in total)",
    "number",
    default=0,
)
_DETACH = Flag("detach", "detach from the container's process", "flag", "d")
_CREATION = (
    Flag(
        "bundle", "path to the root of the bundle directory, defaults to the current directory", short="b", default="."
    ),
    _CONSOLE,
    _PIDFD,
    _PID_FILE,
    Flag("no-pivot", "do not use pivot root to jail process inside rootfs", "flag"),
    Flag("no-new-keyring", "do not create a new session keyring for the container", "flag"),
    _PRESERVE,
)
_RUN = (
    *_CREATION,
    _DETACH,
    Flag("keep", "do not delete the container after it exits", "flag"),
    Flag("no-subreaper", "disable the use of the subreaper used to reap reparented processes", "flag"),
)
_EXEC = (
    _CONSOLE,
    _PIDFD,
    Flag("cwd", "current working directory in the container"),
    Flag("env", "set environment variables", "list", "e"),
    Flag("tty", "allocate a pseudo-TTY", "flag", "t"),
    Flag("user", "UID (format: <uid>[:<gid>])", short="u"),
    Flag("additional-gids", "additional gids", "list", "g"),
    Flag("process", "path to the process.json", short="p"),
    _DETACH,
    _PID_FILE,
    Flag("process-label", "set the asm process label for the process commonly used with selinux"),
    Flag("apparmor", "set the apparmor profile for the process"),
    Flag("no-new-privs", "set the no new privileges value for the process", "flag"),
    Flag("cap", "add a capability to the bounding set for the process", "list", "c"),
    _PRESERVE,
    Flag("cgroup", "run the process in an (existing) sub-cgroup(s). Format is [<controller>:]<cgroup>.", "list"),
    Flag("ignore-paused", "allow exec in a paused container", "flag"),
    Flag("no-subreaper", "accepted", "flag"),
)
_FORMAT = Flag("format", "select one of: table or json", short="f", default="table")
_UPDATE = (
    Flag("resources", "path to the file containing the resources to update or '-' to read from the standard input",
         short="r"),
    Flag("blkio-weight", "Specifies per cgroup weight, range is from 10 to 1000", "number"),
    Flag("cpu-period", "CPU CFS period to be used for hardcapping (in usecs). 0 to use system default", "number"),
    Flag("cpu-quota", "CPU CFS hardcap limit (in usecs). Allowed cpu time in a given period", "number"),
    Flag("cpu-burst", "CPU CFS hardcap burst limit (in usecs)", "number"),
    Flag("cpu-share", "CPU shares (relative weight vs. other containers)", "number"),
    Flag("cpu-rt-period", "CPU realtime period to be used for hardcapping (in usecs)", "number"),
    Flag("cpu-rt-runtime", "CPU realtime hardcap limit (in usecs)", "number"),
    Flag("cpuset-cpus", "CPU(s) to use"),
    Flag("cpuset-mems", "Memory node(s) to use"),
    Flag("memory", "Memory limit (in bytes)"),
    Flag("cpu-idle", "set cgroup SCHED_IDLE or not, 0: default behavior, 1: SCHED_IDLE", "number"),
    Flag("memory-reservation", "Memory reservation or soft_limit (in bytes)"),
    Flag("memory-swap", "Total memory usage (memory + swap); set '-1' to enable unlimited swap"),
    Flag("kernel-memory", "(obsoleted; do not use)"),
    Flag("kernel-memory-tcp", "(obsoleted; do not use)"),
    Flag("pids-limit", "Maximum number of pids allowed in the container", "number"),
    Flag("l3-cache-schema", "The string of Intel RDT/CAT L3 cache schema"),
    Flag("mem-bw-schema", "The string of Intel RDT/MBA memory bandwidth schema"),
)  # fmt: skip

_RESOURCES_FORMAT = """\
   --resources takes the configuration's linux.resources, without devices; what is not named, or 0, stays as it is:

   {
     "memory": {"limit": 0, "reservation": 0, "swap": 0, "checkBeforeUpdate": true},
     "cpu": {"shares": 0, "quota": 0, "burst": 0, "period": 0, "realtimeRuntime": 0, "realtimePeriod": 0,
             "cpus": "", "mems": "", "idle": 0},
     "blockIO": {"weight": 0},
     "pids": {"limit": 0}
   }

   With it, the other options are passed over.
"""

VERBS: Mapping[str, Verb] = {
    "create": Verb("<container-id>", "create a container", "start", _CREATION),
    "delete": Verb(
        "<container-id>",
        "delete any resources held by the container often used with detached container",
        "end",
        (Flag("force", "Forcibly deletes the container if it is still running (uses SIGKILL)", "flag", "f"),),
    ),
    "events": Verb(
        "<container-id>",
        "display container events such as OOM notifications, cpu, memory, and IO usage statistics",
        "watch",
        (
            Flag("interval", "set the stats collection interval", default="5s"),
            Flag("stats", "display the container's stats then exit", "flag"),
        ),
    ),
    "exec": Verb(
        "<container-id> <command> [command options]  || -p process.json <container-id>",
        "execute new process inside the container",
        "exec",
        _EXEC,
        (1, 65536),
    ),
    "features": Verb("", "show the enabled features", "about", (), (0, 0)),
    "kill": Verb(
        "<container-id> [signal]",
        "kill sends the specified signal (default: SIGTERM) to the container's init process",
        "end",
        (Flag("all", "send the signal to all processes inside the container", "flag", "a"),),
        (1, 2),
    ),
    "list": Verb(
        "",
        "lists containers started by pier-runtime with the given root",
        "listing",
        (_FORMAT, Flag("quiet", "display only container IDs", "flag", "q")),
        (0, 0),
    ),
    "pause": Verb("<container-id>", "pause suspends all processes inside the container", "limits"),
    "ps": Verb(
        "<container-id> [ps options]",
        "ps displays the processes running inside a container",
        "watch",
        (_FORMAT,),
        (1, 256),
    ),
    "resume": Verb("<container-id>", "resumes all processes that have been previously paused", "limits"),
    "run": Verb("<container-id>", "create and run a container", "start", _RUN),
    "spec": Verb(
        "",
        "create a new specification file",
        "about",
        (
            Flag("bundle", "path to the root of the bundle directory", short="b", default=""),
            Flag("rootless", "generate a configuration for a rootless container", "flag"),
        ),
        (0, 0),
    ),
    "start": Verb("<container-id>", "executes the user defined process in a created container", "release"),
    "state": Verb("<container-id>", "output the state of a container", "listing"),
    "update": Verb(
        "<container-id>",
        "update container resource constraints",
        "limits",
        _UPDATE,
        description=_RESOURCES_FORMAT,
    ),
}
NOT_YET = ("checkpoint", "restore")


def _rows(rows: Sequence[tuple[str, str]]) -> str:
    width = max((len(left) for left, _ in rows), default=0) + 2
    return "".join(f"   {left:<{width}}{right}\n" for left, right in rows)


def _options(flags: Sequence[Flag]) -> str:
    """The help of some options, in columns."""
    rows = []
    for flag in flags:
        value = "" if flag.kind == "flag" else " value"
        names = f"--{flag.name}{value}" + (f", -{flag.short}{value}" if flag.short else "")
        default = f'"{flag.default}"' if flag.kind == "text" else flag.default
        rows.append((names, flag.help + (f" (default: {default})" if flag.default not in (None, "") else "")))
    return _rows(rows)


def help_of(name: str) -> str:
    """The help of one verb."""
    verb = VERBS[name]
    text = f"NAME:\n   pier-runtime {name} - {verb.help}\n\nUSAGE:\n   pier-runtime {name}"
    text += f"{' [command options]' if verb.flags else ''} {verb.usage}".rstrip() + "\n"
    text += f"\nDESCRIPTION:\n{verb.description}" if verb.description else ""
    return text + (f"\nOPTIONS:\n{_options(verb.flags)}" if verb.flags else "")


def general_help() -> str:
    """The help of the whole command."""
    verbs = [(name, verb.help) for name, verb in VERBS.items()]
    verbs.append(("help, h", "Shows a list of commands or help for one command"))
    return (
        "NAME:\n   pier-runtime - Open Container Initiative runtime\n\n"
        "USAGE:\n   pier-runtime [global options] command [command options] [arguments...]\n\n"
        f"VERSION:\n   {__version__}\n\n"
        f"COMMANDS:\n{_rows(verbs)}\nGLOBAL OPTIONS:\n{_options(GLOBAL)}"
    )
