"""Dockerfiles that BuildKit has built: the image's configuration, the words of its history, the names of its steps.

`tests/fixtures/dockerfiles.json`: what came of each in Docker 28.5; `files` is what it changed in the base image.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from .compiling import Images, compiled, image, names

RECORDED = json.loads((Path(__file__).parents[3] / "fixtures" / "dockerfiles.json").read_text())
_LABEL = re.compile(r"^\[(?:[a-z]\S* )?\s*(\d+)/(\d+)\] ")


def options(text: str) -> dict[str, Any]:
    """The first line of a recorded file says how it was built."""
    said: dict[str, Any] = {}
    if match := re.match(r"# build-args: (.*)\n", text):
        said["build_args"] = dict(each.split("=", 1) for each in match[1].split())
    if match := re.match(r"# target: (.*)\n", text):
        said["target"] = match[1]
    return said


def without_empty(config: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value for key, value in config.items() if value not in (None, [], {}) and (key, value) != ("Cmd", ["sh"])
    }


def plain(steps: list[str]) -> set[str]:
    """Without FROM and stages' names, which BuildKit shows now so, now so, and what is grouped under another step."""
    labelled = {_LABEL.sub("", step) for step in steps if _LABEL.match(step) and "] LINK " not in step}
    return {step for step in labelled if not step.startswith("FROM ")}


@pytest.mark.parametrize("recorded", RECORDED, ids=[str(number) for number in range(len(RECORDED))])
def test_as_buildkit_builds_it(recorded: dict[str, Any]) -> None:
    text = recorded["dockerfile"]
    found = compiled(text, Images({"busybox": image()}), **options(text))
    document = json.loads(msgspec.json.encode(found.image, enc_hook=str))
    assert without_empty(document["config"]) == without_empty(recorded["config"])
    entries = [entry for entry in document["history"] if entry.get("comment")]
    assert [[entry["created_by"], entry.get("empty_layer", False)] for entry in entries] == recorded["history"]
    assert plain(names(found)) == plain(recorded["steps"])
