"""Snapshots: layers kept as directory trees, and the writable one of each container; which driver keeps them.

The driver is chosen by what works on this data root, tried for real. One asked for by name that does not work is
refused with the list of those that do, and why each other does not (trap T1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from pier.oci import Digest
from pier.runtime.request import OverlayRoot
from pier.storage import overlay2
from pier.storage.errors import DriverUnavailable
from pier.storage.stream import Reader


class Snapshotter(Protocol):
    """What a driver does. All calls block; all are safe from several threads."""

    name: str

    def has_layer(self, chain_id: Digest) -> bool: ...

    def layer_size(self, chain_id: Digest) -> int:
        """Bytes of the files in one layer; raises LayerNotFound."""
        ...

    def layer_data(self, layers: list[Digest]) -> dict[str, str]:
        """What `docker inspect` shows as GraphDriver.Data of an image with these layers, the base first."""
        ...

    def container_data(self, container_id: str, layers: list[Digest]) -> dict[str, str]:
        """The same of a container."""
        ...

    def unpack(self, chain_id: Digest, parent: Digest | None, layer: Reader) -> Digest:
        """Unpack a layer archive, compressed or not; returns its diff_id.

        `chain_id` is what `parent` and the layer must give together: raises ContentMismatch where they do not, and
        BadArchive for an archive that is broken or hostile. Whatever happens, the layer is there whole or not at all.
        """
        ...

    def prepare(self, container_id: str, layers: list[Digest]) -> OverlayRoot:
        """Make the writable layer of a new container over `layers`, the base first; raises LayerNotFound."""
        ...

    def root(self, container_id: str, layers: list[Digest]) -> OverlayRoot:
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

    def usage(self, container_id: str) -> int:
        """Bytes of the files in a container's writable layer."""
        ...

    def close(self) -> None:
        """Wait for what is being deleted."""
        ...


@dataclass(frozen=True, slots=True)
class Driver:
    """A driver that Pier has: what says whether it works on a data root, and what makes it."""

    probe: Callable[[str], str]
    """Data root -> why it does not work there; empty where it does."""
    open: Callable[[str], Snapshotter]


DRIVERS: Final[Mapping[str, Driver]] = {"overlay2": Driver(overlay2.probe, overlay2.Overlay2)}
"""In the order they are preferred."""

NOT_BUILT: Final[Mapping[str, str]] = {
    "aufs": "Linux has no aufs and Docker dropped it; use overlay2",
    "btrfs": "Pier has no btrfs driver yet; overlay2 works on btrfs",
    "devicemapper": "Docker dropped it for its sparse-file pools; use overlay2",
    "fuse-overlayfs": "Pier has no fuse-overlayfs driver; the kernel's overlayfs needs no FUSE",
    "overlay": "the first overlay driver was dropped by Docker; use overlay2",
    "vfs": "Pier has no vfs driver yet",
    "zfs": "Pier has no zfs driver; overlay2 works on ZFS 2.2 and newer",
}
"""Names that Docker knows or knew."""


def choose_driver(
    data_root: str,
    wanted: str = "",
    *,
    drivers: Mapping[str, Driver] = DRIVERS,
    not_built: Mapping[str, str] = NOT_BUILT,
) -> Snapshotter:
    """Open the driver `wanted`, or with no name the first that works on `data_root`. Raises DriverUnavailable."""
    faults = {name: driver.probe(data_root) for name, driver in drivers.items() if not wanted or name == wanted}
    for name, fault in faults.items():
        if not fault:
            return drivers[name].open(data_root)
    faults = {name: driver.probe(data_root) for name, driver in drivers.items()}
    raise DriverUnavailable(message=refusal(wanted, faults, not_built))


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
