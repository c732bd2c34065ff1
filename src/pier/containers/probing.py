"""Ask containers how they are: a task for each that has a health check and runs, through the exec path of its monitor.

A daemon that starts anew goes on asking with what was known before; a probe that its predecessor left is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any

from pier.containers import health
from pier.containers.exec import Execs
from pier.containers.health import OUTPUT_MAX, Check
from pier.containers.own_annotations import health_action
from pier.containers.unframed import Unframed
from pier.containers.world import Container, World, log
from pier.errors import PierError
from pier.model.container import HealthcheckResult
from pier.model.exec import ExecConfig
from pier.model.time import rfc3339_nano

CHUNK = 32 * 1024

Deed = Callable[[World, Container], Coroutine[Any, Any, object]]


class Probing:
    """The probes of all containers; `World.health` once the service is made."""

    def __init__(self, world: World, execs: Execs, actions: dict[str, Deed]) -> None:
        """`actions` does what `--health-on-failure` asks for, by its words but `none`."""
        self._world = world
        self._execs = execs
        self._actions = actions
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def sync(self, container: Container) -> None:
        """Ask a container that runs and has a check, and no other. Called after each change of its state."""
        check = health.check_of(container.record.config)
        if check is None:
            return
        runs = container.record.state.status == "running" and container.monitor is not None
        task = self._tasks.get(container.id)
        if runs and task is None:
            work = self._ask_on(container, check)
            self._tasks[container.id] = self._world.tasks.start(work, f"health of {container.id[:12]}")
        elif not runs and task is not None:
            del self._tasks[container.id]
            task.cancel()
            health.lapse(container.record.state)

    async def _ask_on(self, container: Container, check: Check) -> None:
        state = container.record.state
        while True:
            await asyncio.sleep(check.pause_ns(state, time.time_ns()) / health.NS)
            started_ns = time.time_ns()
            result = await self._ask(container, check)
            result.start, result.end = rfc3339_nano(started_ns), rfc3339_nano(time.time_ns())
            if self._tasks.get(container.id) is not asyncio.current_task():
                return  # told to stop while the answer came
            await self._enter(container, check, result, started_ns)

    async def _enter(self, container: Container, check: Check, result: HealthcheckResult, started_ns: int) -> None:
        state = container.record.state
        streak = state.health.failing_streak if state.health is not None else 0
        changed = health.take(state, check, result, started_ns=started_ns)
        assert state.health is not None
        if changed:
            self._world.publish(container, f"health_status: {state.health.status}")
        if changed or state.health.failing_streak != streak:
            async with container.lock:
                if container.running and container.id in self._world.containers:
                    await self._world.save(container)
        if changed and state.health.status == "unhealthy":
            action = health_action(container.record.host_config.annotations)
            if action in self._actions:
                log.warning("container %s is unhealthy: %s", container.record.name, action)
                # Not in this task, which the deed's first step ends.
                self._world.tasks.start(self._act(container, action), f"{action} of unhealthy {container.id[:12]}")

    async def _act(self, container: Container, action: str) -> None:
        try:
            await self._actions[action](self._world, container)
        except (PierError, OSError) as error:
            log.error("%s of unhealthy container %s failed: %s", action, container.record.name, error)

    async def _ask(self, container: Container, check: Check) -> HealthcheckResult:
        """One probe; its times are the caller's to fill in."""
        config = ExecConfig(attach_stdout=True, attach_stderr=True, cmd=list(check.command))
        try:
            id = await self._execs.create(container, config, probe=True)
        except (PierError, OSError) as error:
            return HealthcheckResult(exit_code=health.NO_ANSWER, output=str(error))
        output = Output()
        try:
            async with asyncio.timeout(check.timeout_ns / health.NS):
                code = await self._run(id, output)
        except TimeoutError:
            return HealthcheckResult(exit_code=health.NO_ANSWER, output=health.timeout_text(check, output.text()))
        except (PierError, OSError) as error:
            return HealthcheckResult(exit_code=health.NO_ANSWER, output=str(error))
        finally:
            await asyncio.shield(self._put_away(id))
        return HealthcheckResult(exit_code=code, output=output.text())

    async def _run(self, id: str, output: Output) -> int:
        attachment = await self._execs.start(id, detach=False, tty=False, console_size=None)
        assert attachment is not None
        loop = asyncio.get_running_loop()
        with attachment.sock as sock:
            while data := await loop.sock_recv(sock, CHUNK):
                output.feed(data)
        return await self._execs.ended(id)

    async def _put_away(self, id: str) -> None:
        """End a probe that still runs, and forget it: nobody inspects one."""
        with contextlib.suppress(PierError, OSError):
            await self._execs.signal(id, signal.SIGKILL)
        self._execs.forget(id)


class Output:
    """The beginning of a probe's output, taken out of Docker's frames; what exceeds the bound is read and dropped."""

    def __init__(self) -> None:
        self._unframed = Unframed()
        self._kept = bytearray()
        self._cut = False

    def feed(self, data: bytes) -> None:
        content = self._unframed.feed(data)
        room = OUTPUT_MAX - len(self._kept)
        self._kept += content[:room]
        self._cut = self._cut or len(content) > room

    def text(self) -> str:
        return health.output_text(bytes(self._kept), cut=self._cut)
