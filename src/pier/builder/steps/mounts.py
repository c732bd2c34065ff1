"""What a RUN step is given besides its root: trees of other steps, caches, secrets, an agent's socket, memory.

Each becomes a detached mount of this process, moved into the container by its first process; nothing of it is ever part
of a layer. Secrets live on a tmpfs of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import posixpath
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec

from pier.builder import layers
from pier.builder.cache import CACHE_MOUNT, Cache, Record, new_id
from pier.builder.folders import MOUNTS
from pier.builder.graph import CacheSharing, Exec, Mount, MountType
from pier.builder.ground import Ground
from pier.builder.session import NoSshAgent, NoSuchSecret
from pier.builder.solver import Work
from pier.builder.tree import SCRATCH, Folder, Result, Tree
from pier.containers.detached import path_of
from pier.containers.spec_mounts import DETACHED, clean_target
from pier.errors import InvalidParameter
from pier.kernel import mounts, namespaces
from pier.kernel.paths import SYMLINKS_MAX, closing, open_in_root
from pier.runtime.request import OverlayRoot
from pier.storage.copy_tree import copy_tree
from pier.storage.folder_driver import make_root
from pier.storage.trees import remove_tree, tree_size

SECRET_MAX_BYTES: Final = 500 * 1024
"""As BuildKit has it."""
T = TypeVar("T")


class BadMount(InvalidParameter):
    """mount at {dest}: {reason}"""


class SecretTooLarge(InvalidParameter):
    """secret {id} is {size} bytes, and the most is {most}"""


@dataclass(slots=True)
class CacheMounts:
    """The directories of `--mount=type=cache`, each a record of the build cache."""

    ground: Ground
    cache: Cache
    _locks: dict[str, asyncio.Lock] = field(default_factory=dict)
    _making: asyncio.Lock = field(default_factory=asyncio.Lock)
    _users: dict[str, int] = field(default_factory=dict)
    """Record -> steps that have it mounted now."""

    @contextlib.asynccontextmanager
    async def taken(self, mount: Mount, base: Result) -> AsyncIterator[str]:
        """The directory of a cache mount while the block runs. Raises LayerNotFound, OSError."""
        assert mount.cache is not None
        key = f"cache-mount:{mount.cache.id}:{base.key}"
        if mount.cache.sharing is CacheSharing.LOCKED:
            async with self._locks.setdefault(key, asyncio.Lock()), self._used(key, base, mount, private=False) as path:
                yield path
            return
        async with self._used(key, base, mount, private=mount.cache.sharing is CacheSharing.PRIVATE) as path:
            yield path

    @contextlib.asynccontextmanager
    async def _used(self, key: str, base: Result, mount: Mount, *, private: bool) -> AsyncIterator[str]:
        record = self._choose(key, mount, private=private)
        release = self.cache.use(record.id)
        self._users[record.id] = self._users.get(record.id, 0) + 1
        path = os.path.join(self.ground.data_dir, record.folder)
        try:
            async with self._making:
                await self.ground.in_thread(_make_cache_dir, self.ground, path, base)
            yield path
        finally:
            self._users[record.id] -= 1
            release()
            record.used_ns, record.uses = self.ground.clock_ns(), record.uses + 1
            with contextlib.suppress(OSError):
                record.size_bytes = await self.ground.in_thread(tree_size, path)
            if record.id in self.cache.records:
                self.cache.put(record)

    def _choose(self, key: str, mount: Mount, *, private: bool) -> Record:
        """The record of a key; for a private mount one that nobody has."""
        known = sorted(
            (each for each in self.cache.records.values() if each.keys and each.keys[0].startswith(f"{key}#")),
            key=lambda each: each.keys[0],
        )
        for record in known:
            if not private or not self._users.get(record.id):
                return record
        assert mount.cache is not None
        folder = hashlib.sha256(f"{key}#{len(known)}".encode()).hexdigest()[:32]
        record = Record(
            id=new_id(),
            keys=[f"{key}#{len(known)}"],
            type=CACHE_MOUNT,
            description=f"cached mount {mount.dest} from exec with id {mount.cache.id!r}",
            created_ns=self.ground.clock_ns(),
            folder=f"{MOUNTS}/{folder}",
        )
        self.cache.put(record)
        return record


def _make_cache_dir(ground: Ground, path: str, base: Result) -> None:
    """Make a cache's directory with what its base has; half of one that a kill left begins anew."""
    if os.path.isdir(path):
        return
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    fresh = f"{path}.new"
    with closing(os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as folder:
        remove_tree(folder, os.fsencode(os.path.basename(fresh)))
    make_root(fresh, None)
    with layers.shown(ground, base) as source, closing(os.open(fresh, os.O_RDONLY | os.O_DIRECTORY)) as target:
        if base != SCRATCH:
            copy_tree(source, target)
    os.rename(fresh, path)


@dataclass(slots=True)
class Furnished:
    """What the mounts of a step have become."""

    oci: list[dict[str, Any]] = field(default_factory=list)
    drafts: dict[int, tuple[str, Tree]] = field(default_factory=dict)
    """Output -> the writable tree, other than the root's, that it is made of."""


async def furnish(ground: Ground, caches: CacheMounts, work: Work, stack: contextlib.AsyncExitStack) -> Furnished:
    """Make the mounts of a step but its root; they are there as long as `stack` is open.

    Raises InvalidMount, MountInsideProc, BadMount, NoSuchSecret, NoSshAgent, SecretTooLarge, LayerNotFound, OSError.
    """
    found = Furnished()
    assert isinstance(work.vertex.op, Exec)
    for asked in work.vertex.op.mounts:
        if asked.dest == "/":
            continue
        mount = msgspec.structs.replace(asked, dest=clean_target(asked.dest, asked.type.name.lower()))
        made = await _Maker(ground, caches, work, found, stack).make(mount)
        if made is not None:
            found.oci.append(made)
    found.oci.sort(key=lambda item: item["destination"].count("/"))
    return found


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes single mounts; what they need is let go with `stack`."""

    ground: Ground
    caches: CacheMounts
    work: Work
    found: Furnished
    stack: contextlib.AsyncExitStack

    async def make(self, mount: Mount) -> dict[str, Any] | None:
        """An OCI mount; None: an optional secret that the client has not."""
        base: Result = self.work.inputs[mount.input] if mount.input >= 0 else SCRATCH
        match mount.type:
            case MountType.TMPFS:
                size = [f"size={mount.tmpfs_size_bytes}"] if mount.tmpfs_size_bytes else []
                options = ["nosuid", "noexec", "nodev", *size]
                return {"destination": mount.dest, "type": "tmpfs", "source": "tmpfs", "options": options}
            case MountType.CACHE:
                place = await self.stack.enter_async_context(self.caches.taken(mount, base))
                fd = await self.ground.in_thread(aside, lambda: part_of_directory(place, mount.selector))
            case MountType.SECRET:
                secret = await _secret(self.work, mount)
                if secret is None:
                    return None
                fd = await self.ground.in_thread(aside, lambda: secret_file(secret, mount))
            case MountType.SSH:
                path = await _agent(self.work, mount, self.stack)
                return _bound(mount, path, []) if path else None
            case MountType.BIND:
                fd = await self.ground.in_thread(self._bind, mount, base)
        self.stack.callback(os.close, fd)
        return _bound(mount, path_of(fd), [DETACHED])

    def _bind(self, mount: Mount, base: Result) -> int:
        """A detached mount of an input: as it is, or with a writable layer over it. Blocks."""
        try:
            if mount.readonly and isinstance(base, Folder):
                return aside(lambda: part_of_directory(base.path, mount.selector))
            if mount.readonly:
                assert isinstance(base, Tree)
                return self.ground.snapshots.layer_mount(base.chain, mount.selector.strip("/"))
            tree = layers.as_tree(self.ground, base)
            name, root = layers.begin(self.ground, tree)
            self.stack.callback(layers.drop, self.ground, name)
            if mount.output >= 0:
                self.found.drafts[mount.output] = name, tree
            if isinstance(root, OverlayRoot):
                return aside(lambda: part_of_overlay(root, mount.selector))
            return aside(lambda: part_of_directory(root.path, mount.selector))
        except (FileNotFoundError, NotADirectoryError) as error:
            reason = f"{mount.selector or '/'}: {(error.strerror or '').lower()}"
            raise BadMount(dest=mount.dest, reason=reason) from error


def _bound(mount: Mount, source: str, words: list[str]) -> dict[str, Any]:
    readonly = ["ro"] if mount.readonly or mount.type is MountType.SECRET else []
    options = ["rbind", "rprivate", *readonly, *words]
    return {"destination": mount.dest, "type": "bind", "source": source, "options": options}


async def _secret(work: Work, mount: Mount) -> bytes | None:
    assert mount.secret is not None
    content = await work.session.secret(mount.secret.id)
    if content is None and not mount.secret.optional:
        raise NoSuchSecret(id=mount.secret.id)
    if content is not None and len(content) > SECRET_MAX_BYTES:
        raise SecretTooLarge(id=mount.secret.id, size=len(content), most=SECRET_MAX_BYTES)
    return content


async def _agent(work: Work, mount: Mount, stack: contextlib.AsyncExitStack) -> str | None:
    assert mount.secret is not None
    path = await stack.enter_async_context(work.session.ssh(mount.secret.id))
    if path is None and not mount.secret.optional:
        raise NoSshAgent(id=mount.secret.id)
    if path is not None:
        os.chown(path, mount.secret.uid, mount.secret.gid)
        os.chmod(path, mount.secret.mode)
    return path


def aside(work: Callable[[], T]) -> T:
    """Run in a thread with a mount namespace of its own, which ends with it: a part of a mount can be copied only while
    that is attached somewhere, and nobody is to see where."""

    def within() -> T:
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mounts.mount(None, "/", None, mounts.MS_PRIVATE | mounts.MS_REC)
        return work()

    with ThreadPoolExecutor(1, thread_name_prefix="build-mount") as thread:
        return thread.submit(within).result()


def part_of_directory(path: str, selector: str) -> int:
    """A detached mount of what is at `selector` below a directory of the host. Called by `aside`."""
    with closing(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
        return _copied(root, selector)


def part_of_overlay(root: OverlayRoot, selector: str) -> int:
    """The same of a writable overlay. Called by `aside`."""
    with closing(layers.mounted(root)) as whole:
        if not selector.strip("/"):
            return os.dup(whole)
        with closing(os.open(root.work, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as at:
            mounts.move_mount(whole, at, root.work)
        with closing(os.open(root.work, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as mounted:
            return _copied(mounted, selector)


def _copied(root: int, selector: str) -> int:
    with closing(open_in_root(root, selector or "/", os.O_PATH)) as wanted:
        return mounts.open_tree(wanted, "", clone=True)


def secret_file(content: bytes, mount: Mount) -> int:
    """A detached mount of a file with a secret, on a tmpfs that ends with the last mount of it. Called by `aside`."""
    assert mount.secret is not None
    attributes = mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NODEV | mounts.MOUNT_ATTR_NOEXEC
    options: list[tuple[str, str | None]] = [("size", str(SECRET_MAX_BYTES + (1 << 16))), ("mode", "0700")]
    with contextlib.suppress(OSError):  # before Linux 6.4 tmpfs has no such option, and may be swapped out
        options_here = [*options, ("noswap", None)]
        with closing(mounts.mount_filesystem("tmpfs", options_here, attributes)) as probe:
            return _written(probe, content, mount)
    with closing(mounts.mount_filesystem("tmpfs", options, attributes)) as whole:
        return _written(whole, content, mount)


def _written(tmpfs: int, content: bytes, mount: Mount) -> int:
    assert mount.secret is not None
    place = "/proc"  # any directory of this namespace, which is this thread's alone
    with closing(os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as at:
        mounts.move_mount(tmpfs, at, place)
    path = f"{place}/secret"
    with closing(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)) as fd:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        os.fchown(fd, mount.secret.uid, mount.secret.gid)
        os.fchmod(fd, mount.secret.mode)
    return mounts.open_tree(mounts.AT_FDCWD, path, clone=True)


# --- what mounting leaves


def missing(root_fd: int, dests: Sequence[str]) -> list[str]:
    """Of mount points those that a tree does not have, with those of their parents that it has not, deepest first."""
    found: dict[str, None] = {}
    waiting = list(dests)
    for _ in range(len(dests) + SYMLINKS_MAX):
        if not waiting:
            break
        parts = [part for part in waiting.pop().split("/") if part]
        for depth in range(len(parts), 0, -1):
            path = "/" + "/".join(parts[:depth])
            if _is_there(root_fd, path):
                break
            target = _link_at(root_fd, path)
            if target is not None:  # it leads to nothing: what is made is at the other end
                waiting.append(posixpath.join(posixpath.dirname(path), target))
                break
            found[path] = None
    return sorted(found, key=lambda path: path.count("/"), reverse=True)


def _is_there(root_fd: int, path: str) -> bool:
    try:
        os.close(open_in_root(root_fd, path, os.O_PATH))
    except OSError:
        return False
    return True


def _link_at(root_fd: int, path: str) -> str | None:
    with contextlib.suppress(OSError), closing(open_in_root(root_fd, path, os.O_PATH | os.O_NOFOLLOW)) as fd:
        return os.readlink("", dir_fd=fd)
    return None


def remove_stubs(root_fd: int, stubs: list[str]) -> None:
    """Remove what was made to mount on, where nothing has been put there: by descriptor, below the root, and never
    through a link that the step has put in a parent's place (CVE-2024-23652)."""
    for path in stubs:
        parent, _, name = path.rpartition("/")
        with contextlib.suppress(OSError), closing(open_in_root(root_fd, parent or "/", os.O_RDONLY)) as above:
            before = os.fstat(above)
            info = os.stat(name, dir_fd=above, follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                os.rmdir(name, dir_fd=above)
            elif stat.S_ISREG(info.st_mode) and not info.st_size:
                os.unlink(name, dir_fd=above)
            os.utime(above, ns=(before.st_atime_ns, before.st_mtime_ns))
