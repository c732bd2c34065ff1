"""Everything that is known of one container (`docker inspect`), as Docker 28 shows it."""

from __future__ import annotations

import asyncio

import msgspec

from pier.containers import links, networking
from pier.containers.inherited import mounts_of
from pier.containers.record import Record, State
from pier.containers.world import Container, World
from pier.errors import PierError
from pier.model.container import ContainerInspectResponse, ContainerState, MountPoint
from pier.model.image import DriverData
from pier.model.network import NetworkSettings
from pier.model.time import rfc3339_nano
from pier.oci.digest import Digest


async def inspect(world: World, container: Container, *, size: bool) -> ContainerInspectResponse:
    """The answer of GET /containers/{id}/json; `size` counts the writable layer, which takes time."""
    record = container.record
    config = world.config
    etc_owner = record.id
    if record.host_config.network_mode.startswith("container:"):
        etc_owner = record.host_config.network_mode.partition(":")[2]
    kept = config.log_file(record)
    answer = ContainerInspectResponse(
        id=record.id,
        created=rfc3339_nano(record.created_ns),
        path=record.path,
        args=record.args,
        state=state_of(record.state),
        image=record.image_id,
        image_manifest_descriptor=record.image_manifest,
        resolv_conf_path=config.etc_file(etc_owner, "resolv.conf"),
        hostname_path=config.etc_file(etc_owner, "hostname"),
        hosts_path=config.etc_file(etc_owner, "hosts"),
        log_path=kept.path if kept is not None and kept.driver == "json-file" else "",  # Docker hides local's too
        name=f"/{record.name}",
        restart_count=record.restart_count,
        driver=record.driver,
        exec_ids=sorted(container.execs) or None,
        host_config=msgspec.structs.replace(record.host_config, links=links.shown(world, record)),
        graph_driver=graph_driver(world, record),
        mounts=mount_points(record),
        config=record.config,
        network_settings=network_settings(world, record),
    )
    if size:
        written, lower = await asyncio.to_thread(sizes, world, record)
        answer.size_rw, answer.size_root_fs = written, written + lower
    return answer


def state_of(state: State) -> ContainerState:
    """Docker's booleans beside the status; a container that restarts counts as running."""
    return ContainerState(
        status=state.status,
        running=state.running,
        paused=state.status == "paused",
        restarting=state.status == "restarting",
        oom_killed=state.oom_killed,
        dead=state.status == "dead",
        pid=state.pid,
        exit_code=state.exit_code,
        error=state.error,
        started_at=rfc3339_nano(state.started_at_ns),
        finished_at=rfc3339_nano(state.finished_at_ns),
        health=state.health,
    )


def mount_points(record: Record) -> list[MountPoint]:
    """The mounts the user asked for; `--tmpfs` is not shown among them."""
    return [mount.point() for mount in mounts_of(record)]


def network_settings(world: World, record: Record) -> NetworkSettings:
    """The networks, and the default bridge's repeated for old clients."""
    sandbox = world.networks.sandbox(record.id)
    found = NetworkSettings(networks=networking.shown(world, record))
    if sandbox is None:
        found.mac_address = record.networks["bridge"].mac_address if "bridge" in record.networks else ""
        return found
    pid = record.state.pid
    found.ports = dict(sandbox.ports)
    found.sandbox_id = record.id
    found.sandbox_key = f"/proc/{pid}/ns/net" if pid else ""
    if (endpoint := sandbox.named("bridge")) is not None:
        found.endpoint_id = endpoint.endpoint_id
        found.gateway = endpoint.gateway
        found.ip_address = endpoint.ip
        found.ip_prefix_len = endpoint.prefix_len
        found.ipv6_gateway = endpoint.gateway6
        found.global_ipv6_address = endpoint.ip6
        found.global_ipv6_prefix_len = endpoint.prefix_len6
        found.mac_address = endpoint.mac
    return found


def graph_driver(world: World, record: Record) -> DriverData:
    """The folders of the root file system. There is no `MergedDir`: it is mounted in the container only."""
    try:
        data = world.snapshots.container_data(record.id, [Digest(layer) for layer in record.layers])
    except (PierError, OSError):  # a layer that is gone must not hide the rest
        return DriverData(name=record.driver, data=None)
    return DriverData(name=record.driver, data={"ID": record.id, **data})


def sizes(world: World, record: Record) -> tuple[int, int]:
    """Bytes of the writable layer, and of the layers below it. Blocking. Raises LayerNotFound, OSError."""
    layers = [Digest(layer) for layer in record.layers]
    return world.snapshots.usage(record.id, layers), sum(map(world.snapshots.layer_size, layers))
