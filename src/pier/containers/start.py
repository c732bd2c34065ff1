"""Start a container: gather what the runtime must know, write the intent, make the network, run the program.

What was done is undone in reverse when a later step fails; the container is then what it was before, with the error and
Docker's exit code for it (127 not found, 126 not executable, 128 everything else) in its state.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterable
from typing import Any

from pier.containers import (
    cdi,
    etc_files,
    health,
    links,
    log_config,
    log_forwards,
    name_server,
    networking,
    own_annotations,
    spec,
    spec_foreign,
    spec_resources,
    spec_security,
    timezone,
    userns,
    volume_mounts,
)
from pier.containers.create import ensure_source
from pier.containers.detached import detached_mounts
from pier.containers.inherited import mounts_of
from pier.containers.joined import find_joined, pin
from pier.containers.record import Record, Status, mark_failed, mark_started
from pier.containers.world import Container, ContainersConfig, World
from pier.errors import Conflict
from pier.kernel.cgroups import Cgroup
from pier.networks import Sandbox
from pier.oci.digest import Digest
from pier.runtime.client import Monitor, MonitorError, MonitorLost, StartFailed
from pier.runtime.group import SCOPE_PREFIX, group_at
from pier.runtime.request import AttachEnd, LogFile, StartRequest

CANNOT_START = 128


class NotRunning(Conflict):
    """container {id} is not running"""


class Restarting(Conflict):
    """Container {id} is restarting, wait until the container is running"""


class CannotStart(Conflict):
    """{reason}"""


async def launch(world: World, container: Container) -> Monitor:
    """Run the container's program; the caller holds `container.lock` and watches the monitor.

    Raises StartFailed, what the network raises, OSError. The record is saved either way.
    """
    record = container.record
    before: Status = "created" if record.state.status == "created" else "exited"
    mark_started(record.state, pid=0, at_ns=time.time_ns())
    ends: list[AttachEnd] = []
    try:
        sandbox = await _both(world, container)
        with contextlib.ExitStack() as stack:
            request = await build_request(world, record, sandbox, stack)
            ends, container.pending = container.pending, []
            volume_mounts.announce(world, container)
            monitor = await world.runtime.launch(request, ends)
    except BaseException as error:
        await asyncio.shield(_give_up(world, container, error, before))
        raise
    finally:
        close_ends(ends)
    name_server.serve(world, container, monitor)
    mark_started(record.state, pid=monitor.pid, at_ns=monitor.started_at_ns)
    health.begin(record.state, health.check_of(record.config))
    await _attach_late(container, monitor)
    if any(link.id == record.id for other in world.containers.values() for link in other.record.links):
        await asyncio.to_thread(links.refresh, world, container)
    return monitor


async def _attach_late(container: Container, monitor: Monitor) -> None:
    """Hand over the clients that came while the program was being started."""
    late, container.pending = container.pending, []
    try:
        for end in late:
            with contextlib.suppress(MonitorLost, MonitorError):  # it has ended already: so does their stream
                await monitor.attach(end)
    finally:
        close_ends(late)


async def _both(world: World, container: Container) -> Sandbox:
    """Write the intent and join the networks, side by side: neither needs the other. The first error wins."""
    asks = networking.asks(world, container.record)
    saving = asyncio.ensure_future(world.save(container))
    connecting = asyncio.ensure_future(networking.connect(world, container, asks))
    results = await asyncio.gather(saving, connecting, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return connecting.result()


async def _give_up(world: World, container: Container, error: BaseException, before: Status) -> None:
    """Undo a start."""
    close_pending(container)
    code = error.exit_code if isinstance(error, StartFailed) else CANNOT_START
    mark_failed(container.record.state, exit_code=code, error=str(error), before=before)
    await volume_mounts.release(world, container)
    await networking.disconnect(world, container)
    await world.save(container)


async def build_request(world: World, record: Record, sandbox: Sandbox, stack: contextlib.ExitStack) -> StartRequest:
    """Everything the runtime needs to know, with the files it will find; some only while `stack` is open.

    Raises OSError, PierError.
    """
    config, host = record.config, record.host_config
    links.require_running(world, record)
    joined = find_joined(world, host)
    sharing = joined.get("network")
    if record.id_map is not None and joined:
        other = userns.shared_with(record, {kind: found.record for kind, found in joined.items()})
        joined["user"] = world.containers[other.id]
    namespaces = await pin(joined, stack)
    etc_owner = sharing.id if sharing else record.id
    log = await _log(world, record)
    texts = {} if sharing else _etc_texts(world, record, sandbox)
    root = await asyncio.to_thread(_make_ready, world, record, texts)
    zoneinfo = ""
    if own_annotations.timezone(host.annotations):
        zoneinfo = await asyncio.to_thread(_zone_data, world, record)
    shm, ready = await detached_mounts(world, record, joined.get("ipc"), stack)
    facts = spec.Facts(
        capabilities=spec_security.available_capabilities(),
        host_name=os.uname().nodename,
        cgroups_path=cgroups_path(world.config, record),
        etc={name: world.config.etc_file(etc_owner, name) for name in etc_files.NAMES},
        joined=namespaces,
        joined_hostname=sharing.record.config.hostname if sharing else "",
        devices=await asyncio.to_thread(spec_resources.host_devices) if host.privileged else (),
        default_ulimits=world.config.default_ulimits,
        no_new_privileges=world.config.no_new_privileges,
        zoneinfo=zoneinfo,
        linked=links.environment(world, record),
        shm=shm,
        ready=ready,
    )
    command = world.config.oci_runtimes.command(record.oci_runtime)
    runtime_spec = spec.runtime_spec(record, facts)
    edits: list[cdi.Edits] = []
    if names := cdi.wanted(host):
        edits = await asyncio.to_thread(cdi.edits_for, names, world.config.cdi_spec_dirs)
        runtime_spec = cdi.inject(runtime_spec, edits, foreign=bool(command))
    bounding = runtime_spec["process"]["capabilities"]["bounding"]
    filter_path = None
    if command:
        profile = await world.seccomp.profile_for(record, bounding)
        init = spec_foreign.find_init(record.oci_runtime) if host.init else ""
        runtime_spec = spec_foreign.adapt(runtime_spec, seccomp=profile, init=init)
    else:
        filter_path = await world.seccomp.path_for(record, bounding)
    return StartRequest(
        id=record.id,
        spec=runtime_spec,
        root=root,
        exec_dir=world.config.exec_dir(record.id),
        exit_file=world.config.exit_file(record.id),
        user=config.user,
        group_add=[*(host.group_add or ()), *cdi.groups(edits)],
        open_stdin=config.open_stdin,
        stdin_once=config.stdin_once,
        log=log,
        interfaces=sandbox.interfaces,
        resolver=sandbox.finds_names,
        seccomp_bpf=filter_path,
        init=bool(host.init) and not command,
        oci_runtime=command,
        requested=spec.requested(host),
    )


async def _log(world: World, record: Record) -> LogFile | None:
    folder = world.config.container_dir(record.id)
    if record.host_config.log_config.type not in log_forwards.FORWARDS:
        return log_config.log_file(record, folder)
    return await asyncio.to_thread(log_config.monitor_log, record, folder)


def cgroups_path(config: ContainersConfig, record: Record) -> str:
    """`/<parent>/<id>`, or `<slice>:pier:<id>` where systemd keeps the cgroups: for `group_at`."""
    parent = record.host_config.cgroup_parent or config.cgroup_parent
    if config.systemd_cgroups:
        return f"{parent}:{SCOPE_PREFIX}:{record.id}"
    return f"/{parent.strip('/')}/{record.id}"


def cgroup_of(world: World, container: Container) -> Cgroup:
    """A running container's cgroup: its monitor knows, whatever the driver and the parent are by now."""
    monitor = container.monitor
    place = monitor.cgroup if monitor is not None else ""
    return group_at(world.config.cgroups, place or cgroups_path(world.config, container.record))


