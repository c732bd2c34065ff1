"""`pier run -d` of a container that ends at once says so (trap 4): exit code, last log lines, likely cause.

The ID is printed first, so nothing that captures it waits. The look at the container costs up to a second, and is
therefore taken only when a person reads stderr (a terminal), or when PIER_EXIT_NOTICE=always asks for it;
PIER_EXIT_NOTICE=never switches it off.
"""

from __future__ import annotations

import os
import select

from pier.cli.errors import Failure
from pier.cli.out import STDERR, complain
from pier.cli.stream import Demux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.http import Client, Response

WATCH_MS = 1000
_TAIL = 5
_SHELLS = frozenset(("sh", "bash", "ash", "dash", "zsh", "busybox"))
_SIGNALS = {
    129: "SIGHUP",
    130: "SIGINT",
    134: "SIGABRT: the program found an error in itself",
    137: "SIGKILL",
    139: "SIGSEGV: the program read memory that is not its own",
    143: "SIGTERM",
}


def wanted() -> bool:
    choice = os.environ.get("PIER_EXIT_NOTICE", "")
    return choice == "always" or (choice != "never" and os.isatty(STDERR))


def notice(client: Client, identifier: str, waiting: Response) -> None:
    """Watch for WATCH_MS; write the notice when the container ended in that time. Never fails."""
    poll = select.poll()
    poll.register(waiting.fileno(), select.POLLIN)
    try:
        if waiting.fileno() < 0 or not poll.poll(WATCH_MS):
            return
        status = int((waiting.json() or {}).get("StatusCode", 0))
        facts = _inspect(client, identifier)
        tail = _last_lines(client, identifier) if facts else []
    except (Failure, KeyboardInterrupt):
        return
    complain("\n".join(describe(identifier, status, facts, tail)))


def describe(identifier: str, status: int, facts: dict[str, Any], tail: list[str]) -> list[str]:
    """The notice's lines for a container (its inspect answer, {} when removed) and the end of its log."""
    name = facts.get("Name", "").removeprefix("/") or identifier[:12]
    lines = [f"Note: container {name} has exited already, with code {status}."]
    if tail:
        lines += ["Its last words:", *(f"  {line}" for line in tail)]
    lines.append(f"Likely cause: {cause(status, facts)}")
    return lines


def cause(status: int, facts: dict[str, Any]) -> str:  # noqa: PLR0911 - one return a cause
    """One sentence on why, with what to do."""
    state, config = facts.get("State") or {}, facts.get("Config") or {}
    command = os.path.basename(facts.get("Path") or "")
    if state.get("OOMKilled"):
        return "it ran out of memory; give it more with --memory."
    if status == 126:
        return "its command is there but cannot be executed (permissions, or a directory)."
    if status == 127:
        return "its command, or one that its script calls, was not found."
    if status in _SIGNALS:
        return f"it was ended by {_SIGNALS[status]}."
    if command in _SHELLS and not facts.get("Args") and not config.get("OpenStdin"):
        return f"{command} without input ends at once; add -it for a shell that waits, or give it a command."
    if status == 0:
        return "its command was done. A container lives as long as its main process: run that in the foreground."
    return "its command failed; `pier logs` shows all of what it wrote."


def _inspect(client: Client, identifier: str) -> dict[str, Any]:
    """The container, or {} when --rm has removed it."""
    try:
        return dict(client.get(f"/containers/{identifier}/json"))
    except Failure:
        return {}


def _last_lines(client: Client, identifier: str) -> list[str]:
    response = client.request(
        "GET", f"/containers/{identifier}/logs", query={"stdout": True, "stderr": True, "tail": str(_TAIL)}
    )
    data = response.read()
    if response.multiplexed:
        data = b"".join(piece for _, piece in Demux().feed(data))
    return data.decode("utf-8", "replace").rstrip("\n").split("\n")[-_TAIL:] if data.strip() else []
