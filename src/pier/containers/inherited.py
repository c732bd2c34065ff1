"""All mounts of a container in one list: its own, images resolved, volumes declared as data (`VOLUME`), and those of
other containers (`--volumes-from`)."""

from __future__ import annotations

from dataclasses import replace

from pier.containers import mount_ids
from pier.containers.record import Record
from pier.containers.spec_mounts import (
    InvalidBindMode,
    UserMount,
    anonymous_volume,
    by_depth,
    check_mode,
    tmpfs_mounts,
    user_mounts,
)
from pier.containers.world import World
from pier.errors import InvalidParameter, NotFound
from pier.model.container import ContainerConfig
from pier.model.host_config import HostConfig


class DonorMissing(InvalidParameter):
    """{reason}"""


class ImageMissing(InvalidParameter):
    """invalid mount config for type "image": {reason}"""

    remedy = "pull it first"


async def resolve(world: World, config: ContainerConfig, host: HostConfig) -> list[UserMount]:
    """The mounts that a new container will have. Raises DonorMissing, ImageMissing, and what `user_mounts` raises.

    Its own win over those it inherits; a later `--volumes-from` does not, as with Docker. A place declared as data
    gets a volume without a name where nothing else is mounted.
    """
    found: dict[str, UserMount] = {}
    for text in host.volumes_from or ():
        ref, mode = parse_from(text)
        try:
            donor = world.find(ref)
        except NotFound as error:
            raise DonorMissing(reason=error.message) from error
        for mount in mounts_of(donor.record):
            if mount.type != "tmpfs":  # that is one container's alone
                found.setdefault(mount.target, inherit(mount, mode))
    for mount in user_mounts(host):
        found[mount.target] = await _with_layers(world, mount) if mount.type == "image" else mount
    covered = {*found, *(mount.target for mount in tmpfs_mounts(host))}
    for path in sorted(config.volumes or ()):
        declared = anonymous_volume(path)
        if declared.target not in covered:
            found.setdefault(declared.target, declared)
    return by_depth(list(found.values()))


async def _with_layers(world: World, mount: UserMount) -> UserMount:
    try:
        image = await world.images.get(mount.source)
    except NotFound as error:  # not 404: Docker's client would go and pull the container's image
        raise ImageMissing(reason=error.message) from error
    layers = tuple(str(layer) for layer in image.layers)
    return replace(mount, image_id=str(image.id), layers=layers)


def parse_from(text: str) -> tuple[str, str]:
    """`NAME[:MODE]` of `--volumes-from`. Raises InvalidParameter."""
    if not text:
        raise InvalidParameter("volumes-from specification cannot be an empty string")
    ref, _, mode = text.partition(":")
    words = mode.split(",") if mode else []
    check_mode(mode, words)
    if "nocopy" in words or any(word.startswith(mount_ids.WORD) for word in words):
        raise InvalidBindMode(mode=mode)
    return ref, mode


def inherit(mount: UserMount, mode: str) -> UserMount:
    """As another container gets it: never writable where the donor's is not."""
    words = mode.split(",")
    options = mount.options
    if "ro" in words and not mount.read_only:
        options = (*options[:1], "rro", *options[1:])
    return replace(mount, options=options, mode="", copy_up=False)


def images_of(record: Record) -> set[str]:
    """Ids of the images it cannot do without: its own, and those it mounts."""
    return {record.image_id, *(mount.image_id for mount in mounts_of(record) if mount.image_id)}


def mounts_of(record: Record) -> list[UserMount]:
    """What the user asked for, sorted so that parents come first."""
    if record.mounts is not None:
        return record.mounts
    return user_mounts(record.host_config)  # made by a version that did not keep them
