"""All images at hand, by id and by name: what the content store's index says, read once and kept in memory."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from pier.errors import PierError
from pier.images.image import Entry, Image, NoSuchImage, is_digest_name, read_entry
from pier.oci import Descriptor, Digest, Platform, Reference
from pier.oci.digest import InvalidDigest
from pier.oci.reference import InvalidReference
from pier.storage import ContentStore
from pier.storage.content import FULL_NAME

_HEX: Final = re.compile(r"[0-9a-f]{1,64}")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Catalog:
    """A moment's view; never changed, only replaced."""

    images: Mapping[Digest, Image] = field(default_factory=dict)
    names: Mapping[str, Digest] = field(default_factory=dict)
    """Full name -> image id."""
    variants: Mapping[Digest, Image] = field(default_factory=dict)
    """Images for other platforms that are here with one of `images`, by their own id; they have its names."""
    read: Mapping[tuple[Digest, Platform | None], Entry] = field(default_factory=dict)
    """Index entry and its platform -> image without names, so that nothing is read twice."""
    damaged: Mapping[Digest, str] = field(default_factory=dict)
    """Index entry -> why it cannot be used."""
    generation: int = -1
    """Of the store's index."""

    def get(self, text: str) -> Image:
        """The image that a user means: a name, `name@digest`, an id, or the beginning of one.

        Raises NoSuchImage, InvalidReference.
        """
        image = self.find(text)
        if image is None:
            raise NoSuchImage(reference=shown(text))
        return image

    def find(self, text: str) -> Image | None:
        """As `get`; None where there is none."""
        image = self._by_full_id(text)
        if image is not None or text.startswith("sha256:"):
            return image or self._by_prefix(text.removeprefix("sha256:"))
        if not _is_hex64(text):
            image = self._by_name(Reference.parse(text))
        return image or self._by_prefix(text)

    def _by_full_id(self, text: str) -> Image | None:
        try:
            digest = Digest(text if ":" in text else f"sha256:{text}")
        except InvalidDigest:
            return None
        return self.images.get(digest) or self.variants.get(digest)

    def _by_name(self, reference: Reference) -> Image | None:
        if reference.digest is not None:  # the digest decides; a tag beside it is only for people
            reference = reference.with_digest(reference.digest)
        image_id = self.names.get(str(reference))
        if image_id is None and reference.digest is not None:
            known = self.images.get(reference.digest)
            if known is not None and any(repository_of(name) == reference.name for name in known.names):
                return known
        return self.images[image_id] if image_id is not None else None

    def _by_prefix(self, prefix: str) -> Image | None:
        """The one image whose id begins so; two are as good as none."""
        if not _HEX.fullmatch(prefix):
            return None
        known = {**self.variants, **self.images}
        found = [image for digest, image in known.items() if digest.hex.startswith(prefix)]
        return found[0] if len(found) == 1 else None


def read_catalog(store: ContentStore, before: Catalog) -> Catalog:
    """The catalogue as the store is now; what `before` has read is not read again. Blocks."""
    read: dict[tuple[Digest, Platform | None], Entry] = {}
    damaged: dict[Digest, str] = {}
    generation, roots = store.generation, store.roots()
    for root in roots:
        key = root.digest, root.platform
        if key in read or root.digest in damaged:
            continue
        try:
            known = before.read.get(key)
            if known is None or not known.holds(store):
                known = read_entry(store, root)
            read[key] = known
        except (PierError, OSError) as error:
            damaged[root.digest] = str(error)
            if root.digest not in before.damaged:
                log.warning("image %s cannot be used: %s", root.digest, error)
    return replace(assemble(roots, read, damaged), generation=generation)


def assemble(
    roots: Iterable[Descriptor], read: Mapping[tuple[Digest, Platform | None], Entry], damaged: Mapping[Digest, str]
) -> Catalog:
    """Join the index's entries to images: several manifests of one configuration are one image."""
    images: dict[Digest, Image] = {}
    names: dict[str, Digest] = {}
    for root in roots:
        entry = read.get((root.digest, root.platform))
        if entry is None:
            continue
        found = entry.image
        image = images.setdefault(found.id, found)
        others = {other.id: other for other in (*image.others, *found.others)}
        image = replace(
            image,
            roots=image.roots | found.roots,
            content=image.content | found.content,
            others=tuple(others.values()),
        )
        name = root.annotations.get(FULL_NAME)
        if name is not None:
            names[name] = found.id
            if is_digest_name(name):
                image = replace(image, digests=tuple(sorted({*image.digests, name})))
            else:
                image = replace(image, tags=tuple(sorted({*image.tags, name})))
        images[found.id] = image
    return Catalog(images, names, _variants(images), dict(read), dict(damaged))


def _variants(images: Mapping[Digest, Image]) -> dict[Digest, Image]:
    """The other platforms' images, each with names and company of the one it is here with."""
    found: dict[Digest, Image] = {}
    for image in images.values():
        family = (replace(image, others=()), *image.others)
        for other in image.others:
            if other.id not in images:
                rest = tuple(one for one in family if one.id != other.id)
                found[other.id] = replace(other, roots=image.roots, tags=image.tags, digests=image.digests, others=rest)
    return found


def shown(text: str) -> str:
    """The name as Docker's message has it: with `latest` where the user gave no tag."""
    if text.startswith("sha256:") or _is_hex64(text):
        return text
    try:
        return Reference.parse(text).familiar
    except InvalidReference:
        return text


def _is_hex64(text: str) -> bool:
    return len(text) == 64 and _HEX.fullmatch(text) is not None


def repository_of(name: str) -> str:
    return Reference.parse(name, default_tag=None).name
