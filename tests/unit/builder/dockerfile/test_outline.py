"""`--call=outline` and `--call=targets`, as buildx prints them."""

from __future__ import annotations

import json

from pier.builder.dockerfile.outline import outline_json, outline_of, outline_text, targets_json, targets_text
from pier.builder.dockerfile.parse import parse

from .compiling import compiled

TEXT = """\
# syntax comment
ARG GLOBAL=1
# FOO is a foo
ARG FOO=bar$GLOBAL
# base the base stage
FROM busybox AS base
# X is x
ARG X=1 Y
ARG FOO
RUN --mount=type=secret,id=s1 --mount=type=ssh true

# second desc of second
FROM base AS second
ARG Z=$X
RUN --mount=type=secret,id=s2,required --mount=type=ssh,id=gh,required true
FROM --platform=linux/amd64 scratch
CMD x
COPY --from=second / /
"""


def outline(target: str = "") -> str:
    return outline_text(outline_of(parse(TEXT.encode()), compiled(TEXT, target=target)))


_ARGS = (
    "BUILD ARG   VALUE   DESCRIPTION\nGLOBAL      1       \nFOO         bar1    is a foo\nX           1       is x\n"
)


def test_outline_of_a_stage() -> None:
    assert outline("base") == (
        "TARGET:      base\nDESCRIPTION: the base stage\n\n"
        f"{_ARGS}Y                   \n\n"
        "SECRET   REQUIRED\ns1       \n\n"
        "SSH       REQUIRED\ndefault   \n\n"
    )


def test_outline_has_what_the_stages_below_take() -> None:
    assert outline() == (
        f"{_ARGS}Y                   \nZ           1       \n\n"
        "SECRET   REQUIRED\ns1       \ns2       true\n\n"
        "SSH       REQUIRED\ndefault   \ngh        true\n\n"
    )
    assert outline("second").startswith("TARGET:      second\nDESCRIPTION: desc of second\n\n" + _ARGS)


def test_outline_as_json() -> None:
    document = json.loads(outline_json(outline_of(parse(TEXT.encode()), compiled(TEXT, target="base"))))
    assert (document["name"], document["description"]) == ("base", "the base stage")
    place = {"ranges": [{"start": {"line": 4}, "end": {"line": 4}}]}
    assert document["args"][1] == {"name": "FOO", "description": "is a foo", "value": "bar1", "location": place}
    assert [each["name"] for each in document["secrets"]] == ["s1"]
    assert "required" not in document["ssh"][0]


def test_targets() -> None:
    file = parse(TEXT.encode())
    assert targets_text(file) == (
        "TARGET    DESCRIPTION\nbase      the base stage\nsecond    desc of second\n(default) \n"
    )
    assert targets_text(parse(b"FROM scratch\nFROM scratch AS last")) == (
        "TARGET         DESCRIPTION\n               \nlast (default) \n"
    )
    listed = json.loads(targets_json(file))["targets"]
    assert listed[1]["base"] == "base"
    assert (listed[2]["default"], listed[2]["platform"]) == (True, "linux/amd64")
    assert "name" not in listed[2]
