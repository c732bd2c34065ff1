"""Create a container: everything is checked and merged first, then its folders are made and its record is written."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time

from pier.containers import fields, links, names, networking, timezone, unwritable, userns, validate, volume_mounts
from pier.containers import merge as rules
from pier.containers.inherited import DonorMissing, resolve
from pier.containers.record import KIND, Record
from pier.containers.spec_mounts import InvalidMount, UserMount
from pier.containers.spec_resources import resources
from pier.containers.world import Container, Image, World
from pier.errors import InvalidParameter, NotFound
from pier.images.manifests import wire_descriptor, wire_platform
from pier.kernel.cgroups import lost
from pier.model.container import ContainerCreateRequest, ContainerCreateResponse
from pier.model.host_config import HostConfig
from pier.model.image import OCIDescriptor
from pier.oci.digest import Digest
from pier.oci.platform import Platform, host_platform, runnable_on
from pier.state import Delete
from pier.storage.ids import IdMap

FOLDER_MODE = 0o710
"""Other users may not even look: the log is in there (attack 23)."""


class WrongPlatform(NotFound):
    """image with reference {ref} was found but does not provide the specified platform ({wanted})"""


async def create(world: World, body: ContainerCreateRequest, *, name: str, platform: str) -> ContainerCreateResponse:
    """Make a container that can be started. Raises InvalidParameter, Conflict, NotFound, NotImplementedYet, OSError."""
    asked = rules.wanted_name(name)
    given, given_host = body.config(), body.host_config
    if not given.image:
        raise InvalidParameter("no image specified")
    fields.judge(given, given_host)
    image = await world.images.get(given.image, platform)
    warnings = check_platform(image, given.image, platform)
    config = rules.merge_config(given, image.config.config)
    path, args = rules.command(config)
    host = rules.fill_host_config(given_host, world.config, network_disabled=config.network_disabled)
    config.env = timezone.with_zone(config, host, given.env)
    warnings += fields.judge(config, given_host)
    systemd = world.config.systemd_cgroups
    warnings += validate.check(
        config, host, cpus=os.cpu_count() or 1, cpuset=online_cpus(), nodes=memory_nodes(), systemd=systemd
    )
    mounts = await resolve(world, config, host)
    mode = userns.parse_mode(host.userns_mode)
    if mode.kind == "auto" or (not mode.kind and world.config.id_map is not None):
        userns.check(host)
    else:
        userns.check_without(mounts)
    warnings += lost_limits(world, host)
    networks, of_networks = networking.prepare(world, body.networking_config, host)
    warnings += of_networks
    check_joined(world, host)
    linked = links.resolve(world, host)
    id = names.make_id()
    id_map = await userns.choose(world, id, mode)
    record = Record(
        id=id,
        name=asked or names.random_name(world.names),
        created_ns=time.time_ns(),
        image_id=str(image.id),
        layers=[str(layer) for layer in image.layers],
        image_manifest=manifest_descriptor(image),
        path=path,
        args=args,
        driver=world.snapshots.name,
        config=config,
        host_config=host,
        networks=networks,
        mounts=mounts,
        links=linked,
        id_map=id_map,
        oci_runtime=host.runtime,
    )
    name_host(record, os.uname().nodename)
    try:
        world.take_name(record.name, id)
    except names.NameInUse:
        world.id_maps.pop(id, None)
        raise
    container = Container(record)
    warnings += await _make(world, image, container)
    world.publish(container, "create")
    return ContainerCreateResponse(id=id, warnings=warnings)


async def _make(world: World, image: Image, container: Container) -> list[str]:
    """Make what it has on the disk, and its volumes, and write all of it down; returns warnings.

    Whatever fails, nothing is left of it, and its name is free again.
    """
    record = container.record
    claim = None
    try:
        host, mounts = record.host_config, record.mounts or []
        claim, record.mounts = await volume_mounts.claim(world, host, mounts, record.id_map)
        await asyncio.to_thread(make_folders, world, image, record, record.mounts)
        await volume_mounts.populate(world, record, list(image.layers))
        shown = volume_mounts.folders(world, record.mounts)
        warnings = await asyncio.to_thread(_unwritable, world, record, shown) if shown else []
        await world.store.write(record.put(), *claim.changes)
    except BaseException:
        del world.names[record.name]
        world.id_maps.pop(record.id, None)
        await asyncio.shield(asyncio.to_thread(remove_folders, world, record.id))
        with contextlib.suppress(Exception):
            await world.store.write(Delete(KIND, record.id))
        if claim is not None:
            await asyncio.shield(world.volumes.give_up(claim))
        raise
    world.containers[record.id] = container
    await asyncio.shield(world.volumes.settle(claim))
    return warnings


def manifest_descriptor(image: Image) -> OCIDescriptor:
    """The manifest a container is made from, with the platform that its configuration says."""
    described = wire_descriptor(image.manifest)
    described.platform = wire_platform(image.config.platform)
    return described


def check_platform(image: Image, ref: str, asked: str) -> list[str]:
    """Warn of an image for another machine; refuse one that is not what was asked for. Raises WrongPlatform."""
    of_image = image.config.platform
    if asked:
        wanted = Platform.parse(asked)
        if not any(of_image.matches(runs) for runs in runnable_on(wanted)):
            raise WrongPlatform(ref=ref, wanted=str(wanted))
        return []
    host = host_platform()
    if any(of_image.matches(runs) for runs in runnable_on(host)) or of_image.architecture == host.architecture:
        return []
    return [
        f"The requested image's platform ({of_image}) does not match the detected host platform ({host}) and no "
        "specific platform was requested"
    ]


def check_joined(world: World, host: HostConfig) -> None:
    """Containers whose pid or IPC namespace is joined must be there already. Raises DonorMissing.

    One whose network is joined may come later: a start that does not find it says so, as with Docker.
    """
    for mode in (host.pid_mode, host.ipc_mode):
        if mode.startswith("container:"):
            try:
                world.find(mode.partition(":")[2])
            except NotFound as error:  # not 404: Docker's client would go and pull the image
                raise DonorMissing(reason=error.message) from error
    if host.network_mode.startswith("container:"):
        # Kept by id, as Docker does: a rename must not break the tie.
        with contextlib.suppress(NotFound):
            host.network_mode = f"container:{world.find(host.network_mode.partition(':')[2]).id}"


def name_host(record: Record, host_name: str) -> None:
    """Fill in the host name that the container sees."""
    config, host = record.config, record.host_config
    if host.network_mode.startswith("container:") or config.hostname:
        return
    shares = host.uts_mode == "host" or host.network_mode == "host"
    config.hostname = host_name if shares else record.id[:12]


def lost_limits(world: World, host: HostConfig) -> list[str]:
    """Docker's warnings for limits that this kernel cannot set."""
    if not world.cgroup_files:
        return []
    limits = resources(host, [])
    del limits["devices"]
    return lost(limits, world.config.cgroups, world.cgroup_files)


