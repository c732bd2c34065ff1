"""The flag parser: pflag's conventions over tables of flags, so that muscle memory and scripts keep working.

`--name=value`, `--name value`, `-n value`, `-nvalue`, `-n=value`, clusters (`-it`, `-dp80:80`), booleans that take a
value only after `=`, repeated list flags, `--` ends the flags. With `interspersed` off (run, create, exec) the first
argument ends them too. Errors carry pflag's words.

A kind is how a flag's text becomes a value. The kinds every verb uses are here; those of `run` are in `values.py`
and are imported when such a flag is met.
"""

from __future__ import annotations

from pier.cli.errors import ArgumentError, Failure, UsageError
from pier.cli.words import parse_bool, parse_environment_variable, parse_filter, parse_int, parse_label, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Flag:
    """One flag as data. `kind` names the parser and what `--help` shows; `default` is what it shows, if anything."""

    __slots__ = ("default", "help", "hidden", "kind", "name", "replaced_by", "short")

    def __init__(
        self,
        name: str,
        short: str,
        kind: str,
        help: str,
        default: str = "",
        *,
        hidden: bool = False,
        replaced_by: str = "",
    ) -> None:
        self.name = name
        self.short = short
        self.kind = kind
        self.help = help
        self.default = default
        self.hidden = hidden or bool(replaced_by)
        self.replaced_by = replaced_by

    @property
    def display(self) -> str:
        """As error messages name it: `-m, --memory` or `--cpus`."""
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


class Command:
    """A verb as data: usage after its name, flags, how many arguments, whether flags may follow arguments."""

    __slots__ = ("arity", "flags", "interspersed", "notes", "raw", "usage")

    def __init__(
        self,
        usage: str,
        *,
        flags: tuple[Flag, ...] = (),
        arity: tuple[int, int | None] = (0, 0),
        interspersed: bool = True,
        notes: str = "",
        raw: bool = False,
    ) -> None:
        self.usage = usage
        self.raw = raw  # the words after the verb are another program's
        self.flags = flags
        self.arity = arity
        self.interspersed = interspersed
        self.notes = notes


class Options:
    """Parsed flags: `opts["name"]` is the value or the kind's empty value; `opts.given(name)` says it was set."""

    __slots__ = ("_kinds", "_values")

    def __init__(self, flags: tuple[Flag, ...]) -> None:
        self._kinds = {flag.name: flag.kind for flag in flags}
        self._values: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name in self._values:
            return self._values[name]
        kind = self._kinds[name]
        if kind in REPEATED:
            return []
        return {} if kind in MAPS else EMPTY.get(kind, 0)

    def given(self, name: str) -> bool:
        return name in self._values

    def accept(self, flag: Flag, value: Any) -> None:
        """Record one occurrence: repeated kinds append, maps merge, the rest keep the last."""
        name = flag.replaced_by or flag.name
        if flag.kind in REPEATED:
            self._values.setdefault(name, []).append(value)
        elif flag.kind in MAPS:
            self._values.setdefault(name, {}).update([value])
        else:
            self._values[name] = value


class HelpWanted(Failure):
    """`--help` was among the flags."""


PARSERS: dict[str, Callable[[str], Any]] = {
    "bool": parse_bool,
    "string": str,
    "int": parse_int,
    "list": str,
    "filter": parse_filter,
    "env": parse_environment_variable,
    "label": parse_label,
}
"""The kinds of every day; `values.PARSERS` holds the others."""
REPEATED = frozenset(
    "list filter strings env label mount network ulimit throttle throttle-iops weight hosts dns attach".split()
)
MAPS = frozenset(("map", "sysctl"))
EMPTY: dict[str, Any] = {"bool": False, "string": ""}
"""What a flag that was not given is, by kind: a list or map is empty, a number is 0."""


def parser_of(kind: str) -> Callable[[str], Any]:
    parser = PARSERS.get(kind)
    if parser is None:
        from pier.cli import values  # noqa: PLC0415 - only some flags of run need it

        parser = values.PARSERS[kind]
    return parser


HELP = Flag("help", "", "bool", "Print usage", hidden=True)
OLD_HELP = Flag("help", "h", "bool", "Print usage", hidden=True)


