"""Pier on cgroup v2 and Linux 6.1: a virtual machine is booted once, and each test in it is a test here.

`guest/` holds the tests made for that machine; the rest are tests of the runtime and of cgroups that run on this host
too. A test function with parameters is one test here.
"""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Iterator

import machine
import pytest

CHECKOUT = machine.CHECKOUT
RECORDING = CHECKOUT / "tests/fixtures/cgroup_v2_linux_6_1.json"
CGROUPS = "tests/unit/kernel/test_cgroups.py"
HELD = "tests/unit/kernel/test_held_mounts.py"
"""There the root is an initramfs, which cannot be put away."""
BORROWED = (
    "test_exit_code_output_log_and_exit_file",
    "test_nothing_of_the_container_shows_on_the_host",
    "test_default_devices_masks_and_read_only_paths",
    "test_terminal_with_size_resize_and_controlling_terminal",
    "test_a_program_that_is_not_there_leaves_nothing",
    "test_exec_joins_everything_and_reports_its_end",
    "test_init_reaps_orphans_and_passes_signals_on",
    "test_a_killed_monitor_takes_its_container_with_it",
    "test_an_oom_kill_is_told_while_the_container_runs",
    "test_an_oom_kill_of_the_program_itself",
    "test_a_background_process_does_not_hold_its_exec",
    "test_the_reaper_is_listed_as_dockers",
    "test_another_runtime_runs_a_program_and_leaves_nothing",
    "test_another_runtime_pauses",
    "test_another_daemon_gets_the_same_sockets",
)
"""Of `tests/unit/runtime`: where the hierarchy or the kernel's age could make a difference."""


def functions(file: str) -> Iterator[str]:
    """Names of the test functions in a file, as pytest would find them."""
    for node in ast.parse((CHECKOUT / file).read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
            yield f"{file}::{node.name}"


def files(pattern: str) -> list[str]:
    return sorted(str(path.relative_to(CHECKOUT)) for path in CHECKOUT.glob(pattern))


TESTS = [test for file in (*files("tests/vm/guest/test_*.py"), CGROUPS, HELD) for test in functions(file)] + [
    test
    for file in files("tests/unit/runtime/**/test_*.py")
    for test in functions(file)
    if test.partition("::")[2] in BORROWED
]


@pytest.fixture(scope="session")
def session() -> machine.Session:
    try:
        package = machine.kernel_package()
    except machine.Unavailable as reason:
        pytest.skip(str(reason))
    return machine.run(package, TESTS)


def test_every_borrowed_test_is_there() -> None:
    assert set(BORROWED) - {test.partition("::")[2] for test in TESTS} == set()


def test_the_machine_ran_to_its_end(session: machine.Session) -> None:
    assert session.facts.get("kernel", "").startswith("6."), session.console[-4000:]
    assert "ended" in session.facts, f"stopped after {machine.TIMEOUT_S} s:\n{session.console[-4000:]}"
    assert session.seconds < machine.TIMEOUT_S
    names = {outcome.test.partition("[")[0] for outcome in session.outcomes}
    assert names - set(TESTS) == set(), "an error outside of any test"


@pytest.mark.parametrize("test", TESTS, ids=[test.rpartition("/")[2] for test in TESTS])
def test_in_the_machine(session: machine.Session, test: str) -> None:
    outcomes = session.of(test)
    assert outcomes, f"it did not run; the machine's last words:\n{session.console[-4000:]}"
    failures = [outcome for outcome in outcomes if outcome.outcome == "failed"]
    assert not failures, "\n".join(f"{failure.test} ({failure.when}):\n{failure.text}" for failure in failures)
    if all(outcome.outcome == "skipped" for outcome in outcomes):
        pytest.skip(outcomes[0].text)


def test_the_recorded_tree_is_this_kernels(session: machine.Session) -> None:
    """`PIER_RECORD=1 make vm` records it anew."""
    recording = session.facts["recording"]
    if os.environ.get("PIER_RECORD"):
        RECORDING.write_text(json.dumps(recording, indent=1) + "\n")
    recorded = json.loads(RECORDING.read_text())
    assert set(recording["leaf"]) >= set(recorded["leaf"])
    assert set(recording["controllers"].split()) >= set(recorded["controllers"].split())


def test_a_cut_off_report_is_read_as_far_as_it_goes() -> None:
    line = '{"test": "a.py::test_x[1]", "when": "call", "outcome": "passed", "seconds": 0.1, "text": ""}\n'
    read = machine.parse('{"kernel": "6.1", "uptime": 3}\n' + line + '{"test": "a.py::te', "last words")
    assert read.facts == {"kernel": "6.1", "uptime": 3}
    assert [outcome.outcome for outcome in read.of("a.py::test_x")] == ["passed"]
    assert read.console == "last words"
