"""The volumes of one container: made with it, filled from its image, mounted while it runs, gone with it if asked."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from pier.containers.inherited import mounts_of
from pier.containers.record import Record
from pier.containers.spec_mounts import UserMount, clean_target
from pier.containers.world import Container, World
from pier.errors import InvalidParameter, NotFound, PierError
from pier.kernel import mounts as kernel
from pier.kernel.paths import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, closing, open_in_root
from pier.model.host_config import HostConfig
from pier.oci.digest import Digest
from pier.storage.copy_tree import Owners, as_they_are
from pier.storage.ids import IdMap
from pier.volumes import Claim, Wanted
from pier.volumes.fill import open_source
from pier.volumes.mounted import Donor


class CannotHave(InvalidParameter):
    """{reason}"""


class SubpathMissing(PierError):
    """cannot access path {path}: {reason}"""


class SubpathEscapes(InvalidParameter):
    """path concatenation escapes the base directory, base: {base}, subpath: {subpath}"""


def volumes_of(record: Record) -> list[UserMount]:
    return [mount for mount in mounts_of(record) if mount.type == "volume"]


def users(containers: Iterable[Container]) -> dict[str, list[str]]:
    """Volume -> ids of the containers that have it, running or not."""
    found: dict[str, list[str]] = {}
    for container in containers:
        for name in {mount.volume for mount in volumes_of(container.record)}:
            found.setdefault(name, []).append(container.id)
    return found


# --- create


def wanted(host: HostConfig, mounts: Sequence[UserMount]) -> list[Wanted]:
    """What is to be asked of the volume service, in the order of the mounts. Pure."""
    asked = {}
    for mount in host.mounts or ():
        options = mount.volume_options
        driver = options.driver_config if options else None
        asked[clean_target(mount.target, mount.type)] = Wanted(
            driver=driver.name if driver else "",
            options=driver.options if driver else None,
            labels=options.labels if options else None,
        )
    plain = Wanted(driver=host.volume_driver)
    return [asked.get(mount.target, plain)._replace(name=mount.volume) for mount in mounts if mount.type == "volume"]


async def claim(
    world: World, host: HostConfig, mounts: Sequence[UserMount], id_map: IdMap | None
) -> tuple[Claim, list[UserMount]]:
    """The volumes of a new container, and its mounts with their names. Raises CannotHave and what the service raises.

    Not 404: Docker's client would go and pull the image.
    """
    try:
        made = await world.volumes.claim(wanted(host, mounts), id_map.root if id_map is not None else None)
    except NotFound as error:
        raise CannotHave(reason=error.wire) from error
    names = iter(made.names)
    return made, [_named(world, mount, next(names)) if mount.type == "volume" else mount for mount in mounts]


def _named(world: World, mount: UserMount, name: str) -> UserMount:
    return replace(mount, volume=name, source=world.volumes.mountpoint(name))


async def populate(world: World, record: Record, layers: list[Digest]) -> None:
    """Fill the empty ones among a new container's volumes with what its image has at their places.

    A tmpfs is filled when it is mounted: it would not last until the start. Raises OverFile, MountFailed, OSError.
    """
    use = world.volumes.use
    filled = [mount for mount in volumes_of(record) if mount.copy_up and not use.is_transient(mount.volume)]
    with contextlib.ExitStack() as stack:
        sources = await asyncio.to_thread(_sources, world, layers, filled, stack) if filled else {}
        for mount in filled:
            if mount.target in sources:
                with _subpath_errors(mount):
                    await use.populate(mount.volume, sources[mount.target], into=mount.subpath, owners=_owners(record))


def _sources(
    world: World, layers: list[Digest], mounts: Sequence[UserMount], stack: contextlib.ExitStack
) -> dict[str, int]:
    """Target -> a descriptor of the directory that the image has there. Blocking."""
    found: dict[str, int] = {}
    with world.snapshots.layer_view(layers) as tree:
        for mount in mounts:
            fd = open_source(tree, mount.target)
            if fd is not None:
                stack.callback(os.close, fd)
                found[mount.target] = fd
    return found


def _owners(record: Record) -> Owners:
    return record.id_map.outside if record.id_map is not None else as_they_are


def folders(world: World, mounts: Sequence[UserMount]) -> list[UserMount]:
    """Those whose `source` is what the container gets to see: binds, and volumes that are whole folders."""
    return [
        mount
        for mount in mounts
        if mount.type == "bind"
        or (mount.type == "volume" and not mount.subpath and world.volumes.use.is_folder(mount.volume))
    ]


# --- start and end


async def ready(world: World, record: Record, stack: contextlib.ExitStack) -> dict[str, int]:
    """Target -> a detached mount, for volumes that are more than a folder to be bound; closed with `stack`.

    Raises NoSuchVolume, MountFailed, SubpathMissing, SubpathEscapes, OSError.
    """
    found: dict[str, int] = {}
    for mount in volumes_of(record):
        if not world.volumes.use.is_folder(mount.volume):
            fd, fresh = await world.volumes.use.mount(mount.volume, record.id)
            stack.callback(os.close, fd)
            if fresh and mount.copy_up and world.volumes.use.is_transient(mount.volume):
                await _fill_transient(world, record, mount, fd)
            if mount.subpath:
                fd = await asyncio.to_thread(_part, fd, mount)
                stack.callback(os.close, fd)
            found[mount.target] = fd
        elif mount.subpath:
            fd = await asyncio.to_thread(_part_of_folder, mount)
            stack.callback(os.close, fd)
            found[mount.target] = fd
        else:
            await asyncio.to_thread(_require, mount)
    return found


async def _fill_transient(world: World, record: Record, mount: UserMount, mount_fd: int) -> None:
    layers = [Digest(layer) for layer in record.layers]
    with contextlib.ExitStack() as stack:
        sources = await asyncio.to_thread(_sources, world, layers, [mount], stack)
        if mount.target in sources:
            await world.volumes.use.populate_mounted(
                mount_fd, sources[mount.target], into=mount.subpath, owners=_owners(record)
            )


def _part_of_folder(mount: UserMount) -> int:
    with closing(os.open(mount.source, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)) as root:
        return _part(root, mount)


def _part(root_fd: int, mount: UserMount) -> int:
    """A detached mount of what a volume has at a subpath: no link leads out of it (attacks 7 and 17). Blocking."""
    resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS
    with _subpath_errors(mount), closing(open_in_root(root_fd, mount.subpath, os.O_PATH, resolve=resolve)) as part:
        return kernel.open_tree(part, "", clone=True)


@contextlib.contextmanager
def _subpath_errors(mount: UserMount) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if not mount.subpath:
            raise
        if error.errno == errno.EXDEV:
            raise SubpathEscapes(base=mount.source, subpath=mount.subpath) from error
        raise SubpathMissing(path=f"{mount.source}/{mount.subpath}", reason=(error.strerror or "").lower()) from error


def _require(mount: UserMount) -> None:
    os.close(os.open(mount.source, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))


def announce(world: World, container: Container) -> None:
    """Tell that its volumes are mounted."""
    container.volumes_mounted = True
    for mount in volumes_of(container.record):
        attributes = {
            "container": container.id,
            "destination": mount.target,
            "driver": "local",
            "propagation": "",
            "read/write": "false" if mount.read_only else "true",
        }
        world.events.publish("volume", "mount", mount.volume, attributes)


async def release(world: World, container: Container) -> None:
    """Its run is over, or came to nothing. Never raises."""
    for mount in volumes_of(container.record):
        await world.volumes.use.unmount(mount.volume, container.id)
        if container.volumes_mounted:
            attributes = {"container": container.id, "driver": "local"}
            world.events.publish("volume", "unmount", mount.volume, attributes)
    container.volumes_mounted = False


async def found_again(world: World, container: Container, pid: int) -> None:
    """It was running when the daemon came up: what it has mounted stays, and is there for others."""
    container.volumes_mounted = True
    for mount in volumes_of(container.record):
        if not mount.subpath:
            await world.volumes.use.found_mounted(mount.volume, container.id, Donor(pid, mount.target))


def to_remove(record: Record) -> list[str]:
    """The volumes that go with the container, where that is asked for: those without a name."""
    return [mount.volume for mount in volumes_of(record) if mount.anonymous]
