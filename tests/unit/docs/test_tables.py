"""The generated parts of docs/ are what the code says, and the page of attacks is what the tests say."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ATTACKS = range(1, 28)


@pytest.mark.parametrize("tool", ["cli_reference.py", "doc_tables.py"])
def test_generated_pages_are_what_the_code_says(tool: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / tool), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def files_with_tests() -> dict[int, set[str]]:
    """Number of an attack -> the files that hold a test named after it."""
    found: dict[int, set[str]] = defaultdict(set)
    for path in (ROOT / "tests").rglob("test_*.py"):
        for number in re.findall(r"def test_attack_(\d\d)_", path.read_text()):
            found[int(number)].add(str(path.relative_to(ROOT)))
    return found


def sections() -> dict[int, str]:
    """Number of an attack -> what docs/attacks.md says of it."""
    parts = re.split(r"^## (\d+)\. ", (ROOT / "docs" / "attacks.md").read_text(), flags=re.MULTILINE)
    return {int(number): body for number, body in zip(parts[1::2], parts[2::2], strict=True)}


def test_every_attack_has_its_section() -> None:
    assert list(sections()) == list(ATTACKS)


@pytest.mark.parametrize("number", ATTACKS)
def test_an_attack_names_files_that_test_it(number: int) -> None:
    files, body = files_with_tests()[number], sections()[number]
    named = set(re.findall(r"`(tests/[\w./]+\.py)`", body))
    assert named <= files, "docs/attacks.md names files that have no test of that number"
    assert bool(named) == bool(files), "docs/attacks.md names no file that tests it"
    assert bool(files) != ("No test yet" in body), "docs/attacks.md says whether there is a test"
