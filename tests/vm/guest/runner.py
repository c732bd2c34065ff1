"""Run pytest in the test machine; each result leaves as one line of JSON on descriptor 3."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

ARGUMENTS = Path("/pier/arguments.json")


class Reporter:
    """A pytest plug-in: results as lines of JSON."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def send(self, **fields: object) -> None:
        os.write(self._fd, json.dumps(fields).encode() + b"\n")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
            self.send(
                test=report.nodeid,
                when=report.when,
                outcome=report.outcome,
                seconds=round(report.duration, 2),
                text=reason[-8000:],
            )

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.outcome == "failed":
            self.send(test=report.nodeid, when="collect", outcome="failed", seconds=0, text=report.longreprtext[-8000:])


def main() -> int:
    reporter = Reporter(3)
    os.set_inheritable(3, False)
    reporter.send(kernel=os.uname().release, uptime=float(Path("/proc/uptime").read_text().split()[0]))
    began = time.monotonic()
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    options = ["-p", "pytest_asyncio.plugin", "-p", "no:cacheprovider", "--basetemp=/tmp/pytest", "--tb=short"]
    status = pytest.main([*options, *json.loads(ARGUMENTS.read_text())], plugins=[reporter])
    reporter.send(ended=int(status), seconds=round(time.monotonic() - began, 2))
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
