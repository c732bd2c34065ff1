"""What containers, and whoever looks into volumes, do with the files: mount, fill, open. One object per daemon.

A volume that is mounted or filled is locked meanwhile; everything here that touches the disk does so in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from typing import TypeVar

from pier.errors import PierError
from pier.kernel.paths import closing
from pier.storage.copy_tree import Owners, as_they_are
from pier.volumes import fill, options
from pier.volumes.folders import Folders
from pier.volumes.mounted import Donor, Mounted
from pier.volumes.record import NoSuchVolume, Record, make_name

T = TypeVar("T")

MOUNTS_AT_ONCE = 8
"""A server that does not answer keeps a thread: these, and none that others wait for."""
UNRESOLVED = "error resolving passed in network volume address"


class MountFailed(PierError):
    """error while mounting volume '{mountpoint}': {reason}"""


class VolumeUse:
    """`get` finds a record or raises NoSuchVolume; `held` keeps a volume from being removed while its block runs;
    `notes` is a folder that a reboot empties."""

    def __init__(
        self,
        folders: Folders,
        notes: str,
        get: Callable[[str], Record],
        held: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self._folders = folders
        self._notes = notes
        self._get = get
        self._held = held
        self._mounted: dict[str, Mounted] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._mounter = ThreadPoolExecutor(MOUNTS_AT_ONCE, thread_name_prefix="mount-volumes")

    def is_folder(self, name: str) -> bool:
        """Whether it is a folder, not a mount. Raises NoSuchVolume."""
        return options.plan(self._get(name).options) is None

    def is_transient(self, name: str) -> bool:
        """Whether its files are gone with the last container that runs with it: a tmpfs. Raises NoSuchVolume."""
        asked = options.plan(self._get(name).options)
        return asked is not None and asked.own_instance

    async def populate(self, name: str, source_fd: int, *, into: str = "", owners: Owners = as_they_are) -> bool:
        """Copy a directory into a volume, if it is empty. Raises NoSuchVolume, MountFailed, TreeTooDeep, OSError."""
        if not self.is_folder(name):
            async with self.opened(name) as fd:
                return await self.populate_mounted(fd, source_fd, into=into, owners=owners)

        def work() -> bool:
            with closing(self._folders.open_folder(name)) as folder, closing(self._folders.open_data(name)) as root:
                return fill.fill(folder, root, source_fd, into=into, owners=owners)

        async with self._lock(name):
            return await asyncio.to_thread(work)

    async def populate_mounted(
        self, mount_fd: int, source_fd: int, *, into: str = "", owners: Owners = as_they_are
    ) -> bool:
        """The same for a volume that is a mount, which its caller has; nothing where it cannot be written to."""

        def work() -> bool:
            with closing(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount_fd)) as root:
                fill.recover(root, root)
                return fill.fill(root, root, source_fd, into=into, owners=owners)

        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            if error.errno == errno.EROFS:
                return False
            raise

    async def mount(self, name: str, user: str) -> tuple[int, bool]:
        """(detached mount of a volume that is a mount, whether its file system begins with this); closed by the caller.

        It stays mounted until `unmount` for the same user. Raises NoSuchVolume, MountFailed.
        """
        record = self._get(name)
        asked = options.plan(record.options)
        assert asked is not None
        async with self._lock(name):
            mounted = self._mounted.setdefault(name, Mounted(asked, f"{self._notes}/{name}"))
            try:
                if not mounted.in_hand:
                    mounted.plan = await self._aside(partial(options.resolve, asked, look_up))
                return await self._aside(partial(mounted.acquire, user))
            except OSError as error:
                if not mounted.users:
                    self._mounted.pop(name, None)
                place = self._folders.data(name)
                raise MountFailed(mountpoint=place, reason=_reason(error, asked, place)) from error

    async def unmount(self, name: str, user: str) -> None:
        """A user has ended. Never raises: the end of a container goes on."""
        if name not in self._mounted:
            return
        async with self._lock(name):
            mounted = self._mounted.get(name)
            if mounted is None:
                return
            with contextlib.suppress(OSError):
                if await self._aside(partial(mounted.release, user)):
                    del self._mounted[name]

    async def found_mounted(self, name: str, user: str, donor: Donor) -> None:
        """A container of an earlier daemon's goes on, and has this volume."""
        asked = None
        with contextlib.suppress(NoSuchVolume):
            asked = options.plan(self._get(name).options)
        if asked is not None:
            mounted = self._mounted.setdefault(name, Mounted(asked, f"{self._notes}/{name}"))
            mounted.users.add(user)
            mounted.donors[user] = donor

    @contextlib.asynccontextmanager
    async def opened(self, name: str) -> AsyncIterator[int]:
        """A descriptor of a volume's root while the block runs, of any kind. Raises NoSuchVolume, MountFailed."""
        with self._held(name):
            if self.is_folder(name):
                with closing(await asyncio.to_thread(self._folders.open_data, name)) as fd:
                    yield fd
                return
            user = f"view-{make_name()}"
            mount_fd, _ = await self.mount(name, user)
            try:
                with closing(mount_fd):
                    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount_fd)
                with closing(fd):
                    yield fd
            finally:
                await asyncio.shield(self.unmount(name, user))

    async def _aside(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._mounter, work)

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    def forget(self, name: str) -> None:
        """The volume is gone."""
        self._locks.pop(name, None)

    def close(self) -> None:
        """Let go of every mount; what containers have stays with them."""
        self._mounter.shutdown(wait=False, cancel_futures=True)
        for mounted in self._mounted.values():
            mounted.close()


def look_up(host: str) -> str:
    """The address of a server. Blocking. Raises OSError."""
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        reason = f"{UNRESOLVED}: lookup {host}: {error.strerror or error}"
        raise OSError(errno.EHOSTUNREACH, reason) from error


def _reason(error: OSError, asked: options.MountPlan, place: str) -> str:
    text = error.strerror or str(error)
    if text.startswith(UNRESOLVED):
        return text
    plain = os.strerror(error.errno).lower() if error.errno else text
    detail = "" if plain in text.lower() else f" ({options.masked(text)})"
    return f"failed to mount local volume: {asked.describe(place)}: {plain}{detail}"
