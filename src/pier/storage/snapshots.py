"""Snapshots: layers kept as directory trees, and the writable one of each container; which driver keeps them.

The driver is chosen by what works on this data root, tried for real. One asked for by name that does not work is
refused with the list of those that do, and why each other does not (trap T1).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from pier.errors import InvalidParameter
from pier.oci import Digest
from pier.runtime.request import BindRoot, OverlayRoot
from pier.storage import btrfs, overlay2, vfs
from pier.storage.changes import Change, Diffed
from pier.storage.errors import DriverUnavailable
from pier.storage.folder_driver import LayerRecord, Setup
from pier.storage.ids import IdMap
from pier.storage.stream import Reader
from pier.storage.tar_writer import Sink

Root = OverlayRoot | BindRoot
"""What the runtime mounts as a container's `/`."""


class UnknownStorageOption(InvalidParameter):
    """storage driver {driver}: unknown option {option!r}"""

    exit_code = 1
    remedy = "{known}"


class Snapshotter(Protocol):
    """What a driver does. All calls block; all are safe from several threads."""

    name: str

    def has_layer(self, chain_id: Digest) -> bool: ...

    def layer_size(self, chain_id: Digest) -> int:
        """Bytes of the files in one layer; raises LayerNotFound."""
        ...

    def layer_sizes(self, chain_id: Digest) -> tuple[int, int]:
        """The same, and without what holes in sparse files are (T13)."""
        ...

    def layer_data(self, layers: list[Digest]) -> dict[str, str]:
        """What `docker inspect` shows as GraphDriver.Data of an image with these layers, the base first."""
        ...

    def container_data(self, container_id: str, layers: list[Digest]) -> dict[str, str]:
        """The same of a container."""
        ...

    def status(self) -> list[list[str]]:
        """What `docker info` prints below the driver's name: pairs."""
        ...

    def open_layer(self, chain_id: Digest) -> int:
        """A descriptor of a layer's own tree, to read the files it brought; raises LayerNotFound."""
        ...

    def layer_view(self, layers: list[Digest]) -> AbstractContextManager[int]:
        """A descriptor of the tree that these layers make together, the base first, while the block runs; read only."""
        ...

    def layer_mount(self, layers: list[Digest], subpath: str = "") -> int:
        """A descriptor of a detached mount of that tree, or of what is at `subpath` in it; made to be attached.

        Raises LayerNotFound, FileNotFoundError, NotADirectoryError.
        """
        ...

    def layers(self) -> set[Digest]:
        """All layers there are."""
        ...

    def claims(self) -> dict[str, list[Digest] | None]:
        """Container -> the layers it stands on; None where its record is unreadable."""
        ...

    def unpack(self, chain_id: Digest, parent: Digest | None, layer: Reader) -> Digest:
        """Unpack a layer archive, compressed or not; returns its diff_id.

        `chain_id` is what `parent` and the layer must give together: raises ContentMismatch where they do not, and
        BadArchive for an archive that is broken or hostile. Whatever happens, the layer is there whole or not at all.
        """
        ...

    def prepare(
        self, container_id: str, layers: list[Digest], size_bytes: int = 0, id_map: IdMap | None = None
    ) -> Root:
        """Make the writable layer of a new container over `layers`, the base first; `size_bytes` bounds what may be
        written to it, 0 does not. With `id_map` the container has a user namespace with these ids; whatever its files
        have on disk, `view`, `diff` and `changes` show the container's own. Raises LayerNotFound, QuotaUnavailable."""
        ...

    def root(self, container_id: str, layers: list[Digest]) -> Root:
        """The same of one that was prepared; raises SnapshotNotFound."""
        ...

    def remove(self, container_id: str) -> None:
        """Take a container's writable layer away; the deleting goes on in the background. None is no error."""
        ...

    def remove_layer(self, chain_id: Digest) -> None:
        """The same of a layer; the caller knows that nothing stands on it."""
        ...

    def sweep_layers(self, wanted: Iterable[Digest]) -> set[Digest]:
        """Remove all layers but those wanted and those below containers; returns what was removed."""
        ...

    def usage(self, container_id: str, layers: list[Digest] | None = None) -> int:
        """Bytes of the files that a container added or changed, holes not counted (T13)."""
        ...

    def view(self, container_id: str, layers: list[Digest]) -> AbstractContextManager[int]:
        """A descriptor of the container's whole tree while the block runs, running or not; to be read only."""
        ...

    def diff(self, container_id: str, layers: list[Digest], out: Sink) -> Diffed:
        """Write what the container changed as a plain layer archive, the same bytes for the same changes.

        Raises TreeTooDeep, SnapshotNotFound, OSError.
        """
        ...

    def changes(self, container_id: str, layers: list[Digest]) -> list[Change]:
        """The same as a list, sorted by path."""
        ...

    def adopt(self, container_id: str, layers: list[Digest], chain_id: Digest, record: LayerRecord) -> bool:
        """Make a layer of a container's tree as it stands, and the container is gone; False: this driver cannot.

        The caller has read it with `diff`, whose answer was `plain`, and nothing writes to it any more. The layer is
        there whole or not at all whenever the daemon is killed; a loss of power takes it until `flush`.
        """
        ...

    def archive(self, chain_id: Digest, parent: Digest | None, out: Sink) -> Diffed:
        """The archive of a layer that was adopted, made of its tree: what `diff` wrote.

        Raises LayerNotFound, OSError.
        """
        ...

    def flush(self) -> None:
        """Make layers that were adopted survive a loss of power."""
        ...

    def idmap_fault(self) -> str:
        """Why trees cannot be shown with other ids here: the folder, its file system, the reason; empty: they can."""
        ...

    def close(self) -> None:
        """Wait for what is being deleted."""
        ...


