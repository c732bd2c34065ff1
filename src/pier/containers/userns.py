"""`--userns`: which ids a container's user namespace has, and what cannot be had with one.

Empty: the daemon's map (`userns-remap`), if it has one. `host`: none. `auto[:size=N]`, beyond Docker and as podman has
it: a range of the container's own, which no other container's files belong to; taken at its creation, kept in its
record, free again when it is removed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pier.containers import subids
from pier.containers.oci_runtimes import OWN
from pier.containers.record import Record
from pier.containers.spec_mounts import UserMount
from pier.containers.subids import NoIdsLeft, Range
from pier.containers.world import World
from pier.errors import InvalidParameter
from pier.model.host_config import HostConfig
from pier.storage.ids import IdMap

AUTO_SIZE = 65_536
AUTO_SIZE_MIN = 1_024
AUTO_USERS = ("containers", "dockremap")
"""Whose subordinate ids are handed out: podman's user for the purpose, else the one of `userns-remap=default`."""


class InvalidUsernsMode(InvalidParameter):
    """invalid user namespace mode: {mode}"""

    remedy = "host, auto or auto:size=N; empty for what the daemon has in userns-remap"


class Incompatible(InvalidParameter):
    """{what}"""


class CannotRemap(InvalidParameter):
    """the container cannot have a user namespace: {fault}"""

    remedy = "put the data root on ext4, xfs or btrfs with Linux 5.19 or newer, or use --userns=host"


class Mode(NamedTuple):
    """`HostConfig.UsernsMode`, read."""

    kind: str
    """Empty, `host` or `auto`."""
    size: int = AUTO_SIZE


@dataclass(frozen=True, slots=True)
class Pool:
    """The subordinate ids that `auto` takes ranges from."""

    user: str
    uids: list[Range]
    gids: list[Range]


def parse_mode(text: str) -> Mode:
    """Raises InvalidUsernsMode."""
    if text in ("", "host", "auto"):
        return Mode(text)
    key, _, value = text.removeprefix("auto:").partition("=")
    valid = text.startswith("auto:") and key == "size" and value.isascii() and value.isdigit() and len(value) <= 10
    if not valid or not AUTO_SIZE_MIN <= int(value) < subids.ID_END:
        raise InvalidUsernsMode(mode=text[:80])
    return Mode("auto", int(value))


def check(host: HostConfig) -> None:
    """Refuse what a container cannot have with a user namespace. Raises Incompatible, in Docker's words."""
    wrong = (
        (
            host.privileged,
            "privileged mode is incompatible with user namespaces.  You must run the container in the host namespace "
            "when running privileged mode",
        ),
        (
            host.network_mode == "host",
            "cannot share the host's network namespace when user namespaces are enabled",
        ),
        (host.pid_mode == "host", "cannot share the host PID namespace when user namespaces are enabled"),
        (
            host.ipc_mode == "host",
            "cannot share the host's IPC namespace when user namespaces are enabled",
        ),
        (
            host.runtime not in ("", OWN),
            f"the runtime {host.runtime} gets no user namespace from Pier: use --userns=host, or --runtime {OWN}",
        ),
    )
    for is_wrong, what in wrong:
        if is_wrong:
            raise Incompatible(what=what)


def check_without(mounts: Iterable[UserMount]) -> None:
    """Refuse what only a container with a user namespace can have. Raises Incompatible."""
    for mount in mounts:
        if mount.ids is not None and mount.ids.as_the_container:
            what = f"the mount at {mount.target} asks for idmap, and the container has no user namespace"
            raise Incompatible(what=f"{what}; use --userns=auto, or userns-remap of the daemon")


async def choose(world: World, container_id: str, mode: Mode) -> IdMap | None:
    """The map of a new container, noted in `World.id_maps`; None: it has no user namespace.

    Raises CannotRemap, NoSubids, BadSubids, NoIdsLeft.
    """
    found = None
    if mode.kind == "auto":
        fault = await asyncio.to_thread(world.snapshots.idmap_fault)
        if fault:
            raise CannotRemap(fault=fault)
        pool = await asyncio.to_thread(read_pool)
        found = allocate(mode.size, pool, [*world.id_maps.values(), *filter(None, [world.config.id_map])])
    elif mode.kind == "":
        found = world.config.id_map
    if found is not None:
        world.id_maps[container_id] = found
    return found


def read_pool() -> Pool:
    """The ids that may be handed out. Blocking. Raises NoSubids, BadSubids."""
    for user in AUTO_USERS:
        try:
            uids = subids.read(subids.SUBUID, [user], kind="subuid")
            return Pool(user, uids, subids.read(subids.SUBGID, [user], kind="subgid"))
        except subids.NoSubids:
            continue
    raise subids.NoSubids(kind="subuid", user=AUTO_USERS[0])


def allocate(size: int, pool: Pool, maps: Iterable[IdMap]) -> IdMap:
    """A range that none of `maps` has. Pure. Raises NoIdsLeft."""
    known = list(maps)
    uids = subids.take(size, pool.uids, [Range(item.outside, item.size) for found in known for item in found.uids])
    gids = subids.take(size, pool.gids, [Range(item.outside, item.size) for found in known for item in found.gids])
    if uids is None or gids is None:
        kind, path = ("subordinate user", subids.SUBUID) if uids is None else ("subordinate group", subids.SUBGID)
        raise NoIdsLeft(size=size, kind=kind, user=pool.user, path=path)
    return IdMap(subids.extents([uids]), subids.extents([gids]))


def shared_with(record: Record, joined: Mapping[str, Record]) -> Record:
    """The container whose user namespace `record` shares because it joins others of its namespaces (kind -> record).

    Root of one user namespace has no power over what belongs to another. Raises Incompatible: not the same ids, or two.
    """
    others = list(joined.values())
    if any(other.id != others[0].id for other in others):
        raise Incompatible(
            what="a container with a user namespace can join the namespaces of one container, not of two"
        )
    if others[0].id_map != record.id_map:
        kinds = " and ".join(joined)
        what = f"cannot join the {kinds} namespace of container {others[0].name}: its user namespace has other ids"
        raise Incompatible(what=f"{what}; give both the same --userns, or this one --userns=host")
    return others[0]
