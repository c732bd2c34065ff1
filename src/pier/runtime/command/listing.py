"""`state`, `list`."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

from pier.runtime.command.flags import Line
from pier.runtime.command.life import status
from pier.runtime.command.main import DEFAULT_ROOT, Context
from pier.runtime.command.output import dump, pretty, table
from pier.runtime.command.state import VERSION, Container, Record, StateError, all_ids
from pier.runtime.process.passwd import parse_passwd


def describe(container: Container, record: Record, owner: str) -> dict[str, Any]:
    """runc's state document, a superset of runtime.md's."""
    found = status(container, record)
    document: dict[str, Any] = {
        "ociVersion": VERSION,
        "id": record.id,
        "pid": 0 if found == "stopped" else record.pid,
        "status": found,
        "bundle": record.bundle,
        "rootfs": record.rootfs,
        "created": record.created,
    }
    if record.annotations:
        document["annotations"] = record.annotations
    document["owner"] = owner
    return document


def state(context: Context, line: Line) -> int:
    container = Container(context.root, line.arguments[0])
    sys.stdout.write(pretty(describe(container, container.load(), "")))
    return 0


def list_(context: Context, line: Line) -> int:
    """`list`; one whose state is not there yet, or damaged, is passed over."""
    found = []
    if context.root != DEFAULT_ROOT:
        os.stat(context.root)  # one that was asked for has to be there
    for name in all_ids(context.root):
        try:
            container = Container(context.root, name)
            found.append(describe(container, container.load(), _owner(container.path)))
        except StateError as error:
            context.log.debug(f"{name}: {error}")
    if line.on("quiet"):
        sys.stdout.write("".join(f"{item['id']}\n" for item in found))
    elif format_of(line) == "json":
        sys.stdout.write(dump(found) if found else "null")
    else:
        columns = ("id", "pid", "status", "bundle", "created", "owner")
        rows = [[column.upper() for column in columns]]
        rows += [[str(item[column]) for column in columns] for item in found]
        sys.stdout.write(table(rows, gap=3))
    return 0


def format_of(line: Line) -> str:
    """`table` or `json`. Raises StateError."""
    if line.text("format") not in ("table", "json"):
        raise StateError("invalid format option")
    return line.text("format")


def _owner(path: str) -> str:
    """The name of the user whose folder it is; `#UID` where nobody has that one."""
    uid = os.stat(path).st_uid
    entries = []
    with contextlib.suppress(FileNotFoundError), open("/etc/passwd", encoding="utf-8", errors="replace") as file:
        entries = parse_passwd(file.read())
    return next((entry.name for entry in entries if entry.uid == uid), f"#{uid}")
