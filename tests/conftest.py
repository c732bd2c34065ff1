"""For every test: what needs root is skipped without it, and the session must leave the host as it found it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import leaks


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(scope="session", autouse=True)
def leave_no_trace() -> Iterator[None]:
    """Fails the session, with a list, when mounts, devices, cgroups, tables, processes or files were left behind.

    `make test` turns it on (PIER_LEAK_CHECK=1); off otherwise, for a machine on which other work comes and goes.
    """
    if os.environ.get("PIER_LEAK_CHECK") != "1":
        yield
        return
    before = leaks.snapshot()
    yield
    left = leaks.leaks(before)
    assert not left, "the test session left behind:\n  " + "\n  ".join(left)
