"""What a container's cgroup looks like on this kernel, sent to the host: `tests/fixtures/cgroup_v2_linux_6_1.json`."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest

from .conftest import UNIFIED, Lab, folder_of

pytestmark = pytest.mark.root
MIB = 1 << 20


async def test_record(lab: Lab) -> None:
    request = lab.request(
        [
            "sh",
            "-c",
            "busybox mknod /vda b 254 0; dd if=/vda of=/file bs=64k count=16 iflag=direct; sleep 100 & sleep 100",
        ]
    )
    request.spec["linux"]["resources"] = {
        "memory": {"limit": 64 * MIB, "swap": 96 * MIB},
        "cpu": {"quota": 50_000, "period": 100_000},
        "pids": {"limit": 20},
    }
    container = await lab.start(request)
    await container.read_until(b"records out")
    recording = {
        "kernel": os.uname().release,
        "mountinfo": Path("/proc/self/mountinfo").read_text(),
        "controllers": (UNIFIED / "cgroup.controllers").read_text(),
        "leaf": contents(folder_of(container)),
    }
    os.write(3, json.dumps({"recording": recording}).encode() + b"\n")


def contents(folder: Path) -> dict[str, str | None]:
    """Name and text of every file; None for one that cannot be read, or that holds what differs at each run."""
    texts: dict[str, str | None] = dict.fromkeys(sorted(os.listdir(folder)))
    for name in texts:
        if name not in {"cgroup.procs", "cgroup.threads"} and not name.endswith(".pressure"):
            with contextlib.suppress(OSError):
                texts[name] = (folder / name).read_text()
    return texts
