"""What the snapshot drivers have in common: their folders, and how a tree appears, is claimed and vanishes there.

    <data root>/snapshots/<driver>/layers/<chain id>/diff          a layer's tree
    <data root>/snapshots/<driver>/layers/<chain id>/layer.json    {"diff_id": …, "size_bytes": …}
    <data root>/snapshots/<driver>/layers/<chain id>/unflushed     boot id: after another boot the layer is thrown away
    <data root>/snapshots/<driver>/containers/<id>/diff            a container's writable tree
    <data root>/snapshots/<driver>/containers/<id>/layers          chain ids below it, one a line, the base first
    <data root>/snapshots/<driver>/partial/…                       being made; at the start: thrown away
    <data root>/snapshots/<driver>/trash/…                         being deleted; at the start: deleted

A tree appears and vanishes by one rename, so a kill at any moment leaves nothing but garbage in `partial` and `trash`.
Nothing is ever mounted here (T10). What differs between drivers is how a tree begins, and what its whiteouts are.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import stat
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import msgspec

from pier.errors import Conflict, InvalidParameter, NotFound
from pier.oci import Digest, chain_ids
from pier.storage import idmapped
from pier.storage.changes import Diffed
from pier.storage.compression import decompressed
from pier.storage.durable import fsync_dir, syncfs, write_file
from pier.storage.errors import ContentMismatch
from pier.storage.faults import point
from pier.storage.ids import IdMap
from pier.storage.layer import LayerLimits, Unpacked, Whiteouts, unpack
from pier.storage.leases import Leases
from pier.storage.quota_size import parse_size
from pier.storage.stream import ReadAhead, Reader
from pier.storage.tar_writer import Sink
from pier.storage.trees import remove_tree, spread

log = logging.getLogger(__name__)

FOLDERS: Final = ("layers", "containers", "partial", "trash")
UNFLUSHED: Final = "unflushed"
"""In a layer's folder while its files may not be on the disk: the boot in which it was made."""
ROOT_MODE: Final = 0o755
"""Of a container's `/`, and of a layer's, where no layer says."""
_CONTAINER_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class LayerNotFound(NotFound):
    """layer {chain_id} does not exist"""

    remedy = "the image is damaged or was removed meanwhile; load or pull it again"


class SnapshotNotFound(NotFound):
    """no root filesystem for container {container_id}"""


class SnapshotExists(Conflict):
    """container {container_id} has a root filesystem already"""


class InvalidContainerID(InvalidParameter):
    """invalid container id {container_id!r}"""


class LayerRecord(msgspec.Struct):
    """layer.json"""

    diff_id: str
    size_bytes: int
    hole_bytes: int = 0
    """Of these, what holes in sparse files are."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a driver is opened with."""

    limits: LayerLimits = field(default_factory=LayerLimits)
    leases: Leases = field(default_factory=Leases)
    """Of the content store, so that a pull keeps its blobs and its layers by one lease."""
    options: tuple[str, ...] = ()
    """`storage-opts` of daemon.json: `key=value`."""


def default_size_bytes(driver: str, options: Iterable[str]) -> int:
    """What `storage-opts` allows every container of this driver to write; 0: no bound. Raises InvalidParameter."""
    sizes = [value for key, _, value in (option.partition("=") for option in options) if key == f"{driver}.size"]
    return parse_size(sizes[-1]) if sizes else 0


