"""The mount plan of a container: what is mounted where, in which order, and how (runtime-spec config.md#mounts).

`plan` is pure: OCI configuration in, a list of operations out, each of which can be printed. The operations run in the
container's new mount namespace, with the root file system attached but not yet pivoted to. Every destination is reached
below the root's descriptor; what a hostile image or a racing neighbour puts there can misplace a mount inside the
container, never outside it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from pier.kernel import mounts, paths
from pier.kernel.cgroup_layout import detect
from pier.kernel.paths import open_in_root
from pier.runtime.process.blame import FieldError, asked_by
from pier.runtime.process.copyup import copy_tree
from pier.runtime.process.sysctl import check_sysctl

ATTRIBUTES = {
    "ro": (mounts.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, mounts.MOUNT_ATTR_RDONLY),
    "nosuid": (mounts.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, mounts.MOUNT_ATTR_NOSUID),
    "nodev": (mounts.MOUNT_ATTR_NODEV, 0),
    "dev": (0, mounts.MOUNT_ATTR_NODEV),
    "noexec": (mounts.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, mounts.MOUNT_ATTR_NOEXEC),
    "nosymfollow": (mounts.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "nodiratime": (mounts.MOUNT_ATTR_NODIRATIME, 0),
    "relatime": (mounts.MOUNT_ATTR_RELATIME, mounts.MOUNT_ATTR__ATIME),
    "noatime": (mounts.MOUNT_ATTR_NOATIME, mounts.MOUNT_ATTR__ATIME),
    "strictatime": (mounts.MOUNT_ATTR_STRICTATIME, mounts.MOUNT_ATTR__ATIME),
    "atime": (0, mounts.MOUNT_ATTR__ATIME),
    "norelatime": (0, mounts.MOUNT_ATTR__ATIME),
    "nostrictatime": (0, mounts.MOUNT_ATTR__ATIME),
    "diratime": (0, mounts.MOUNT_ATTR_NODIRATIME),
    "symfollow": (0, mounts.MOUNT_ATTR_NOSYMFOLLOW),
}
"""Words of runtime-spec's mount options: (attributes set, attributes cleared)."""
RECURSIVE_ATTRIBUTES = {"r" + word: change for word, change in ATTRIBUTES.items()}
PASSED_OVER = frozenset({"defaults", "async", "silent", "loud", "remount", "noiversion", "nolazytime", "nomand"})
BIND_WORDS = frozenset({"bind", "rbind", "idmap", "ridmap", "tmpcopyup", "detached"})
"""Words that choose an operation."""
REAL_DIRECTORIES = frozenset({"/proc", "/sys", "/dev"})
"""Where a symbolic link in the image would make the kernel's own files appear elsewhere; refused."""

UNLABELLED = frozenset({"mqueue", "proc", "sysfs"})
"""Whose files the kernel itself gives SELinux labels, whatever `linux.mountLabel` says."""

DEVPTS_SUPER_MAGIC = 0x1CD1
NULL_DEVICE = os.makedev(1, 3)

DEVICE_KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}

DEFAULT_DEVICES = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
DEV_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
)


class Options(NamedTuple):
    """Mount options sorted by who understands them."""

    set: int
    clear: int
    recursive_set: int
    recursive_clear: int
    bind: bool
    recursive_bind: bool
    detached: bool
    """Pier's own: what is at the source is a mount in no tree, moved rather than copied."""
    copy_up: bool
    """Runc's `tmpcopyup`: a tmpfs begins with what the image has at its place."""
    propagation: list[int]
    filesystem: list[tuple[str, str | None]]


def parse_options(words: list[str]) -> Options:
    """Sort runtime-spec mount options: attributes, bind, propagation, and the file system's own."""
    chosen, cleared, below, cleared_below = 0, 0, 0, 0
    propagation: list[int] = []
    filesystem: list[tuple[str, str | None]] = []
    for word in words:
        if word in ATTRIBUTES:
            set_bits, clear_bits = ATTRIBUTES[word]
            chosen = chosen & ~clear_bits | set_bits
            cleared = cleared & ~set_bits | clear_bits
        elif word in RECURSIVE_ATTRIBUTES:
            set_bits, clear_bits = RECURSIVE_ATTRIBUTES[word]
            below, cleared_below = below | set_bits, cleared_below | clear_bits
        elif word in mounts.PROPAGATION:
            propagation.append(mounts.PROPAGATION[word])
        elif word not in PASSED_OVER and word not in BIND_WORDS:
            filesystem.append(parse_flag(word))
    return Options(
        set=chosen,
        clear=cleared,
        recursive_set=below,
        recursive_clear=cleared_below,
        bind="bind" in words or "rbind" in words,
        recursive_bind="rbind" in words,
        detached="detached" in words,
        copy_up="tmpcopyup" in words,
        propagation=propagation,
        filesystem=filesystem,
    )