def parse(command: Command, path: str, argv: list[str]) -> tuple[Options, list[str]]:
    """Split the words after a verb into options and arguments.

    Raises UsageError for a bad flag, HelpWanted for `--help`, ArgumentError when the count of arguments is wrong.
    """
    if command.raw:
        return Options(command.flags), argv
    opts, args = parse_flags(command.flags, argv, path, command.usage, interspersed=command.interspersed)
    check_arity(command, path, len(args))
    return opts, args


def parse_flags(
    flags: tuple[Flag, ...], argv: list[str], path: str, usage: str, *, interspersed: bool
) -> tuple[Options, list[str]]:
    scanner = _Scanner(flags, argv)
    try:
        return scanner.scan(interspersed=interspersed)
    except ValueError as error:
        raise UsageError(str(error), path, usage) from None


class _Scanner:
    """One pass over the words; ValueError carries pflag's message."""

    def __init__(self, flags: tuple[Flag, ...], argv: list[str]) -> None:
        self.by_name = {flag.name: flag for flag in flags}
        self.by_short = {flag.short: flag for flag in flags if flag.short}
        self.by_name.setdefault("help", HELP)
        self.by_short.setdefault("h", OLD_HELP)
        self.words = list(reversed(argv))  # the next word is last: pop() is cheap
        self.opts = Options(flags)

    def scan(self, *, interspersed: bool) -> tuple[Options, list[str]]:
        args: list[str] = []
        while self.words:
            word = self.words.pop()
            if word == "--":
                args += reversed(self.words)
                break
            if len(word) > 1 and word[0] == "-":
                self._long(word) if word[1] == "-" else self._cluster(word[1:])
                continue
            args.append(word)
            if not interspersed:
                args += reversed(self.words)
                break
        return self.opts, args

    def _long(self, word: str) -> None:
        name, equals, text = word[2:].partition("=")
        if not name or name[0] in "-=":
            raise ValueError(f"bad flag syntax: {word}")
        flag = self.by_name.get(name)
        if flag is None:
            raise ValueError(f"unknown flag: --{name}")
        if equals:
            self._set(flag, text)
        elif flag.kind == "bool":
            self._set(flag, "true")
        elif self.words:
            self._set(flag, self.words.pop())
        else:
            raise ValueError(f"flag needs an argument: --{name}")

    def _cluster(self, letters: str) -> None:
        while letters:
            flag = self.by_short.get(letters[0])
            if flag is None:
                raise ValueError(f"unknown shorthand flag: '{letters[0]}' in -{letters}")
            rest = letters[1:]
            if rest[:1] == "=" and len(rest) > 1:
                return self._set(flag, rest[1:])
            if flag.kind == "bool":
                self._set(flag, "true")
                letters = rest
                continue
            if rest:
                return self._set(flag, rest)
            if not self.words:
                raise ValueError(f"flag needs an argument: '{letters[0]}' in -{letters}")
            return self._set(flag, self.words.pop())
        return None

    def _set(self, flag: Flag, text: str) -> None:
        if flag.name == "help":
            raise HelpWanted("" if flag is HELP else "Flag shorthand -h has been deprecated, use --help")
        try:
            value = parser_of(flag.kind)(text)
        except ValueError as error:
            raise ValueError(f"invalid argument {quote(text)} for {quote(flag.display)} flag: {error}") from None
        if flag.replaced_by:
            from pier.cli.out import complain  # noqa: PLC0415 - rare

            complain(f"Flag --{flag.name} has been deprecated, use --{flag.replaced_by} instead")
        self.opts.accept(flag, value)


def check_arity(command: Command, path: str, count: int) -> None:
    """Refuse a count of arguments outside `command.arity`, in the words of Docker's CLI."""
    least, most = command.arity
    if least <= count and (most is None or count <= most):
        return
    problem, see = arity_problem(least, most)
    raise ArgumentError(problem, path, command.usage, see=see)


def arity_problem(least: int, most: int | None) -> tuple[str, str]:
    """The message for an allowed range, and the verb ("See" or "Run") with which Docker's usage hint begins."""
    if most == 0:
        return "accepts no arguments", "Run"
    if least == most:
        return f"requires {least} {_arguments(least)}", "Run"
    if most is None:
        return f"requires at least {least} {_arguments(least)}", "See"
    if least == 0:
        return f"requires at most {most} {_arguments(most)}", "Run"
    return f"requires at least {least} and at most {most} {_arguments(most)}", "Run"


def _arguments(count: int) -> str:
    return "argument" if count == 1 else "arguments"
