"""`docker build --call=outline` and `--call=targets`: what a file can be told, and what it can build."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import msgspec

from pier.builder.dockerfile import instructions as i
from pier.builder.dockerfile.checking import location
from pier.builder.dockerfile.compile import Compiled
from pier.builder.dockerfile.scope import ArgInfo
from pier.builder.dockerfile.source import SourceRange
from pier.builder.dockerfile.stages import StageNode, reachable
from pier.builder.dockerfile.state import Secret, StageState


class OutlineArg(msgspec.Struct, frozen=True):
    name: str
    at: SourceRange
    value: str = ""
    description: str = ""


class OutlineSecret(msgspec.Struct, frozen=True):
    """A secret or an ssh agent."""

    name: str
    at: SourceRange
    required: bool = False


class Outline(msgspec.Struct, frozen=True):
    """What a target takes: arguments, secrets, ssh agents, each in the file's order."""

    text: str
    name: str = ""
    description: str = ""
    args: tuple[OutlineArg, ...] = ()
    secrets: tuple[OutlineSecret, ...] = ()
    ssh: tuple[OutlineSecret, ...] = ()


class Target(msgspec.Struct, frozen=True):
    base: str
    at: SourceRange
    name: str = ""
    description: str = ""
    default: bool = False
    platform: str = ""


# --- outline


def outline_of(file: i.Dockerfile, compiled: Compiled) -> Outline:
    """Of the compiled target and the stages it needs."""
    args: dict[str, OutlineArg] = {}
    secrets: dict[str, OutlineSecret] = {}
    ssh: dict[str, OutlineSecret] = {}
    for node in reachable(compiled.target.node):
        state = compiled.states.get(id(node))
        if state is None:
            continue
        for info in _used_args(node, state):
            name = info.definition.name
            args.setdefault(name, OutlineArg(name, info.at, info.value, info.definition.comment))
        _gather(secrets, state.secrets)
        _gather(ssh, state.ssh)
    start = compiled.target.node.start
    return Outline(
        text=file.text,
        name=start.stage if start is not None else "",
        description=start.description if start is not None else "",
        args=tuple(sorted(args.values(), key=lambda each: each.at)),
        secrets=tuple(sorted(secrets.values(), key=lambda each: each.at)),
        ssh=tuple(sorted(ssh.values(), key=lambda each: each.at)),
    )


def _used_args(node: StageNode, state: StageState) -> list[ArgInfo]:
    """The arguments of a stage and of its FROM line, and those that their defaults are made of."""
    known = {**state.shared.global_args.info, **state.arg_info}
    waiting = [*state.arg_uses, *node.used_args]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in known and name not in seen:
            seen.add(name)
            waiting += known[name].uses
    return [info for name, info in known.items() if name in seen]


def _gather(found: dict[str, OutlineSecret], secrets: dict[str, Secret]) -> None:
    for each in secrets.values():
        found.setdefault(each.id, OutlineSecret(each.id, each.at, each.required))


def outline_json(outline: Outline) -> str:
    document: dict[str, Any] = _given(name=outline.name, description=outline.description)
    document |= _given(
        args=[
            {
                **_given(name=arg.name, description=arg.description, value=arg.value),
                "location": location([arg.at]),
            }
            for arg in outline.args
        ],
        secrets=list(map(_secret_json, outline.secrets)),
        ssh=list(map(_secret_json, outline.ssh)),
    )
    document["sources"] = [_encoded(outline.text)]
    return json.dumps(document, indent=2, ensure_ascii=False)


def _secret_json(secret: OutlineSecret) -> dict[str, Any]:
    return {**_given(name=secret.name, required=secret.required), "location": location([secret.at])}


def outline_text(outline: Outline) -> str:
    parts = []
    if outline.name or outline.description:
        head = [["TARGET:", outline.name]] if outline.name else []
        head += [["DESCRIPTION:", outline.description]] if outline.description else []
        parts.append(_table(head, padding=1))
    if outline.args:
        rows = [[arg.name, arg.value, arg.description] for arg in outline.args]
        parts.append(_table([["BUILD ARG", "VALUE", "DESCRIPTION"], *rows], padding=3))
    for title, secrets in (("SECRET", outline.secrets), ("SSH", outline.ssh)):
        if secrets:
            rows = [[secret.name, "true" if secret.required else ""] for secret in secrets]
            parts.append(_table([[title, "REQUIRED"], *rows], padding=3))
    return "".join(f"{part}\n" for part in parts)


# --- targets


def targets_of(file: i.Dockerfile) -> list[Target]:
    last = len(file.stages) - 1
    return [
        Target(
            base=stage.start.base,
            at=stage.start.source,
            name=stage.start.stage,
            description=stage.start.description,
            default=number == last,
            platform=stage.start.platform,
        )
        for number, stage in enumerate(file.stages)
    ]


def targets_json(file: i.Dockerfile) -> str:
    listed = [
        {
            **_given(
                name=target.name,
                default=target.default,
                description=target.description,
                base=target.base,
                platform=target.platform,
            ),
            "location": location([target.at]),
        }
        for target in targets_of(file)
    ]
    return json.dumps({"targets": listed, "sources": [_encoded(file.text)]}, indent=2, ensure_ascii=False)


def targets_text(file: i.Dockerfile) -> str:
    rows = [
        [" ".join(filter(None, [target.name, "(default)" if target.default else ""])), target.description]
        for target in targets_of(file)
    ]
    return _table([["TARGET", "DESCRIPTION"], *rows], padding=1)


# --- both


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogateescape")).decode()


def _table(rows: Sequence[Sequence[str]], *, padding: int) -> str:
    """Columns as wide as their widest cell and `padding`, the last as it comes."""
    widths = [max(map(len, column)) + padding for column in zip(*rows, strict=True)]
    widths[-1] = 0
    return "".join("".join(map(str.ljust, row, widths)) + "\n" for row in rows)
