"""Attestations: what a builder says of an image, kept beside it in its index (BuildKit, "Attestation storage").

They come with the image that they are of, silently: an image of whose platforms all were pulled is whole, and can be
pushed elsewhere as what it is. None of it is believed or run here.
"""

from __future__ import annotations

import logging
from typing import Final

from pier.distribution import Repository
from pier.distribution.blocking import in_thread
from pier.errors import PierError
from pier.oci import Descriptor, Digest, Index, Manifest, decode_manifest
from pier.storage.content import ContentStore

REFERENCE_TYPE: Final = "vnd.docker.reference.type"
REFERENCE_DIGEST: Final = "vnd.docker.reference.digest"
ATTESTATION: Final = "attestation-manifest"
MAX_BYTES: Final = 32 << 20
"""Of one attestation; a larger one stays in the registry."""
log = logging.getLogger(__name__)


def is_attestation(entry: Descriptor) -> bool:
    """Is this entry of an index an attestation?"""
    return entry.annotations.get(REFERENCE_TYPE) == ATTESTATION


def attestations_of(index: Index, manifest: Digest) -> list[Descriptor]:
    """The entries of an index that attest one of its manifests."""
    return [
        entry
        for entry in index.manifests
        if is_attestation(entry) and entry.annotations.get(REFERENCE_DIGEST) == manifest
    ]


async def fetch_attestations(repository: Repository, content: ContentStore, entries: list[Descriptor]) -> None:
    """Bring attestations into the store. One that cannot be had is reported and does not fail the pull."""
    for entry in entries:
        try:
            await _fetch(repository, content, entry)
        except PierError as error:
            log.warning("attestation %s of %s: %s", entry.digest, repository.reference.familiar, error)


async def _fetch(repository: Repository, content: ContentStore, entry: Descriptor) -> None:
    if await in_thread(content.has, entry.digest):
        return
    data = await repository.manifest(entry)
    document = decode_manifest(data, media_type=entry.media_type, what=f"attestation {entry.digest}")
    if not isinstance(document, Manifest):
        return
    parts = {part.digest: part for part in (document.config, *document.layers)}
    if sum(part.size for part in parts.values()) > MAX_BYTES:
        log.warning("attestation %s is larger than %d bytes and was not fetched", entry.digest, MAX_BYTES)
        return
    for part in parts.values():
        if not await in_thread(content.has, part.digest):
            await repository.download(part, content, _Unwatched())
    await in_thread(content.put, data, entry.media_type)


class _Unwatched:
    """A download that nobody is told about."""

    def received(self, offset: int) -> None: ...
    def retrying(self, delay_s: float) -> None: ...
    def verifying(self) -> None: ...
