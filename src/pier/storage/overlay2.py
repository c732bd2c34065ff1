"""The overlay2 driver: layers as directories, put together by overlayfs in each container's own mount namespace.

A layer's tree holds what that layer says and no more, whiteouts in overlayfs' form; a container has an upper directory
(`diff`) and a `work` directory beside it. See `folder_driver` for the folders.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

import msgspec

from pier.errors import Conflict
from pier.kernel.mounts import mount_overlay
from pier.oci import Digest
from pier.runtime.request import OverlayRoot
from pier.storage import idmapped, overlay_diff, project_quota
from pier.storage.changes import Change, Diffed
from pier.storage.durable import write_file
from pier.storage.faults import point
from pier.storage.folder_driver import UNFLUSHED, FolderDriver, LayerRecord, Setup, boot_id, make_root, opened
from pier.storage.ids import IdMap
from pier.storage.layer import Whiteouts
from pier.storage.overlay_view import LAYERS_MAX, detached, view
from pier.storage.tar_writer import Sink, TarWriter
from pier.storage.trees import tree_size

IDS: Final = "ids.json"
"""Beside a container's upper directory: the map of its user namespace, where it has one."""
EMPTY: Final = "empty"
"""A directory with nothing in it, below a container without layers."""


class TooManyLayers(Conflict):
    """the image has {count} layers, and overlayfs takes {most}"""

    remedy = "squash it: `docker export` a container of it and `docker import` that"


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


