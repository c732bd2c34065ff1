"""The systemd cgroup driver against systemd itself, as pid 1 of the virtual machine: `make vm-systemd`.

Not part of `make vm`: systemd takes an emulated processor's time. `tests/unit/runtime/systemd/test_scopes.py` is.
"""

from __future__ import annotations

import os

import initramfs
import machine
import pytest

GUEST = "tests/vm/systemd"


@pytest.mark.skipif(not os.environ.get("PIER_VM_SYSTEMD"), reason="make vm-systemd runs it")
def test_with_systemd_as_init() -> None:
    missing = [str(path) for path in initramfs.SYSTEMD if not path.exists()]
    if missing:
        pytest.skip(f"this host has no {', '.join(missing)} to put into the machine")
    try:
        package = machine.kernel_package()
    except machine.Unavailable as reason:
        pytest.skip(str(reason))
    session = machine.run(package, [GUEST], systemd=True)
    assert "ended" in session.facts, f"stopped after {machine.SYSTEMD_TIMEOUT_S} s:\n{session.console[-4000:]}"
    failures = [f"{outcome.test}:\n{outcome.text}" for outcome in session.outcomes if outcome.outcome == "failed"]
    assert not failures, "\n".join(failures)
    assert len(session.outcomes) > 15, "every test has run"