def parse_flag(word: str) -> tuple[str, str | None]:
    """`size=64m` as ("size", "64m"), `ro` as ("ro", None)."""
    key, equals, value = word.partition("=")
    return key, value if equals else None


class Furniture(NamedTuple):
    """File systems that were made before their container was known, and are in no tree yet."""

    filesystems: list[tuple[MountFilesystem, int]]
    """With a descriptor of the detached mount. A /dev among them has its nodes."""

    def take(self, operation: MountFilesystem) -> int | None:
        """The descriptor of what `operation` would make, None if it has to; it is the caller's now."""
        for index, (made, fd) in enumerate(self.filesystems):
            if made == operation:
                del self.filesystems[index]
                return fd
        return None

    def fds(self) -> list[int]:
        return [fd for _, fd in self.filesystems]


NO_FURNITURE = Furniture([])


class Tree:
    """The container's root while it is furnished."""

    def __init__(self, root_fd: int, null_fd: int, furniture: Furniture = NO_FURNITURE) -> None:
        self.root_fd = root_fd
        self.null_fd = null_fd
        self.furniture = furniture
        self.nodes_made = False
        self.dev_fd: int | None = None
        self.pts_fd: int | None = None

    @contextlib.contextmanager
    def directory(self, path: str, mode: int = 0o755) -> Iterator[int]:
        """An O_PATH descriptor of a mount point, made with this mode if it is not there."""
        if path in REAL_DIRECTORIES:
            self._refuse_link(path)
        if mode != 0o755:
            os.close(paths.mkdir_in_root(self.root_fd, paths.split(path)[0]))  # parents are as always
        with paths.closing(paths.mkdir_in_root(self.root_fd, path, mode)) as fd:
            self._refuse_proc(fd, path)
            yield fd

    @contextlib.contextmanager
    def file(self, path: str) -> Iterator[int]:
        """An O_PATH descriptor of a mount point that is no directory, made if it is not there."""
        with paths.closing(paths.touch_in_root(self.root_fd, path)) as fd:
            self._refuse_proc(fd, path)
            yield fd

    @staticmethod
    def _refuse_proc(fd: int, path: str) -> None:
        """A link in the image must not lead a volume onto /proc, whose files masks and checks rely on (attack 5)."""
        if not path.startswith("/proc/") and paths.fs_magic(fd) == paths.PROC_SUPER_MAGIC:
            raise OSError(errno.EPERM, f'"{path}" cannot be mounted because it is inside /proc')

    def _refuse_link(self, path: str) -> None:
        try:
            info = os.stat(path.lstrip("/"), dir_fd=self.root_fd, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(info.st_mode):
            raise OSError(f"{path} in the image is not a directory: refused, the kernel's files are mounted there")


class Operation(Protocol):
    """A deed of the plan. What it raises may say by which field of what is asked for it was asked (`asked_by`)."""

    def describe(self) -> str: ...
    def execute(self, tree: Tree) -> None: ...


class Step(NamedTuple):
    """One step of the plan, and the field of the configuration that asks for it: `mounts[3]`."""

    operation: Operation
    field: str

    def describe(self) -> str:
        return self.operation.describe()

    def execute(self, tree: Tree) -> None:
        """Do it. Raises FieldError, with what was to be done in its words."""
        try:
            with asked_by(self.field):
                self.operation.execute(tree)
        except FieldError as error:
            raise FieldError(error.errno, f"{self.describe()}: {error.strerror}", error.field) from error


_ASKED_BY = {errno.EINVAL: "options", errno.ENOENT: "source", errno.ENOTBLK: "source", errno.ENXIO: "source"}
"""What a file system that cannot be made was most likely told wrong."""


OPEN_TO_ALL = 0o1777
"""The kernel's mode for a tmpfs that was told none."""


class MountFilesystem(NamedTuple):
    """A new file system (proc, sysfs, tmpfs, mqueue, devpts, …) at `destination`."""

    fstype: str
    destination: str
    options: Options
    source: str | None = None

    def describe(self) -> str:
        data = ",".join(key if value is None else f"{key}={value}" for key, value in self.options.filesystem)
        return f"mount {self.fstype} on {self.destination} ({data}) attributes {self.options.set:#x}"

    @property
    def takes_mode(self) -> bool:
        """A tmpfs that was told no mode has that of the directory it covers (runc's rule); else it is open to all."""
        told = any(key == "mode" for key, _ in self.options.filesystem)
        return self.fstype == "tmpfs" and not told and not self.options.copy_up

    def make(self, mode: int | None = None) -> int:
        """A descriptor of the file system, mounted nowhere yet; `mode` is that of its root."""
        options = self.options
        attributes = options.set if not options.copy_up else options.set & ~mounts.MOUNT_ATTR_RDONLY
        data = [*options.filesystem, *([] if mode is None else [("mode", f"{mode:o}")])]
        try:
            return mounts.mount_filesystem(self.fstype, data, attributes, source=self.source)
        except OSError as error:
            field = _ASKED_BY.get(error.errno or 0, "type")
            with asked_by(field if field != "options" or options.filesystem else "type"):
                raise

    def execute(self, tree: Tree) -> None:
        options = self.options
        ready = tree.furniture.take(self)
        fd = self.make(self._mode_there(tree) if self.takes_mode else None) if ready is None else ready
        # The next start finds the directory that this one makes, and is to give the tmpfs the same mode.
        place = tree.directory(self.destination, OPEN_TO_ALL) if self.takes_mode else tree.directory(self.destination)
        keep = False
        try:
            with asked_by("destination"), place as target:
                if options.copy_up:
                    copy_tree(target, fd)
                    mounts.mount_setattr(fd, set=options.set)
                mounts.move_mount(fd, target, self.destination)
            with asked_by("options"):
                propagate(fd, options)
            if self.destination == "/dev" and self.fstype == "tmpfs":
                tree.dev_fd, tree.nodes_made, keep = fd, ready is not None, True
            elif self.fstype == "devpts" and self.destination == "/dev/pts":
                tree.pts_fd, keep = fd, True
        finally:
            if not keep:
                os.close(fd)

    def _mode_there(self, tree: Tree) -> int | None:
        try:
            target = open_in_root(tree.root_fd, self.destination, os.O_PATH)
        except OSError:  # none there yet; what else is wrong, its mounting says
            return None
        with paths.closing(target):
            return stat.S_IMODE(os.fstat(target).st_mode)


class BindMount(NamedTuple):
    """A file or directory of the host, shown at `destination`."""

    source: str
    destination: str
    options: Options
    prepared: int = -1
    """A descriptor of the detached mount, where the container's own root could not make it; closed when it is done."""

    def describe(self) -> str:
        how = "rbind" if self.options.recursive_bind else "bind"
        return f"{how} {self.source} on {self.destination} set {self.options.set:#x}"

    def copy_source(self) -> int:
        """A descriptor of a detached copy of what is at `source` now."""
        with asked_by("source"):
            if self.options.detached:
                return os.open(self.source, os.O_PATH | os.O_CLOEXEC)
            return mounts.open_tree(mounts.AT_FDCWD, self.source, clone=True, recursive=self.options.recursive_bind)

    def execute(self, tree: Tree) -> None:
        options = self.options
        fd = self.prepared if self.prepared >= 0 else self.copy_source()
        try:
            with asked_by("destination"):
                self._attach(fd, tree)
            with asked_by("options"):
                if options.set or options.clear:
                    mounts.mount_setattr(fd, set=options.set, clear=options.clear)
                if options.recursive_set or options.recursive_clear:
                    mounts.mount_setattr(fd, set=options.recursive_set, clear=options.recursive_clear, recursive=True)
                propagate(fd, options)
        finally:
            os.close(fd)

    def _attach(self, fd: int, tree: Tree) -> None:
        folder = stat.S_ISDIR(os.fstat(fd).st_mode)
        try:
            with tree.directory(self.destination) if folder else tree.file(self.destination) as target:
                if stat.S_ISDIR(os.fstat(target).st_mode) != folder:
                    raise NotADirectoryError
                mounts.move_mount(fd, target, self.destination)
        except NotADirectoryError:
            raise OSError(
                errno.ENOTDIR,
                f'error mounting "{self.source}" to rootfs at "{self.destination}": not a directory: Are you trying to '
                "mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the "
                "expected type",
            ) from None


def with_host_root(operation: Operation) -> Operation:
    """`operation`, which has copied already what it shows if that is the whole host.

    The container's root is about to be mounted over `/`: a copy of `/` made afterwards would have it on top.
    """
    if isinstance(operation, BindMount) and operation.prepared < 0 and os.path.realpath(operation.source) == "/":
        return operation._replace(prepared=operation.copy_source())
    return operation


def propagate(fd: int, options: Options) -> None:
    """Set the propagation that the options ask of the mount behind `fd`, which is attached."""
    for flags in options.propagation:
        mounts.mount_setattr(fd, propagation=flags & ~mounts.MS_REC, recursive=bool(flags & mounts.MS_REC))


class MountCgroups(NamedTuple):
    """The container's own cgroups: one cgroup2 mount, or a tmpfs with a directory for each v1 hierarchy."""

    destination: str
    options: Options
    hierarchies: list[tuple[str, str]]
    """(directory name, options of the v1 hierarchy such as `memory` or `none,name=systemd`); empty on v2."""
    private: bool = True
    """Whether the container has a cgroup namespace of its own."""

    def describe(self) -> str:
        return f"mount cgroups on {self.destination}: {', '.join(name for name, _ in self.hierarchies) or 'v2'}"

    def execute(self, tree: Tree) -> None:
        attributes = self.options.set
        if not self.hierarchies:
            _attach(tree, self._mount_unified(), self.destination)
            return
        # The tmpfs becomes read-only last, when its directories are there.
        top = mounts.mount_filesystem("tmpfs", [("mode", "755")], attributes & ~mounts.MOUNT_ATTR_RDONLY)
        try:
            with tree.directory(self.destination) as target:
                mounts.move_mount(top, target, self.destination)
            for name, words in self.hierarchies:
                os.mkdir(name, 0o755, dir_fd=top)
                fd = self._mount_hierarchy(words)
                with paths.closing(fd), paths.closing(os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=top)) as place:
                    mounts.move_mount(fd, place, f"{self.destination}/{name}")
                if "," in name:
                    for alias in name.split(","):
                        os.symlink(name, alias, dir_fd=top)
            if attributes & mounts.MOUNT_ATTR_RDONLY:
                mounts.mount_setattr(top, set=mounts.MOUNT_ATTR_RDONLY)
        finally:
            os.close(top)

    def _mount_hierarchy(self, words: str) -> int:
        if self.private:
            return mounts.mount_filesystem("cgroup", [parse_flag(word) for word in words.split(",")], self.options.set)
        # Without a cgroup namespace a new mount would show the groups of the whole host.
        mount = next(mount for mount, own in detect().v1_options if own == words)
        fd = mounts.open_tree(mounts.AT_FDCWD, mount + _own_cgroup(words), clone=True)
        mounts.mount_setattr(fd, set=self.options.set)
        return fd

    def _mount_unified(self) -> int:
        if self.private:
            return mounts.mount_filesystem("cgroup2", [], self.options.set)
        # A new mount from the host's cgroup namespace would take nsdelegate and the like from the host's own.
        unified = detect().unified
        assert unified is not None
        fd = mounts.open_tree(mounts.AT_FDCWD, unified, clone=True)
        mounts.mount_setattr(fd, set=self.options.set)
        return fd


