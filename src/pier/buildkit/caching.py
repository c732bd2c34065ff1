"""Caches elsewhere, as steps of a client's build: imported before it, exported after it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Final

from pier.builder.cache_options import (
    ELSEWHERE,
    LOCAL,
    REGISTRY,
    CacheExport,
    CacheImport,
    read_exports,
    read_imports,
)
from pier.builder.cacheconfig import NoCache
from pier.builder.exports import Telling
from pier.builder.layers import as_tree
from pier.builder.progress import Warned
from pier.builder.tree import Result, Tree
from pier.buildkit.client_store import ClientStore
from pier.buildkit.pb import control_pb2 as control
from pier.buildkit.runs import Run
from pier.buildkit.session import View
from pier.errors import NotFound, PierError
from pier.oci import Digest, Reference, encode

__all__ = ["MANIFEST_KEY", "export_caches", "exports_of", "import_caches", "imports_of"]

MANIFEST_KEY: Final = "cache.manifest"
"""In a build's answer: what a client's folder is to name in its index."""
WORDS: Final = {REGISTRY: "exporting cache to registry", LOCAL: "exporting cache to client directory"}


class CannotImport(PierError):
    """failed to configure {kind} cache importer: {reason}"""


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


async def import_caches(run: Run, view: View | None, wishes: Sequence[CacheImport]) -> None:
    """Offer caches to a build; one that cannot be used is told of, and is no reason for a build to fail."""
    for wish in wishes:
        if wish.kind in ELSEWHERE:
            words = f"the cache is not imported from {wish.kind}: only this builder's own is used"
            run.build.say(Warned(None, words))
            continue
        with contextlib.suppress(CannotImport), Telling(run.build, f"importing cache manifest from {wish.name}"):
            try:
                await _import(run, view, wish)
            except PierError as error:
                raise CannotImport(kind=wish.kind, reason=error.message) from None


async def _import(run: Run, view: View | None, wish: CacheImport) -> None:
    caches = run.service.caches
    if wish.kind == REGISTRY:
        name = Reference.parse(wish.attrs.get("ref", ""))
        with contextlib.suppress(NotFound):
            if await caches.offer_image(run.build, name):
                return
        await caches.offer_registry(run.build, name)
    elif wish.kind == LOCAL:
        for needed, words in (("digest", "explicit digest"), ("src", "src")):
            if not wish.attrs.get(needed):
                raise NoCache(reason=f"local cache importer requires {words}")
        store = _store(run, view, wish.attrs["src"])
        await caches.offer(run.build, wish.name, store, await store.info(Digest(wish.attrs["digest"])))
    else:
        raise PierError(f'unknown cache importer: "{wish.kind}"')


def _store(run: Run, view: View | None, folder: str) -> ClientStore:
    if view is None:
        raise PierError("local cache exporter/importer requires session")
    return ClientStore(view.session, folder, run.service.ground)


async def export_caches(
    run: Run, view: View | None, wishes: Sequence[CacheExport], results: Mapping[str, Result]
) -> dict[str, str]:
    """Send a build's cache where it is wanted; what the client is told of it. Raises PierError, OSError."""
    ground = run.service.ground
    response: dict[str, str] = {}
    trees = [await ground.in_thread(as_tree, ground, result) for result in results.values()]
    for wish in wishes:
        if wish.kind not in WORDS:
            continue
        try:
            with Telling(run.build, WORDS[wish.kind]) as telling:
                response |= await _export(run, view, wish, trees, telling)
        except PierError as error:
            if not wish.ignore_error:
                raise
            run.build.say(Warned(None, f"the cache is not exported to {wish.where}: {error.message}"))
    return response


async def _export(
    run: Run, view: View | None, wish: CacheExport, trees: Sequence[Tree], telling: Telling
) -> dict[str, str]:
    caches = run.service.caches
    if wish.kind == REGISTRY:
        name = Reference.parse(wish.where)
        root = await caches.push(run.build, name, trees, wish.form, everything=wish.everything)
    else:
        store = _store(run, view, wish.where)
        async with run.service.ground.images.transfer(sweep=True):
            with telling.part("preparing build cache for export"):
                root, (config, *blobs) = await caches.pack(run.build, trees, wish.form, everything=wish.everything)
            for what, blob in (*(("layer", blob) for blob in blobs), ("config", config), ("cache manifest", root)):
                with telling.part(f"writing {what} {blob.digest}"):
                    await store.put(blob)
    return {MANIFEST_KEY: encode(root).decode()}
