"""User namespaces of containers: id maps, and what only the host's root can make for them.

config-linux.md, "User namespace mappings"; config.md, "Mounts" (`idmap`, `ridmap`); user_namespaces(7).
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
from collections.abc import Iterable, Iterator
from typing import Any

from pier.kernel import cgroup_files, mounts, namespaces
from pier.kernel.paths import closing
from pier.kernel.process import prlimit
from pier.runtime.process.blame import asked_by
from pier.runtime.process.rootfs import parse_options

Maps = list[dict[str, int]]
"""OCI: `containerID`, `hostID`, `size`."""


def map_text(maps: Maps) -> bytes:
    """The content of a uid_map or gid_map."""
    return "".join(f"{item['containerID']} {item['hostID']} {item['size']}\n" for item in maps).encode()


def write_maps(pid: int, uids: Maps, gids: Maps) -> None:
    """Give the new user namespace of process `pid`, as /proc numbers it, its maps. Raises OSError."""
    for name, maps in (("uid_map", uids), ("gid_map", gids)):
        path = f"/proc/{pid}/{name}"
        try:
            with closing(os.open(path, os.O_WRONLY | os.O_CLOEXEC)) as fd:
                os.write(fd, map_text(maps))
        except OSError as error:
            raise OSError(error.errno, f"linux.{name[:3]}Mappings: {error.strerror}") from error


def open_namespace(uids: Maps, gids: Maps) -> int:
    """A descriptor of a user namespace with these maps: for an idmapped mount. Raises OSError."""
    (fd,) = open_namespaces(uids, gids, ())
    return fd


def open_namespaces(uids: Maps, gids: Maps, owned: Iterable[str]) -> list[int]:
    """Descriptors of a new user namespace with these maps, and of new ones of the kinds `owned` (OCI's words) that
    belong to it. Raises OSError."""
    kinds = ["user", *owned]
    flags = 0
    for kind in kinds:
        flags |= namespaces.OCI_TYPES[kind]
    with _held(namespaces.fork(flags)) as child, closing(os.pidfd_open(child)) as pidfd:
        pid = _number_in_proc(pidfd)
        write_maps(pid, uids, gids)
        return [os.open(namespaces.namespace_path(pid, kind), os.O_RDONLY | os.O_CLOEXEC) for kind in kinds]


def _number_in_proc(pidfd: int) -> int:
    """A process's number in the pid namespace that /proc shows (proc_pid_fdinfo(5)).

    A container's first process is in another one already, while its /proc is the host's.
    """
    text = cgroup_files.read(f"/proc/self/fdinfo/{pidfd}")
    return int(text.partition("\nPid:")[2].split()[0])


def open_network(user_fd: int) -> int:
    """A descriptor of a new network namespace that belongs to the user namespace behind `user_fd`. Raises OSError."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = namespaces.fork()
    if pid == 0:
        try:
            namespaces.setns(user_fd, namespaces.CLONE_NEWUSER)
            namespaces.unshare(namespaces.CLONE_NEWNET)
        except OSError as error:
            os.write(writer, str(error.errno).encode())
        os.close(writer)
        _wait_for_ever()
    os.close(writer)
    with _held(pid), closing(reader):
        if number := os.read(reader, 16):
            raise OSError(int(number), f"a network namespace for the joined user namespace: {os.strerror(int(number))}")
        return os.open(namespaces.namespace_path(pid, "network"), os.O_RDONLY | os.O_CLOEXEC)


@contextlib.contextmanager
def _held(pid: int) -> Iterator[int]:
    """A child whose namespaces are wanted, for as long as they are opened; in the child itself this does not return."""
    if pid == 0:
        _wait_for_ever()
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _wait_for_ever() -> None:
    while True:
        signal.pause()


def own_pipes(fds: Iterable[int], uid: int, gid: int) -> None:
    """Give pipes to the host's ids of a container's root, which may then give them to its program's user."""
    for fd in fds:
        if fd >= 0 and stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.fchown(fd, uid, gid)


def raise_hard_limits(pid: int, rlimits: list[dict[str, Any]]) -> None:
    """Let a process of a user namespace set its limits: only the host's root may raise a hard one. Raises OSError."""
    for limit in rlimits:
        soft, hard = prlimit(pid, limit["type"])
        if limit["hard"] > hard:
            prlimit(pid, limit["type"], (soft, limit["hard"]))


def prepare_sources(spec: dict[str, Any], *, new_user_namespace: bool) -> dict[int, int]:
    """Detached mounts for the bind mounts that the first process cannot make: index in `mounts` -> descriptor.

    Those are idmapped ones, and with a user namespace all: its root may not see the source. Raises OSError.
    """
    linux = spec.get("linux", {})
    prepared: dict[int, int] = {}
    for index, mount in enumerate(spec.get("mounts", [])):
        words = mount.get("options", [])
        mapped = "idmap" in words or "ridmap" in words or bool(mount.get("uidMappings"))
        if (mapped or new_user_namespace) and parse_options(words).bind:
            with asked_by(f"mounts[{index}].source"):
                prepared[index] = _open_source(mount, linux, mapped=mapped)
    return prepared


def _open_source(mount: dict[str, Any], linux: dict[str, Any], *, mapped: bool) -> int:
    words = mount["options"]
    if "detached" in words:
        fd = os.open(mount["source"], os.O_PATH | os.O_CLOEXEC)
    else:
        fd = mounts.open_tree(mounts.AT_FDCWD, mount["source"], clone=True, recursive="rbind" in words)
    if mapped:
        uids = mount.get("uidMappings") or linux.get("uidMappings", [])
        gids = mount.get("gidMappings") or linux.get("gidMappings", [])
        with closing(open_namespace(uids, gids)) as user:
            show_with_ids_of(user, fd, mount["source"], recursive="ridmap" in words)
    return fd


def show_with_ids_of(user_fd: int, mount_fd: int, path: str, *, recursive: bool = False) -> None:
    """Show a mount that is attached nowhere, of `path`, with the ids of a user namespace. Raises OSError."""
    try:
        mounts.mount_setattr(mount_fd, set=mounts.MOUNT_ATTR_IDMAP, userns_fd=user_fd, recursive=recursive)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise OSError(error.errno, "its files cannot be shown with other ids (idmapped mounts)", path) from error
