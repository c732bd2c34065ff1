"""Mounts that a start makes ahead and hands over: trees of images, volumes that are no plain folder, and /dev/shm of a
container whose IPC is shared.

They are attached nowhere, reached through a descriptor of this process for as long as the start takes, and moved to
their place by the container's first process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from concurrent.futures import ThreadPoolExecutor

from pier.containers import volume_mounts
from pier.containers.inherited import mounts_of
from pier.containers.record import Record
from pier.containers.spec_mounts import UserMount
from pier.containers.world import Container, World
from pier.errors import Conflict, InvalidParameter, NotImplementedYet
from pier.kernel import mounts, namespaces, paths
from pier.oci.digest import Digest

SHM = "/dev/shm"  # noqa: S108 - the containers'


class ShmNotShared(Conflict):
    """failed to join IPC namespace: container {id}: {reason}"""


class SubpathMissing(InvalidParameter):
    """cannot access path {subpath} of image {image}: {reason}"""


async def detached_mounts(
    world: World, record: Record, ipc_donor: Container | None, stack: contextlib.ExitStack
) -> tuple[str, dict[str, str]]:
    """(path of the donor's /dev/shm or "", target -> path of a detached mount); there as long as `stack` is open.

    Raises ShmNotShared, SubpathMissing, LayerNotFound, MountFailed, OSError.
    """
    images = [mount for mount in mounts_of(record) if mount.type == "image"]
    volumes = await volume_mounts.ready(world, record, stack)
    if world.config.oci_runtimes.command(record.oci_runtime) and (images or ipc_donor or volumes):
        raise NotImplementedYet(
            what="an image mount, a part of a volume, a volume with a file system of its own, or another's IPC "
            f"namespace, with the runtime {record.oci_runtime}"
        )
    shm = ""
    if ipc_donor is not None:
        shm = keep(await asyncio.to_thread(donated_shm, ipc_donor), stack)
    ready = {target: path_of(fd) for target, fd in volumes.items()}
    for mount in images:
        ready[mount.target] = keep(await asyncio.to_thread(image_tree, world, mount), stack)
    return shm, ready


def keep(fd: int, stack: contextlib.ExitStack) -> str:
    """The path of a descriptor of this process, closed with `stack`."""
    stack.callback(os.close, fd)
    return path_of(fd)


def path_of(fd: int) -> str:
    """The path of a descriptor of this process, for as long as it is open."""
    return f"/proc/{os.getpid()}/fd/{fd}"


def image_tree(world: World, mount: UserMount) -> int:
    """A detached mount of what an image mount shows. Blocking. Raises SubpathMissing, LayerNotFound, OSError."""
    layers = [Digest(layer) for layer in mount.layers]
    try:
        return world.snapshots.layer_mount(layers, mount.subpath)
    except (FileNotFoundError, NotADirectoryError) as error:
        reason = (error.strerror or "").lower()
        raise SubpathMissing(subpath=mount.subpath, image=mount.source, reason=reason) from error


def donated_shm(donor: Container) -> int:
    """A copy of the mount at a running container's /dev/shm. Blocking. Raises ShmNotShared."""
    monitor = donor.monitor
    if monitor is None:
        raise ShmNotShared(id=donor.id, reason="it is not running")
    with contextlib.ExitStack() as stack:
        try:
            opened = (
                os.open(f"/proc/{monitor.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC),
                os.open(namespaces.namespace_path(monitor.pid, "mount"), os.O_RDONLY | os.O_CLOEXEC),
            )
            for fd in opened:
                stack.callback(os.close, fd)
            root, mount_namespace = opened
            place = stack.enter_context(paths.closing(paths.open_in_root(root, SHM, os.O_PATH | os.O_DIRECTORY)))
            if paths.fs_magic(place) != paths.TMPFS_MAGIC:
                raise ShmNotShared(id=donor.id, reason=f"its {SHM} is no tmpfs")
            with ThreadPoolExecutor(1, thread_name_prefix="shm") as aside:
                return aside.submit(_copy_within, mount_namespace, place).result()
        except OSError as error:
            raise ShmNotShared(id=donor.id, reason=(error.strerror or "").lower()) from error


def _copy_within(mount_namespace: int, place: int) -> int:
    """In a thread of its own, which ends with it: only within its namespace may a mount be copied (open_tree(2)).

    Nothing is looked up by a path in there: both ends are descriptors.
    """
    namespaces.unshare(namespaces.CLONE_FS)
    namespaces.setns(mount_namespace, namespaces.CLONE_NEWNS)
    return mounts.open_tree(place, "", clone=True)
