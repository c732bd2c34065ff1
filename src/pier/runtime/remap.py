"""From the host's root into a container's user namespace (user_namespaces(7), mount_setattr(2), "ID-mapped mounts").

The first process has the host's root and does everything that takes it: limits, the network devices, the sources of
bind mounts, and the root file system, whose layers are shown with the container's ids and never copied or chowned; the
upper directory alone belongs to the container's root. Then it enters the user namespace, and its child, born in the
container's pid namespace, goes on in its place with descriptors of what was made.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from pier.kernel import mounts, namespaces, process
from pier.kernel.netlink import NetlinkSocket
from pier.kernel.paths import closing
from pier.runtime import idmap, network
from pier.runtime.idmap import Maps
from pier.runtime.request import DetachedRoot, OverlayRoot, StartRequest

REMEDY = "put the data root on ext4, xfs or btrfs, or start the container with --userns=host"


class Crossed(NamedTuple):
    """What the process in the user namespace goes on with."""

    request: StartRequest
    """Without what is done already."""
    sources: dict[int, int]
    """`idmap.prepare_sources`"""


def wanted(spec: dict[str, Any]) -> bool:
    """Whether the container of this configuration has a user namespace."""
    return "uidMappings" in spec.get("linux", {})


def host_id(maps: Maps, inside: int) -> int:
    """The host's id for one of the container's. Raises ValueError for one without."""
    for item in maps:
        if item["containerID"] <= inside < item["containerID"] + item["size"]:
            return item["hostID"] + inside - item["containerID"]
    raise ValueError(f"id {inside} of the container is not mapped to one of the host's")


def cross(
    request: StartRequest, stdio: Iterable[int], *, confine: Callable[[], None], pass_on: Callable[[int], None]
) -> Crossed:
    """Return in a new process, a sibling of this one, in the container's user and pid namespaces; this one ends.

    `confine` sets limits and joins the cgroup, `pass_on` tells the monitor who goes on. The process is not yet the
    root of the user namespace (`init.become_root`). Raises OSError, ValueError.
    """
    linux = request.spec["linux"]
    paths = {item["type"]: item.get("path", "") for item in linux["namespaces"]}
    uids, gids = linux["uidMappings"], linux["gidMappings"]
    with contextlib.ExitStack() as stack:
        # Before the limits: with a low one on processes there is room for the container's first, not for a helper.
        user_fd, net_fd = _open_namespaces(uids, gids, paths)
        stack.enter_context(closing(user_fd))
        stack.enter_context(closing(net_fd))
        confine()
        idmap.own_pipes(stdio, host_id(uids, 0), host_id(gids, 0))
        with contextlib.suppress(OSError):  # what cannot be raised is judged when it is set
            idmap.raise_hard_limits(os.getpid(), request.spec["process"].get("rlimits", []))
        _join_network(net_fd, request, is_new=not paths["network"])
        sources = idmap.prepare_sources(request.spec, new_user_namespace=True)
        assert isinstance(request.root, OverlayRoot)
        root = DetachedRoot(_mount_shifted(request.root, user_fd))
        if paths.get("pid"):
            with closing(os.open(paths["pid"], os.O_RDONLY | os.O_CLOEXEC)) as fd:
                namespaces.setns(fd, namespaces.CLONE_NEWPID)
        namespaces.setns(user_fd, namespaces.CLONE_NEWUSER)
    go_on_in_sibling(pass_on, 0 if paths.get("pid") else namespaces.CLONE_NEWPID)
    process.prctl(process.PR_SET_PDEATHSIG, signal.SIGKILL)
    process.prctl(process.PR_SET_DUMPABLE, 0)
    rest = [{"type": "network", "path": "/proc/self/ns/net"}]
    rest += [item for item in linux["namespaces"] if item["type"] != "network"]
    spec = {**request.spec, "linux": {**linux, "namespaces": rest}}
    return Crossed(request.having(spec=spec, root=root, interfaces=[]), sources)


def _open_namespaces(uids: Maps, gids: Maps, paths: dict[str, str]) -> tuple[int, int]:
    """The container's user namespace, and its network namespace, which belongs to that: two descriptors."""
    if not paths["user"]:
        if not paths["network"]:
            user_fd, net_fd = idmap.open_namespaces(uids, gids, ["network"])
            return user_fd, net_fd
        user_fd = idmap.open_namespace(uids, gids)
    else:
        user_fd = os.open(paths["user"], os.O_RDONLY | os.O_CLOEXEC)
    if paths["network"]:
        return user_fd, os.open(paths["network"], os.O_RDONLY | os.O_CLOEXEC)
    return user_fd, idmap.open_network(user_fd)


def _join_network(net_fd: int, request: StartRequest, *, is_new: bool) -> None:
    host_link = NetlinkSocket() if request.interfaces else None
    namespaces.setns(net_fd, namespaces.CLONE_NEWNET)
    if is_new:
        network.configure(host_link, request.interfaces)
    if host_link is not None:
        host_link.close()


def _mount_shifted(root: OverlayRoot, user_fd: int) -> int:
    """A detached overlay over the layers as the user namespace's ids; returns a descriptor of its root.

    overlayfs takes an idmapped layer, Linux before 6.15 only one that is attached: each is mounted over its own folder,
    in a mount namespace that ends with this process.
    """
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mounts.mount(None, "/", None, mounts.MS_SLAVE | mounts.MS_REC)
    for path in root.lower:
        try:
            with closing(mounts.open_tree(mounts.AT_FDCWD, path, clone=True)) as layer:
                mounts.mount_setattr(layer, set=mounts.MOUNT_ATTR_IDMAP, userns_fd=user_fd)
                with closing(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as place:
                    mounts.move_mount(layer, place, path)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            text = f"the file system of {path} cannot show its files with other ids (idmapped mounts); {REMEDY}"
            raise OSError(error.errno, text) from error
    try:
        return mounts.mount_overlay(root.lower, root.upper, root.work)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        text = f"overlayfs over layers with other ids takes Linux 5.19 ({error.strerror}); {REMEDY}"
        raise OSError(error.errno, text) from error


def go_on_in_sibling(pass_on: Callable[[int], None], flags: int) -> None:
    """Return in a new child of this process's parent, in new namespaces of `flags`; this process tells and ends."""
    held, holding = os.pipe2(os.O_CLOEXEC)
    try:
        pid = namespaces.fork(flags | namespaces.CLONE_PARENT)
    except OSError as error:
        if error.errno != errno.EAGAIN:
            raise
        text = "a container with a user namespace of its own takes a limit of 2 processes or more to start"
        raise OSError(error.errno, text) from error
    if pid:
        pass_on(pid)
        os._exit(0)
    os.close(holding)
    os.read(held, 1)  # the end of file says that the monitor has been told
    os.close(held)
