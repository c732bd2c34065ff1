"""`exec true` in a container that runs: through clients and daemons, and through the runtimes alone."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from api import Connection, hijack
from bench_run import void
from bench_runtime import CAPABILITIES, TIMER, bundle_in, in_box, request, timed, unpack
from engines import BIN, IMAGE, Engine
from samples import Row, Target, in_turn

from pier.containers.seccomp_cache import BUILTIN, make_filter
from pier.runtime.client import Monitor, Runtime
from pier.runtime.request import ExecRequest

SLEEP = ["sleep", "1000"]


def measure(engines: list[Engine], rounds: int, archive: Path) -> list[Row]:
    return [_through_api(engines, rounds), _through_daemons(engines, rounds), _alone(engines, rounds, archive)]


def _through_api(engines: list[Engine], rounds: int) -> Row:
    """Create, start with the streams to their end, and inspect for the exit code: what a client does, without one."""
    engines = [engine for engine in engines if engine.socket]
    containers = {engine.name: engine.docker("run", "-d", "--network", "none", IMAGE, *SLEEP) for engine in engines}
    try:
        with contextlib.ExitStack() as stack:
            deeds = {}
            for engine in engines:
                assert engine.socket is not None
                connection = stack.enter_context(contextlib.closing(Connection(engine.socket)))
                deeds[engine.name] = functools.partial(_exec, connection, engine.socket, containers[engine.name])
            columns = in_turn(deeds, rounds)
        target = Target("at most a fifth of docker", 0.2, "docker")
        return Row("exec of `true` through the API, with its streams", "ms", columns, target)
    finally:
        for engine in engines:
            engine.remove([containers[engine.name]])


def _exec(connection: Connection, path: str, container: str) -> None:
    body = {"Cmd": ["true"], "AttachStdout": True, "AttachStderr": True}
    made = connection.call("POST", f"/containers/{container}/exec", body)["Id"]
    hijack(path, f"/exec/{made}/start", {})
    code = connection.call("GET", f"/exec/{made}/json")["ExitCode"]
    if code != 0:
        raise RuntimeError(f"exec ended with {code}")


def _through_daemons(engines: list[Engine], rounds: int) -> Row:
    containers = {engine.name: engine.docker("run", "-d", "--network", "none", IMAGE, *SLEEP) for engine in engines}

    def deed(engine: Engine, client: str) -> Callable[[], None]:
        return lambda: void(engine.command(client, "exec", containers[engine.name], "true"))

    deeds = {engine.name: deed(engine, "docker") for engine in engines}
    deeds["pier, its own client"] = deed(engines[0], str(BIN / "pier"))
    try:
        return Row("`docker exec true`", "ms", in_turn(deeds, rounds))
    finally:
        for engine in engines:
            engine.remove([containers[engine.name]])


def _alone(engines: list[Engine], rounds: int, archive: Path) -> Row:
    """From the request to the monitor until it has told of the end; from the start of the other runtimes to theirs."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pier-bench-", dir="/var/tmp")))
        deeds: dict[str, Callable[[], float | None]] = {"pier": stack.enter_context(_monitor(folder, archive))}
        for engine in engines:
            if engine.box is not None and engine.socket is not None:
                shared = stack.enter_context(bundle_in(Path(engine.socket).parent, archive, SLEEP))
                for name in ("runc", "crun"):
                    deeds[name] = stack.enter_context(_oci_runtime(engine.box, name, shared))
        columns = in_turn(deeds, rounds)
    return Row("runtime alone: exec until the program has exited", "ms", columns, Target("at most 4 ms", 4))


@contextlib.contextmanager
def _monitor(folder: Path, archive: Path) -> Iterator[Callable[[], None]]:
    root = unpack(archive, folder / "rootfs")
    bpf = make_filter(str(folder / "seccomp"), BUILTIN, CAPABILITIES)
    wanted = request(folder, root, bpf, SLEEP)
    process = {**wanted.spec["process"], "args": ["true"]}
    with asyncio.Runner() as loop:
        runtime = Runtime()
        monitor = loop.run(runtime.launch(wanted))

        async def execute() -> None:
            one = ExecRequest(os.urandom(32).hex(), process, user="0", seccomp_bpf=bpf)
            await monitor.exec(one, None)
            await monitor.wait_exec(one.exec_id)

        try:
            yield lambda: loop.run(execute())
        finally:
            loop.run(_end(runtime, monitor))


async def _end(runtime: Runtime, monitor: Monitor) -> None:
    await monitor.signal(signal.SIGKILL)
    await monitor.wait()
    monitor.close()
    await runtime.close()


@contextlib.contextmanager
def _oci_runtime(box: Path, runtime: str, bundle: str) -> Iterator[Callable[[], float]]:
    name = f"pier-bench-exec-{runtime}"
    begin = f"exec {runtime} run --detach --bundle {bundle} {name} </dev/null >/dev/null 2>&1"
    subprocess.run(in_box(box, runtime, begin), check=True, timeout=60)
    argv = in_box(box, runtime, f'exec python3 -c "$0" {runtime} exec {name} true', TIMER)
    try:
        yield lambda: timed(argv)
    finally:
        subprocess.run(in_box(box, runtime, f"exec {runtime} delete --force {name}"), check=True, timeout=60)
