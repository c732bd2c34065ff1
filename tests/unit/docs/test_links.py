"""What the pages point at is there: pages, headings, files of the repository, tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])

LINK = re.compile(r"\]\(([^)\s]+)\)")
NAMED_FILE = re.compile(
    r"(?<![\w./@-])((?:src|tests|tools|bench|demo|docs|packaging)/[\w./-]*[\w/]|\.ci/run|Makefile|pyproject\.toml)"
)
NAMED_MODULE = re.compile(r"`((?:[a-z_]+/)+[a-z_0-9]+\.(?:py|json))`")
"""A module as the pages name it, below src/pier: `runtime/process/init.py`."""
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def page_id(page: Path) -> str:
    return page.name


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as they are made of them: lower case, blanks as dashes, no punctuation."""
    text = FENCE.sub("", page.read_text())
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"https?://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        if not other.exists() or (anchor and anchor not in anchors(other)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_named_files_are_there(page: Path) -> None:
    named = set(NAMED_FILE.findall(page.read_text()))
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_named_modules_are_there(page: Path) -> None:
    named = set(NAMED_MODULE.findall(page.read_text()))
    places = (ROOT, ROOT / "src", ROOT / "src" / "pier", ROOT / "tests", ROOT / "tests" / "unit")
    assert sorted(name for name in named if not any((place / name).exists() for place in places)) == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        targets = (target.partition("#")[0] for target in LINK.findall(page.read_text()))
        waiting += [
            (page.parent / target).resolve() for target in targets if target.endswith(".md") and "://" not in target
        ]
    assert sorted(page.name for page in PAGES if page not in reached) == []
