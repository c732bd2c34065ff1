"""Which caches elsewhere a client of BuildKit's asks for, and the folders it has for them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from pier.builder.cache_options import REGISTRY, CacheExport, CacheImport, read_exports, read_imports
from pier.builder.cacheconfig import NoCache
from pier.builder.caches import Origin
from pier.builder.exports import Telling
from pier.builder.ground import Ground
from pier.buildkit.client_store import ClientStore
from pier.buildkit.pb import control_pb2 as control
from pier.buildkit.session import View
from pier.errors import InvalidParameter
from pier.oci import Descriptor, Digest

__all__ = ["ClientFolders", "exports_of", "imports_of"]


class NoSession(InvalidParameter):
    """local cache exporter/importer requires session"""


def imports_of(request: control.SolveRequest) -> list[CacheImport]:
    """Every cache that is to be used; a list of the frontend's that cannot be read names none."""
    found = [(each.type, dict(each.attrs)) for each in request.cache.imports]
    found += [(REGISTRY, {"ref": name}) for name in request.cache.import_refs_deprecated]
    if listed := request.frontend_attrs.get("cache-imports"):
        with contextlib.suppress(ValueError, TypeError, AttributeError):
            found += [(str(each.get("Type", "")), dict(each.get("Attrs") or {})) for each in json.loads(listed)]
    return read_imports(found)


def exports_of(request: control.SolveRequest) -> list[CacheExport]:
    """Where the cache is to go. Raises DuplicateExports, UnknownExporter, BadCache, BadForm."""
    wishes = [(each.type, dict(each.attrs)) for each in request.cache.exports]
    if request.cache.export_ref_deprecated:
        attrs = dict(request.cache.export_attrs_deprecated)
        wishes.append((REGISTRY, {**attrs, "ref": request.cache.export_ref_deprecated}))
    return read_exports(wishes)


@dataclass(frozen=True, slots=True)
class ClientFolders:
    """Folders of a client's, over its session."""

    view: View | None
    ground: Ground

    async def open(self, wish: CacheImport) -> tuple[Origin, Descriptor]:
        for needed, words in (("digest", "explicit digest"), ("src", "src")):
            if not wish.attrs.get(needed):
                raise NoCache(reason=f"local cache importer requires {words}")
        store = self._store(wish.attrs["src"])
        return store, await store.info(Digest(wish.attrs["digest"]))

    async def put(self, wish: CacheExport, parts: Sequence[tuple[str, Descriptor]], telling: Telling) -> None:
        store = self._store(wish.where)
        for what, blob in parts:
            with telling.part(f"writing {what} {blob.digest}"):
                await store.put(blob)

    def _store(self, folder: str) -> ClientStore:
        if self.view is None:
            raise NoSession
        return ClientStore(self.view.session, folder, self.ground)
