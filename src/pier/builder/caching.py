"""Caches elsewhere, as steps of a build: imported before it, exported after it. The same for every door."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Final, Protocol

from pier.builder.cache_options import ELSEWHERE, LOCAL, REGISTRY, CacheExport, CacheImport
from pier.builder.caches import Origin
from pier.builder.exports import Telling
from pier.builder.progress import Warned
from pier.builder.service import BuildService
from pier.builder.solver import Build
from pier.builder.tree import Tree
from pier.errors import NotFound, PierError
from pier.oci import Descriptor, Reference, encode

MANIFEST_KEY: Final = "cache.manifest"
"""In a build's answer: what a client's folder is to name in its index."""
WORDS: Final = {REGISTRY: "exporting cache to registry", LOCAL: "exporting cache to client directory"}


class CannotImport(PierError):
    """failed to configure {kind} cache importer: {reason}"""


class UnknownImporter(PierError):
    """unknown cache importer: "{kind}\""""


class Folders(Protocol):
    """Where caches of the type `local` are: the client's."""

    async def open(self, wish: CacheImport) -> tuple[Origin, Descriptor]:
        """What a folder has, and where it begins. Raises PierError."""
        ...

    async def put(self, wish: CacheExport, parts: Sequence[tuple[str, Descriptor]], telling: Telling) -> None:
        """Take blobs of the content store, each with a word for what it is; the last is the manifest or index.

        Raises PierError, OSError.
        """
        ...


async def import_caches(service: BuildService, build: Build, wishes: Sequence[CacheImport], folders: Folders) -> None:
    """Offer caches to a build; one that cannot be used is told of, and is no reason for a build to fail."""
    for wish in wishes:
        if wish.kind in ELSEWHERE:
            words = f"the cache is not imported from {wish.kind}: only this builder's own is used"
            build.say(Warned(None, words))
            continue
        with contextlib.suppress(CannotImport), Telling(build, f"importing cache manifest from {wish.name}"):
            try:
                await _import(service, build, wish, folders)
            except PierError as error:
                raise CannotImport(kind=wish.kind, reason=error.message) from None


async def _import(service: BuildService, build: Build, wish: CacheImport, folders: Folders) -> None:
    if wish.kind == REGISTRY:
        name = Reference.parse(wish.attrs.get("ref", ""))
        with contextlib.suppress(NotFound):
            if await service.caches.offer_image(build, name):
                return
        await service.caches.offer_registry(build, name)
    elif wish.kind == LOCAL:
        origin, top = await folders.open(wish)
        await service.caches.offer(build, wish.name, origin, top)
    else:
        raise UnknownImporter(kind=wish.kind)


async def export_caches(
    service: BuildService, build: Build, wishes: Sequence[CacheExport], trees: Sequence[Tree], folders: Folders
) -> dict[str, str]:
    """Send a build's cache where it is wanted; what the client is told of it. Raises PierError, OSError."""
    response: dict[str, str] = {}
    for wish in wishes:
        if wish.kind not in WORDS:
            continue
        try:
            root = await _export(service, build, wish, trees, folders)
            response[MANIFEST_KEY] = encode(root).decode()
        except PierError as error:
            if not wish.ignore_error:
                raise
            build.say(Warned(None, f"the cache is not exported to {wish.where}: {error.message}"))
    return response


async def _export(
    service: BuildService, build: Build, wish: CacheExport, trees: Sequence[Tree], folders: Folders
) -> Descriptor:
    caches = service.caches
    with Telling(build, WORDS[wish.kind]) as telling:
        if wish.kind == REGISTRY:
            name = Reference.parse(wish.where)
            return await caches.push(build, name, trees, wish.form, everything=wish.everything)
        async with service.ground.images.transfer(sweep=True):
            with telling.part("preparing build cache for export"):
                root, (config, *blobs) = await caches.pack(build, trees, wish.form, everything=wish.everything)
            layers = [("layer", blob) for blob in blobs]
            await folders.put(wish, [*layers, ("config", config), ("cache manifest", root)], telling)
        return root
