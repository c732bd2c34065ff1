"""Image manifests and indexes (image-spec, manifest.md and image-index.md) and Docker's own forms of both.

The two differ only in their media types: one struct serves each pair.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from pier.oci.descriptor import Descriptor
from pier.oci.document import MalformedDocument, decode
from pier.oci.platform import Platform, rank

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_MANIFEST_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_FOREIGN_LAYER: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
DOCKER_SCHEMA1: Final = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SCHEMA1_SIGNED: Final = "application/vnd.docker.distribution.manifest.v1+prettyjws"

MANIFEST_TYPES: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEX_TYPES: Final = frozenset({OCI_INDEX, DOCKER_MANIFEST_LIST})
SCHEMA1_TYPES: Final = frozenset({DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED})
CONFIG_TYPES: Final = frozenset({OCI_CONFIG, DOCKER_CONFIG})
LAYER_TYPES: Final = frozenset(
    {
        OCI_LAYER,
        f"{OCI_LAYER}+gzip",
        f"{OCI_LAYER}+zstd",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        DOCKER_LAYER,
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        DOCKER_FOREIGN_LAYER,
    }
)

MAX_MANIFEST_BYTES: Final = 4 << 20
"""What registries and Docker accept."""
MAX_LAYERS: Final = 1000
MAX_INDEX_ENTRIES: Final = 1000
MAX_INDEX_DEPTH: Final = 3
"""An index may hold indexes; deeper than this is refused by whoever walks it."""


class AmbiguousManifest(MalformedDocument):
    """{what}: {reason}"""

    remedy = "a document that can be read both as an image and as an index is refused (CVE-2021-41190)"


class SchemaOneManifest(MalformedDocument):
    __doc__ = (
        "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been removed. Suggest the "
        "author of {what} to upgrade the image to the OCI Format or Docker Image manifest v2, schema 2. "
        "More information at https://docs.docker.com/go/deprecated-image-specs/"
    )

    remedy = "`skopeo copy --format v2s2` makes it what it should be, as pushing it again does"


class Manifest(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One image for one platform."""

    schema_version: int
    config: Descriptor
    layers: list[Descriptor]
    """The base first."""
    media_type: str = ""
    artifact_type: str = ""
    subject: Descriptor | None = None
    annotations: dict[str, str] = msgspec.field(default_factory=dict)


class Index(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The same image for several platforms; Docker's name for it is manifest list."""

    schema_version: int
    manifests: list[Descriptor]
    media_type: str = ""
    artifact_type: str = ""
    subject: Descriptor | None = None
    annotations: dict[str, str] = msgspec.field(default_factory=dict)


class _Probe(msgspec.Struct, rename="camel"):
    """What tells the kinds of document apart."""

    media_type: str | None = None
    schema_version: int | None = None
    config: Any = None
    layers: Any = None
    manifests: Any = None
    fs_layers: Any = None


def decode_manifest(data: bytes, *, media_type: str, what: str) -> Manifest | Index:
    """Decode a manifest or an index, whichever it is beyond doubt.

    `media_type` is what the registry's Content-Type or the descriptor said, empty or a general JSON type where neither
    said anything; `what` names the object in messages. Raises AmbiguousManifest where the document's own type, its
    fields and `media_type` do not agree, SchemaOneManifest, and MalformedDocument.
    """
    probe = decode(data, _Probe, what=what, limit_bytes=MAX_MANIFEST_BYTES)
    kind = _kind(probe, stated=media_type.partition(";")[0].strip().lower(), what=what)
    if kind in INDEX_TYPES:
        index = decode(data, Index, what=what, limit_bytes=MAX_MANIFEST_BYTES)
        _check_count(len(index.manifests), MAX_INDEX_ENTRIES, "manifests", what)
        return index
    manifest = decode(data, Manifest, what=what, limit_bytes=MAX_MANIFEST_BYTES)
    _check_count(len(manifest.layers), MAX_LAYERS, "layers", what)
    return manifest


def media_type_of(document: Manifest | Index, stated: str = "") -> str:
    """The document's media type: its own word, else `stated` where that is a known one, else OCI's."""
    if document.media_type:
        return document.media_type
    known = INDEX_TYPES if isinstance(document, Index) else MANIFEST_TYPES
    if stated in known:
        return stated
    return OCI_INDEX if isinstance(document, Index) else OCI_MANIFEST


def choose(index: Index, wanted: Platform) -> Descriptor | None:
    """The entry that serves `wanted` best; the first of equals. None where no entry does.

    Entries that are no images (attestations: platform `unknown/unknown`) match nothing; an entry without a platform is
    the answer only where it is the only one, as a build of a single platform leaves it.
    """
    best: tuple[int, Descriptor] | None = None
    for entry in index.manifests:
        if entry.platform is None:
            continue
        how = rank(entry.platform, wanted)
        if how is not None and (best is None or how < best[0]):
            best = how, entry
    if best is not None:
        return best[1]
    if len(index.manifests) == 1 and index.manifests[0].platform is None:
        return index.manifests[0]
    return None


def _kind(probe: _Probe, *, stated: str, what: str) -> str:
    """The media type to read the document as, from three witnesses that must agree."""
    image_fields = probe.config is not None or probe.layers is not None
    index_fields = probe.manifests is not None
    known = MANIFEST_TYPES | INDEX_TYPES
    own = probe.media_type or ""
    if {own, stated} & SCHEMA1_TYPES or (probe.fs_layers is not None and probe.schema_version == 1):
        raise SchemaOneManifest(what=what)
    if probe.fs_layers is not None:
        raise AmbiguousManifest(what=what, reason="has the fields of more than one kind of manifest")
    if own in known and stated in known and own != stated:
        raise AmbiguousManifest(what=what, reason=f"mediaType is {own}, but it was given as {stated}")
    if own and own not in known:
        raise MalformedDocument(what=what, reason=f"unsupported media type {own}")
    kind = own or (stated if stated in known else "") or (OCI_INDEX if index_fields else OCI_MANIFEST)
    if (kind in INDEX_TYPES and image_fields) or (kind in MANIFEST_TYPES and index_fields):
        raise AmbiguousManifest(what=what, reason=f"the fields are not those of {kind}")
    if probe.schema_version != 2:
        raise MalformedDocument(what=what, reason=f"schemaVersion is {probe.schema_version}, not 2")
    return kind


def _check_count(count: int, most: int, of: str, what: str) -> None:
    if count > most:
        raise MalformedDocument(what=what, reason=f"{count} {of}, more than the {most} allowed")
