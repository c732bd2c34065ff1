"""Bundles of a busybox root, and `pier-runtime` run on them as its launcher runs it."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pier
from pier.runtime.command.filter_cache import FOLDER

from .conftest import CGROUP_PARENT, DEFAULT_CAPS, MOUNTS, NAMESPACES

sys.path.append(str(Path(__file__).resolve().parents[3] / "tools"))
from launchers import runtime_code

BOOT = runtime_code(str(Path(pier.__file__).resolve().parents[1]))
TIMEOUT_S = 30


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The one error, without time and quoting."""
        return self.err.partition('msg="')[2].rstrip().removesuffix('"').replace('\\"', '"')


@dataclass
class Bench:
    """A --root of its own, and one bundle."""

    folder: Path
    rootfs: Path
    spec: dict[str, Any] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    @property
    def root(self) -> Path:
        return self.folder / "state"

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle"

    def fresh_spec(self) -> dict[str, Any]:
        """A configuration that is right; `linux.cgroupsPath` is filled in for each container."""
        return copy.deepcopy(
            {
                "ociVersion": "1.2.1",
                "process": {
                    "args": ["true"],
                    "env": ["PATH=/bin"],
                    "cwd": "/",
                    "user": {"uid": 0, "gid": 0},
                    "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), DEFAULT_CAPS),
                },
                "root": {"path": str(self.rootfs)},
                "hostname": "bench",
                "mounts": MOUNTS,
                "linux": {"namespaces": [{"type": kind} for kind in NAMESPACES]},
            }
        )

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-IS", "-c", BOOT, "--root", str(self.root), *args]

    def call(self, *args: str, **options: Any) -> Result:
        """Run one command line; its output goes through files, which what stays behind may hold open."""
        out, err = self.folder / "out", self.folder / "err"
        with out.open("w") as stdout, err.open("w") as stderr:
            done = subprocess.run(
                self.command(*args),
                stdin=options.pop("stdin", subprocess.DEVNULL),
                stdout=stdout,
                stderr=stderr,
                timeout=TIMEOUT_S,
                check=False,
                **options,
            )
        return Result(done.returncode, out.read_text(errors="replace"), err.read_text(errors="replace"))

    def write(self, container_id: str) -> None:
        """Write config.json for one container."""
        self.bundle.mkdir(exist_ok=True)
        spec = copy.deepcopy(self.spec)
        if isinstance(spec.get("linux"), dict):
            spec["linux"].setdefault("cgroupsPath", f"{CGROUP_PARENT}/{container_id}")
        (self.bundle / "config.json").write_text(json.dumps(spec))
        self.used.add(container_id)

    def make(self, verb: str, container_id: str, *options: str, **more: Any) -> Result:
        """`create` or `run` with the present configuration."""
        self.write(container_id)
        return self.call(verb, "-b", str(self.bundle), *options, container_id, **more)

    def run(self, *args: str, **more: Any) -> Result:
        """Run a program to its end in a container of its own."""
        if args:
            self.spec["process"]["args"] = list(args)
        return self.make("run", f"c{os.urandom(4).hex()}", **more)

    def state(self, container_id: str) -> dict[str, Any]:
        result = self.call("state", container_id)
        assert result.code == 0, result.err
        document: dict[str, Any] = json.loads(result.out)
        return document

    def end(self) -> None:
        for container_id in self.used:
            self.call("delete", "--force", container_id)
        with contextlib.suppress(FileNotFoundError):
            assert [path.name for path in self.root.iterdir() if path.name != FOLDER] == []


def a_bench(folder: Path, rootfs: Path) -> Iterator[Bench]:
    rootfs.chmod(0o755)  # users other than root are in it too
    bench = Bench(folder, rootfs)
    bench.spec = bench.fresh_spec()
    yield bench
    bench.end()
