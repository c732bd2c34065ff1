"""A container's files as its programs see them, volumes and bind mounts included, by descriptor.

Of a running container it is the root of its own mount namespace: what it sees is what is shown, its tmpfs too. The
files of one that does not run are put together as its start would, in a mount namespace that ends with the view; the
container's lock is held meanwhile, because two mounts over one writable layer do not know of each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass

from pier.containers import etc_files, mount_ids, volume_mounts
from pier.containers.create import ensure_source
from pier.containers.detached import image_tree, keep, path_of
from pier.containers.inherited import mounts_of
from pier.containers.record import Record
from pier.containers.spec_mounts import DETACHED
from pier.containers.world import Container, World, finish
from pier.errors import Conflict, NotFound
from pier.kernel import mounts
from pier.kernel.mount_roots import make_namespace, mount_id, root_of
from pier.kernel.namespaces import namespace_path
from pier.kernel.paths import closing, open_in_root
from pier.oci.digest import Digest
from pier.runtime.client import MonitorError, MonitorLost
from pier.runtime.process import rootfs
from pier.runtime.process.remap import mount_shifted
from pier.runtime.request import BindRoot, OverlayRoot
from pier.storage import idmapped
from pier.storage.ids import IdMap


class BeingRemoved(Conflict):
    """container {id} is being removed: its files cannot be reached"""


@dataclass(frozen=True, slots=True)
class FileView:
    """A container's tree. `root_fd` is an O_PATH descriptor, good as long as the view is open."""

    root_fd: int
    id_map: IdMap | None
    """The tree shows the host's ids; this is which the container has for them."""
    read_only_root: bool
    device_dev: int | None
    """`st_dev` of the container's own /dev, if that is mounted."""

    def on_root_mount(self, fd: int) -> bool:
        """Whether a descriptor of this tree is on its root's own mount."""
        return mount_id(fd) == mount_id(self.root_fd)


@contextlib.asynccontextmanager
async def file_view(world: World, container: Container) -> AsyncIterator[FileView]:
    """The container's files while the block runs. Raises BeingRemoved, NotFound, OSError."""
    if container.monitor is not None:
        async with _running(container) as view:
            if view is not None:
                yield view
                return
    async with container.lock:
        # It may have been started, or removed, while the lock was waited for.
        if container.monitor is not None:
            async with _running(container) as view:
                if view is not None:
                    yield view
                    return
        if container.id not in world.containers:
            raise NotFound(f"No such container: {container.id}")
        if container.record.state.status == "removing":
            raise BeingRemoved(id=container.id)
        with contextlib.ExitStack() as stack:
            try:
                with contextlib.ExitStack() as aside:
                    volumes = await volume_mounts.ready(world, container.record, aside)
                    root_fd = await finish(asyncio.to_thread(_assemble, world, container.record, volumes, stack))
                yield _view(root_fd, container.record)
            finally:
                await asyncio.shield(volume_mounts.release(world, container))


@contextlib.asynccontextmanager
async def _running(container: Container) -> AsyncIterator[FileView | None]:
    """The view of a running container; None: it has just ended."""
    with contextlib.ExitStack() as stack:
        monitor = container.monitor
        view = None
        if monitor is not None:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, MonitorError, MonitorLost):
                namespace = os.open(namespace_path(monitor.pid, "mount"), os.O_RDONLY | os.O_CLOEXEC)
                stack.callback(os.close, namespace)
                # Its monitor has not buried it: so the number was still its own when the file was opened.
                await monitor.signal(0)
                root_fd = await finish(asyncio.to_thread(_enter, namespace, stack))
                view = _view(root_fd, container.record)
        yield view


def _enter(namespace_fd: int, stack: contextlib.ExitStack) -> int:
    root_fd = root_of(namespace_fd)
    stack.callback(os.close, root_fd)
    return root_fd


def _view(root_fd: int, record: Record) -> FileView:
    device_dev = None
    with contextlib.suppress(OSError), closing(open_in_root(root_fd, "dev", os.O_PATH | os.O_NOFOLLOW)) as dev_fd:
        if mount_id(dev_fd) != mount_id(root_fd):
            device_dev = os.fstat(dev_fd).st_dev
    return FileView(root_fd, record.id_map, record.host_config.readonly_rootfs, device_dev)


def _assemble(world: World, record: Record, volumes: Mapping[str, int], stack: contextlib.ExitStack) -> int:
    """Mount what the start would, but for what the kernel fills: no proc, sysfs, /dev, and no tmpfs. Blocking.

    `volumes` has the detached mounts of those volumes that are no plain folder, by their targets.
    """
    root = world.snapshots.root(record.id, [Digest(layer) for layer in record.layers])
    with contextlib.ExitStack() as aside:
        operations = list(_binds(world, record, volumes, aside))
        user_fd = None
        if record.id_map is not None:
            user_fd = aside.enter_context(closing(idmapped.user_namespace(record.id_map)))
        root_fd, namespace_fd = make_namespace(lambda: _furnish(root, operations, user_fd))
    stack.callback(os.close, namespace_fd)
    stack.callback(os.close, root_fd)
    return root_fd


def _binds(
    world: World, record: Record, volumes: Mapping[str, int], stack: contextlib.ExitStack
) -> Iterator[rootfs.Operation]:
    host = record.host_config
    flags = ["rbind", *(["ro"] if host.readonly_rootfs else [])]
    for name in etc_files.NAMES:
        path = world.config.etc_file(record.id, name)
        if os.path.exists(path):
            yield rootfs.BindMount(path, f"/etc/{name}", rootfs.parse_options(flags))
    for mount in mounts_of(record):
        source, words = mount.source, list(mount.options)
        if mount.target in volumes:
            source = path_of(volumes[mount.target])
            words.append(DETACHED)
        elif mount.type in ("bind", "volume"):
            if mount.type == "bind":
                ensure_source(mount, record.id_map)
            if mount.ids is not None:
                on_disk = mount_ids.with_room_for_root(mount.ids.on_disk(record.id_map))
                shown = idmapped.shown(source, on_disk, recursive="rbind" in words)
                source = path_of(stack.enter_context(shown))
                words.append(DETACHED)
        elif mount.type == "image":
            source = keep(image_tree(world, mount), stack)
            words.append(DETACHED)
        else:
            continue
        yield rootfs.BindMount(source, mount.target, rootfs.parse_options(words))


def _furnish(root: OverlayRoot | BindRoot, operations: list[rootfs.Operation], user_fd: int | None) -> int:
    """In a mount namespace of this thread's own: an O_PATH descriptor of the container's root, with its mounts."""
    if user_fd is not None:
        mount_fd = mount_shifted(root, user_fd)
    elif isinstance(root, BindRoot):
        mount_fd = mounts.open_tree(mounts.AT_FDCWD, root.path, clone=True)
    else:
        mount_fd = mounts.mount_overlay(root.lower, root.upper, root.work, volatile=root.volatile)
    with closing(mount_fd), contextlib.ExitStack() as stack:
        operations = [rootfs.with_host_root(operation) for operation in operations]
        place = stack.enter_context(closing(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)))
        mounts.move_mount(mount_fd, place, "/")
        root_fd = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount_fd)
        try:
            tree = rootfs.Tree(root_fd, -1)
            for operation in operations:
                operation.execute(tree)
        except BaseException:
            os.close(root_fd)
            raise
        return root_fd
