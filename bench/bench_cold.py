"""The runtimes from a shell: `run` and the verbs of a container's life on one bundle, a fresh process for each.

The bundle is `bench_runtime`'s, with Docker's default seccomp profile, and for one `run` without any: runc compiles it
each time. Nothing of Pier runs before or after: each verb pays the start of an interpreter.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from bench_runtime import CAPABILITIES, IN_BOX, spec
from engines import BIN, OWN, Engine
from samples import Row, Samples, Target

from pier.oci import seccomp_default

UNFILTERED = "run without a filter"
VERBS = ("run", UNFILTERED, "create", "start", "state", "list", "kill", "delete")
TARGETED = ("run", UNFILTERED, "create")
WARM_UP = 2
LIFE = """
import json, subprocess, sys, time
runtime, bundle, name = sys.argv[1:]
took = {}
def call(verb, *words, title="", stdout=subprocess.DEVNULL):
    began = time.perf_counter()
    done = subprocess.run([runtime, verb, *words], check=True, stdin=subprocess.DEVNULL, stdout=stdout)
    took.setdefault(title or verb, (time.perf_counter() - began) * 1000)
    return done.stdout
def wait():
    while json.loads(call("state", name, stdout=subprocess.PIPE))["status"] != "stopped":
        time.sleep(0.005)
call("run", "--bundle", bundle, name)
call("run", "--bundle", bundle + "/unfiltered", name, title="run without a filter")
call("create", "--bundle", bundle, name)
call("state", name)
call("list")
call("start", name)
wait()
call("delete", name)
call("create", "--bundle", bundle, name)
call("kill", name, "KILL")
wait()
call("delete", name)
print(json.dumps(took))
"""
"""One life; prints the milliseconds of each verb. Run in the box too, so that the way into it is not counted."""


def measure(engines: list[Engine], rounds: int, archive: Path) -> list[Row]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pier-bench-", dir="/var/tmp")))
        own = stack.enter_context(_bundle(folder / "bundle", archive))
        lives: dict[str, Callable[[], Mapping[str, float]]] = {
            "pier": lambda: _live([sys.executable, "-c", LIFE, str(BIN / "pier-runtime"), str(own), f"cold-{OWN}"])
        }
        for engine in engines:
            if engine.box is not None and engine.socket is not None:
                there = Path(engine.socket).parent / f"pier-bench-cold-{OWN}"
                shared = f"{IN_BOX}/{stack.enter_context(_bundle(there, archive)).name}"
                lives |= {name: _in_box(engine.box, name, shared) for name in ("runc", "crun")}
        columns = _in_turn(lives, rounds)
    target = Target("no slower than runc", 1.0, of="runc")
    return [
        # The other verbs do less than it takes to start an interpreter.
        Row(f"runtime from the shell: {verb}", "ms", columns[verb], target if verb in TARGETED else None)
        for verb in VERBS
    ]


def _in_turn(lives: Mapping[str, Callable[[], Mapping[str, float]]], rounds: int) -> dict[str, dict[str, Samples]]:
    columns = {verb: {name: Samples() for name in lives} for verb in VERBS}
    for number in range(rounds + WARM_UP):
        for name, live in lives.items():
            took = live()
            for verb in VERBS:
                if number >= WARM_UP:
                    columns[verb][name].values.append(took[verb])
    return columns


@contextlib.contextmanager
def _bundle(folder: Path, archive: Path) -> Iterator[Path]:
    (folder / "rootfs").mkdir(parents=True)
    subprocess.run(["tar", "-C", folder / "rootfs", "-xf", archive], check=True)
    config = spec(f"/{folder.name}", ["true"])
    config["linux"]["seccomp"] = seccomp_default.resolve(seccomp_default.default_profile(), CAPABILITIES)
    (folder / "config.json").write_text(json.dumps(config))
    del config["linux"]["seccomp"]
    config["root"]["path"] = "../rootfs"
    (folder / "unfiltered").mkdir()
    (folder / "unfiltered" / "config.json").write_text(json.dumps(config))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _live(argv: list[str]) -> Mapping[str, float]:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    took: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return took


def _in_box(box: Path, runtime: str, bundle: str) -> Callable[[], Mapping[str, float]]:
    # crun 1.8 and later refuse a cgroup2 mount beside v1 ones: it is hidden from it.
    hide = "umount /sys/fs/cgroup/unified 2>/dev/null; " if runtime == "crun" else ""
    script = f'{hide}exec python3 -c "$0" {runtime} {bundle} cold-{runtime}-{OWN}'
    return lambda: _live([str(box), "run", "unshare", "--mount", "sh", "-c", script, LIFE])
