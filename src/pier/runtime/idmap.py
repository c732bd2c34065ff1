"""User namespaces of the command line's containers: id maps, and the mounts that only the host's root can make.

config-linux.md, "User namespace mappings"; config.md, "Mounts" (`idmap`, `ridmap`); user_namespaces(7).
"""

from __future__ import annotations

import os
import signal
from typing import Any

from pier.kernel import mounts, namespaces
from pier.kernel.paths import closing
from pier.runtime.rootfs import parse_options

Maps = list[dict[str, int]]
"""OCI: `containerID`, `hostID`, `size`."""


def map_text(maps: Maps) -> bytes:
    """The content of a uid_map or gid_map."""
    return "".join(f"{item['containerID']} {item['hostID']} {item['size']}\n" for item in maps).encode()


def write_maps(pid: int, uids: Maps, gids: Maps) -> None:
    """Give the new user namespace of process `pid` its maps. Raises OSError."""
    for name, maps in (("uid_map", uids), ("gid_map", gids)):
        path = f"/proc/{pid}/{name}"
        try:
            with closing(os.open(path, os.O_WRONLY | os.O_CLOEXEC)) as fd:
                os.write(fd, map_text(maps))
        except OSError as error:
            raise OSError(error.errno, f"linux.{name[:3]}Mappings: {error.strerror}") from error


def open_namespace(uids: Maps, gids: Maps) -> int:
    """A descriptor of a user namespace with these maps: for an idmapped mount. Raises OSError."""
    pid = namespaces.fork(namespaces.CLONE_NEWUSER)
    if pid == 0:
        while True:
            signal.pause()
    try:
        write_maps(pid, uids, gids)
        return os.open(namespaces.namespace_path(pid, "user"), os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def prepare_sources(spec: dict[str, Any], *, new_user_namespace: bool) -> dict[int, int]:
    """Detached mounts for the bind mounts that the first process cannot make: index in `mounts` -> descriptor.

    Those are idmapped ones, and with a user namespace all: its root may not see the source. Raises OSError.
    """
    linux = spec.get("linux", {})
    prepared: dict[int, int] = {}
    for index, mount in enumerate(spec.get("mounts", [])):
        words = mount.get("options", [])
        mapped = "idmap" in words or "ridmap" in words or bool(mount.get("uidMappings"))
        if parse_options(words).bind and (mapped or new_user_namespace):
            try:
                prepared[index] = _open_source(mount, linux, mapped=mapped)
            except OSError as error:
                raise OSError(error.errno, f"mounts[{index}]: {error.strerror or error}") from error
    return prepared


def _open_source(mount: dict[str, Any], linux: dict[str, Any], *, mapped: bool) -> int:
    words = mount["options"]
    fd = mounts.open_tree(mounts.AT_FDCWD, mount["source"], clone=True, recursive="rbind" in words)
    if mapped:
        uids = mount.get("uidMappings") or linux.get("uidMappings", [])
        gids = mount.get("gidMappings") or linux.get("gidMappings", [])
        with closing(open_namespace(uids, gids)) as user:
            mounts.mount_setattr(fd, set=mounts.MOUNT_ATTR_IDMAP, userns_fd=user, recursive="ridmap" in words)
    return fd