def _etc_texts(world: World, record: Record, sandbox: Sandbox) -> dict[str, str]:
    resolv, hosts = world.host_texts()
    linked = links.hosts_entries(world, record)
    return etc_files.contents(
        record,
        sandbox,
        world.config,
        host_resolv=resolv,
        host_hosts=hosts,
        linked=linked,
        host_gateway=world.networks.host_gateway(),
    )


def _make_ready(world: World, record: Record, texts: dict[str, str]) -> Any:
    """The files of one run; returns the root file system's layers. Blocking. Raises OSError, InvalidMount."""
    config = world.config
    for mount in mounts_of(record):
        if mount.type == "bind":
            ensure_source(mount, record.id_map)
    os.makedirs(config.exec_dir(record.id), mode=0o700, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(config.exit_file(record.id))
    owner = record.id_map.root if record.id_map is not None else None
    etc_files.write(config.container_dir(record.id), texts, owner)
    return world.snapshots.root(record.id, [Digest(layer) for layer in record.layers])


def _zone_data(world: World, record: Record) -> str:
    with world.snapshots.view(record.id, [Digest(layer) for layer in record.layers]) as tree:
        return timezone.missing_data(record.host_config, tree)


def close_pending(container: Container) -> None:
    """Turn away the clients that wait for a start: their streams end."""
    ends, container.pending = container.pending, []
    close_ends(ends)


def close_ends(ends: Iterable[AttachEnd]) -> None:
    """Let go of the daemon's copies of the clients' ends."""
    for end in ends:
        os.close(end.fd)
