"""Deeds on a cgroup's files and directories, with the kernel's quirks: what `cgroups` is made of."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import time
from collections.abc import Iterable, Iterator

_SHORTEST_WAIT_S = 0.0005
_LONGEST_WAIT_S = 0.02
_READ_SIZE = 4096
"""Most are smaller."""


def read(path: str) -> str:
    """A small file's text; empty when it, or its cgroup, is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        text = os.read(fd, 65536)
        while chunk := os.read(fd, 65536):
            text += chunk
    except OSError as error:
        if error.errno not in {errno.ENODEV, errno.EOPNOTSUPP}:
            raise
        return ""
    finally:
        os.close(fd)
    return text.decode()


def read_again(fd: int) -> str:
    """The text of a small file that is held open, as it is now; empty when its cgroup is gone."""
    try:
        text = os.pread(fd, _READ_SIZE, 0)
        while len(text) % _READ_SIZE == 0 and (chunk := os.pread(fd, _READ_SIZE, len(text))):
            text += chunk
    except OSError as error:
        if error.errno not in {errno.ENODEV, errno.EOPNOTSUPP}:
            raise
        return ""
    return text.decode()


def flat(text: str) -> dict[str, int]:
    """A "flat keyed" file: `key value` lines."""
    words = text.split()
    try:
        return dict(zip(words[::2], map(int, words[1::2]), strict=True))
    except ValueError:  # a value that is no number: only the others count
        pass
    pairs = (line.partition(" ") for line in text.splitlines())
    return {key: int(value) for key, _, value in pairs if value.lstrip("-").isdecimal()}


def write(path: str, value: str) -> None:
    write_each(path, [value])


def write_each(path: str, values: Iterable[str]) -> None:
    """Write values to a file, each with a write of its own, as cgroup files want them."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for value in values:
            os.write(fd, value.encode())
    finally:
        os.close(fd)


def make(mount: str, directory: str) -> bool:
    """Make a cgroup directory and those above it; False if it was there."""
    try:
        os.mkdir(directory, 0o755)
    except FileExistsError:
        return False
    except FileNotFoundError:
        parent = os.path.dirname(directory)
        if len(parent) <= len(mount):
            raise
        make(mount, parent)
        return make(mount, directory)
    return True


def _ancestors(path: str) -> list[str]:
    """`/a/b` -> ["", "/a"]: what is above a cgroup, from the hierarchy's root."""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def fill_cpuset(mount: str, path: str) -> None:
    """Give v1 `cpuset` directories their parent's CPUs and memory nodes: with empty ones a join fails (ENOSPC).

    `cgroup.clone_children` on the parent makes the kernel do it, so that this has nothing to do for the next container.
    """
    if read(f"{mount}{path}/cpuset.cpus").strip() and read(f"{mount}{path}/cpuset.mems").strip():
        return
    levels = [*_ancestors(path), path]
    for above, level in itertools.pairwise(levels):
        for file in ("cpuset.cpus", "cpuset.mems"):
            if not read(f"{mount}{level}/{file}").strip():
                write(f"{mount}{level}/{file}", read(f"{mount}{above}/{file}"))
        if level != path:
            write(f"{mount}{level}/cgroup.clone_children", "1")


def delegate(mount: str, path: str, controllers: Iterable[str]) -> None:
    """Hand v2 controllers down to `path` through `cgroup.subtree_control` of everything above it.

    A controller that a level cannot hand on is left out: what then lacks its file says so when it is written.
    Raises OSError (EBUSY) where a cgroup above has processes of its own, which v2 does not let hand anything on.
    """
    for level in _ancestors(path):
        available = read(f"{mount}{level}/cgroup.controllers").split()
        enabled = read(f"{mount}{level}/cgroup.subtree_control").split()
        missing = [name for name in controllers if name in available and name not in enabled]
        if missing and not _enable(f"{mount}{level}", missing):
            # Where the mount shows a cgroup that is not the true root (Pier in a container), its processes make way
            # into a child, `init`, as Docker's own `dind` script does.
            if not level:
                _move_processes(mount, f"{mount}/init")
            if level or not _enable(mount, missing):
                reason = f"{level or mount} above it has processes of its own, so cgroup v2 lets it hand nothing down"
                raise OSError(errno.EBUSY, reason)


def _enable(directory: str, controllers: list[str]) -> bool:
    """Enable controllers for a v2 directory's children; False when its own processes are in the way.

    All in one write: one by one, those that can divide threads (cpu, cpuset, pids) would be let in beside processes,
    and make of the cgroup a "threaded" one, in which memory and io cannot be enabled any more (cgroup-v2.rst).
    """
    file = f"{directory}/cgroup.subtree_control"
    each = [f"+{name}" for name in controllers]
    together = " ".join(each)
    for words in (together, *each):
        try:
            write(file, words)
        except OSError as error:
            if error.errno in {errno.EBUSY, errno.EOPNOTSUPP} and read(f"{directory}/cgroup.procs"):
                return False
            if error.errno not in {errno.EBUSY, errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP}:
                raise
        else:
            if words == together:
                break
    return True


def _move_processes(source: str, destination: str) -> None:
    make(source, destination)
    for pid in read(f"{source}/cgroup.procs").split():
        try:
            write(f"{destination}/cgroup.procs", pid)
        except ProcessLookupError:
            continue


def remove(directory: str) -> bool:
    """Try to remove a cgroup and those below it; False while a process is in one."""
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in {errno.EBUSY, errno.ENOTEMPTY}:
            raise
    else:
        return True
    children = _children(directory)
    return bool(children) and all(map(remove, children)) and remove(directory)


def _children(directory: str) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def pids_below(directory: str) -> Iterator[int]:
    yield from map(int, read(f"{directory}/cgroup.procs").split())
    for child in _children(directory):
        yield from pids_below(child)


def kill(pid: int) -> None:
    # 0 is a process outside this pid namespace: not ours to kill, and kill(0) would be our own group.
    if pid > 0:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return


def waits(timeout_s: float) -> Iterator[None]:
    """One turn at once, then one after each of growing waits, until `timeout_s` is over."""
    deadline = time.monotonic() + timeout_s
    wait_s = _SHORTEST_WAIT_S
    yield
    while time.monotonic() < deadline:
        time.sleep(wait_s)
        wait_s = min(wait_s * 2, _LONGEST_WAIT_S)
        yield
