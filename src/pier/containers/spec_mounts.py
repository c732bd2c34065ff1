"""What a container's root is furnished with: Docker's own mounts and the user's (runtime-spec config.md#mounts).

Paths on the host come from the API's caller, who may name any; paths inside are only cleaned here, and resolved by the
runtime below the container's root.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pier.containers import mount_ids, tmpfs_words
from pier.containers.mount_ids import MountIds
from pier.errors import InvalidParameter
from pier.model.container import MountPoint
from pier.model.host_config import HostConfig, Mount
from pier.storage.ids import IdMap

PROPAGATIONS = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
CONSISTENCIES = frozenset({"consistent", "cached", "delegated"})
MODES = frozenset({"ro", "rw", "z", "Z", "nocopy", mount_ids.WORD}) | CONSISTENCIES
SHARED_LABEL = "z"
"""The mode of a volume for which none is given, as Docker shows it."""
DETACHED = "detached"
"""Pier's own word in an OCI bind mount: what is at its source is a mount that belongs to no tree, to be moved."""
PROC_FILES = frozenset(
    "/proc/" + name
    for name in ("cpuinfo", "diskstats", "loadavg", "meminfo", "net/dev", "slabinfo", "stat", "swaps", "uptime")
)
"""The only places below /proc where a mount is let through: files that system containers put their own numbers over."""


NOTHING_READY: Mapping[str, str] = {}


class InvalidMount(InvalidParameter):
    """invalid mount config for type "{type}": {reason}"""


class InvalidBind(InvalidParameter):
    """invalid volume specification: '{text}': {reason}"""


class InvalidBindMode(InvalidParameter):
    """invalid mode: {mode}"""


class DuplicateMount(InvalidParameter):
    """Duplicate mount point: {target}"""


class MountInsideProc(InvalidParameter):
    """ "{target}" cannot be mounted because it is inside /proc"""


@dataclass(frozen=True, slots=True)
class UserMount:
    """One mount that the user asked for, whichever way it was written."""

    type: str
    """`bind`, `volume`, `tmpfs` or `image`."""
    source: str
    """A path of the host (a volume's folder too), or what the user called the image."""
    target: str
    options: tuple[str, ...]
    """As in an OCI mount."""
    mode: str = ""
    """What stood after the last colon of `-v`."""
    create_source: bool = False
    """Make a missing source on the host (`-v`); else a missing one is an error."""
    from_bind: bool = False
    ids: MountIds | None = None
    """Whose its files are shown to be; None: whose they are."""
    subpath: str = ""
    """What of the image or the volume is shown; empty: all."""
    image_id: str = ""
    layers: tuple[str, ...] = ()
    """Of the image, the base first."""
    volume: str = ""
    """The volume's name; empty for one without, until it has been made."""
    copy_up: bool = False
    """An empty volume takes over what the image has at its place."""
    anonymous: bool = False
    """The volume was made without a name: it goes with the last container that has it (`rm -v`)."""

    @property
    def read_only(self) -> bool:
        return "ro" in self.options or "rro" in self.options

    @property
    def propagation(self) -> str:
        return next((word for word in self.options if word in PROPAGATIONS), "")

    def oci(self, id_map: IdMap | None = None, ready: str = "") -> dict[str, Any]:
        """As an OCI mount of a container with these ids; `ready` is the path of a detached mount to be moved there,
        which an image's has to be. Raises InvalidIdMap."""
        mapped = [mount_ids.WORD] if self.ids is not None else []
        return {
            "destination": self.target,
            "type": "bind" if ready or self.type == "volume" else self.type,
            "source": ready or self.source,
            "options": [*self.options, *mapped, *([DETACHED] if ready else [])],
            **(self.ids.oci(id_map) if self.ids is not None else {}),
        }

    def point(self) -> MountPoint:
        """As inspect shows it."""
        bind, image = self.type == "bind", self.type == "image"
        return MountPoint(
            type=self.type,
            name=self.source if image else self.volume,
            source=self.source if bind or self.volume else "",
            destination=self.target,
            driver="local" if self.volume else "",
            mode=self.mode,
            rw=not self.read_only,
            propagation=self.propagation if bind or image else "",
        )


