"""The overlay2 driver: layers as directories, put together by overlayfs in each container's own mount namespace.

    <data root>/snapshots/overlay2/layers/<chain id>/diff          a layer's files, whiteouts in overlayfs' form
    <data root>/snapshots/overlay2/layers/<chain id>/layer.json    {"diff_id": …, "size_bytes": …}
    <data root>/snapshots/overlay2/containers/<id>/{diff,work}     upperdir and workdir
    <data root>/snapshots/overlay2/containers/<id>/layers          chain ids below it, one a line, the base first
    <data root>/snapshots/overlay2/partial/…                       being unpacked; at the start: thrown away
    <data root>/snapshots/overlay2/trash/…                         being deleted; at the start: deleted

A tree appears and vanishes by one rename, so a kill at any moment leaves nothing but garbage in `partial` and `trash`.
Nothing is ever mounted here (T10).
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import stat
import tempfile
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec

from pier.errors import Conflict, InvalidParameter, NotFound
from pier.kernel.mounts import mount_overlay
from pier.oci import Digest, chain_ids
from pier.runtime.request import OverlayRoot
from pier.storage.compression import decompressed
from pier.storage.durable import fsync_dir, syncfs, write_file
from pier.storage.errors import ContentMismatch
from pier.storage.layer import LayerLimits, Unpacked, unpack
from pier.storage.stream import ReadAhead, Reader
from pier.storage.trees import remove_tree, tree_size

log = logging.getLogger(__name__)

FOLDERS: Final = ("layers", "containers", "partial", "trash")
ROOT_MODE: Final = 0o755
"""Of a container's `/`, and of a layer's that does not say."""
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


def probe(data_root: str) -> str:
    """Why overlayfs does not work on `data_root`; empty where it does. Tried on a mount that is attached nowhere."""
    os.makedirs(data_root, mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=data_root, prefix=".probe-") as folder:
        lower, upper, work = (os.path.join(folder, name) for name in ("lower", "upper", "work"))
        for path in (lower, upper, work):
            os.mkdir(path)
        try:
            os.close(os.open(os.path.join(lower, "hidden"), os.O_CREAT | os.O_WRONLY, 0o600))
            os.mknod(os.path.join(upper, "hidden"), stat.S_IFCHR, 0)
            os.setxattr(upper, "trusted.overlay.opaque", b"n")
            mount_fd = mount_overlay([lower], upper, work)
        except OSError as error:
            return error.strerror or str(error)
        try:
            root_fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount_fd)
            try:
                return "overlayfs shows a file behind a whiteout here" if os.listdir(root_fd) else ""
            finally:
                os.close(root_fd)
        except OSError as error:
            return f"overlayfs cannot be read here: {error.strerror}"
        finally:
            os.close(mount_fd)


class Overlay2:
    """The driver; see `Snapshotter` for what the calls promise."""

    name = "overlay2"

    def __init__(self, data_root: str, *, limits: LayerLimits | None = None) -> None:
        self.root_dir = os.path.join(data_root, "snapshots", "overlay2")
        self._limits = limits or LayerLimits()
        self._layers_lock = threading.Lock()
        os.makedirs(self.root_dir, mode=0o700, exist_ok=True)
        for folder in (os.path.join(data_root, "snapshots"), self.root_dir):
            os.chmod(folder, 0o700)
        for folder in FOLDERS:
            os.makedirs(self._path(folder), mode=0o700, exist_ok=True)
        self._deleter = ThreadPoolExecutor(1, thread_name_prefix="delete-trees")
        for folder in ("partial", "trash"):
            for name in os.listdir(self._path(folder)):
                self._deleter.submit(self._delete, folder, name)

    def _path(self, *parts: str) -> str:
        return os.path.join(self.root_dir, *parts)

    # --- layers

    def _layer(self, chain_id: Digest, *parts: str) -> str:
        return self._path("layers", Digest(chain_id).hex, *parts)

    def has_layer(self, chain_id: Digest) -> bool:
        return os.path.exists(self._layer(chain_id, "layer.json"))

    def layers(self) -> set[Digest]:
        return {Digest(f"sha256:{name}") for name in os.listdir(self._path("layers"))}

    def layer_size(self, chain_id: Digest) -> int:
        try:
            with open(self._layer(chain_id, "layer.json"), "rb") as file:
                return msgspec.json.decode(file.read(), type=LayerRecord).size_bytes
        except FileNotFoundError:
            raise LayerNotFound(chain_id=chain_id) from None

    def layer_data(self, layers: list[Digest]) -> dict[str, str]:
        if not layers:
            return {}
        *lower, top = [self._layer(chain_id, "diff") for chain_id in layers]
        below = {"LowerDir": ":".join(reversed(lower))} if lower else {}
        return {**below, "UpperDir": top}

    def unpack(self, chain_id: Digest, parent: Digest | None, layer: Reader) -> Digest:
        partial = self._path("partial", secrets.token_hex(8))
        os.makedirs(os.path.join(partial, "diff"), mode=0o700)
        try:
            diff_id, unpacked = self._unpack_into(os.path.join(partial, "diff"), layer)
            self._check_chain(chain_id, parent, diff_id)
            self._settle(chain_id, partial, LayerRecord(diff_id=str(diff_id), size_bytes=unpacked.size_bytes))
            return diff_id
        finally:
            self._throw_away("partial", os.path.basename(partial))

    def _unpack_into(self, diff: str, layer: Reader) -> tuple[Digest, Unpacked]:
        _, plain = decompressed(layer)
        root_fd = os.open(diff, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fchmod(root_fd, ROOT_MODE)
            with ReadAhead(plain, algorithm="sha256") as ahead:
                unpacked = unpack(ahead, root_fd, self._limits)
                diff_id = ahead.finish()
            assert diff_id is not None
            return diff_id, unpacked
        finally:
            os.close(root_fd)

    def _check_chain(self, chain_id: Digest, parent: Digest | None, diff_id: Digest) -> None:
        expected = chain_ids([*([parent] if parent else []), diff_id])[-1]
        if expected != chain_id:
            raise ContentMismatch(digest=chain_id, reason=f"the layer's diff_id is {diff_id}, its chain id {expected}")

    def _settle(self, chain_id: Digest, partial: str, record: LayerRecord) -> None:
        """Flush the tree and give it its name, unless another unpacking of the same layer came first."""
        write_file(os.path.join(partial, "layer.json"), msgspec.json.encode(record), durable=False)
        os.chmod(partial, 0o700)
        fd = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syncfs(fd)
        finally:
            os.close(fd)
        try:
            os.rename(partial, self._layer(chain_id))
        except OSError:
            if not self.has_layer(chain_id):
                raise
        fsync_dir(self._path("layers"))

    def remove_layer(self, chain_id: Digest) -> None:
        self._throw_away("layers", Digest(chain_id).hex)

    def sweep_layers(self, wanted: Iterable[Digest]) -> set[Digest]:
        with self._layers_lock:
            claimed = self._claimed()
            if claimed is None:
                return set()
            gone = self.layers() - frozenset(wanted) - claimed
            for chain_id in gone:
                self.remove_layer(chain_id)
        return gone

    def _claimed(self) -> set[Digest] | None:
        """The layers below containers; None where a power loss has left a record unreadable."""
        claimed: set[Digest] = set()
        for container_id in os.listdir(self._path("containers")):
            try:
                with open(self._path("containers", container_id, "layers"), encoding="ascii") as file:
                    text = file.read()
                claimed.update(map(Digest, text.split()))
            except (FileNotFoundError, NotADirectoryError):
                continue  # being made, or being removed: it has no root yet, or no more
            except (ValueError, InvalidParameter):
                log.warning("the record of container %s is unreadable: no layers are removed", container_id)
                return None
            if not text:
                return None
        return claimed

    # --- containers

    def _container(self, container_id: str, *parts: str) -> str:
        if not _CONTAINER_ID.fullmatch(container_id):
            raise InvalidContainerID(container_id=container_id[:130])
        return self._path("containers", container_id, *parts)

    def _overlay(self, container_id: str, layers: list[Digest]) -> OverlayRoot:
        lower = [self._layer(chain_id, "diff") for chain_id in reversed(layers)]
        return OverlayRoot(lower, self._container(container_id, "diff"), self._container(container_id, "work"))

    def prepare(self, container_id: str, layers: list[Digest]) -> OverlayRoot:
        place = self._container(container_id)
        try:
            os.mkdir(place, 0o700)
        except FileExistsError:
            raise SnapshotExists(container_id=container_id) from None
        try:
            self._claim(os.path.join(place, "layers"), layers)
            os.mkdir(os.path.join(place, "work"), 0o700)
            os.mkdir(os.path.join(place, "diff"), ROOT_MODE)
            os.chmod(os.path.join(place, "diff"), ROOT_MODE)  # whatever the umask
        except BaseException:
            self.remove(container_id)
            raise
        return self._overlay(container_id, layers)

    def _claim(self, record: str, layers: list[Digest]) -> None:
        """Write down which layers a container stands on; from then on `sweep_layers` spares them."""
        with self._layers_lock:
            for chain_id in layers:
                if not self.has_layer(chain_id):
                    raise LayerNotFound(chain_id=chain_id)
            lines = "\n".join(layers) + "\n"  # never empty: an empty record is one that a power loss has cut
            write_file(record, lines.encode(), durable=False)

    def root(self, container_id: str, layers: list[Digest]) -> OverlayRoot:
        if not os.path.isdir(self._container(container_id, "diff")):
            raise SnapshotNotFound(container_id=container_id)
        return self._overlay(container_id, layers)

    def container_data(self, container_id: str, layers: list[Digest]) -> dict[str, str]:
        root = self._overlay(container_id, layers)
        return {"LowerDir": ":".join(root.lower), "UpperDir": root.upper, "WorkDir": root.work}

    def usage(self, container_id: str) -> int:
        return tree_size(self._container(container_id, "diff"))

    def remove(self, container_id: str) -> None:
        self._container(container_id)
        self._throw_away("containers", container_id)

    # --- deleting

    def _throw_away(self, folder: str, name: str) -> None:
        """Move a tree into the trash, from where it is deleted in the background."""
        fresh = f"{name[:64]}-{secrets.token_hex(4)}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(self._path(folder, name), self._path("trash", fresh))
            self._deleter.submit(self._delete, "trash", fresh)

    def _delete(self, folder: str, name: str) -> None:
        """Delete a tree; one that cannot be deleted stays for the next start."""
        with contextlib.suppress(OSError), _opened(self._path(folder)) as fd:
            remove_tree(fd, os.fsencode(name))

    def close(self) -> None:
        self._deleter.shutdown(wait=True)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
