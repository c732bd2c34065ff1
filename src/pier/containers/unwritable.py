"""Bind mounts and volumes that a container's user will not be able to write to (trap 21), said when it is created.

Only folders that are mounted to be written to, and that somebody may write to: a file or a folder that is there to be
read is mostly mounted without `:ro`, too.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Sequence
from typing import NamedTuple

from pier.containers.record import Record
from pier.containers.spec_mounts import UserMount
from pier.containers.spec_security import available_capabilities, effective_capabilities
from pier.runtime.process.users import Identity, UserError, identify
from pier.runtime.request import BindRoot, OverlayRoot
from pier.storage.acl import ACCESS
from pier.storage.ids import Extent, IdMap
from pier.storage.overlay_view import view

WRITE, SEARCH = 0o2, 0o1
OVERRIDE = "CAP_DAC_OVERRIDE"


class Folder(NamedTuple):
    """A folder of the host's."""

    uid: int
    gid: int
    mode: int


def warnings(record: Record, mounts: Sequence[UserMount], root: OverlayRoot | BindRoot, place: str) -> list[str]:
    """A sentence for each mount of a container; `place` is any folder. Blocking.

    Nothing is said where it cannot be known: of a folder with an access control list, of a user who is not there.
    """
    folders = {mount: folder for mount in mounts if (folder := _folder(mount)) is not None}
    user = record.config.user
    mighty = OVERRIDE in effective_capabilities(record.host_config, available_capabilities())
    if not folders or (mighty and record.id_map is None and user.partition(":")[0] in ("", "0", "root")):
        return []
    layers = [root.path] if isinstance(root, BindRoot) else [root.upper, *root.lower]
    try:
        with view(layers, place) as tree:
            identity = identify(tree, user, list(record.host_config.group_add or ()))
    except (UserError, OSError):
        return []
    return [
        describe(mount, folder, identity, record.id_map)
        for mount, folder in folders.items()
        if not can_write(identity, folder, record.id_map, mighty=mighty)
    ]


def _folder(mount: UserMount) -> Folder | None:
    if mount.type not in ("bind", "volume") or mount.read_only or mount.ids is not None:
        return None
    try:
        found = os.stat(mount.source)
        if not stat.S_ISDIR(found.st_mode) or ACCESS.decode() in os.listxattr(mount.source):
            return None
    except OSError:
        return None
    mode = stat.S_IMODE(found.st_mode)
    meant = mode & 0o222 and mode & 0o111
    return Folder(found.st_uid, found.st_gid, mode) if meant else None


def can_write(identity: Identity, folder: Folder, id_map: IdMap | None, *, mighty: bool) -> bool:
    """Whether the kernel would let a container's user make a file there (path_resolution(7)). Pure.

    `mighty`: its root has CAP_DAC_OVERRIDE, which in a user namespace counts for what belongs to ids of that.
    """
    if mighty and identity.uid == 0:
        return id_map is None or (_has(id_map.uids, folder.uid) and _has(id_map.gids, folder.gid))
    uid, gid = on_host(identity, id_map)
    groups = {gid, *(on_host(identity._replace(gid=extra), id_map)[1] for extra in identity.additional_gids)}
    if uid == folder.uid:
        bits = folder.mode >> 6
    elif folder.gid in groups:
        bits = folder.mode >> 3
    else:
        bits = folder.mode
    return bits & WRITE != 0 and bits & SEARCH != 0


def _has(extents: Sequence[Extent], outside: int) -> bool:
    return any(item.outside <= outside < item.outside + item.size for item in extents)


def on_host(identity: Identity, id_map: IdMap | None) -> tuple[int, int]:
    """The host's ids for a container's user and group."""
    return (identity.uid, identity.gid) if id_map is None else id_map.outside(identity.uid, identity.gid)


def describe(mount: UserMount, folder: Folder, identity: Identity, id_map: IdMap | None) -> str:
    """What is wrong with it, and the two ways out. Pure."""
    uid, gid = on_host(identity, id_map)
    inside = "@" if id_map is not None else ""
    ids = f"uids={inside}{folder.uid}-{identity.uid}-1;gids={inside}{folder.gid}-{identity.gid}-1"
    shown = shlex.quote(f"{mount.volume or mount.source}:{mount.target}:idmap={ids}")
    known = "" if id_map is None else f" ({uid}:{gid} on the host)"
    return (
        f"The container's user {identity.uid}:{identity.gid}{known} cannot write to {mount.target}: {mount.source} "
        f"belongs to {folder.uid}:{folder.gid}, mode {folder.mode:04o}. "
        f"Give it to that user: `chown {uid}:{gid} {shlex.quote(mount.source)}`; "
        f"or show what is its owner's as the user's: `-v {shown}`. If it need not write, say `:ro`."
    )