def user_mounts(host: HostConfig) -> list[UserMount]:
    """The mounts of `-v` and `--mount`, in the order given, sorted so that parents come before what lies below them.

    Raises InvalidBind, InvalidBindMode, InvalidMount, DuplicateMount, MountInsideProc. `--tmpfs` is not among them:
    Docker's inspect does not count it as a mount.
    """
    found = [parse_bind(text) for text in host.binds or ()] + [parse_mount(mount) for mount in host.mounts or ()]
    seen = {mount.target for mount in tmpfs_mounts(host)}
    for mount in found:
        if mount.target in seen:
            raise DuplicateMount(target=mount.target)
        seen.add(mount.target)
    return by_depth(found)


def by_depth(mounts: Sequence[UserMount]) -> list[UserMount]:
    """Stable order by the number of path components."""
    return sorted(mounts, key=lambda mount: mount.target.count("/"))


def parse_bind(text: str) -> UserMount:
    """`SOURCE:TARGET[:MODE]` of `-v`, MODE being words separated by commas. See `user_mounts` for the errors."""
    parts = text.split(":")
    if len(parts) > 3 or not all(parts[:2]):
        raise InvalidParameter(f"invalid volume specification: '{text}'")
    if len(parts) == 1:
        return anonymous_volume(text)
    source, target, mode = parts[0], parts[1], parts[2] if len(parts) == 3 else ""
    kind = "bind" if source.startswith("/") else "volume"
    try:
        target = clean_target(target, kind)
    except InvalidMount as error:
        raise InvalidBind(text=text, reason=error.message) from error
    words = mode.split(",") if mode else []
    ids = check_mode(mode, words)
    propagation = next((word for word in words if word in PROPAGATIONS), "")
    wrong = "VolumeOptions" if kind == "bind" and "nocopy" in words else ""
    wrong = "BindOptions" if kind == "volume" and propagation else wrong
    if wrong:
        reason = f'invalid mount config for type "{kind}": field {wrong} must not be specified'
        raise InvalidBind(text=text, reason=reason)
    options = ("rbind", *(("rro",) if "ro" in words else ()), propagation or "rprivate")
    if kind == "volume":
        copy_up = "nocopy" not in words
        return UserMount(
            "volume", "", target, options, mode=mode or SHARED_LABEL, ids=ids, volume=source, copy_up=copy_up
        )
    return UserMount(
        type="bind",
        source=posixpath.normpath(source),
        target=target,
        options=options,
        mode=mode,
        create_source=True,
        from_bind=True,
        ids=ids,
    )


def anonymous_volume(path: str, *, mode: str = "") -> UserMount:
    """A volume without a name (`-v PATH`, an image's VOLUME). Raises InvalidMount, MountInsideProc."""
    target = clean_target(path, "volume")
    return UserMount("volume", "", target, ("rbind", "rprivate"), mode=mode, copy_up=True, anonymous=True)


def check_mode(mode: str, words: list[str]) -> MountIds | None:
    """What a `-v` mode says of ids, if anything.

    Raises InvalidIdMap, InvalidBindMode: an unknown word, or two of a kind.
    """
    maps = [word.partition("=")[2] for word in words if word.startswith(f"{mount_ids.WORD}=")]
    words = [mount_ids.WORD if word.startswith(f"{mount_ids.WORD}=") else word for word in words]
    contradicts = any(len(kind & set(words)) > 1 for kind in ({"ro", "rw"}, {"z", "Z"}, PROPAGATIONS, CONSISTENCIES))
    if contradicts or len(set(words)) != len(words) or not set(words) <= MODES | PROPAGATIONS:
        raise InvalidBindMode(mode=mode)
    return mount_ids.parse(maps[0] if maps else "true") if mount_ids.WORD in words else None


def parse_mount(mount: Mount) -> UserMount:
    """One `--mount`. See `user_mounts` for the errors."""
    match mount.type:
        case "bind":
            return _bind(mount)
        case "tmpfs":
            return _tmpfs(mount)
        case "image":
            return _image(mount)
        case "volume":
            return _volume(mount)
        case _:
            raise InvalidParameter(f'invalid mount config for type "{mount.type}": mount type unknown')


