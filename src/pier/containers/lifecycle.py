"""The life of a container after it was made: start, end, restart by policy, stop, kill, rename, remove, wait.

Whoever changes a container's state holds its lock, and holds it no longer than the change takes: nobody waits for a
program to end while holding it. The end is settled in one place, by the task that watches the run (`watch`).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable

from pier.containers import names, restart, signals
from pier.containers.create import remove_folders
from pier.containers.record import KIND, mark_ended, mark_started
from pier.containers.start import CannotStart, NotRunning, cgroups_path, close_pending, disconnect, launch
from pier.containers.world import Container, World, log
from pier.errors import Conflict, InvalidParameter, NotFound, NotImplementedYet, PierError
from pier.kernel.cgroups import Cgroup
from pier.model.container import ContainerWaitResponse
from pier.runtime.client import Monitor, MonitorError, MonitorLost
from pier.runtime.request import ExitRecord
from pier.state import Delete

KILL_TIMEOUT_S = 10.0
"""How long a container may take to end after SIGKILL before its owner is told that it does not."""
WAIT_CONDITIONS = ("not-running", "next-exit", "removed")


class CannotKill(Conflict):
    """cannot kill container: {ref}: container {id} is not running"""


class CannotKillMissing(NotFound):
    """cannot kill container: {ref}: {reason}"""


class CannotKillWith(InvalidParameter):
    """cannot kill container: {ref}: {reason}"""


class CannotRemove(Conflict):
    """cannot remove container "{ref}": container is {state}: {remedy_text}"""


class RemovalInProgress(Conflict):
    """removal of container {id} is already in progress"""


class SameName(InvalidParameter):
    """Renaming a container with the same name as its current name"""


class NameAllocationFailed(Conflict):
    """Error when allocating new name: {reason}"""


class WouldNotEnd(PierError):
    """container {id} did not end {seconds:.0f} s after SIGKILL"""

    remedy = "a process in it is stuck in the kernel; see its cgroup for the pids"


class AlreadyPaused(Conflict):
    """Container {id} is already paused"""


class NotPaused(Conflict):
    """Container {id} is not paused"""


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
        container.record.stopped_by_user = False
        container.record.restart_count = 0
        container.failures = 0
        # A client that goes away in the middle must not leave a program that nobody watches.
        work = asyncio.ensure_future(_launch_and_watch(world, container))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            raise
        return True


async def _launch_and_watch(world: World, container: Container) -> None:
    try:
        monitor = await launch(world, container)
    except Exception:
        _wake(container, container.record.state.exit_code, conditions=("next-exit",))
        if container.record.host_config.auto_remove:
            await discard(world, container)
        raise
    adopt(world, container, monitor)
    world.publish(container, "start")


def adopt(world: World, container: Container, monitor: Monitor) -> None:
    """Watch over a run from now on."""
    container.monitor = monitor
    container.exited = asyncio.get_running_loop().create_future()
    container.wake_restart.clear()
    world.tasks.start(watch(world, container, monitor), f"container {container.id[:12]}")


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
        policy = record.host_config.restart_policy
        again = container.restart_by_policy and restart.should_restart(
            policy,
            exit_code=ended.exit_code,
            restarts=record.restart_count,
            stopped_by_user=record.stopped_by_user,
        )
        mark_ended(record.state, exit_code=ended.exit_code, at_ns=finished_at_ns, oom_killed=ended.oom_killed)
        await disconnect(world, container)
        if ended.oom_killed:
            world.publish(container, "oom")
        world.publish(container, "die", exitCode=str(ended.exit_code), execDuration=str(ran_ns // 1_000_000_000))
        if again:
            container.failures = restart.next_failures(container.failures, ran_ns)
            record.state.status = "restarting"
        try:
            if record.host_config.auto_remove and container.restart_by_policy:
                await discard(world, container)
            else:
                await world.save(container)
        finally:
            _wake(container, ended.exit_code, conditions=("next-exit",))
            if container.exited is not None and not container.exited.done():
                container.exited.set_result(ended)
        return again


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
                policy = record.host_config.restart_policy
                if not restart.should_restart(
                    policy, exit_code=code, restarts=record.restart_count, stopped_by_user=record.stopped_by_user
                ):
                    return
                record.state.status = "restarting"
                container.failures += 1
                continue
            adopt(world, container, monitor)
            world.publish(container, "start")
            return


def _wake(container: Container, exit_code: int, *, conditions: tuple[str, ...]) -> None:
    """Tell those who wait for one of the conditions."""
    kept = []
    for condition, future in container.waiters:
        if condition in conditions:
            if not future.done():
                future.set_result(exit_code)
        else:
            kept.append((condition, future))
    container.waiters = kept


# --- stop, kill, pause -----------------------------------------------------------------------------------------------


async def stop(world: World, container: Container, *, signal_text: str = "", timeout_s: int | None = None) -> bool:
    """Ask the program to end, and end it after the timeout; False: it was not running. Raises InvalidSignal."""
    record = container.record
    number = signals.stop_signal(record.config, signal_text)
    patience_s = signals.stop_timeout_s(record.config, timeout_s)
    await _change_over(container)
    if not container.running:
        return False
    await _forget_restart(world, container)
    if container.monitor is not None:
        await thaw(world, container)
        await _signal(world, container, number)
        if not await _ended_within(container, patience_s):
            await end_now(world, container)
    world.publish(container, "stop")
    return True


async def _change_over(container: Container) -> None:
    """Wait until a change that is going on, such as a start, is done."""
    async with container.lock:
        pass


async def _forget_restart(world: World, container: Container) -> None:
    """The user wants it stopped: no policy starts it again, and one that waits to be started is not."""
    container.record.stopped_by_user = True
    if container.record.state.status == "restarting":
        async with container.lock:
            if container.record.state.status == "restarting":
                container.record.state.status = "exited"
                await world.save(container)
        container.wake_restart.set()


async def end_now(world: World, container: Container) -> None:
    """SIGKILL, and wait for the end. Raises WouldNotEnd."""
    await thaw(world, container)
    await _signal(world, container, signal.SIGKILL)
    if not await _ended_within(container, KILL_TIMEOUT_S):
        raise WouldNotEnd(id=container.id, seconds=KILL_TIMEOUT_S)


async def _signal(world: World, container: Container, number: int) -> None:
    """Send a signal to the first process; one that has just ended is no error."""
    if container.monitor is None:
        return
    with contextlib.suppress(MonitorLost, MonitorError):
        await container.monitor.signal(number)
        world.publish(container, "kill", signal=str(number))


async def _ended_within(container: Container, seconds: float | None) -> bool:
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
        number = signals.parse(signal_text) if signal_text else int(signal.SIGKILL)
    except NotFound as error:
        raise CannotKillMissing(ref=ref, reason=error.message) from error
    except InvalidParameter as error:
        raise CannotKillWith(ref=ref, reason=error.message) from error
    if container.record.state.status == "restarting":
        await _forget_restart(world, container)
        return
    if container.monitor is None:
        raise CannotKill(ref=ref, id=container.id)
    if number in (signal.SIGKILL, signals.stop_signal(container.record.config)):
        container.record.stopped_by_user = True
    try:
        await container.monitor.signal(number)
    except (MonitorLost, MonitorError) as error:
        raise CannotKill(ref=ref, id=container.id) from error
    world.publish(container, "kill", signal=str(number))
    if number == signal.SIGKILL:
        await thaw(world, container)
        await _ended_within(container, KILL_TIMEOUT_S)


async def restart_container(
    world: World, container: Container, *, signal_text: str = "", timeout_s: int | None = None
) -> None:
    """Stop if it runs, then start; a container that removes itself on exit is kept."""
    container.restart_by_policy = False
    try:
        await stop(world, container, signal_text=signal_text, timeout_s=timeout_s)
        await _change_over(container)
    finally:
        container.restart_by_policy = True
    await start(world, container)
    world.publish(container, "restart")


def _cgroup(world: World, container: Container) -> Cgroup:
    return Cgroup(world.config.cgroups, cgroups_path(world, container.record))


async def pause(world: World, container: Container) -> None:
    """Freeze every process of a running container. Raises NotRunning, AlreadyPaused, OSError."""
    async with container.lock:
        state = container.record.state
        if state.status == "paused":
            raise AlreadyPaused(id=container.id)
        if state.status != "running" or container.monitor is None:
            raise NotRunning(id=container.id)
        await asyncio.to_thread(_cgroup(world, container).freeze)
        state.status = "paused"
        await world.save(container)
    world.publish(container, "pause")


async def unpause(world: World, container: Container) -> None:
    """Let a paused container go on. Raises NotRunning, NotPaused, OSError."""
    if not container.running:
        raise NotRunning(id=container.id)
    if container.record.state.status != "paused":
        raise NotPaused(id=container.id)
    await thaw(world, container)


async def thaw(world: World, container: Container) -> None:
    """Unpause if it is paused: a frozen process takes no signal."""
    async with container.lock:
        state = container.record.state
        if state.status != "paused":
            return
        await asyncio.to_thread(_cgroup(world, container).thaw)
        state.status = "running"
        await world.save(container)
    world.publish(container, "unpause")


# --- rename, remove, wait --------------------------------------------------------------------------------------------


async def rename(world: World, container: Container, name: str) -> None:
    """Give a container another name. Raises InvalidName, SameName, NameAllocationFailed."""
    if not name:
        raise InvalidParameter("Neither old nor new names may be empty")
    new = names.check_name(name)
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
    world.publish(container, "rename", oldName=f"/{old}")


async def remove(world: World, ref: str, *, force: bool, link: bool = False) -> None:
    """Remove a container and everything it has. Raises CannotRemove, RemovalInProgress, NotFound, OSError."""
    if link:
        raise NotImplementedYet(what="the removal of a link (rm --link)")
    container = world.find(ref)
    await _change_over(container)
    if container.running:
        if not force:
            if container.record.state.status == "paused":
                raise CannotRemove(
                    ref=ref, state="paused and must be unpaused first", remedy_text="unpause it or force remove"
                )
            raise CannotRemove(
                ref=ref, state="running", remedy_text="stop the container before removing or force remove"
            )
        await _forget_restart(world, container)
        if container.monitor is not None:
            await end_now(world, container)
    async with container.lock:
        if container.id not in world.containers:  # it removed itself meanwhile
            return
        if container.record.state.status == "removing":
            raise RemovalInProgress(id=container.id)
        if container.running:
            raise CannotRemove(
                ref=ref, state="running", remedy_text="stop the container before removing or force remove"
            )
        container.record.state.status = "removing"
        await world.save(container)
        await discard(world, container)


async def discard(world: World, container: Container) -> None:
    """Delete a container that does not run: files, layer, record, name. The caller holds its lock. Raises OSError."""
    close_pending(container)
    await disconnect(world, container)
    try:
        await asyncio.to_thread(remove_folders, world, container.id)
    except OSError:
        container.record.state.status = "dead"
        await world.save(container)
        raise
    await world.store.write(Delete(KIND, container.id))
    world.containers.pop(container.id, None)
    if world.names.get(container.record.name) == container.id:
        del world.names[container.record.name]
    world.publish(container, "destroy")
    _wake(container, container.record.state.exit_code, conditions=WAIT_CONDITIONS)


def wait(world: World, ref: str, condition: str) -> Awaitable[ContainerWaitResponse]:
    """Wait for an end; registered at the call, so that none is missed before the result is awaited.

    Raises NoSuchContainer, InvalidParameter at the call.
    """
    container = world.find(ref)
    condition = condition or "not-running"
    if condition not in WAIT_CONDITIONS:
        raise InvalidParameter(f'invalid condition: "{condition}"')
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    if condition == "not-running" and not container.running:
        future.set_result(container.record.state.exit_code)
    else:
        kind = "removed" if condition == "removed" else "next-exit"
        container.waiters.append((kind, future))
    return _answer(container, future)


async def _answer(container: Container, future: asyncio.Future[int]) -> ContainerWaitResponse:
    try:
        return ContainerWaitResponse(status_code=await future)
    finally:
        container.waiters = [item for item in container.waiters if item[1] is not future]


def mark_reconnected(container: Container, monitor: Monitor) -> None:
    """A monitor that outlived the daemon was found again: what it says replaces what was written before the start."""
    paused = container.record.state.status == "paused"
    mark_started(container.record.state, pid=monitor.pid, at_ns=monitor.started_at_ns)
    if paused:
        container.record.state.status = "paused"