@dataclass(frozen=True, slots=True)
class Driver:
    """A driver that Pier has: what says whether it works on a data root, and what makes it."""

    probe: Callable[[str], str]
    """Data root -> why it does not work there; empty where it does."""
    open: Callable[[str, Setup], Snapshotter]
    automatic: bool = True
    """Chosen without being asked for, where nothing before it works."""


DRIVERS: Final[Mapping[str, Driver]] = {
    "overlay2": Driver(overlay2.probe, overlay2.Overlay2),
    "btrfs": Driver(btrfs.probe, btrfs.Btrfs),
    "vfs": Driver(vfs.probe, vfs.Vfs),
}
"""In the order they are preferred."""

NOT_BUILT: Final[Mapping[str, str]] = {
    "aufs": "Linux has no aufs and Docker dropped it; use overlay2",
    "devicemapper": "Docker dropped it for its sparse-file pools; use overlay2",
    "fuse-overlayfs": "Pier has no fuse-overlayfs driver; the kernel's overlayfs needs no FUSE, use overlay2",
    "overlay": "the first overlay driver was dropped by Docker; use overlay2",
    "zfs": "Pier has no zfs driver; overlay2 works on ZFS 2.2 and newer, vfs on any",
}
"""Names that Docker knows or knew."""

HARMLESS_OPTIONS: Final = frozenset({"overlay2.override_kernel_check"})
"""Options of Docker's that ask for nothing any more."""


def choose_driver(
    data_root: str,
    wanted: str = "",
    *,
    setup: Setup | None = None,
    drivers: Mapping[str, Driver] = DRIVERS,
    not_built: Mapping[str, str] = NOT_BUILT,
) -> Snapshotter:
    """Open the driver `wanted`; with no name the one whose containers are there already, or the first that works.

    Raises DriverUnavailable, UnknownStorageOption.
    """
    setup = setup or Setup()
    order = [wanted] if wanted else _in_use_first(data_root, drivers)
    for name in order:
        if name in drivers and not drivers[name].probe(data_root):
            check_options(name, setup.options)
            return drivers[name].open(data_root, setup)
    faults = {name: driver.probe(data_root) for name, driver in drivers.items()}
    raise DriverUnavailable(message=refusal(wanted, faults, not_built))


def _in_use_first(data_root: str, drivers: Mapping[str, Driver]) -> list[str]:
    """The drivers by preference; those that keep layers on this data root already come first, as with Docker."""

    def keeps(name: str) -> bool:
        try:
            return bool(os.listdir(os.path.join(data_root, "snapshots", name, "layers")))
        except OSError:
            return False

    return sorted((name for name in drivers if drivers[name].automatic), key=lambda name: not keeps(name))


def check_options(driver: str, options: Iterable[str]) -> None:
    """Raise UnknownStorageOption for a `storage-opts` entry that would have no effect."""
    for option in options:
        key = option.partition("=")[0].strip().lower()
        if key not in HARMLESS_OPTIONS and key != f"{driver}.size":
            raise UnknownStorageOption(driver=driver, option=option, known=f"{driver}.size=BYTES is the one there is")


def refusal(wanted: str, faults: Mapping[str, str], not_built: Mapping[str, str]) -> str:
    """The message of T1; `faults` is name -> why it does not work, empty where it does, of the drivers there are."""
    works = [name for name, fault in faults.items() if not fault]
    reasons = {**{name: fault for name, fault in faults.items() if fault}, **not_built}
    others = "; ".join(f"{name}: {reason}" for name, reason in sorted(reasons.items()) if name != wanted)
    own = reasons.get(wanted, "no such driver")
    head = (
        f'storage driver "{wanted}" is not available: {own}' if wanted else "no storage driver works on this data root"
    )
    return f"{head}. Available here: {', '.join(works) or 'none'}. Not available: {others}"
