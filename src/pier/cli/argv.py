"""What containers of an image execute, and what its author may not have meant (trap 6). Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SHELLS = (["/bin/sh", "-c"], ["sh", "-c"], ["/bin/bash", "-c"], ["bash", "-c"])


def effective(config: dict[str, Any]) -> list[str]:
    """ENTRYPOINT and CMD together, as they are executed where `run` is given no command."""
    return [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]


def notes(config: dict[str, Any]) -> list[str]:
    """One sentence for each thing that surprises people."""
    entrypoint, command = config.get("Entrypoint") or [], config.get("Cmd") or []
    if not effective(config):
        return ["it has neither ENTRYPOINT nor CMD: `run` needs a command after its name"]
    shells = [*_SHELLS, *([config["Shell"]] if config.get("Shell") else [])]
    if not any(entrypoint[: len(shell)] == shell and len(entrypoint) == len(shell) + 1 for shell in shells):
        return []
    from pier.cli.jsontext import dumps  # noqa: PLC0415 - loaded with the client

    found = [
        f"ENTRYPOINT is in shell form: the shell gets the signals of `stop`, not the program; "
        f"as a list it is ENTRYPOINT {dumps(entrypoint[-1].split())}"
    ]
    if command:
        found.append("ENTRYPOINT is in shell form: CMD, and what follows the image's name in `run`, never reaches it")
    else:
        found.append("ENTRYPOINT is in shell form: what follows the image's name in `run` never reaches it")
    return found
