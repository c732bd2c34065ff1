"""Put records, monitors, cgroups, networks and folders in line after a daemon's end, however it ended.

Containers go on while no daemon runs. At the next start each record that says `running` is held against the world: its
monitor is found again, or its exit file tells how it ended, or nothing is left of it and what it had is freed. Every
repair is a sentence for the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Iterable

import msgspec

from pier.containers import links, membership, name_server, restart, volume_mounts
from pier.containers.discard import discard
from pier.containers.lifecycle import adopt, mark_reconnected, start
from pier.containers.record import KIND, Record, mark_ended
from pier.containers.start import cgroups_path
from pier.containers.world import Container, ContainersConfig, World, log
from pier.errors import PierError
from pier.runtime.client import clear_lost
from pier.runtime.group import SCOPE_PREFIX, group_at
from pier.runtime.monitor.foreign import runtime_of
from pier.runtime.request import ExitRecord
from pier.runtime.systemd.units import expand_slice
from pier.state import Delete

LOST = 137
"""The exit code of a container of which nothing is left: as if it had been killed."""


async def recover(world: World, was_running: set[str]) -> list[str]:
    """Repair what `load` has loaded; returns what was repaired, one sentence each."""
    found = await asyncio.gather(*(repair(world, world.containers[id]) for id in was_running))
    repaired = [sentence for sentences in found for sentence in sentences]
    repaired += await finish_removals(world)
    repaired += await asyncio.to_thread(free_leftovers, world, set(world.containers))
    return repaired


async def load(world: World) -> list[str]:
    """Fill the memory from the database; a record that cannot be read is dropped, and said to be."""
    repaired = []
    for id, data in (await world.store.load(KIND)).items():
        try:
            record = Record.decode(data)
        except msgspec.MsgspecError as error:
            log.error("the record of container %s is damaged: %s", id[:12], error)
            await world.store.write(Delete(KIND, id))
            repaired.append(f"container {id[:12]}: its record was damaged and is dropped")
            continue
        container = Container(record)
        world.containers[id] = container
        world.names[record.name] = id
        if record.id_map is not None:
            world.id_maps[id] = record.id_map
    return repaired


async def repair(world: World, container: Container) -> list[str]:
    """One container that was running when the last daemon knew of it."""
    record = container.record
    monitor = await world.runtime.reconnect(world.config.exec_dir(record.id))
    if monitor is not None and monitor.id == record.id:
        before = msgspec.structs.replace(record.state)
        mark_reconnected(container, monitor)
        await volume_mounts.found_again(world, container, monitor.pid)
        adopt(world, container, monitor)
        if record.state != before:
            await world.save(container)
        name_server.serve(world, container, monitor)
        settled = await membership.settle(world, container)
        return [f"container {record.name}: found running again, pid {monitor.pid}", *settled]
    if record.state.status == "restarting":
        record.state.status = "exited"
        await world.save(container)
        return [f"container {record.name}: was waiting to be restarted"]
    ended = await asyncio.to_thread(read_exit_file, world.config.exit_file(record.id))
    return [await _settle_lost(world, container, ended)]


async def _settle_lost(world: World, container: Container, ended: ExitRecord | None) -> str:
    """A run that ended while no daemon looked; without an exit file its monitor was killed, or the machine stopped."""
    record = container.record
    await asyncio.to_thread(_clean_cgroup, world, record)
    await _clean_runtime(world, record)
    with contextlib.suppress(PierError, OSError):
        await world.networks.release(record.id)
    ended = ended or ExitRecord(LOST, time.time_ns())
    oom_killed = ended.oom_killed or record.state.oom_killed
    mark_ended(record.state, exit_code=ended.exit_code, at_ns=ended.finished_at_ns, oom_killed=oom_killed)
    await world.save(container)
    return f"container {record.name}: ended while no daemon ran, exit code {ended.exit_code}"


def read_exit_file(path: str) -> ExitRecord | None:
    """How a container ended; None: its monitor could not say. Blocking."""
    try:
        with open(path, "rb") as file:
            return ExitRecord.from_json(file.read(4096))
    except (OSError, ValueError, TypeError):
        return None


def _clean_cgroup(world: World, record: Record) -> None:
    """Kill what is left of a container whose monitor is gone. Blocking."""
    cgroup = group_at(world.config.cgroups, cgroups_path(world.config, record))
    try:
        cgroup.kill()
        cgroup.remove()
    except (PierError, OSError) as error:
        log.warning("the cgroup of container %s cannot be removed: %s", record.id[:12], error)


async def _clean_runtime(world: World, record: Record) -> None:
    """Have another runtime forget what its monitor could not have it forget."""
    try:
        command = world.config.oci_runtimes.command(record.oci_runtime)
    except PierError as error:
        log.warning("what the runtime of container %s has left stays: %s", record.id[:12], error)
        return
    if command:
        await clear_lost(runtime_of(command, world.config.exec_dir(record.id), record.id))


async def finish_removals(world: World) -> list[str]:
    """Remove what was being removed, and what was to be removed on exit and has ended."""
    repaired = []
    for container in list(world.containers.values()):
        record = container.record
        status = record.state.status
        over = record.host_config.auto_remove and status == "exited"
        if not over and status not in ("removing", "dead"):
            continue
        try:
            async with container.lock:
                await discard(world, container)
        except (PierError, OSError) as error:
            log.error("container %s cannot be removed: %s", record.name, error)
            continue
        repaired.append(f"container {record.name}: its removal is finished")
    return repaired


def free_leftovers(world: World, known: set[str]) -> list[str]:
    """Folders, layers and cgroups that belong to no container. Blocking."""
    repaired = []
    config = world.config
    for top in (f"{config.data_root}/containers", f"{config.exec_root}/containers"):
        for id in _strangers(top, known):
            with contextlib.suppress(Exception):
                world.snapshots.remove(id)
            shutil.rmtree(f"{top}/{id}", ignore_errors=True)
            repaired.append(f"{top}/{id}: belonged to no container")
    for place in _cgroups_of_strangers(config, known):
        cgroup = group_at(config.cgroups, place)
        try:
            cgroup.kill()
            cgroup.remove()
        except (PierError, OSError) as error:
            log.warning("cgroup %s cannot be removed: %s", cgroup.path, error)
            continue
        repaired.append(f"cgroup {cgroup.path}: belonged to no container")
    return repaired


def _cgroups_of_strangers(config: ContainersConfig, known: set[str]) -> list[str]:
    """Below the daemon's own parent: a container with a parent of its own is known by its record alone."""
    parent, before, after = f"/{config.cgroup_parent.strip('/')}", "", ""
    if config.systemd_cgroups:
        parent, before, after = expand_slice(config.cgroup_parent), f"{SCOPE_PREFIX}-", ".scope"
    found = {id for mount in config.cgroups.hierarchies for id in _strangers(f"{mount}{parent}", known, before, after)}
    if config.systemd_cgroups:
        return [f"{config.cgroup_parent}:{SCOPE_PREFIX}:{id}" for id in sorted(found)]
    return [f"{parent}/{id}" for id in sorted(found)]


def _strangers(top: str, known: Iterable[str], before: str = "", after: str = "") -> list[str]:
    """What looks like a container's id and is none of the known, of names below a folder that begin and end so."""
    try:
        names = os.listdir(top)
    except OSError:
        return []
    names = [name[len(before) : len(name) - len(after)] for name in names if name.startswith(before)]
    return sorted(name for name in names if len(name) == 64 and name.isalnum() and name not in known)


async def start_those_that_should(world: World) -> None:
    """Start containers whose restart policy wants them up; one that fails is logged and does not stop the others."""
    for container in links.in_order(world, world.containers.values()):
        record = container.record
        if container.running or record.state.status == "created":
            continue
        if not restart.starts_with_daemon(record):
            continue
        try:
            await start(world, container)
        except (PierError, OSError) as error:
            log.error("container %s cannot be started again: %s", record.name, error)
