"""Trap 6: a shell-form ENTRYPOINT swallows CMD and signals, and `pier image inspect` says so."""

from __future__ import annotations

from typing import Any

import pytest

from pier.cli.argv import effective, notes


@pytest.mark.parametrize(
    ("config", "argv", "told"),
    [
        ({"Cmd": ["sh"]}, ["sh"], []),
        ({"Entrypoint": ["/entry"], "Cmd": ["serve"]}, ["/entry", "serve"], []),
        ({"Entrypoint": ["/bin/sh", "-c"], "Cmd": ["echo hi"]}, ["/bin/sh", "-c", "echo hi"], []),
        ({"Entrypoint": ["/bin/sh", "-c", "serve"]}, ["/bin/sh", "-c", "serve"], ["signals", "what follows"]),
        (
            {"Entrypoint": ["/bin/sh", "-c", "serve"], "Cmd": ["x"]},
            ["/bin/sh", "-c", "serve", "x"],
            ['ENTRYPOINT ["serve"]', "CMD, and what follows"],
        ),
        (
            {"Entrypoint": ["/bin/ash", "-ec", "a"], "Shell": ["/bin/ash", "-ec"]},
            ["/bin/ash", "-ec", "a"],
            ["shell form"] * 2,
        ),
        ({}, [], ["needs a command"]),
    ],
)
def test_trap_06_effective_argv(config: dict[str, Any], argv: list[str], told: list[str]) -> None:
    assert effective(config) == argv
    found = notes(config)
    assert len(found) == len(told)
    assert all(part in sentence for part, sentence in zip(told, found, strict=True))
