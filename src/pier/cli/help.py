"""`--help`: the flag tables and the catalog as text, wrapped to the terminal."""

from __future__ import annotations

import os

from pier.cli.catalog import COMMON, GROUPS, SAME, VERBS
from pier.cli.errors import PROGRAM, with_program
from pier.cli.global_flags import GLOBAL_FLAGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Command, Flag

_PLACEHOLDERS = {
    "bool": "",
    "weight": "list",
    "throttle": "list",
    "throttle-iops": "list",
    "hosts": "list",
    "dns": "list",
    "attach": "list",
    "env": "list",
    "label": "list",
    "swap": "bytes",
    "sysctl": "map",
    "gpus": "gpu-request",
}
"""Kind -> the word after a flag's name; a kind not named here is its own word."""


def width() -> int:
    """Columns to wrap at: the terminal's, else 80."""
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return 80


def overview() -> str:
    """`pier --help`."""

    single = [path for path in VERBS if " " not in path and path not in COMMON]
    blocks = [
        f"Usage:  {PROGRAM} [OPTIONS] COMMAND",
        "A container platform that speaks Docker's own protocols",
        _list("Common Commands:", {path: VERBS[path][1] for path in COMMON}),
        _list("Management Commands:", GROUPS),
        _list("Commands:", {path: VERBS[path][1] for path in sorted(single)}),
        "Global Options:\n" + flag_lines(GLOBAL_FLAGS, width()),
        f"Run '{PROGRAM} COMMAND --help' for more information on a command.",
    ]
    return "\n\n".join(blocks) + "\n"


def group_overview(group: str) -> str:
    """`pier container --help`."""
    prefix = group + " "
    members = {path.removeprefix(prefix): VERBS[path][1] for path in sorted(VERBS) if path.startswith(prefix)}
    blocks = [
        f"Usage:  {with_program(group)} COMMAND",
        GROUPS[group],
        _list("Commands:", members),
        f"Run '{with_program(group)} COMMAND --help' for more information on a command.",
    ]
    return "\n\n".join(blocks) + "\n"


def command_help(path: str, command: Command, columns: int = 0) -> str:
    """`pier ps --help`."""
    blocks = [f"Usage:  {with_program(path)} {command.usage}".rstrip(), VERBS[path][1]]
    if command.notes:
        blocks.append(command.notes.strip())
    names = aliases(path)
    if names:
        blocks.append("Aliases:\n  " + ", ".join(with_program(name) for name in names))
    if any(not flag.hidden for flag in command.flags):
        blocks.append("Options:\n" + flag_lines(command.flags, columns or width()))
    return "\n\n".join(blocks) + "\n"


def aliases(path: str) -> tuple[str, ...]:
    """All names of a command that has several, longest kind first, as Docker lists them."""
    for names in SAME:
        if path in names:
            return (*names[1:], names[0])
    return ()


def _list(title: str, entries: dict[str, str]) -> str:
    return "\n".join([title, *(f"  {name:<11} {text}" for name, text in entries.items())])


def flag_lines(flags: tuple[Flag, ...], columns: int) -> str:
    """The options block: names in one column, descriptions wrapped in the next."""
    shown = sorted((flag for flag in flags if not flag.hidden), key=lambda flag: flag.name)
    heads = [_head(flag) for flag in shown]
    indent = max(map(len, heads)) + 3
    lines: list[str] = []
    for flag, head in zip(shown, heads, strict=True):
        text = flag.help + (f" (default {_default(flag)})" if flag.default else "")
        first, *rest = _wrap(text, max(columns - indent, 24))
        lines.append(head.ljust(indent) + first)
        lines += [" " * indent + more for more in rest]
    return "\n".join(lines)


def _head(flag: Flag) -> str:
    short = f"-{flag.short}, " if flag.short else "    "
    word = _PLACEHOLDERS.get(flag.kind, flag.kind)
    return f"  {short}--{flag.name} {word}".rstrip()


def _default(flag: Flag) -> str:
    return f'"{flag.default}"' if flag.kind == "string" else flag.default


def _wrap(text: str, columns: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > columns:
            lines.append("")
        lines[-1] += (" " if lines[-1] else "") + word
    return lines
