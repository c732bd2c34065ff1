"""Attack 9: after it has entered a container, Pier opens and runs nothing of the container's but the program itself.

Watched from outside: strace on the zygote and all its children. CVE-2019-14271 and its kin had the runtime load the
container's libraries; in Python a late import, a codec or a traceback would do the same.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ..client import Client
from ..conftest import Daemon, poll
from .conftest import entry

pytestmark = pytest.mark.root

CALLS = "execve,execveat,open,openat,openat2,pivot_root,setns,clone,clone3,fork,vfork"
ENTERED = re.compile(r"(pivot_root\(.*|setns\(.*CLONE_NEWNS.*)\) += 0$")
FORKED = re.compile(r"(?:clone|clone3|fork|vfork)\(.*\) += (\d+)(?: /\* (\d+) in strace's PID NS \*/)?$")
OPENED = re.compile(r'open(?:at2?)?\((?:\w+(?:<[^>]*>)?, )?"([^"]*)"')
EXECUTED = re.compile(r'execve(?:at)?\((?:\w+, )?"([^"]*)".*\) += (-?\d+)')
CODE = re.compile(r"\.(py[co]?|so(\.\d+)*|pth|zip|egg|mo)$|python|site-packages|locale|nsswitch|ld\.so")


@dataclass
class Seen:
    """What Pier's processes did between entering containers and becoming their programs."""

    opened: list[str] = field(default_factory=list)
    executed: list[str] = field(default_factory=list)
    entered: int = 0


def read_trace(folder: Path) -> Seen:
    """Sort the calls of each process (one file a pid); a child of a process that is inside is inside from its birth."""
    seen = Seen()
    lines = {path.suffix[1:]: path.read_text(errors="replace").splitlines() for path in folder.glob("trace.*")}
    inside: set[str] = set()
    for found in lines.values():
        _follow(found, False, seen, inside)
    for pid in inside & lines.keys():
        _follow(lines[pid], True, seen, set())
    return seen


def _follow(lines: list[str], entered: bool, seen: Seen, inside: set[str]) -> None:
    for line in lines:
        if not entered:
            entered = bool(ENTERED.match(line))
            seen.entered += entered
        elif found := FORKED.match(line):
            inside.add(found[2] or found[1])
        elif found := OPENED.match(line):
            seen.opened.append(found[1])
        elif found := EXECUTED.match(line):
            seen.executed.append(found[1])
            if found[2] == "0":
                return  # the program's own from here on


def zygote_of(daemon: Daemon) -> int:
    assert daemon.process is not None
    children = Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children").read_text().split()
    threads = Path(f"/proc/{daemon.process.pid}/task").glob("*/children")
    children += [pid for path in threads for pid in path.read_text().split()]
    return next(int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text() == "pier-zygote\n")


@pytest.fixture
def traced(daemon: Daemon, tmp_path: Path) -> Iterator[Callable[[], Seen]]:
    """strace on the zygote; the call ends it and says what was seen."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    pids = [zygote_of(daemon)]
    for pid in pids:  # those that are parked already, too
        pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    words = [
        "strace",
        "-ff",
        *(word for pid in pids for word in ("-p", str(pid))),
        "--pidns-translation",
        "-e",
        f"trace={CALLS}",
    ]
    process = subprocess.Popen(
        [*words, "-o", str(tmp_path / "trace")], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert process.stderr is not None
    if "attached" not in process.stderr.readline():
        process.wait()
        pytest.skip(f"strace cannot attach here: {process.stderr.read()}")

    def stop() -> Seen:
        process.send_signal(signal.SIGINT)
        process.wait(20)
        return read_trace(tmp_path)

    try:
        yield stop
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_attack_09_nothing_of_the_container_is_loaded_or_run(
    pier: Client, traced: Callable[[], Seen], image_of: Callable[..., str]
) -> None:
    script = entry("script", mode=0o755, data="#!/no/such/loader\n")
    hostile = [
        entry(f"{folder}/{name}", mode=0o755, data="x")
        for folder in ("usr/lib/python3.11", "lib", "usr/lib/x86_64-linux-gnu", "root")
        for name in ("encodings.py", "linecache.py", "libnss_files.so.2", "sitecustomize.py")
    ]
    image = image_of(script, *hostile)
    assert pier("run", "--rm", image, "true").status == 0
    assert pier("run", "--rm", "--init", "-u", "nobody", "-w", "/made/here", image, "true").status == 0
    assert pier.terminal("run", "--rm", "-it", image, "true").wait().status == 0
    assert pier("run", "--rm", image, "nosuch").status == 127
    assert pier("run", "--rm", image, "/script").status == 127
    assert pier("run", "--rm", "-u", "nosuch", image, "true").status == 125
    pier.run("--init", image, "sleep", "1000", name="attack-09")
    assert pier("exec", "attack-09", "true").status == 0
    assert pier.terminal("exec", "-it", "-u", "nobody", "attack-09", "true").wait().status == 0
    assert pier("exec", "attack-09", "nosuch").status == 127
    pier("rm", "-f", "attack-09")
    poll(lambda: "attack-09" not in pier.ok("ps", "-a"), "the container to be gone")
    seen = traced()
    assert seen.entered == 9
    assert [path for path in seen.opened if CODE.search(path)] == []
    assert sorted(seen.executed) == ["/bin/sleep", *["/bin/true"] * 5, "/script"]


def test_the_reading_of_traces(tmp_path: Path) -> None:
    """The test above must be able to fail."""
    (tmp_path / "trace.10").write_text(
        'openat(AT_FDCWD, "/usr/lib/early.py", O_RDONLY) = 3\n'
        'pivot_root(".", ".") = 0\n'
        "fork() = 2 /* 11 in strace's PID NS */\n"
        'openat(AT_FDCWD, "/usr/lib/late.py", O_RDONLY) = -1 ENOENT (No such file)\n'
        'execve("/bin/tar", ["tar"], 0x7ff /* 2 vars */) = 0\n'
        'openat(AT_FDCWD, "/lib/own.so", O_RDONLY) = 3\n'
    )
    (tmp_path / "trace.11").write_text('openat2(5</x>, "lib/x.so.1", {flags=O_RDONLY}, 24) = 3\n')
    (tmp_path / "trace.12").write_text('setns(3, CLONE_NEWNS|CLONE_NEWUTS) = 0\nopen("/a.py", O_RDONLY) = 3\n')
    seen = read_trace(tmp_path)
    assert sorted(seen.opened) == ["/a.py", "/usr/lib/late.py", "lib/x.so.1"]
    assert (seen.executed, seen.entered) == (["/bin/tar"], 2)
    assert all(CODE.search(path) for path in seen.opened)
    assert not os.path.exists("/usr/lib/late.py")