class Overlay2(FolderDriver):
    """The driver; see `Snapshotter` for what the calls promise."""

    name = "overlay2"
    whiteouts = Whiteouts.OVERLAY

    def __init__(self, data_root: str, setup: Setup | None = None) -> None:
        super().__init__(data_root, setup)
        os.makedirs(self._path(EMPTY), mode=0o700, exist_ok=True)

    def status(self) -> list[list[str]]:
        return [
            ["Supports d_type", "true"],
            ["Using metacopy", "false"],
            ["Native Overlay Diff", "true"],
            ["userxattr", "false"],
        ]

    # --- trees

    def _begin_layer(self, tree: str, parent: str | None) -> None:
        make_root(tree, parent)

    def _begin_container(self, place: str, layers: list[Digest], size_bytes: int) -> None:
        if len(layers) > LAYERS_MAX:
            raise TooManyLayers(count=len(layers), most=LAYERS_MAX)
        if size_bytes:
            project_quota.limit(place, size_bytes)
        os.mkdir(os.path.join(place, "work"), 0o700)
        make_root(os.path.join(place, "diff"), self._layer(layers[-1], "diff") if layers else None)

    def _give_to(self, place: str, id_map: IdMap) -> None:
        """The upper directory has the host's ids, since overlayfs writes to none that is shown with others."""
        upper = os.path.join(place, "diff")
        info = os.stat(upper)
        write_file(os.path.join(place, IDS), msgspec.json.encode(id_map), durable=False)
        os.chown(upper, *id_map.outside(info.st_uid, info.st_gid))

    @contextmanager
    def _upper(self, container_id: str) -> Iterator[str]:
        """Path of a container's upper directory as the container sees its owners, while the block runs."""
        tree = self._tree(container_id)
        try:
            with open(self._container(container_id, IDS), "rb") as file:
                id_map = msgspec.json.decode(file.read(), type=IdMap)
        except FileNotFoundError:
            yield tree
            return
        with idmapped.shown(tree, id_map.inverse()) as fd:
            yield f"/proc/self/fd/{fd}"

    # --- layers

    def layer_data(self, layers: list[Digest]) -> dict[str, str]:
        if not layers:
            return {}
        *lower, top = [self._layer(chain_id, "diff") for chain_id in layers]
        below = {"LowerDir": ":".join(reversed(lower))} if lower else {}
        return {**below, "UpperDir": top}

    def layer_view(self, layers: list[Digest]) -> AbstractContextManager[int]:
        return view(self._lower(layers), self._path(EMPTY))

    def layer_mount(self, layers: list[Digest], subpath: str = "") -> int:
        return detached(self._lower(layers), self._path(EMPTY), subpath)

    def _lower(self, layers: list[Digest]) -> list[str]:
        return [self._layer(chain_id, "diff") for chain_id in reversed(layers)]

    # --- containers

    def _overlay(self, container_id: str, layers: list[Digest]) -> OverlayRoot:
        lower = self._lower(layers) or [self._path(EMPTY)]
        return OverlayRoot(lower, self._container(container_id, "diff"), self._container(container_id, "work"))

    def prepare(
        self, container_id: str, layers: list[Digest], size_bytes: int = 0, id_map: IdMap | None = None
    ) -> OverlayRoot:
        self._make_container(container_id, layers, size_bytes, id_map)
        return self._overlay(container_id, layers)

    def root(self, container_id: str, layers: list[Digest]) -> OverlayRoot:
        self._tree(container_id)
        return self._overlay(container_id, layers)

    def container_data(self, container_id: str, layers: list[Digest]) -> dict[str, str]:
        root = self._overlay(container_id, layers)
        return {"LowerDir": ":".join(root.lower), "UpperDir": root.upper, "WorkDir": root.work}

    def usage(self, container_id: str, layers: list[Digest] | None = None) -> int:
        return tree_size(self._container(container_id, "diff"))

    @contextmanager
    def view(self, container_id: str, layers: list[Digest]) -> Iterator[int]:
        with self._upper(container_id) as upper, view([upper, *self._lower(layers)], self._path(EMPTY)) as fd:
            yield fd

    def diff(self, container_id: str, layers: list[Digest], out: Sink) -> Diffed:
        with self._upper(container_id) as upper, opened(upper) as upper_fd:
            point("diff-begun")
            below = os.stat(self._layer(layers[-1], "diff")) if layers else None
            merged = lambda: self.view(container_id, layers)  # noqa: E731
            lower = lambda: self.layer_view(layers)  # noqa: E731
            return overlay_diff.write_layer(upper_fd, TarWriter(out), merged, lower, below=below)

    def adopt(self, container_id: str, layers: list[Digest], chain_id: Digest, record: LayerRecord) -> bool:
        place = self._container(container_id)
        if os.path.exists(os.path.join(place, IDS)):
            return False
        with opened(self._tree(container_id)) as upper_fd:
            overlay_diff.clear_mount_points(upper_fd, lambda: self.layer_view(layers))
        self.setup.leases.meet(chain_id)
        write_file(os.path.join(place, "layer.json"), msgspec.json.encode(record), durable=False)
        write_file(os.path.join(place, UNFLUSHED), boot_id().encode(), durable=False)
        partial = self._path("partial", container_id)
        os.rename(place, partial)
        point("layer-adopting")
        try:
            with opened(partial) as fd:
                self._remove_tree(fd, b"work")
                os.unlink("layers", dir_fd=fd)
            with self._layers_lock:
                try:
                    os.rename(partial, self._layer(chain_id))
                    self._unflushed.add(chain_id.hex)
                except OSError:
                    if not self.has_layer(chain_id):
                        raise
        finally:
            self._throw_away("partial", container_id)
        point("layer-adopted")
        return True

    def archive(self, chain_id: Digest, parent: Digest | None, out: Sink) -> Diffed:
        below = os.stat(self._layer(parent, "diff")) if parent else None
        with opened(self._layer(chain_id, "diff")) as fd:
            lower = lambda: self.layer_view([parent] if parent else [])  # noqa: E731
            return overlay_diff.write_layer(fd, TarWriter(out), lower, lower, below=below)

    def changes(self, container_id: str, layers: list[Digest]) -> list[Change]:
        with self._upper(container_id) as upper, opened(upper) as upper_fd:
            return list(overlay_diff.changes(upper_fd, lambda: self.layer_view(layers)))