def _own_cgroup(words: str) -> str:
    """This process's path in the v1 hierarchy with these mount options (proc_pid_cgroup(5))."""
    wanted = words.removeprefix("none,")
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if ",".join(sorted(controllers.split(","))) == wanted:
                return "" if path == "/" else path
    raise OSError(errno.ENOENT, f"this process is in no cgroup of the hierarchy {words}")


class MakeDevices(NamedTuple):
    """Device nodes and the customary links on the container's /dev."""

    devices: list[dict[str, Any]]

    def describe(self) -> str:
        names = [name for name, _, _ in DEFAULT_DEVICES] + [device["path"] for device in self.devices]
        return f"make devices {' '.join(names)}"

    def execute(self, tree: Tree) -> None:
        with contextlib.ExitStack() as stack:
            # On a /dev of our own its descriptor is safer than any path.
            dev_fd = tree.dev_fd if tree.dev_fd is not None else stack.enter_context(tree.directory("/dev"))
            if not tree.nodes_made:
                _make_default_nodes(dev_fd)
        for index, device in enumerate(self.devices):
            parent, name = paths.split(device["path"])
            number = os.makedev(device.get("major", 0), device.get("minor", 0))
            mode = DEVICE_KINDS[device["type"]] | device.get("fileMode", 0o666)
            with asked_by(f"[{index}]"), paths.closing(paths.mkdir_in_root(tree.root_fd, parent)) as parent_fd:
                owner = device.get("uid", 0), device.get("gid", 0)
                _make_node(parent_fd, name, mode, number, owner=owner, of_host=device["path"])


