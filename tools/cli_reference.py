"""Writes docs/cli.md: the reference of the `pier` command, from the same tables as its parser and its --help.

`python tools/cli_reference.py` rewrites the file; `--check` fails when it is not what the tables say.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from pier.cli.catalog import ABSENT, GROUPS, VERBS
from pier.cli.global_flags import GLOBAL_FLAGS, GLOBAL_USAGE
from pier.cli.help import aliases, command_help, flag_lines
from pier.cli.main import load

DESTINATION = Path(__file__).parent.parent / "docs" / "cli.md"
_COLUMNS = 110


def reference() -> str:
    """The whole document as Markdown."""
    parts = [
        "# The `pier` command\n\n"
        "Written by `tools/cli_reference.py` from the tables the parser uses; do not edit.\n\n"
        "Flags, output, exit statuses and error texts are those of Docker's CLI 28; what Pier adds is marked in the\n"
        "text of its flags. `-H`, `PIER_HOST`, then `DOCKER_HOST` say where the daemon is; without them it is\n"
        "`unix:///run/pier/pier.sock`.\n\n"
        "| exit status | meaning |\n|---|---|\n"
        "| 0 | done |\n"
        "| 1 | the daemon refused, or does not answer; a wrong number of arguments |\n"
        "| 64 | a template that cannot be read (`inspect`, `version`, `info`, `events`) |\n"
        "| 70 | a defect in pier itself (`-D` shows where) |\n"
        "| 125 | a wrong flag, of any command; `run`: the container could not be made or started |\n"
        "| 126 | `run`, `exec`: the command cannot be executed |\n"
        "| 127 | `run`, `exec`: the command was not found |\n"
        "| other | `run`, `exec`, `attach`, `start -a`: the command's own, 128+n after signal n |\n",
        f"## Global options\n\n```\npier {GLOBAL_USAGE}\n\n{flag_lines(GLOBAL_FLAGS, _COLUMNS)}\n```\n",
    ]
    for path in sorted(_main_names()):
        parts.append(f"## pier {path}\n\n```\n{command_help(path, load(path).COMMAND, _COLUMNS)}```\n")
    parts.append("## Not there yet\n\n" + "\n".join(f"- `pier {path}`" for path in sorted(ABSENT)) + "\n")
    return "\n".join(parts)


def _main_names() -> list[str]:
    """One path for each command: the short one where there are several."""
    return [path for path in VERBS if path not in GROUPS and (not aliases(path) or aliases(path)[-1] == path)]


def main() -> int:
    text = reference()
    if "--check" in sys.argv[1:]:
        current = DESTINATION.read_text() if DESTINATION.exists() else ""
        if current != text:
            sys.stderr.write(f"{DESTINATION} is not what the tables say: run python tools/cli_reference.py\n")
            return 1
        return 0
    DESTINATION.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
