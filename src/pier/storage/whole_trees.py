"""Drivers whose every layer and container is a whole tree: the directory is the root, nothing is put together.

What differs between them is how a tree begins as a copy of another one: see `vfs` and `btrfs`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from pier.oci import Digest
from pier.runtime.request import BindRoot
from pier.storage import tree_diff
from pier.storage.changes import Change, Diffed
from pier.storage.faults import point
from pier.storage.folder_driver import FolderDriver, make_root, opened
from pier.storage.ids import IdMap
from pier.storage.layer import Whiteouts
from pier.storage.overlay_view import detached
from pier.storage.tar_writer import Sink, TarWriter


class WholeTrees(FolderDriver):
    """The common half of these drivers."""

    whiteouts = Whiteouts.APPLIED

    # --- hooks

    def _copy(self, source: str, target: str) -> None:
        """Make the tree `target` as a copy of `source`."""
        raise NotImplementedError

    def _make_empty(self, target: str) -> None:
        """Make the tree `target` with nothing in it."""
        make_root(target, None)

    def _limit(self, place: str, size_bytes: int) -> None:
        """Bound what the container's tree below `place` may take; raises QuotaUnavailable."""
        raise NotImplementedError

    def _begin_layer(self, tree: str, parent: str | None) -> None:
        if parent is None:
            self._make_empty(tree)
        else:
            self._copy(parent, tree)

    def _begin_container(self, place: str, layers: list[Digest], size_bytes: int) -> None:
        if size_bytes:
            self._limit(place, size_bytes)
        self._begin_layer(os.path.join(place, "diff"), self._layer(layers[-1], "diff") if layers else None)

    # --- layers

    def layer_data(self, layers: list[Digest]) -> dict[str, str]:
        return {"dir": self._layer(layers[-1], "diff")} if layers else {}

    @contextmanager
    def layer_view(self, layers: list[Digest]) -> Iterator[int]:
        with opened(self._below(layers)) as fd:
            yield fd

    def layer_mount(self, layers: list[Digest], subpath: str = "") -> int:
        return detached([self._below(layers)], "", subpath)

    def _below(self, layers: list[Digest]) -> str:
        """Path of the tree of these layers: an empty one for none."""
        if layers:
            return self._layer(layers[-1], "diff")
        empty = self._path("empty")
        os.makedirs(empty, mode=0o755, exist_ok=True)
        return empty

    # --- containers

    def prepare(
        self, container_id: str, layers: list[Digest], size_bytes: int = 0, id_map: IdMap | None = None
    ) -> BindRoot:
        self._make_container(container_id, layers, size_bytes, id_map)
        return self.root(container_id, layers)

    def root(self, container_id: str, layers: list[Digest]) -> BindRoot:
        return BindRoot(os.path.realpath(self._tree(container_id)), at_home=False)

    def container_data(self, container_id: str, layers: list[Digest]) -> dict[str, str]:
        return {"dir": self._container(container_id, "diff")}

    def usage(self, container_id: str, layers: list[Digest] | None = None) -> int:
        with opened(self._below(layers or [])) as old_fd, opened(self._container(container_id, "diff")) as new_fd:
            return tree_diff.changed_bytes(old_fd, new_fd)

    def view(self, container_id: str, layers: list[Digest]) -> AbstractContextManager[int]:
        return opened(self._tree(container_id))

    def diff(self, container_id: str, layers: list[Digest], out: Sink) -> Diffed:
        with opened(self._below(layers)) as old_fd, opened(self._tree(container_id)) as new_fd:
            point("diff-begun")
            return tree_diff.write_layer(old_fd, new_fd, TarWriter(out))

    def changes(self, container_id: str, layers: list[Digest]) -> list[Change]:
        with opened(self._below(layers)) as old_fd, opened(self._tree(container_id)) as new_fd:
            return list(tree_diff.changes(old_fd, new_fd))
