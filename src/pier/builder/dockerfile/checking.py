"""`docker build --check`: what the checks find, as buildx prints it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterable
from typing import Any

import msgspec

from pier.builder.dockerfile.compile import compile_dockerfile
from pier.builder.dockerfile.lint import CheckOptions, Linter, Warning
from pier.builder.dockerfile.options import Options, Resolver, check_text
from pier.builder.dockerfile.parse import parse
from pier.builder.dockerfile.source import DockerfileError, SourceRange, excerpt


class Report(msgspec.Struct, frozen=True):
    name: str
    text: str
    warnings: tuple[Warning, ...] = ()
    error: DockerfileError | None = None
    """Why the file cannot be built."""

    @property
    def exit_code(self) -> int:
        return 1 if self.warnings or self.error else 0


async def check_dockerfile(data: bytes, options: Options, resolver: Resolver, name: str) -> Report:
    """Without a target all stages are checked. Never raises for what is wrong with the file."""
    text = data.decode("utf-8", "replace")
    linter: Linter | None = None
    try:
        file = await asyncio.to_thread(parse, data, name)
        linter = Linter(CheckOptions.parse(check_text(options, file.check)))
        everything = msgspec.structs.replace(options, all_stages=not options.target)
        await compile_dockerfile(file, everything, resolver, linter)
    except DockerfileError as error:
        return Report(name, text, tuple(linter.warnings) if linter else (), error)
    return Report(name, text, tuple(linter.warnings))


def as_json(report: Report) -> str:
    """The document of `--call=check,format=json`."""
    warnings = [
        {
            "ruleName": warning.rule.name,
            "description": warning.rule.description,
            **({"url": warning.rule.url} if warning.rule.url else {}),
            "detail": warning.detail,
            "location": location([warning.at]),
        }
        for warning in report.warnings
    ]
    data = base64.b64encode(report.text.encode("utf-8", "surrogateescape")).decode()
    document: dict[str, Any] = {
        "warnings": warnings or None,
        "sources": [{"filename": report.name, "data": data, "language": "Dockerfile"}],
    }
    if report.error is not None:
        document["buildError"] = {"message": report.error.message, "location": location(report.error.at)}
    return json.dumps(document, indent=2, ensure_ascii=False)


def as_text(report: Report) -> str:
    """What `--call=check` prints."""
    made = []
    count = len(report.warnings)
    if report.error is None or report.warnings:
        made.append(f"Check complete, {_found(count)}\n")
    by_place = sorted(report.warnings, key=lambda warning: (warning.at, warning.rule.name))
    for warning in by_place:
        url = f" - {warning.rule.url}" if warning.rule.url else ""
        place = excerpt(report.text, warning.at)
        made.append(f"\nWARNING: {warning.rule.name}{url}\n{warning.detail}\n{place}\n")
    if report.error is not None:
        made.append(f"{chr(10) if made else ''}ERROR: {report.error.message}\n")
        shown = report.error.excerpt(report.text)
        made.append(f"{shown}\n" if shown else "")
    return "".join(made)


def _found(count: int) -> str:
    if not count:
        return "no warnings found."
    return f"{count} warning{'' if count == 1 else 's'} {'has' if count == 1 else 'have'} been found!"


def summary(warnings: Iterable[Warning]) -> list[str]:
    """The lines at the end of a build: `Rule: what it found (line 3)`."""
    ordered = sorted(warnings, key=lambda warning: (warning.rule.name, warning.at))
    return [f"{warning.rule.name}: {warning.detail} (line {warning.at.first_line})" for warning in ordered]


def location(places: Iterable[SourceRange]) -> dict[str, Any]:
    """A location of solver/pb as JSON: one range a line."""
    ranges = [{"start": {"line": line}, "end": {"line": line}} for place in places for line in place.lines]
    return {"ranges": ranges} if ranges else {}
