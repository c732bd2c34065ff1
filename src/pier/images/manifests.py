"""The manifests behind an image, for `manifests=1` of the Engine API: which platforms its index has, which are here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pier.images.attestations import REFERENCE_DIGEST, is_attestation
from pier.images.image import Image
from pier.model.image import (
    AttestationData,
    ImageManifestData,
    ImageManifestSize,
    ImageManifestSummary,
    OCIDescriptor,
    OCIPlatform,
    UnpackedSize,
)
from pier.oci import Descriptor, Digest, Index, Platform, decode_manifest
from pier.oci.manifest import MAX_MANIFEST_BYTES
from pier.storage import ContentStore
from pier.storage.content import FULL_NAME, REF_NAME

OWN: Final = frozenset({REF_NAME, FULL_NAME})
"""Annotations of the store's index."""


def manifest_summaries(
    store: ContentStore, image: Image, unpacked_bytes: Callable[[Image], int], users: Callable[[Digest], list[str]]
) -> list[ImageManifestSummary]:
    """Each manifest of the image's index, or the one there is. Blocks. Raises ContentNotFound, MalformedDocument."""
    here = {one.manifest.digest: one for one in image.platforms}
    found = []
    for entry in _entries(store, image.root):
        one = here.get(entry.digest)
        content = _content_bytes(store, entry)
        summary = ImageManifestSummary(
            id=str(entry.digest),
            descriptor=wire_descriptor(entry),
            available=one is not None or content > 0,
            kind=_kind(entry),
            size=ImageManifestSize(total=content, content=content),
        )
        if summary.kind == "attestation":
            summary.attestation_data = AttestationData(for_=entry.annotations.get(REFERENCE_DIGEST, ""))
        elif summary.kind == "image":
            platform = one.config.platform if one else entry.platform or Platform()
            unpacked = unpacked_bytes(one) if one else 0
            summary.size.total += unpacked
            summary.image_data = ImageManifestData(
                platform=wire_platform(platform),
                containers=users(one.id) if one else [],
                size=UnpackedSize(unpacked),
            )
        found.append(summary)
    return found


def _entries(store: ContentStore, root: Descriptor) -> list[Descriptor]:
    raw = store.read(root.digest, limit_bytes=MAX_MANIFEST_BYTES)
    document = decode_manifest(raw, media_type=root.media_type, what=f"manifest {root.digest}")
    return document.manifests if isinstance(document, Index) else [root]


def _content_bytes(store: ContentStore, entry: Descriptor) -> int:
    """What of a manifest is in the store: itself, its configuration, its layers."""
    if not store.has(entry.digest):
        return 0
    raw = store.read(entry.digest, limit_bytes=MAX_MANIFEST_BYTES)
    document = decode_manifest(raw, media_type=entry.media_type, what=f"manifest {entry.digest}")
    parts = [] if isinstance(document, Index) else [document.config, *document.layers]
    return len(raw) + sum(part.size for part in parts if store.has(part.digest))


def _kind(entry: Descriptor) -> str:
    if is_attestation(entry):
        return "attestation"
    return "unknown" if entry.platform is not None and entry.platform.os == "unknown" else "image"


def root_descriptor(image: Image) -> OCIDescriptor:
    """What an image's names point at; the platform which the store notes on it is of the last pull."""
    described = wire_descriptor(image.root)
    described.platform = None
    return described


def wire_descriptor(descriptor: Descriptor) -> OCIDescriptor:
    """A descriptor in the API's form, without what only this store notes on it."""
    return OCIDescriptor(
        media_type=descriptor.media_type,
        digest=str(descriptor.digest),
        size=descriptor.size,
        annotations={key: text for key, text in descriptor.annotations.items() if key not in OWN} or None,
        platform=wire_platform(descriptor.platform) if descriptor.platform else None,
    )


def wire_platform(platform: Platform) -> OCIPlatform:
    """A platform in the API's form."""
    return OCIPlatform(
        architecture=platform.architecture,
        os=platform.os,
        os_version=platform.os_version,
        os_features=list(platform.os_features) or None,
        variant=platform.variant,
    )