class FolderDriver:
    """See `Snapshotter` for what the calls promise; a driver fills in the hooks."""

    name = ""
    whiteouts = Whiteouts.APPLIED
    """What becomes of a whiteout in a layer's tree."""

    def __init__(self, data_root: str, setup: Setup | None = None) -> None:
        self.root_dir = os.path.join(data_root, "snapshots", self.name)
        self.setup = setup or Setup()
        self._default_size_bytes = default_size_bytes(self.name, self.setup.options)
        self._layers_lock = threading.Lock()
        self._idmap_fault: str | None = None
        os.makedirs(self.root_dir, mode=0o700, exist_ok=True)
        for folder in (os.path.join(data_root, "snapshots"), self.root_dir):
            os.chmod(folder, 0o700)
        for folder in FOLDERS:
            os.makedirs(self._path(folder), mode=0o700, exist_ok=True)
        for folder in ("containers", "partial"):  # where trees are made
            spread(self._path(folder))
        self._deleter = ThreadPoolExecutor(1, thread_name_prefix="delete-trees")
        self._unflushed = self._find_unflushed()
        for folder in ("partial", "trash"):
            for name in os.listdir(self._path(folder)):
                self._deleter.submit(self._delete, folder, name)

    def _path(self, *parts: str) -> str:
        return os.path.join(self.root_dir, *parts)

    # --- hooks

    def _begin_layer(self, tree: str, parent: str | None) -> None:
        """Make the directory that a layer is unpacked into, over the tree of its parent."""
        raise NotImplementedError

    def _end_layer(self, tree: str) -> None:
        """A layer's tree is complete."""

    def _begin_container(self, place: str, layers: list[Digest], size_bytes: int) -> None:
        """Make the writable tree `place`/diff over layers; `size_bytes` bounds it, 0 does not."""
        raise NotImplementedError

    def _give_to(self, place: str, id_map: IdMap) -> None:
        """Prepare the writable tree for a user namespace with these ids; its root file system is mounted with them."""

    def _remove_tree(self, dir_fd: int, name: bytes) -> None:
        remove_tree(dir_fd, name)

    # --- layers

    def _layer(self, chain_id: Digest, *parts: str) -> str:
        return self._path("layers", Digest(chain_id).hex, *parts)

    def has_layer(self, chain_id: Digest) -> bool:
        self.setup.leases.meet(chain_id)
        return os.path.exists(self._layer(chain_id, "layer.json"))

    def layers(self) -> set[Digest]:
        return {Digest(f"sha256:{name}") for name in os.listdir(self._path("layers"))}

    def layer_record(self, chain_id: Digest) -> LayerRecord:
        """What was written down of a layer; raises LayerNotFound."""
        try:
            with open(self._layer(chain_id, "layer.json"), "rb") as file:
                return msgspec.json.decode(file.read(), type=LayerRecord)
        except FileNotFoundError:
            raise LayerNotFound(chain_id=chain_id) from None

    def layer_size(self, chain_id: Digest) -> int:
        return self.layer_record(chain_id).size_bytes

    def layer_sizes(self, chain_id: Digest) -> tuple[int, int]:
        record = self.layer_record(chain_id)
        return record.size_bytes, record.size_bytes - record.hole_bytes

    def open_layer(self, chain_id: Digest) -> int:
        try:
            return os.open(self._layer(chain_id, "diff"), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise LayerNotFound(chain_id=chain_id) from None

    def unpack(self, chain_id: Digest, parent: Digest | None, layer: Reader) -> Digest:
        self.setup.leases.meet(chain_id)
        if parent is not None and not self.has_layer(parent):
            raise LayerNotFound(chain_id=parent)
        partial = self._path("partial", secrets.token_hex(8))
        os.mkdir(partial, 0o700)
        try:
            point("layer-begun")
            tree = os.path.join(partial, "diff")
            self._begin_layer(tree, self._layer(parent, "diff") if parent else None)
            diff_id, unpacked = self._unpack_into(tree, layer)
            _check_chain(chain_id, parent, diff_id)
            point("layer-unpacked")
            self._end_layer(tree)
            self._settle(chain_id, partial, LayerRecord(str(diff_id), unpacked.size_bytes, unpacked.hole_bytes))
            return diff_id
        finally:
            self._throw_away("partial", os.path.basename(partial))

    def _unpack_into(self, diff: str, layer: Reader) -> tuple[Digest, Unpacked]:
        _, plain = decompressed(layer)
        with opened(diff) as root_fd, ReadAhead(plain, algorithm="sha256") as ahead:
            unpacked = unpack(ahead, root_fd, self.setup.limits, whiteouts=self.whiteouts)
            diff_id = ahead.finish()
        assert diff_id is not None
        return diff_id, unpacked

    def _settle(self, chain_id: Digest, partial: str, record: LayerRecord) -> None:
        """Flush the tree and give it its name, unless another unpacking of the same layer came first."""
        write_file(os.path.join(partial, "layer.json"), msgspec.json.encode(record), durable=False)
        point("layer-recorded")
        os.chmod(partial, 0o700)
        with opened(partial) as fd:
            syncfs(fd)
        point("layer-flushed")
        try:
            os.rename(partial, self._layer(chain_id))
        except OSError:
            if not self.has_layer(chain_id):
                raise
        point("layer-named")
        fsync_dir(self._path("layers"))

    def adopt(self, container_id: str, layers: list[Digest], chain_id: Digest, record: LayerRecord) -> bool:
        return False

    def archive(self, chain_id: Digest, parent: Digest | None, out: Sink) -> Diffed:
        raise LayerNotFound(chain_id=chain_id)

    def flush(self) -> None:
        with self._layers_lock:
            waiting, self._unflushed = self._unflushed, set()
        if not waiting:
            return
        with opened(self._path("layers")) as fd:
            syncfs(fd)
        for name in waiting:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path("layers", name, UNFLUSHED))

    def _find_unflushed(self) -> set[str]:
        """The layers that wait for `flush`; those of an earlier boot may be damaged, and are thrown away."""
        found = set()
        for name in os.listdir(self._path("layers")):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                with open(self._path("layers", name, UNFLUSHED), encoding="ascii") as file:
                    boot = file.read()
                if boot == boot_id():
                    found.add(name)
                else:
                    self._throw_away("layers", name)
        return found

    def remove_layer(self, chain_id: Digest) -> None:
        self._throw_away("layers", Digest(chain_id).hex)

    def sweep_layers(self, wanted: Iterable[Digest]) -> set[Digest]:
        gone: set[Digest] = set()
        with self._layers_lock:
            claimed = self._claimed()
            if claimed is None:
                return gone
            for chain_id in self.layers() - frozenset(wanted) - claimed:
                if self.setup.leases.sweep(chain_id, lambda chain_id=chain_id: self.remove_layer(chain_id)):  # type: ignore[misc]
                    gone.add(chain_id)
                    point("layer-swept")
        return gone

    def claims(self) -> dict[str, list[Digest] | None]:
        """Container -> the layers it stands on; None where a power loss has left the record unreadable."""
        found: dict[str, list[Digest] | None] = {}
        for container_id in os.listdir(self._path("containers")):
            try:
                with open(self._path("containers", container_id, "layers"), encoding="ascii") as file:
                    text = file.read()
                found[container_id] = list(map(Digest, text.split())) if text else None
            except (FileNotFoundError, NotADirectoryError):
                continue  # being made, or being removed: it has no root yet, or no more
            except (ValueError, InvalidParameter):
                found[container_id] = None
        return found

    def _claimed(self) -> set[Digest] | None:
        """The layers below containers; None where that cannot be told."""
        claimed: set[Digest] = set()
        for container_id, layers in self.claims().items():
            if layers is None:
                log.warning("the record of container %s is unreadable: no layers are removed", container_id)
                return None
            claimed.update(layers)
        return claimed

    # --- containers

    def _container(self, container_id: str, *parts: str) -> str:
        if not _CONTAINER_ID.fullmatch(container_id):
            raise InvalidContainerID(container_id=container_id[:130])
        return self._path("containers", container_id, *parts)

    def idmap_fault(self) -> str:
        if self._idmap_fault is None:
            self._idmap_fault = idmapped.fault(self.root_dir, overlay=self.whiteouts is Whiteouts.OVERLAY)
        return self._idmap_fault

    def _make_container(self, container_id: str, layers: list[Digest], size_bytes: int, id_map: IdMap | None) -> None:
        place = self._container(container_id)
        try:
            os.mkdir(place, 0o700)
        except FileExistsError:
            raise SnapshotExists(container_id=container_id) from None
        try:
            point("container-begun")
            self._claim(os.path.join(place, "layers"), layers)
            point("container-claimed")
            self._begin_container(place, layers, size_bytes or self._default_size_bytes)
            if id_map is not None:
                self._give_to(place, id_map)
            point("container-made")
        except BaseException:
            self.remove(container_id)
            raise

    def _claim(self, record: str, layers: list[Digest]) -> None:
        """Write down which layers a container stands on; from then on `sweep_layers` spares them."""
        with self._layers_lock:
            for chain_id in layers:
                if not self.has_layer(chain_id):
                    raise LayerNotFound(chain_id=chain_id)
            lines = "\n".join(layers) + "\n"  # never empty: an empty record is one that a power loss has cut
            write_file(record, lines.encode(), durable=False)

    def _tree(self, container_id: str) -> str:
        """Path of a container's writable tree; raises SnapshotNotFound."""
        tree = self._container(container_id, "diff")
        if not os.path.isdir(tree):
            raise SnapshotNotFound(container_id=container_id)
        return tree

    def remove(self, container_id: str) -> None:
        self._container(container_id)
        self._throw_away("containers", container_id)

    # --- deleting

    def _throw_away(self, folder: str, name: str) -> None:
        """Move a tree into the trash, from where it is deleted in the background."""
        fresh = f"{name[:64]}-{secrets.token_hex(4)}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(self._path(folder, name), self._path("trash", fresh))
            point("tree-trashed")
            self._deleter.submit(self._delete, "trash", fresh)

    def _delete(self, folder: str, name: str) -> None:
        """Delete a tree; one that cannot be deleted stays for the next start."""
        with contextlib.suppress(OSError), opened(self._path(folder)) as fd:
            point("tree-deleting")
            self._remove_tree(fd, os.fsencode(name))

    def close(self) -> None:
        self._deleter.shutdown(wait=True)


def boot_id() -> str:
    """Of the kernel that runs (random(4))."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def _check_chain(chain_id: Digest, parent: Digest | None, diff_id: Digest) -> None:
    expected = chain_ids([*([parent] if parent else []), diff_id])[-1]
    if expected != chain_id:
        raise ContentMismatch(digest=chain_id, reason=f"the layer's diff_id is {diff_id}, its chain id {expected}")


def make_root(tree: str, like: str | None) -> None:
    """Make an empty tree whose root has the mode and owner of `like`, the tree below it, whatever the umask."""
    os.mkdir(tree, 0o700)
    mode, uid, gid = ROOT_MODE, 0, 0
    if like is not None:
        info = os.stat(like)
        mode, uid, gid = stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid
    os.chown(tree, uid, gid)
    os.chmod(tree, mode)


@contextlib.contextmanager
def opened(path: str) -> Iterator[int]:
    """A descriptor of a directory while the block runs."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
