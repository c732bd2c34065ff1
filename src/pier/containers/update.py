"""`docker update`: change limits and restart policy of a container, in its record and, where it runs, in its cgroup."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pier.containers import validate
from pier.containers.create import memory_nodes, online_cpus
from pier.containers.fields import HOST_CONFIG, Warned, is_set, wire_name
from pier.containers.publish import Ports, Selector, changed_ports, parse_selector
from pier.containers.publish import plan as plan_ports
from pier.containers.spec_resources import resources
from pier.containers.start import cgroup_of
from pier.containers.world import Container, World, finish
from pier.errors import Conflict, InvalidParameter, PierError
from pier.kernel.cgroups import BadResources, lost, plan
from pier.model.container import ContainerUpdateRequest, ContainerUpdateResponse
from pier.model.host_config import HostConfig, Resources
from pier.model.network import PortMap

GROUPS: tuple[tuple[str, ...], ...] = (
    ("memory", "memory_swap"),
    ("memory_reservation",),
    ("cpu_shares",),
    ("nano_cpus", "cpu_period", "cpu_quota"),
    ("cpu_realtime_period", "cpu_realtime_runtime"),
    ("cpuset_cpus",),
    ("cpuset_mems",),
    ("blkio_weight",),
    ("pids_limit",),
)
"""What an update changes. Attributes in one group are written together, since the kernel takes them together."""

CHANGEABLE = frozenset(name for group in GROUPS for name in group)


class CannotUpdate(Conflict):
    """Cannot update container {id}: {reason}"""


class UpdateRefused(PierError):
    """Cannot update container {id}: {reason}"""


async def update(world: World, ref: str, asked: ContainerUpdateRequest) -> ContainerUpdateResponse:
    """Change what was asked for, all or nothing.

    Raises InvalidParameter, NotFound, CannotUpdate, UpdateRefused; for ports what a start raises, and PortNotPublished.
    """
    warnings = unchangeable(asked)
    selectors = [parse_selector(text) for text in asked.publish_rm or ()]
    validate.check_ports(HostConfig(port_bindings=asked.publish_add))
    warnings += validate.check_update(
        as_host_config(asked), cpus=os.cpu_count() or 1, cpuset=online_cpus(), nodes=memory_nodes()
    )
    container = world.find(ref)
    async with container.lock:
        if container.record.state.status in ("removing", "dead"):
            raise CannotUpdate(id=container.id, reason='container is marked for removal and cannot be "update"')
        before = container.record.host_config
        try:
            after = merge(before, asked)
            limits = limits_to_write(after, asked)
            plan(limits, world.config.cgroups)
        except (Conflict, BadResources) as error:
            raise CannotUpdate(id=container.id, reason=error.message) from error
        ports = None
        if asked.publish_add or selectors:
            ports = planned_ports(world, container, asked.publish_add or {}, selectors)
            after = msgspec.structs.replace(after, port_bindings=ports.bindings)
        warnings += await finish(_change(world, container, after, limits, ports))
    if world.cgroup_files:
        warnings += lost(limits, world.config.cgroups, world.cgroup_files)
    world.publish(container, "update")
    return ContainerUpdateResponse(warnings=warnings or None)


def unchangeable(asked: ContainerUpdateRequest) -> list[str]:
    """A warning for each field that an update leaves alone, where Docker says nothing."""
    warnings = []
    for name in Resources.__struct_fields__:
        if name not in CHANGEABLE and is_set(getattr(asked, name)):
            rule = HOST_CONFIG[name]
            stays = f"{wire_name(asked, name)} cannot be changed by an update and stays as it is."
            warnings.append(rule.text if isinstance(rule, Warned) else stays)
    return warnings


def as_host_config(asked: ContainerUpdateRequest) -> HostConfig:
    """The request in the shape that the checks of a create request take."""
    values = {name: getattr(asked, name) for name in (*CHANGEABLE, "memory_swappiness")}
    return HostConfig(**values, restart_policy=asked.restart_policy)


def is_asked(asked: ContainerUpdateRequest, name: str) -> bool:
    """Docker's zero values mean "as it is"; of the limit of processes, which may be lifted by 0, only null does."""
    value = getattr(asked, name)
    return value is not None if name == "pids_limit" else bool(value)


def merge(before: HostConfig, asked: ContainerUpdateRequest) -> HostConfig:
    """The configuration after an update. Raises Conflict where new and old do not go together. Pure."""
    for new, old, words in (
        ("nano_cpus", "cpu_period", "Nano CPUs cannot be updated as CPU Period has already been set"),
        ("nano_cpus", "cpu_quota", "Nano CPUs cannot be updated as CPU Quota has already been set"),
        ("cpu_period", "nano_cpus", "CPU Period cannot be updated as NanoCPUs has already been set"),
        ("cpu_quota", "nano_cpus", "CPU Quota cannot be updated as NanoCPUs has already been set"),
    ):
        if getattr(asked, new) > 0 and getattr(before, old) > 0:
            raise Conflict(f"Conflicting options: {words}")
    if asked.memory > before.memory_swap and asked.memory and not asked.memory_swap:
        raise Conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
    changes: dict[str, Any] = {name: getattr(asked, name) for name in CHANGEABLE if is_asked(asked, name)}
    if asked.pids_limit is not None:
        changes["pids_limit"] = max(asked.pids_limit, 0)
    if asked.restart_policy.name:
        if before.auto_remove and asked.restart_policy.name != "no":
            raise Conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")
        changes["restart_policy"] = asked.restart_policy
    return msgspec.structs.replace(before, **changes)


def limits_to_write(after: HostConfig, asked: ContainerUpdateRequest) -> dict[str, Any]:
    """OCI `linux.resources` of the groups that an update touches, without the device policy. Pure."""
    names = {name for group in GROUPS if any(is_asked(asked, name) for name in group) for name in group}
    found = resources(HostConfig(**{name: getattr(after, name) for name in names}), [])
    del found["devices"]
    if "pids_limit" in names and not after.pids_limit:
        found["pids"] = {"limit": -1}
    return found


def planned_ports(world: World, container: Container, add: PortMap, selectors: Sequence[Selector]) -> Ports:
    """What a change of ports comes to. Raises InvalidParameter, PortNotPublished, PortAlreadyAllocated."""
    record = container.record
    if record.host_config.network_mode.startswith("container:"):
        raise InvalidParameter("conflicting options: port publishing and the container type network mode")
    sandbox = world.networks.sandbox(record.id)
    forwards = sandbox.forwards if container.monitor is not None and sandbox is not None else None
    return plan_ports(record.name, record.host_config.port_bindings, add, selectors, forwards)


async def _change(
    world: World, container: Container, after: HostConfig, limits: Mapping[str, Any], ports: Ports | None
) -> list[str]:
    """Record first, then kernel; what the kernel refuses is taken out of the record again. Returns warnings.

    Raises UpdateRefused, and for ports what a start raises.
    """
    record = container.record
    before = record.host_config
    record.host_config = after
    try:
        await world.save(container)
        async with changed_ports(world, container, ports) as warnings:
            try:
                await _limit(world, container, limits)
            except (PierError, OSError) as error:
                raise UpdateRefused(id=container.id, reason=str(error)) from error
    except BaseException:
        record.host_config = before
        await world.save(container)
        raise
    return warnings


async def _limit(world: World, container: Container, limits: Mapping[str, Any]) -> None:
    if limits and container.monitor is not None and container.record.state.pid:
        if container.monitor.foreign:
            await container.monitor.update(limits)
        else:
            await asyncio.to_thread(cgroup_of(world, container).update, limits)
