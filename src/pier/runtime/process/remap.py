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
from functools import partial
from typing import Any, NamedTuple

from pier.kernel import mounts, namespaces, process
from pier.kernel.netlink import NetlinkSocket
from pier.kernel.paths import closing
from pier.runtime.process import idmap, network
from pier.runtime.process.idmap import Maps
from pier.runtime.request import BindRoot, DetachedRoot, OverlayRoot, StartRequest

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


def split_limits(request: StartRequest) -> tuple[StartRequest, dict[str, Any]]:
    """The request without its limit on processes, and that limit, as resources: for a moment there is one more."""
    linux = request.spec["linux"]
    resources = linux.get("resources") or {}
    late = {key: resources[key] for key in ("pids",) if key in resources}
    rest = {key: value for key, value in resources.items() if key not in late}
    return request.having(spec={**request.spec, "linux": {**linux, "resources": rest}}), late


def host_id(maps: Maps, inside: int) -> int:
    """The host's id for one of the container's. Raises ValueError for one without."""
    for item in maps:
        if item["containerID"] <= inside < item["containerID"] + item["size"]:
            return item["hostID"] + inside - item["containerID"]
    raise ValueError(f"id {inside} of the container is not mapped to one of the host's")


def cross(
    request: StartRequest,
    stdio: Iterable[int],
    *,
    confine: Callable[[], None],
    networked: Callable[[], None],
    hand_over: Callable[[int], None],
) -> Crossed:
    """Return in a new process, a sibling of this one, in the container's user and pid namespaces; this one ends.

    `confine` sets limits and joins the cgroup; `networked` is called in a new network namespace that has its devices;
    `hand_over`, once the other is there, sets the rest of them and tells
    the monitor who goes on. The process is not yet the root of the user namespace (`init.become_root`). Raises OSError,
    ValueError.
    """
    linux = request.spec["linux"]
    paths = {item["type"]: item.get("path", "") for item in linux["namespaces"]}
    uids, gids = linux["uidMappings"], linux["gidMappings"]
    with contextlib.ExitStack() as stack:
        user_fd, net_fd = _open_namespaces(uids, gids, paths)
        stack.enter_context(closing(user_fd))
        stack.enter_context(closing(net_fd))
        confine()
        idmap.own_pipes(stdio, host_id(uids, 0), host_id(gids, 0))
        with contextlib.suppress(OSError):  # what cannot be raised is judged when it is set
            idmap.raise_hard_limits(os.getpid(), request.spec["process"].get("rlimits", []))
        _join_network(net_fd, request, is_new=not paths["network"])
        if not paths["network"]:
            networked()
        sources = idmap.prepare_sources(request.spec, new_user_namespace=True)
        assert not isinstance(request.root, DetachedRoot)
        try:
            root = DetachedRoot(mount_shifted(request.root, user_fd))
        except OSError as error:
            remedy = f"; {REMEDY}" if error.errno == errno.EINVAL else ""
            raise OSError(
                error.errno, f"{error.filename or 'the root file system'}: {error.strerror}{remedy}"
            ) from error
        if paths.get("pid"):
            with closing(os.open(paths["pid"], os.O_RDONLY | os.O_CLOEXEC)) as fd:
                namespaces.setns(fd, namespaces.CLONE_NEWPID)
        namespaces.setns(user_fd, namespaces.CLONE_NEWUSER)
    new = 0 if paths.get("pid") else namespaces.CLONE_NEWPID
    go_on_in_sibling(partial(namespaces.fork, new | namespaces.CLONE_PARENT), hand_over)
    process.prctl(process.PR_SET_PDEATHSIG, signal.SIGKILL)
    process.prctl(process.PR_SET_DUMPABLE, 0)
    rest = [{"type": "network", "path": "/proc/self/ns/net"}]
    rest += [item for item in linux["namespaces"] if item["type"] != "network"]
    spec = {**request.spec, "linux": {**linux, "namespaces": rest}}
    return Crossed(request.having(spec=spec, root=root, interfaces=[], resolver=False), sources)


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


def mount_shifted(root: OverlayRoot | BindRoot, user_fd: int) -> int:
    """A detached mount of a root file system shown with a user namespace's ids; returns a descriptor of its root.

    A whole tree is itself shown so: what is written to it keeps the container's ids on disk.

    overlayfs takes an idmapped layer, Linux before 6.15 only one that is attached: each is mounted over its own folder,
    in a mount namespace that ends with this process. Raises OSError, EINVAL for a file system that cannot.
    """
    if isinstance(root, BindRoot):
        fd = mounts.open_tree(mounts.AT_FDCWD, root.path, clone=True)
        idmap.show_with_ids_of(user_fd, fd, root.path)
        return fd
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mounts.mount(None, "/", None, mounts.MS_SLAVE | mounts.MS_REC)
    for path in root.lower:
        with (
            closing(mounts.open_tree(mounts.AT_FDCWD, path, clone=True)) as layer,
            closing(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as place,
        ):
            idmap.show_with_ids_of(user_fd, layer, path)
            mounts.move_mount(layer, place, path)
    try:
        return mounts.mount_overlay(root.lower, root.upper, root.work, volatile=root.volatile)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        text = f"overlayfs over layers shown with other ids takes Linux 5.19 ({error.strerror})"
        raise OSError(error.errno, text, root.upper) from error


def go_on_in_sibling(fork: Callable[[], int], hand_over: Callable[[int], None]) -> None:
    """Return in a new child of this process's parent, which `fork` makes; this process tells of it and ends."""
    held, holding = os.pipe2(os.O_CLOEXEC)
    pid = fork()
    if pid:
        hand_over(pid)
        os.close(holding)  # the end of this process would close it, once its memory is taken apart
        os._exit(0)
    os.close(holding)
    os.read(held, 1)  # the end of file says that the monitor has been told
    os.close(held)