def _bind(mount: Mount) -> UserMount:
    options = mount.bind_options
    target = clean_target(mount.target, "bind")
    if not mount.source:
        raise InvalidMount(type="bind", reason="field Source must not be empty")
    if not mount.source.startswith("/"):
        raise InvalidMount(type="bind", reason=f"invalid mount path: '{mount.source}' mount path must be absolute")
    _refuse_others(mount)
    propagation = (options.propagation if options else "") or "rprivate"
    if propagation not in PROPAGATIONS:
        raise InvalidMount(type="bind", reason=f"invalid propagation mode: {propagation}")
    recursive = not (options and options.non_recursive)
    read_only: tuple[str, ...] = ()
    if mount.read_only:
        shallow = options is not None and options.read_only_non_recursive
        read_only = ("ro",) if shallow or not recursive else ("rro",)
    return UserMount(
        type="bind",
        source=posixpath.normpath(mount.source),
        target=target,
        options=("rbind" if recursive else "bind", *read_only, propagation),
        create_source=bool(options and options.create_mountpoint),
        ids=mount_ids.parse(options.id_map) if options and options.id_map else None,
    )


def _refuse_others(mount: Mount) -> None:
    """Options of another type of mount."""
    for kind in ("bind", "volume", "tmpfs", "image"):
        if kind != mount.type and getattr(mount, f"{kind}_options") is not None:
            raise InvalidMount(type=mount.type, reason=f"field {kind.capitalize()}Options must not be specified")


def _volume(mount: Mount) -> UserMount:
    _refuse_others(mount)
    options = mount.volume_options
    subpath = _subpath(mount, options.subpath if options else "")
    target = clean_target(mount.target, "volume")
    if not mount.source:
        if subpath:
            raise InvalidMount(type="volume", reason="must not set Subpath when using anonymous volumes")
        if mount.read_only:
            raise InvalidMount(type="volume", reason="must not set ReadOnly mode when using anonymous volumes")
    return UserMount(
        "volume",
        "",
        target,
        ("rbind", *(("rro",) if mount.read_only else ()), "rprivate"),
        mode=SHARED_LABEL,
        subpath=subpath,
        volume=mount.source,
        copy_up=not (options and options.no_copy),
        anonymous=not mount.source,
    )


def _subpath(mount: Mount, subpath: str) -> str:
    if subpath.startswith("/") or ".." in subpath.split("/") or "\0" in subpath:
        raise InvalidMount(type=mount.type, reason=f"subpath must be a relative path within the {mount.type}")
    clean = posixpath.normpath(subpath) if subpath else ""
    return "" if clean == "." else clean


def _image(mount: Mount) -> UserMount:
    if not mount.source:
        raise InvalidMount(type="image", reason="field Source must not be empty")
    _refuse_others(mount)
    return UserMount(
        type="image",
        source=mount.source,
        target=clean_target(mount.target, "image"),
        options=("rbind", "ro", "rprivate"),
        subpath=_subpath(mount, mount.image_options.subpath if mount.image_options else ""),
    )


def _tmpfs(mount: Mount) -> UserMount:
    if mount.source:
        raise InvalidMount(type="tmpfs", reason="field Source must not be specified")
    words = ["noexec", "nosuid", "nodev", "rprivate"]
    options = mount.tmpfs_options
    if mount.read_only:
        words.append("ro")
    if options:
        if options.size_bytes < 0:
            raise InvalidMount(type="tmpfs", reason="tmpfs size must be 0 or greater")
        for pair in options.options or ():
            words = tmpfs_words.put_over(words, "=".join(pair))
        if options.mode:
            words.append(f"mode={options.mode:o}")
        if options.size_bytes:
            words.append(f"size={options.size_bytes}")
    return UserMount("tmpfs", "tmpfs", clean_target(mount.target, "tmpfs"), tuple(words))


