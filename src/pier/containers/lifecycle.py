"""The life of a container after it was made: start, end, restart by policy, stop, kill, rename.

Whoever changes a container's state holds its lock, and holds it no longer than the change takes: nobody waits for a
program to end while holding it. The end is settled in one place, by the task that watches the run (`watch`).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any

from pier.containers import names, neighbours, restart, signals, volume_mounts
from pier.containers.discard import discard
from pier.containers.freezer import thaw
from pier.containers.membership import renamed
from pier.containers.networking import disconnect
from pier.containers.record import mark_ended, mark_started
from pier.containers.start import CannotStart, launch
from pier.containers.waiters import wake
from pier.containers.world import Container, World, finish, log
from pier.errors import Conflict, InvalidParameter, NotFound, PierError
from pier.networks import Sandbox
from pier.runtime.client import Monitor, MonitorError, MonitorLost
from pier.runtime.request import ExitRecord

KILL_TIMEOUT_S = 10.0
"""How long a container may take to end after SIGKILL before its owner is told that it does not."""


class CannotKill(Conflict):
    """cannot kill container: {ref}: container {id} is not running"""


class CannotKillMissing(NotFound):
    """cannot kill container: {ref}: {reason}"""


class CannotKillWith(InvalidParameter):
    """cannot kill container: {ref}: {reason}"""


class SameName(InvalidParameter):
    """Renaming a container with the same name as its current name"""


class NameAllocationFailed(Conflict):
    """Error when allocating new name: {reason}"""


class InvalidNewName(InvalidParameter):
    """Error when allocating new name: {reason}"""


class WouldNotEnd(PierError):
    """container {id} did not end {seconds:.0f} s after SIGKILL"""

    remedy = "a process in it is stuck in the kernel; see its cgroup for the pids"


# --- start and end ---------------------------------------------------------------------------------------------------


async def start(world: World, container: Container) -> bool:
    """Start a container; False: it runs already. Raises Conflict, StartFailed and what `launch` raises."""
    async with container.lock:
        status = container.record.state.status
        match status:
            case "running" | "restarting":
                return False
            case "paused":
                raise CannotStart(reason="cannot start a paused container, try unpause instead")
            case "removing" | "dead":
                raise CannotStart(reason="container is marked for removal and cannot be started")
        container.record.stopped_by_user = container.called_off = False
        container.record.restart_count = 0
        container.failures = 0
        # A client that goes away in the middle must not leave a program that nobody watches.
        await finish(_launch_and_watch(world, container))
        return True


async def _launch_and_watch(world: World, container: Container) -> None:
    try:
        monitor = await launch(world, container)
    except Exception:
        wake(container, container.record.state.exit_code, conditions=("next-exit",))
        if container.record.host_config.auto_remove:
            await discard(world, container)
        raise
    adopt(world, container, monitor)
    neighbours.tell(world, container, (world.networks.sandbox(container.id) or Sandbox()).endpoints)
    world.publish(container, "start")


def adopt(world: World, container: Container, monitor: Monitor) -> None:
    """Watch over a run from now on."""
    container.monitor = monitor
    container.exited = asyncio.get_running_loop().create_future()
    container.wake_restart.clear()
    monitor.on_oom = lambda: _oom(world, container)
    if monitor.ooms and not container.record.state.oom_killed:
        _oom(world, container)
    world.tasks.start(watch(world, container, monitor), f"container {container.id[:12]}")
    world.health.sync(container)


def _oom(world: World, container: Container) -> None:
    """The kernel has killed one of its processes for want of memory."""
    container.record.state.oom_killed = True
    world.publish(container, "oom")
    world.tasks.start(_save_running(world, container), f"oom of {container.id[:12]}")


async def _save_running(world: World, container: Container) -> None:
    """For a change that came by itself; whoever settles the end writes the record as well, or has deleted it."""
    async with container.lock:
        if container.running and container.id in world.containers:
            await world.save(container)


async def watch(world: World, container: Container, monitor: Monitor) -> None:
    """Wait for the end of a run, settle it, and start the next where the policy says so."""
    ended = await monitor.wait()
    again = await settle(world, container, ended)
    monitor.close()
    if again:
        await _restart_later(world, container)


async def settle(world: World, container: Container, ended: ExitRecord) -> bool:
    """Bring record, network and waiters in line with the end of a run; True: it is to be started again.

    A container to be removed on exit is not written once more before: its record and its exit file say enough for
    recovery to finish the removal.
    """
    async with container.lock:
        record = container.record
        container.monitor = None
        finished_at_ns = ended.finished_at_ns or time.time_ns()
        ran_ns = max(0, finished_at_ns - record.state.started_at_ns)
        again = container.restart_by_policy and _should_restart(world, container, ended.exit_code)
        oom_killed = ended.oom_killed or record.state.oom_killed
        mark_ended(record.state, exit_code=ended.exit_code, at_ns=finished_at_ns, oom_killed=oom_killed)
        world.health.sync(container)
        await disconnect(world, container)
        await volume_mounts.release(world, container)
        world.publish(container, "die", exitCode=str(ended.exit_code), execDuration=str(ran_ns // 1_000_000_000))
        log.debug("container %s ended after %d ms: %s, again: %s", container.id[:12], ran_ns // 10**6, ended, again)
        if again:
            container.failures = restart.next_failures(container.failures, ran_ns)
            record.state.status = "restarting"
        try:
            if record.host_config.auto_remove and container.restart_by_policy:
                await discard(world, container)
            else:
                await world.save(container)
        finally:
            wake(container, ended.exit_code, conditions=("next-exit",))
            if container.exited is not None and not container.exited.done():
                container.exited.set_result(ended)
        return again


def _should_restart(world: World, container: Container, exit_code: int) -> bool:
    record = container.record
    return not world.closing and restart.should_restart(
        record.host_config.restart_policy,
        exit_code=exit_code,
        restarts=record.restart_count,
        stopped_by_user=record.stopped_by_user,
        called_off=container.called_off,
    )


async def _restart_later(world: World, container: Container) -> None:
    """Start again by policy, after a pause that grows while runs stay short; a stop in between ends it."""
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(restart.delay_s(container.failures)):
                await container.wake_restart.wait()
        async with container.lock:
            record = container.record
            if record.state.status != "restarting":
                return
            record.restart_count += 1
            try:
                monitor = await launch(world, container)
            except Exception as error:
                log.warning("restart of container %s failed: %s", container.id[:12], error)
                code = record.state.exit_code
                if not _should_restart(world, container, code):
                    return
                record.state.status = "restarting"
                container.failures += 1
                continue
            adopt(world, container, monitor)
            world.publish(container, "start")
            return


# --- stop, kill ------------------------------------------------------------------------------------------------------


async def stop(world: World, container: Container, *, signal_text: str = "", timeout_s: int | None = None) -> bool:
    """Ask the program to end, and end it after the timeout; False: it was not running. Raises InvalidSignal."""
    record = container.record
    number = signals.stop_signal(record.config, signal_text)
    patience_s = signals.stop_timeout_s(record.config, timeout_s)
    await change_over(container)
    if not container.running:
        return False
    await forget_restart(world, container)
    if container.monitor is not None:
        await send_signal(world, container, number)
        if await thaw(world, container):
            world.publish(container, "unpause")
        if not await ended_within(container, patience_s):
            await end_now(world, container)
    world.publish(container, "stop")
    return True


async def change_over(container: Container) -> None:
    """Wait until a change that is going on, such as a start, is done."""
    async with container.lock:
        pass


async def forget_restart(world: World, container: Container) -> None:
    """The user wants it stopped: no policy starts it again, and one that waits to be started is not."""
    container.record.stopped_by_user = container.called_off = True
    if container.record.state.status == "restarting":
        async with container.lock:
            if container.record.state.status == "restarting":
                container.record.state.status = "exited"
                await world.save(container)
        container.wake_restart.set()


async def end_now(world: World, container: Container) -> None:
    """SIGKILL, and wait for the end. Raises WouldNotEnd."""
    await send_signal(world, container, signal.SIGKILL)
    await thaw(world, container)  # after it, so that what was paused runs no step further
    if not await ended_within(container, KILL_TIMEOUT_S):
        raise WouldNotEnd(id=container.id, seconds=KILL_TIMEOUT_S)


async def send_signal(world: World, container: Container, number: int) -> None:
    """Send a signal to the first process; one that has just ended is no error."""
    if container.monitor is None:
        return
    with contextlib.suppress(MonitorLost, MonitorError):
        await container.monitor.signal(number)
        world.publish(container, "kill", signal=str(number))


async def ended_within(container: Container, seconds: float | None) -> bool:
    """Wait for the end of the present run; None: for ever."""
    exited = container.exited
    if exited is None:
        return True
    try:
        async with asyncio.timeout(seconds):
            await asyncio.shield(exited)
    except TimeoutError:
        return False
    return True


async def kill(world: World, ref: str, signal_text: str) -> None:
    """Send a signal. Raises CannotKill and its kin, worded as Docker's API does."""
    try:
        container = world.find(ref)
        number = signals.to_send(signal_text) if signal_text else int(signal.SIGKILL)
    except NotFound as error:
        raise CannotKillMissing(ref=ref, reason=error.message) from error
    except InvalidParameter as error:
        raise CannotKillWith(ref=ref, reason=error.message) from error
    if container.record.state.status == "restarting":
        await forget_restart(world, container)
        return
    if container.monitor is None:
        raise CannotKill(ref=ref, id=container.id)
    container.record.stopped_by_user = True
    if number == signal.SIGKILL or signals.wakes(container.record.config, number):
        container.called_off = True
    try:
        await container.monitor.signal(number)
    except (MonitorLost, MonitorError) as error:
        raise CannotKill(ref=ref, id=container.id) from error
    world.publish(container, "kill", signal=str(number))
    world.tasks.start(_save_running(world, container), f"kill of {container.id[:12]}")
    if number == signal.SIGKILL:
        await thaw(world, container)
        await ended_within(container, KILL_TIMEOUT_S)
    elif signals.wakes(container.record.config, number) and await thaw(world, container):
        world.publish(container, "unpause")