class MaskPath(NamedTuple):
    """Hide a file behind /dev/null, a directory behind an empty read-only tmpfs."""

    path: str

    def describe(self) -> str:
        return f"mask {self.path}"

    def execute(self, tree: Tree) -> None:
        try:
            target = open_in_root(tree.root_fd, self.path, os.O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            return
        with paths.closing(target):
            if stat.S_ISDIR(os.fstat(target).st_mode):
                cover = mounts.mount_filesystem(
                    "tmpfs", [("nr_blocks", "1"), ("nr_inodes", "1")], mounts.MOUNT_ATTR_RDONLY
                )
            else:
                cover = mounts.open_tree(tree.null_fd, "", clone=True)
            with paths.closing(cover):
                mounts.move_mount(cover, target, self.path)


class ProtectPath(NamedTuple):
    """Make what is at a path read-only by a bind mount of it over itself."""

    path: str

    def describe(self) -> str:
        return f"make {self.path} read-only"

    def execute(self, tree: Tree) -> None:
        try:
            target = open_in_root(tree.root_fd, self.path, os.O_PATH)
        except (FileNotFoundError, NotADirectoryError):
            return
        with paths.closing(target), paths.closing(mounts.open_tree(target, "", clone=True, recursive=True)) as copy:
            mounts.mount_setattr(copy, set=mounts.MOUNT_ATTR_RDONLY, recursive=True)
            mounts.move_mount(copy, target, self.path)


class WriteSysctl(NamedTuple):
    """Set one kernel parameter of the container's own namespaces."""

    key: str
    value: str

    def describe(self) -> str:
        return f"sysctl {self.key}={self.value}"

    def execute(self, tree: Tree) -> None:
        fd = open_in_root(tree.root_fd, f"/proc/sys/{self.key.replace('.', '/')}", os.O_WRONLY)
        with paths.closing(fd):
            # A volume or an image's link over /proc must not turn this into a write somewhere else.
            paths.require_fs(fd, paths.PROC_SUPER_MAGIC, f"sysctl {self.key}")
            os.write(fd, self.value.encode())


def _attach(tree: Tree, fd: int, destination: str) -> None:
    with paths.closing(fd), tree.directory(destination) as target:
        mounts.move_mount(fd, target, destination)


def _make_default_nodes(dev_fd: int) -> None:
    for name, major, minor in DEFAULT_DEVICES:
        _make_node(dev_fd, name, stat.S_IFCHR | 0o666, os.makedev(major, minor), of_host=f"/dev/{name}")
    for name, target in DEV_LINKS:
        with contextlib.suppress(FileExistsError):
            os.symlink(target, name, dir_fd=dev_fd)


def _make_node(
    dir_fd: int, name: str, mode: int, number: int, *, owner: tuple[int, int] = (0, 0), of_host: str
) -> None:
    """mknod(2) below a descriptor, the umask being 0; a node of that name that is there already is left as it is.

    No chmod: where the directory is a volume, a neighbour may have put a link in the node's place since, which chmod
    would follow from the host's root.
    """
    try:
        os.mknod(name, mode, number, dir_fd=dir_fd)
    except FileExistsError:
        return
    except PermissionError:
        _bind_node(dir_fd, name, number, of_host)
        return
    if owner != (0, 0):
        os.chown(name, *owner, dir_fd=dir_fd, follow_symlinks=False)


def _bind_node(dir_fd: int, name: str, number: int, of_host: str) -> None:
    """Show the host's node, for a user namespace whose root may make none; only if it is the device asked for."""
    with paths.closing(mounts.open_tree(mounts.AT_FDCWD, of_host, clone=True)) as copy:
        if os.fstat(copy).st_rdev != number:
            raise OSError(errno.EPERM, f"{of_host} of the host is not the device {os.major(number)}:{os.minor(number)}")
        with paths.closing(paths.touch_in_root(dir_fd, name)) as place:
            mounts.move_mount(copy, place, of_host)


def open_null() -> int:
    """The host's /dev/null, checked to be the device: what covers secrets must not be someone's file."""
    fd = os.open("/dev/null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    info = os.fstat(fd)
    if not stat.S_ISCHR(info.st_mode) or info.st_rdev != NULL_DEVICE:
        os.close(fd)
        raise OSError("/dev/null of the host is not the null device (1:3)")
    return fd


NOTHING_PREPARED: Mapping[int, int] = {}


def plan(
    spec: dict[str, Any],
    hierarchies: list[tuple[str, str]],
    own_namespaces: set[str],
    prepared: Mapping[int, int] = NOTHING_PREPARED,
) -> list[Step]:
    """What furnishes the root of `spec` (runtime-spec configuration), in order.

    `hierarchies` are the host's v1 cgroup hierarchies (see MountCgroups); `own_namespaces` the OCI names of the
    namespaces that are new or joined by path; `prepared` has a detached mount for the index of a bind mount. Raises
    ValueError for what cannot be asked.
    """
    linux = spec.get("linux", {})
    steps: list[Step] = []
    nodes = Step(MakeDevices(linux.get("devices", [])), "linux.devices")
    devices_made = False
    for index, mount in enumerate(spec.get("mounts", [])):
        options = parse_options(mount.get("options", []))
        fstype, destination = mount.get("type", "none"), mount["destination"]
        operation: Operation
        if options.bind:
            operation = BindMount(mount["source"], destination, options, prepared.get(index, -1))
        elif fstype in ("cgroup", "cgroup2"):
            operation = MountCgroups(destination, options, hierarchies, "cgroup" in own_namespaces)
        else:
            if linux.get("mountLabel") and fstype not in UNLABELLED:
                options = options._replace(filesystem=[*options.filesystem, ("context", linux["mountLabel"])])
            operation = MountFilesystem(fstype, destination, options, mount.get("source"))
        steps.append(Step(operation, f"mounts[{index}]"))
        if destination == "/dev":
            if not options.bind:  # else it is the host's own, or what the user keeps there: not ours to fill
                steps.append(nodes)
            devices_made = True
    if not devices_made:
        steps.append(nodes)
    for key, value in sorted(linux.get("sysctl", {}).items()):
        check_sysctl(key, own_namespaces)
        steps.append(Step(WriteSysctl(key.replace("/", "."), value), f"linux.sysctl.{key}"))
    for index, path in enumerate(linux.get("readonlyPaths", [])):
        steps.append(Step(ProtectPath(path), f"linux.readonlyPaths[{index}]"))
    for index, path in enumerate(linux.get("maskedPaths", [])):
        steps.append(Step(MaskPath(path), f"linux.maskedPaths[{index}]"))
    return steps


AHEAD = frozenset({"devpts", "mqueue", "sysfs", "tmpfs"})
"""File systems that show nothing but the namespaces of who makes them, whenever that is."""


def prepare(mounts_wanted: list[dict[str, Any]]) -> Furniture:
    """Make those of runtime-spec's `mounts` that can be made before their container is known. Needs an umask of 0."""
    furniture = Furniture([])
    for operation, _ in plan({"mounts": mounts_wanted}, [], set()):
        if not isinstance(operation, MountFilesystem) or operation.takes_mode:
            continue
        if operation.fstype in AHEAD and not operation.options.copy_up:
            fd = operation.make()
            if operation.destination == "/dev":
                _make_default_nodes(fd)
            furniture.filesystems.append((operation, fd))
    return furniture
