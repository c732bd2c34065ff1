"""Taking names and images away: `docker rmi` and `docker image prune`. What goes is decided by `delete` and `prune`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from pier.images.attestations import attestations_of
from pier.images.catalog import Catalog
from pier.images.collect import Collected
from pier.images.delete import User, check_platform_delete, is_id, named, plan_delete
from pier.images.family import Family
from pier.images.image import Image, NoSuchImage, familiar
from pier.images.notes import Notes
from pier.images.prune import Selection, chosen
from pier.images.push_plan import NoSuchPlatform
from pier.model.filters import Filters
from pier.model.image import ImageDeleteResponseItem, ImagePruneResponse
from pier.oci import Descriptor, Digest, Index, Platform, decode_manifest
from pier.oci.manifest import MAX_MANIFEST_BYTES
from pier.storage import ContentStore


class Keeper(Protocol):
    """What removal needs of the image service."""

    content: ContentStore
    notes: Notes
    naming: asyncio.Lock
    users: Callable[[], Mapping[str, Sequence[User]]]

    async def current(self) -> Catalog: ...
    def family(self, catalog: Catalog) -> Family: ...
    async def collect(self) -> Collected: ...
    def tell(self, action: str, image_id: Digest, name: str, image: Image) -> None: ...
    def publish(self, action: str, image_id: str, attributes: dict[str, str]) -> None: ...


async def delete(keeper: Keeper, ref: str, *, force: bool, noprune: bool) -> list[ImageDeleteResponseItem]:
    """Take a name or the image away; nameless images that it was committed from go with it unless `noprune`.

    Raises NoSuchImage, ReferenceInUse, ImageInUse.
    """
    async with keeper.naming:
        catalog = await keeper.current()
        image = catalog.get(ref)
        if not is_id(image, ref) and named(image, ref) not in image.names:
            raise NoSuchImage(reference=ref)
        family, users = keeper.family(catalog), _users(keeper)
        plan = plan_delete(image, ref, users(image), force=force, has_children=family.has_children(image.id))
        if not plan.delete:
            for name in plan.untag:
                await asyncio.to_thread(keeper.content.remove_tag, name)
            return _untagged(keeper, image, plan.untag)
        orphans = [] if noprune else family.orphans(image.id, lambda one: bool(users(one)))
        deeds, _ = await _remove(keeper, [(image, plan.untag), *((orphan, ()) for orphan in orphans)])
        return deeds


async def delete_platforms(
    keeper: Keeper, ref: str, platforms: Sequence[Platform], *, force: bool
) -> list[ImageDeleteResponseItem]:
    """Take an image away for these platforms; its names stay with what is left, and go where nothing is.

    Raises NoSuchImage, NoSuchPlatform, ReferenceInUse, ImageInUse.
    """
    async with keeper.naming:
        catalog = await keeper.current()
        image = catalog.get(ref)
        if not is_id(image, ref) and named(image, ref) not in image.names:
            raise NoSuchImage(reference=ref)
        family = {one.id: replace(one, others=()) for one in image.platforms}
        victims = {found.id: family[found.id] for found in (_exactly(image, ref, one) for one in platforms)}
        if len(victims) < len(family):
            return await _remove_variants(keeper, catalog, image, list(victims.values()), force=force)
    return await delete(keeper, ref, force=force, noprune=False)


def _exactly(image: Image, ref: str, platform: Platform) -> Image:
    """The image for that platform and no better one."""
    for one in image.platforms:
        if one.config.platform.key() == platform.key():
            return one
    raise NoSuchPlatform(name=ref, wanted=platform)


async def _remove_variants(
    keeper: Keeper, catalog: Catalog, image: Image, victims: list[Image], *, force: bool
) -> list[ImageDeleteResponseItem]:
    users, roots = keeper.users(), {root for one in catalog.images.values() for root in one.roots}
    elsewhere = {digest for one in catalog.images.values() if one.id != image.id for digest in one.content}
    for victim in victims:
        digest = victim.manifest.digest
        shared, root = digest in elsewhere, digest in roots
        check_platform_delete(victim, users.get(str(victim.id), ()), is_root=root, is_shared=shared, force=force)
    await asyncio.to_thread(_discard, keeper.content, image.root, [victim.manifest.digest for victim in victims])
    for victim in victims:
        keeper.publish("delete", str(victim.id), {"name": str(victim.id)})
    await keeper.notes.forget([victim.id for victim in victims])
    return [deed for deeds in _deleted(victims, await keeper.collect()) for deed in deeds]


def _discard(content: ContentStore, root: Descriptor, manifests: Sequence[Digest]) -> None:
    """Delete manifests below an index, with what attests them."""
    raw = content.read(root.digest, limit_bytes=MAX_MANIFEST_BYTES)
    index = decode_manifest(raw, media_type=root.media_type, what=f"index {root.digest}")
    attesting = [entry.digest for one in manifests if isinstance(index, Index) for entry in attestations_of(index, one)]
    content.discard([*manifests, *attesting])


async def prune(keeper: Keeper, filters: Filters, *, now_ns: int) -> ImagePruneResponse:
    """Remove the images that no container uses and that fit; what a failed download left goes with all of them.

    Raises UnknownFilter, InvalidFilterValue, BadTime, SeveralUntil.
    """
    selection = Selection(filters, now_ns)
    async with keeper.naming:
        catalog = await keeper.current()
        family, users = keeper.family(catalog), _users(keeper)
        victims: list[Image] = []
        ids: set[Digest] = set()
        found = chosen(catalog.images.values(), selection)
        for image in sorted(found, key=lambda one: -len(family.ancestors(one.id))):  # children before parents
            if image.id in ids or users(image) or family.has_children(image.id, but=ids):
                continue
            more = [image, *family.orphans(image.id, lambda one: bool(users(one)), gone=ids)]
            victims += more
            ids |= {one.id for one in more}
        deeds, freed = await _remove(keeper, [(image, image.names) for image in victims]) if victims else ([], 0)
        if not selection.dangling_only and not selection.narrowed:
            freed += await asyncio.to_thread(keeper.content.drop_parts)
        keeper.publish("prune", "", {"reclaimed": str(freed)})
        return ImagePruneResponse(images_deleted=deeds or None, space_reclaimed=freed)


def _users(keeper: Keeper) -> Callable[[Image], list[User]]:
    """Containers of an image on any platform: the others go with it."""
    every = keeper.users()
    return lambda image: [user for one in image.platforms for user in every.get(str(one.id), ())]


def _untagged(keeper: Keeper, image: Image, names: Sequence[str]) -> list[ImageDeleteResponseItem]:
    for _ in names:
        keeper.tell("untag", image.id, image.id, image)
    return [ImageDeleteResponseItem(untagged=familiar(name)) for name in names]


async def _remove(
    keeper: Keeper, images: Sequence[tuple[Image, Sequence[str]]]
) -> tuple[list[ImageDeleteResponseItem], int]:
    """Take images away with these names, by one change of the index, and sweep what nothing reaches any more.

    Returns what was done, and the bytes that it freed.
    """
    await asyncio.to_thread(keeper.content.forget, [root for image, _ in images for root in image.roots])
    untagged = []
    for image, names in images:
        untagged.append(_untagged(keeper, image, names))
        keeper.publish("delete", str(image.id), {"name": str(image.id)})
    await keeper.notes.forget([image.id for image, _ in images])
    gone = await keeper.collect()
    deleted = _deleted([image for image, _ in images], gone)
    return [deed for pair in zip(untagged, deleted, strict=True) for deeds in pair for deed in deeds], gone.bytes


def _deleted(images: Sequence[Image], gone: Collected) -> list[list[ImageDeleteResponseItem]]:
    """For each image itself, then those of its layers that went with it and not with a later one."""
    deeds: list[list[ImageDeleteResponseItem]] = []
    later: set[Digest] = set()
    for image in reversed(images):
        layers = [layer for layer in reversed(image.all_layers) if layer in gone.layers and layer not in later]
        deeds.append([ImageDeleteResponseItem(deleted=str(id)) for id in (image.id, *layers)])
        later.update(layers)
    return deeds[::-1]
