"""What a test session must not leave behind on the host, as one set of lines to compare before and after."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pier.kernel.nftables import Nftables, NftablesMissing

CGROUPS = Path("/sys/fs/cgroup")
SETTLE_S = float(os.environ.get("PIER_LEAK_SETTLE_S", "15"))
"""How long what dies in the background (namespaces, veths) may take."""


def snapshot() -> set[str]:
    """Everything of Pier's, or of the kind Pier makes, that is there now."""
    looks: tuple[Callable[[], Iterator[str]], ...] = (mounts, links, cgroups, namespaces, nft_tables, processes, files)
    return {line for look in looks for line in look()}


def mounts() -> Iterator[str]:
    """Mounts in this mount namespace: a container's root must never show here (T10)."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields = line.split()
            yield f"mount {fields[4]} ({fields[fields.index('-') + 1]})"


def links() -> Iterator[str]:
    """Network devices: bridges, and host ends of veth pairs."""
    for name in os.listdir("/sys/class/net"):
        yield f"network device {name}"


def cgroups() -> Iterator[str]:
    """Groups below a `pier…` group of any hierarchy; the parent itself may stay."""
    for hierarchy in {CGROUPS, *(path for path in CGROUPS.glob("*") if path.is_dir() and not path.is_symlink())}:
        for parent in hierarchy.glob("pier*"):
            for group, _, _ in os.walk(parent):
                if group != str(parent):
                    yield f"cgroup {group}"


def namespaces() -> Iterator[str]:
    """Namespaces that some process of Pier's is in, apart from our own."""
    own = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "mnt", "pid")}
    for pid in _pids():
        if not _is_piers(pid):
            continue
        for kind, ours in own.items():
            with contextlib.suppress(OSError):
                found = os.readlink(f"/proc/{pid}/ns/{kind}")
                if found != ours:
                    yield f"namespace {found} of pid {pid}"


def nft_tables() -> Iterator[str]:
    with contextlib.suppress(NftablesMissing):
        firewall = Nftables()
        try:
            for item in firewall.list("tables"):
                yield f"nft table {item['table']['family']} {item['table']['name']}"
        finally:
            firewall.close()


def processes() -> Iterator[str]:
    for pid in _pids():
        if _is_piers(pid):
            yield f"process {pid} {_command(pid)[:120]}"


def files() -> Iterator[str]:
    """What stands in the folders that Pier shares with other tests and daemons."""
    for folder in ("/run/pier/containers", "/dev/shm"):
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(folder):
                yield f"file {folder}/{name}"
    for path in Path("/var/tmp").glob("pier-*"):
        yield f"file {path}"


def leaks(before: set[str], settle_s: float = SETTLE_S) -> list[str]:
    """What is there now and was not before, once the background work of the kernel has had time to end."""
    deadline = time.monotonic() + settle_s
    while (left := snapshot() - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    return sorted(left)


def _pids() -> Iterator[int]:
    for name in os.listdir("/proc"):
        if name.isdecimal():
            yield int(name)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _is_piers(pid: int) -> bool:
    """Is it a daemon, zygote or monitor of Pier's?"""
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return False
    return name.startswith("pier")