def clean_target(target: str, type_: str) -> str:
    """A place inside the container, without `.`, `..` and doubled slashes. Raises InvalidMount, MountInsideProc."""
    if not target:
        raise InvalidMount(type=type_, reason="field Target must not be empty")
    if not target.startswith("/"):
        raise InvalidMount(type=type_, reason=f"invalid mount path: '{target}' mount path must be absolute")
    clean = "/" + posixpath.normpath(target).lstrip("/")
    if clean == "/":
        raise InvalidMount(type=type_, reason="invalid specification: destination can't be '/'")
    if (clean == "/proc" or clean.startswith("/proc/")) and clean not in PROC_FILES:
        raise MountInsideProc(target=clean)
    return clean


def tmpfs_mounts(host: HostConfig) -> list[UserMount]:
    """The mounts of `--tmpfs`. Raises InvalidTmpfs, InvalidMount, MountInsideProc."""
    base = ("noexec", "nosuid", "nodev", "rprivate")
    found = []
    for path, text in sorted((host.tmpfs or {}).items()):
        if not path.startswith("/"):
            raise InvalidParameter(f"invalid mount path: '{path}' mount path must be absolute")
        if posixpath.normpath(path).strip("/") == "":
            raise InvalidParameter("invalid specification: destination can't be '/'")
        found.append(UserMount("tmpfs", "tmpfs", clean_target(path, "tmpfs"), tuple(tmpfs_words.put_over(base, text))))
    return found


def default_mounts(
    *, shm_size: int, privileged: bool, ipc_mode: str, writable_cgroups: bool = False, shm: str = ""
) -> list[dict[str, Any]]:
    """What Docker mounts in every container, in its order; `shm` is the path of another's /dev/shm, detached."""
    flags = ["nosuid", "noexec", "nodev"]
    mounts = [
        _mount("/proc", "proc", "proc", flags),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount(
            "/dev/pts",
            "devpts",
            "devpts",
            ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        _mount("/sys", "sysfs", "sysfs", flags if privileged else [*flags, "ro"]),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", flags if privileged or writable_cgroups else ["ro", *flags]),
        _mount("/dev/mqueue", "mqueue", "mqueue", flags),
    ]
    if ipc_mode == "host":
        mounts.append(_mount("/dev/shm", "bind", "/dev/shm", ["rbind", "rprivate"]))  # noqa: S108 - the container's
    elif shm:
        mounts.append(_mount("/dev/shm", "bind", shm, ["bind", "rprivate", DETACHED]))  # noqa: S108
    elif ipc_mode != "none":
        mounts.append(_mount("/dev/shm", "tmpfs", "shm", [*flags, "mode=1777", f"size={shm_size}"]))  # noqa: S108
    return mounts


def _mount(destination: str, type_: str, source: str, options: list[str]) -> dict[str, Any]:
    return {"destination": destination, "type": type_, "source": source, "options": options}


def assemble(
    defaults: list[dict[str, Any]],
    etc: list[dict[str, Any]],
    users: Sequence[UserMount],
    id_map: IdMap | None = None,
    ready: Mapping[str, str] = NOTHING_READY,
) -> list[dict[str, Any]]:
    """All mounts in order: the defaults, then the files in /etc among the user's; a user's mount replaces another at
    its own place, and one of /etc as a whole gets the files on top of it.

    `ready` has the path of a detached mount by its target. A /dev of the user's takes the place of everything Docker
    would have mounted below it. Raises InvalidIdMap.
    """
    targets = {mount.target for mount in users}
    kept = [
        mount
        for mount in defaults
        if mount["destination"] not in targets
        and not ("/dev" in targets and str(mount["destination"]).startswith("/dev/"))
    ]
    later = [mount for mount in etc if mount["destination"] not in targets]
    later += [mount.oci(id_map, ready.get(mount.target, "")) for mount in users]
    return kept + sorted(later, key=lambda mount: str(mount["destination"]).count("/"))


def root_propagation(users: Sequence[UserMount]) -> str:
    """OCI `linux.rootfsPropagation` that lets a bind mount's propagation work; empty: the runtime's default."""
    words = {mount.propagation.removeprefix("r") for mount in users if mount.type == "bind"}
    if "shared" in words:
        return "shared"
    return "slave" if "slave" in words else ""
