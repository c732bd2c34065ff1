from __future__ import annotations

from pathlib import Path

import pytest

from pier.cli.build_call import parse_call
from pier.cli.build_context import Context
from pier.cli.errors import Failure


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("check", ("check", "text", False)),
        ("outline,format=json", ("outline", "json", False)),
        ("targets,format=text,ignorestatus", ("targets", "text", True)),
        ("lint,ignorestatus=true", ("lint", "text", True)),
    ],
)
def test_call(text: str, expected: tuple[str, str, bool]) -> None:
    assert parse_call(text) == expected


@pytest.mark.parametrize("text", ["", "nope", "check,format=xml", "check,what"])
def test_bad_call(text: str) -> None:
    with pytest.raises(Failure, match="invalid call"):
        parse_call(text)


def test_only_the_definition_is_sent(tmp_path: Path) -> None:
    for name in ("a", "Dockerfile", ".dockerignore", "other.Dockerfile", "other.Dockerfile.dockerignore"):
        (tmp_path / name).write_text(name)
    assert list(Context(str(tmp_path), "Dockerfile").definition()) == [
        ("Dockerfile", b"Dockerfile"),
        (".dockerignore", b".dockerignore"),
    ]
    assert [name for name, _ in Context(str(tmp_path), "other.Dockerfile").definition()] == [
        "other.Dockerfile",
        "other.Dockerfile.dockerignore",
    ]
    assert next(Context(str(tmp_path), ".x", outside=b"FROM a").definition()) == (".x", b"FROM a")
    with pytest.raises(Failure, match="no such file"):
        list(Context(str(tmp_path), "gone").definition())
