"""What the processes of a container see of one that is about to join them, before it is the program (CVE-2016-9962)."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..client import Client
from .conftest import HOST_LIBRARIES, PYTHON

pytestmark = pytest.mark.root

STARTS = 15

WATCH = """
import os, sys
canary, seen = sys.argv[1], set()
print("watching", flush=True)
while True:
    for pid in os.listdir("/proc"):
        if not pid.isdigit() or int(pid) in (1, os.getpid()):
            continue
        for name in ("root" + canary, "cwd" + canary, "fd/3" + canary):
            try:
                text = open(f"/proc/{pid}/{name}").read()
            except OSError:
                continue
            if ("file", text) not in seen:
                seen.add(("file", text))
                print("SEEN through", name, text, flush=True)
        try:
            status = open(f"/proc/{pid}/status").read()
        except OSError:
            continue
        if "pier-" in status.split()[1] and "CapEff:\\t000001ff" in status and "powers" not in seen:
            seen.add("powers")
            print("SEEN with all capabilities", flush=True)
"""


@pytest.mark.parametrize("flags", [[], ["--cap-add", "SYS_PTRACE"]], ids=["default", "SYS_PTRACE"])
def test_attack_02_exec_shows_nothing_of_the_host_to_the_container(
    pier: Client, tmp_path: Path, flags: list[str]
) -> None:
    """A debugger's capability opens /proc/PID/root of every process it sees: none may still have the host's."""
    canary = tmp_path / "canary"
    canary.write_text("the host's")
    watcher = pier.start(
        *("run", "--rm", "--name", "attack-02-watch", *flags, *HOST_LIBRARIES),
        *("busybox", PYTHON, "-ISuc", WATCH, str(canary)),
    )
    watcher.read_until("watching")
    for _ in range(STARTS):
        assert pier("exec", "attack-02-watch", "true").status == 0
        assert pier.terminal("exec", "-it", "attack-02-watch", "true").wait().status == 0
    pier("kill", "attack-02-watch")
    assert "SEEN" not in watcher.wait().out