async def restart_container(
    world: World, container: Container, *, signal_text: str = "", timeout_s: int | None = None
) -> None:
    """Stop if it runs, then start; a container that removes itself on exit is kept."""
    container.restart_by_policy = False
    try:
        await stop(world, container, signal_text=signal_text, timeout_s=timeout_s)
        await change_over(container)
    finally:
        container.restart_by_policy = True
    await start(world, container)
    world.publish(container, "restart")


HEALTH_ACTIONS: dict[str, Callable[[World, Container], Coroutine[Any, Any, object]]] = {
    "restart": restart_container,
    "stop": stop,
    "kill": end_now,
}
"""What `--health-on-failure` may ask for. A kill is not the user's: the restart policy goes on from there."""


# --- rename --------------------------------------------------------------------------------------------------


async def rename(world: World, container: Container, name: str) -> None:
    """Give a container another name. Raises InvalidNewName, SameName, NameAllocationFailed."""
    if not name:
        raise InvalidParameter("Neither old nor new names may be empty")
    try:
        new = names.check_name(name)
    except names.InvalidName as error:
        shown = f"/{name[: names.MAX_NAME].lstrip('/')}"
        raise InvalidNewName(reason=names.InvalidName(name=shown).message) from error
    async with container.lock:
        old = container.record.name
        if new == old:
            raise SameName
        try:
            world.take_name(new, container.id)
        except names.NameInUse as error:
            raise NameAllocationFailed(reason=error.message) from error
        container.record.name = new
        try:
            await world.save(container)
        except BaseException:
            container.record.name = old
            del world.names[new]
            raise
        del world.names[old]
        await renamed(world, container)
    world.publish(container, "rename", oldName=f"/{old}")


def mark_reconnected(container: Container, monitor: Monitor) -> None:
    """A monitor that outlived the daemon was found again: what it says replaces what was written before the start."""
    state = container.record.state
    paused, oom_killed = state.status == "paused", state.oom_killed
    mark_started(state, pid=monitor.pid, at_ns=monitor.started_at_ns)
    state.oom_killed = oom_killed
    if paused:
        state.status = "paused"