def online_cpus() -> str:
    """The CPUs that cpusets may use, as the kernel lists them (`0-3`)."""
    return _online("cpu") or f"0-{(os.cpu_count() or 1) - 1}"


def memory_nodes() -> str:
    """The memory nodes that cpusets may use; `0` on a kernel without NUMA."""
    return _online("node") or "0"


def _online(kind: str) -> str:
    try:
        with open(f"/sys/devices/system/{kind}/online", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def make_folders(world: World, image: Image, record: Record, mounts: list[UserMount]) -> None:
    """The container's folder, its writable layer, and the sources of bind mounts that are to be made. Blocking.

    Raises InvalidMount for a missing source, InvalidIdMap, OSError.
    """
    for mount in mounts:
        mount.oci(record.id_map)
        if mount.type == "bind":
            ensure_source(mount, record.id_map)
    folder = world.config.container_dir(record.id)
    os.makedirs(folder, mode=FOLDER_MODE)
    size_bytes = validate.root_size_bytes(record.host_config)
    world.snapshots.prepare(record.id, list(image.layers), size_bytes, record.id_map)


def _unwritable(world: World, record: Record, mounts: list[UserMount]) -> list[str]:
    """Warnings of what the container's user cannot write to. Blocking."""
    root = world.snapshots.root(record.id, [Digest(layer) for layer in record.layers])
    return unwritable.warnings(record, mounts, root, world.config.container_dir(record.id))


def ensure_source(mount: UserMount, id_map: IdMap | None) -> None:
    """Make the missing source of a `-v`, the container's root's. Raises InvalidMount where it must be there."""
    if os.path.lexists(mount.source):
        return
    if not mount.create_source:
        raise InvalidMount(type="bind", reason=f"bind source path does not exist: {mount.source}")
    try:
        made = missing_folders(mount.source)
        os.makedirs(mount.source, exist_ok=True)
        if id_map is not None and mount.ids is None:
            for path in made:
                os.chown(path, *id_map.root, follow_symlinks=False)
    except OSError as error:
        raise InvalidMount(
            type="bind",
            reason=f"error while creating mount source path '{mount.source}': {(error.strerror or '').lower()}",
        ) from error


def missing_folders(path: str) -> list[str]:
    """What of an absolute path is not there yet, the uppermost first."""
    missing: list[str] = []
    while not os.path.lexists(path):
        missing.insert(0, path)
        path = os.path.dirname(path)
    return missing


def remove_folders(world: World, id: str) -> None:
    """Take away what `make_folders` made, however much of it there is. Blocking."""
    world.snapshots.remove(id)
    for folder in (world.config.exec_dir(id), world.config.container_dir(id)):
        shutil.rmtree(folder, ignore_errors=True)
        if os.path.exists(folder):  # a log has just been compressed there
            shutil.rmtree(folder, ignore_errors=True)
