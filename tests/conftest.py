"""For every test: what needs root is skipped without it, and the session must leave the host as it found it."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import leaks

with contextlib.suppress(ImportError):  # the machine of tests/vm has pytest alone
    from hypothesis import HealthCheck, settings

    # How long an example takes to make or to try says how busy the machine is.
    settings.register_profile("pier", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("pier")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root"))


# --- the session must leave the host as it found it -----------------------------------------------------------------
#
# `make` turns this on (PIER_LEAK_CHECK=1); it is off otherwise, for a machine on which other work comes and goes.
# Of a session in several processes only the first looks, before the others begin and after they have ended.

BEFORE = pytest.StashKey[set[str]]()
LEFT = pytest.StashKey[list[str]]()
LEFT_STATUS = 8
"""Exit status of a session that left something behind; none of pytest's own."""


def pytest_sessionstart(session: pytest.Session) -> None:
    if os.environ.get("PIER_LEAK_CHECK") == "1" and not hasattr(session.config, "workerinput"):
        session.config.stash[BEFORE] = leaks.snapshot()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails the session when mounts, devices, cgroups, tables, processes or files were left behind."""
    if BEFORE not in session.config.stash:
        return
    if left := leaks.leaks(session.config.stash[BEFORE]):
        session.config.stash[LEFT] = left
        session.exitstatus = LEFT_STATUS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if left := config.stash.get(LEFT, []):
        terminalreporter.section("the test session left behind", red=True)
        terminalreporter.write_line("\n".join(left))
