"""The runtime alone: a request to the zygote until the program has exited, against runc and crun on the same bundle.

All isolation is on for all of them: namespaces (mount, pid, uts, ipc, network, cgroup), limits in every hierarchy,
devices, masked and read-only paths, capabilities, Docker's default seccomp profile. What differs: runc and crun find
their root file system mounted and compile the filter anew; Pier mounts its overlay, keeps a monitor, writes the log,
the exit file, and has the filter compiled.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from engines import CHECKOUT, Engine
from samples import Row, Target, in_turn

sys.path.append(str(CHECKOUT / "src"))
from pier.containers.seccomp_cache import BUILTIN, make_filter
from pier.containers.spec_mounts import default_mounts
from pier.containers.spec_security import MASKED_PATHS, READONLY_PATHS, capability_sets
from pier.oci import seccomp_default
from pier.runtime.client import Runtime
from pier.runtime.request import LogFile, OverlayRoot, StartRequest

CAPABILITIES = [
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT "
        "KILL AUDIT_WRITE"
    ).split()
]
NAMESPACES = ("mount", "pid", "uts", "ipc", "network", "cgroup")
STANDARD_MOUNTS = default_mounts(shm_size=64 * 1024 * 1024, privileged=False, ipc_mode="private")
IN_BOX = "/box"
TIMER = """
import subprocess, sys, time
began = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
print((time.perf_counter() - began) * 1000)
"""
"""Runs in the box, so that the way into it is not counted."""


def measure(engines: list[Engine], rounds: int, archive: Path) -> list[Row]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pier-bench-", dir="/var/tmp")))
        deeds: dict[str, Callable[[], float | None]] = {"pier": stack.enter_context(_zygote(folder, archive))}
        for engine in engines:
            if engine.box is not None and engine.socket is not None:
                shared = stack.enter_context(bundle_in(Path(engine.socket).parent, archive, ["true"]))
                deeds |= {name: _oci_runtime(engine.box, name, shared) for name in ("runc", "crun")}
        columns = in_turn(deeds, rounds)
    return [
        Row(
            "runtime alone: start until the program has exited",
            "ms",
            columns,
            Target("at most a third of runc's", 1 / 3, of="runc"),
        )
    ]


def spec(cgroup: str, args: list[str]) -> dict[str, Any]:
    """The OCI configuration of a container as Docker's defaults make it."""
    return {
        "ociVersion": "1.2.0",
        "process": {
            "args": args,
            "env": ["PATH=/bin"],
            "cwd": "/",
            "user": {"uid": 0, "gid": 0},
            "capabilities": capability_sets(CAPABILITIES),
        },
        "root": {"path": "rootfs"},
        "hostname": "bench",
        "mounts": STANDARD_MOUNTS,
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [{"type": kind} for kind in NAMESPACES],
            "resources": {
                "devices": [{"allow": False, "access": "rwm"}],
                "memory": {"limit": 256 * 1024 * 1024},
                "cpu": {"shares": 512, "quota": 50000, "period": 100000},
                "pids": {"limit": 100},
            },
            "maskedPaths": list(MASKED_PATHS),
            "readonlyPaths": list(READONLY_PATHS),
        },
    }


@contextlib.contextmanager
def _zygote(folder: Path, archive: Path) -> Iterator[Callable[[], None]]:
    root = unpack(archive, folder / "rootfs")
    bpf = make_filter(str(folder / "seccomp"), BUILTIN, CAPABILITIES)
    loop = asyncio.new_event_loop()
    runtime = Runtime(standard_mounts=STANDARD_MOUNTS)
    loop.run_until_complete(runtime.start())

    def run() -> None:
        loop.run_until_complete(_run_once(runtime, folder, root, bpf))

    try:
        yield run
    finally:
        loop.run_until_complete(runtime.close())
        loop.close()


async def _run_once(runtime: Runtime, folder: Path, root: Path, bpf: str | None) -> None:
    monitor = await runtime.launch(request(folder, root, bpf, ["true"]))
    record = await monitor.wait()
    if record.exit_code:
        raise RuntimeError(f"the program ended with {record.exit_code}")


def request(folder: Path, root: Path, bpf: str | None, args: list[str]) -> StartRequest:
    """A container of its own below `folder`."""
    name = os.urandom(32).hex()
    base = folder / name
    for part in ("upper", "work", "run"):
        (base / part).mkdir(parents=True)
    return StartRequest(
        id=name,
        spec=spec(f"/pier-bench/{name}", args),
        root=OverlayRoot([str(root)], str(base / "upper"), str(base / "work")),
        exec_dir=str(base / "run"),
        exit_file=str(base / "exit.json"),
        log=LogFile(str(base / "json.log")),
        seccomp_bpf=bpf,
    )


@contextlib.contextmanager
def bundle_in(run: Path, archive: Path, args: list[str]) -> Iterator[str]:
    """The same container as a bundle in the folder that the box shares with this machine; its path in the box."""
    bundle = run / "pier-bench-bundle"
    unpack(archive, bundle / "rootfs")
    config = spec("/pier-bench-bundle", args)
    config["linux"]["seccomp"] = seccomp_default.resolve(seccomp_default.default_profile(), CAPABILITIES)
    (bundle / "config.json").write_text(json.dumps(config))
    try:
        yield f"{IN_BOX}/{bundle.name}"
    finally:
        shutil.rmtree(bundle, ignore_errors=True)


def _oci_runtime(box: Path, runtime: str, bundle: str) -> Callable[[], float]:
    argv = in_box(box, runtime, f'exec python3 -c "$0" {runtime} run --bundle {bundle} pier-bench-{runtime}', TIMER)

    def run() -> float:
        return timed(argv)

    return run


def in_box(box: Path, runtime: str, script: str, *args: str) -> list[str | Path]:
    """The command line that runs a script in the box; `args` are its $0, $1, …"""
    # crun 1.8 and later refuse a cgroup2 mount beside v1 ones: it is hidden from it.
    hide = "umount /sys/fs/cgroup/unified 2>/dev/null; " if runtime == "crun" else ""
    return [box, "run", "unshare", "--mount", "sh", "-c", hide + script, *args]


def timed(argv: list[str | Path]) -> float:
    """What TIMER has measured. Raises RuntimeError."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return float(done.stdout.split()[-1])


def unpack(archive: Path, target: Path) -> Path:
    target.mkdir(parents=True)
    subprocess.run(["tar", "-C", target, "-xf", archive], check=True)
    return target
