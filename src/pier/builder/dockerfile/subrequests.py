"""What can be asked of a Dockerfile besides a build, by the names of BuildKit's subrequests, answered as it answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Final

from pier.builder.dockerfile.checking import as_json, as_text, check_dockerfile
from pier.builder.dockerfile.compile import compile_dockerfile
from pier.builder.dockerfile.options import Options, Resolver
from pier.builder.dockerfile.outline import outline_json, outline_of, outline_text, targets_json, targets_text
from pier.builder.dockerfile.parse import parse
from pier.errors import InvalidParameter

OUTLINE: Final = "frontend.outline"
TARGETS: Final = "frontend.targets"
LINT: Final = "frontend.lint"
DESCRIBE: Final = "frontend.subrequests.describe"
VERSION: Final = "1.0.0"
_RESULTS: Final = ("result.json", "result.txt")


class UnsupportedSubrequest(InvalidParameter):
    """unsupported request {name}"""


_DESCRIPTIONS: Final[tuple[dict[str, object], ...]] = (
    {
        "name": OUTLINE,
        "description": "List all parameters current build target supports",
        "opts": [{"name": "target", "description": "Target build stage"}],
        "metadata": _RESULTS,
    },
    {"name": TARGETS, "description": "List all targets current build supports", "opts": [], "metadata": _RESULTS},
    {"name": LINT, "description": "Lint a Dockerfile", "opts": [], "metadata": (*_RESULTS, "result.statuscode")},
    {
        "name": DESCRIBE,
        "description": "List available subrequest types",
        "opts": [],
        "metadata": ("result.json", "result.txt"),
    },
)


async def answer(name: str, data: bytes, filename: str, options: Options, resolver: Resolver) -> Mapping[str, bytes]:
    """The metadata of the result: `result.json`, `result.txt`, `version`, of a lint `result.statuscode`.

    Raises UnsupportedSubrequest, DockerfileError.
    """
    extra: dict[str, str] = {}
    match name:
        case "frontend.outline":
            file = await asyncio.to_thread(parse, data, filename)
            outline = outline_of(file, await compile_dockerfile(file, options, resolver))
            document, text = outline_json(outline), outline_text(outline)
        case "frontend.targets":
            file = await asyncio.to_thread(parse, data, filename)
            document, text = targets_json(file), targets_text(file)
        case "frontend.lint":
            report = await check_dockerfile(data, options, resolver, filename)
            document, text = as_json(report), as_text(report)
            extra["result.statuscode"] = str(report.exit_code)
        case "frontend.subrequests.describe":
            document, text = describe(), "".join(f"{each['name']}\t{each['description']}\n" for each in _DESCRIPTIONS)
        case _:
            raise UnsupportedSubrequest(name=name)
    found = {"result.json": document, "result.txt": text, "version": VERSION, **extra}
    return {key: value.encode("utf-8", "surrogateescape") for key, value in found.items()}


def describe() -> str:
    """The subrequests there are, as JSON."""
    listed = []
    for each in _DESCRIPTIONS:
        metadata = each["metadata"]
        assert isinstance(metadata, tuple)
        described = {"name": each["name"], "version": VERSION, "type": "rpc", "description": each["description"]}
        listed.append({**described, "opts": each["opts"], "metadata": [{"name": key} for key in metadata]})
    return json.dumps(listed, indent=2)
