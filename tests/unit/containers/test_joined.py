"""Namespaces of other containers are joined by descriptor."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from pier.containers.joined import JoinedNotRunning

UNBORN = 2**22 + 1
"""No process has this number: it is beyond the largest pid_max."""


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "1000"])
    yield process
    process.kill()
    process.wait()


async def test_the_path_is_the_daemons_own_and_is_gone_after_the_start(house: Any, sleeper: Any) -> None:
    first = await house.run("aa")
    first.pid = sleeper.pid
    seen = {}
    launch = house.runtime.launch

    async def look(request: Any, ends: Any = ()) -> Any:
        for item in request.spec["linux"]["namespaces"]:
            if item.get("path"):
                seen[item["type"]] = (item["path"], os.stat(item["path"]).st_ino)
        return await launch(request, ends)

    house.runtime.launch = look
    await house.run("bb", network_mode="container:aa", pid_mode="container:aa")
    assert {kind: inode for kind, (_, inode) in seen.items()} == {
        kind: os.stat(f"/proc/{sleeper.pid}/ns/{file}").st_ino for kind, file in (("network", "net"), ("pid", "pid"))
    }
    assert all(path.startswith(f"/proc/{os.getpid()}/fd/") for path, _ in seen.values())
    for path, inode in seen.values():
        with contextlib.suppress(FileNotFoundError):  # the number may be another file's by now
            assert os.stat(path).st_ino != inode
    assert first.signals == [0, 0], "its monitor was asked whether the process is still the one"


@pytest.mark.parametrize("gone", ["the process", "the monitor"])
async def test_one_that_has_just_ended_is_not_running(house: Any, sleeper: Any, gone: str) -> None:
    first = await house.run("aa")
    first.pid = UNBORN if gone == "the process" else sleeper.pid

    async def refuse(number: int) -> None:
        raise ProcessLookupError(number)

    if gone == "the monitor":
        first.signal = refuse
    await house.create("bb", network_mode="container:aa")
    with pytest.raises(JoinedNotRunning, match="cannot join network namespace of a non running container"):
        await house.service.start_container("bb")
    assert signal.SIGKILL not in first.signals
