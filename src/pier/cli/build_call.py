"""`pier build --check` and `--call`: questions about a Dockerfile, answered by the daemon's compiler."""

from __future__ import annotations

from pier.cli.build_context import END, Context, from_stdin, memory
from pier.cli.errors import Failure
from pier.cli.jsontext import dumps
from pier.cli.out import write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from pier.cli.flags import Options
    from pier.cli.main import Context as Call

METHODS = ("check", "lint", "outline", "targets")
FORMATS = {"text": "result.txt", "json": "result.json"}


def ask(cx: Call, opts: Options, context: Context | str | None, query: dict[str, Any]) -> int:
    """Print the answer; 1 where a check has found something."""
    method, format, ignore_status = parse_call(opts["call"] or "check")
    first = query["platform"].partition(",")[0]  # a question is about one of them
    query = {**query, "events": 0, "q": 0, "t": [], "call": method, "platform": first}
    if isinstance(context, Context):
        query["dockerfile"] = context.dockerfile
    else:
        query["dockerfile"] = opts["file"]
        query["remote"] = context or ""
    answer = cx.client.request("POST", "/build", query=query, stream=_body(context)).json()
    text = answer[FORMATS[format]]
    if isinstance(context, Context) and context.called != context.dockerfile:
        called = dumps(context.called)[1:-1] if format == "json" else context.called
        text = text.replace(context.dockerfile, called)
    write(1, (text if text.endswith("\n") else f"{text}\n").encode("utf-8", "surrogateescape"))
    return 0 if ignore_status else int(answer.get("result.statuscode", "0"))


def parse_call(text: str) -> tuple[str, str, bool]:
    """(method, format, whether the status is to be 0 always) of `check,format=json,ignorestatus`."""
    method, *fields = text.split(",")
    format, ignore_status = "text", False
    for field in fields:
        key, _, value = field.partition("=")
        if key == "format" and value in FORMATS:
            format = value
        elif key == "ignorestatus" and value in ("", "true", "1"):
            ignore_status = True
        else:
            raise Failure(f"invalid call {text!r}: format=text, format=json or ignorestatus is wanted, not {field!r}")
    if method not in METHODS:
        raise Failure(f"invalid call {text!r}: one of check, outline, targets is wanted")
    return method, format, ignore_status


def _body(context: Context | str | None) -> Iterator[bytes]:
    """The Dockerfile and its ignore file alone; an archive from standard input as it is."""
    if isinstance(context, Context):
        for name, data in context.definition():
            yield from memory(name, data)
        yield END
    elif context is None:
        yield from from_stdin()
