"""An image of a build, or one for several platforms, made in the store: no name or index points at it yet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import msgspec

from pier.builder import layers
from pier.builder.exporting import ImageWish, MadeImage, make_image, make_index
from pier.builder.exports.job import Job
from pier.builder.exports.options import ImageForm
from pier.builder.exports.results import PlatformResult, Results
from pier.builder.exports.telling import Telling
from pier.builder.tree import Tree
from pier.oci import Descriptor, Reference

__all__ = ["CONFIG_KEY", "DIGEST_KEY", "Made", "facts_of", "make", "names_of", "tell"]

DIGEST_KEY: Final = "containerimage.digest"
CONFIG_KEY: Final = "containerimage.config.digest"
FRONTENDS_NAME: Final = "*"


@dataclass(frozen=True, slots=True)
class Made:
    root: Descriptor
    """A manifest, or the index of several; with the annotations and the platform that its entry in an index has."""
    images: tuple[MadeImage, ...]
    single: bool
    """One manifest, without an index."""

    @property
    def bare(self) -> Descriptor:
        """Its type, digest and size: annotations are the user's, and none of the store's."""
        return Descriptor(self.root.media_type, self.root.digest, self.root.size)


async def make(job: Job, form: ImageForm, telling: Telling) -> Made:
    """Call it within a build. Raises NoIndex, LayerNotFound, PierError, OSError."""
    ground, results = job.ground, job.results
    with telling.part("exporting layers"):
        if not results.several:
            form.annotations.require_no_index()
        carry = results.carry_cache
        wishes: dict[str, ImageWish] = {}
        for key, part in results.parts.items():
            tree = await ground.in_thread(layers.as_tree, ground, part.tree)
            cached = await job.service.caches.records_of(job.build, [tree], everything=False) if carry else ()
            wishes[key] = replace(_wish(tree, form, results, part), cached=cached)
        made = [await ground.in_thread(make_image, ground, wish) for wish in wishes.values()]
    if carry:
        telling.count("preparing layers for inline cache", done=True)
    entries = [
        msgspec.structs.replace(
            image.manifest,
            annotations=form.annotations.of_manifest_descriptor(part.target),
            platform=part.target,
        )
        for image, part in zip(made, results.parts.values(), strict=True)
    ]
    if not results.several:
        return Made(entries[0], tuple(made), single=True)
    index = await ground.in_thread(
        make_index, ground, entries, annotations=form.annotations.of_index(), oci_types=form.oci_types
    )
    root = msgspec.structs.replace(index, annotations=form.annotations.of_index_descriptor())
    return Made(root, tuple(made), single=False)


def _wish(tree: Tree, form: ImageForm, results: Results, part: PlatformResult) -> ImageWish:
    return ImageWish(
        tree,
        part.image,
        annotations=form.annotations.of_manifest(part.target),
        epoch_s=form.epoch_s if form.epoch_s is not None else results.epoch_s,
        rewrite_timestamps=form.rewrite_timestamps,
        squash_from=part.squash_from,
        oci_types=form.oci_types,
        compression=form.compression,
    )


def tell(made: Made, telling: Telling) -> None:
    """What was made, in BuildKit's words."""
    for image in made.images:
        telling.count(f"exporting manifest {image.manifest.digest}", done=True)
        telling.count(f"exporting config {image.id}", done=True)
    if not made.single:
        telling.count(f"exporting manifest list {made.root.digest}", done=True)


def names_of(form: ImageForm, results: Results) -> list[Reference]:
    """The names that are asked for, as they are written. Raises InvalidReference."""
    text = results.name if form.names == FRONTENDS_NAME else form.names
    return [Reference.parse(name, default_tag=None) for name in text.split(",") if name]


def facts_of(made: Made) -> dict[str, str]:
    """What a client is told of an image."""
    found = {DIGEST_KEY: str(made.root.digest)}
    return found | {CONFIG_KEY: str(made.images[0].id)} if made.single else found
