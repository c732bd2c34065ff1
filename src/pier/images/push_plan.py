"""What a push sends: the manifests that a name stands for and their blobs, as far as they are in the store. Blocks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from pier.errors import NotFound
from pier.images.attestations import is_attestation
from pier.oci import (
    Descriptor,
    Digest,
    Index,
    MalformedDocument,
    Manifest,
    Platform,
    decode_image_config,
    decode_manifest,
    host_platform,
)
from pier.oci.image_config import MAX_CONFIG_BYTES
from pier.oci.manifest import DOCKER_FOREIGN_LAYER, MAX_INDEX_DEPTH, MAX_MANIFEST_BYTES, choose
from pier.storage.content import ContentStore
from pier.storage.errors import ContentNotFound

NONDISTRIBUTABLE: Final = "application/vnd.oci.image.layer.nondistributable."


class NotAllPlatforms(NotFound):
    """{name} is an index of which not every manifest is here nor in the registry: {missing}"""

    remedy = "push one platform with --platform, or pull the others first"


class NoSuchPlatform(NotFound):
    """image with reference {name} was found but does not provide the specified platform ({wanted})"""


@dataclass(frozen=True, slots=True)
class Part:
    """A blob of an image."""

    descriptor: Descriptor
    id: str = ""
    """What the progress calls it: its diff_id, short; empty for a configuration, of which nothing is told."""
    foreign: bool = False
    """Licensed to be fetched from its own place only: registries do not hold it."""


@dataclass(slots=True)
class Plan:
    """All of a push of one tag."""

    top: Descriptor
    top_bytes: bytes
    platform: Platform | None = None
    """Of the image that the name means here."""
    children: list[tuple[Descriptor, bytes]] = field(default_factory=list)
    """Manifests below the top one, the innermost first."""
    parts: list[Part] = field(default_factory=list)
    """Each blob once, in the order of the layers, the base first."""
    missing: list[Descriptor] = field(default_factory=list)
    """Manifests of an index that are not here."""


def make_plan(content: ContentStore, descriptor: Descriptor, name: str, wanted: Platform | None = None) -> Plan:
    """Everything below a name; with `wanted` the one manifest for that platform.

    Raises NoSuchPlatform, ContentNotFound, ContentMismatch, MalformedDocument.
    """
    data, document = _read(content, descriptor)
    if isinstance(document, Index) and wanted is not None:
        entry = choose(document, wanted)
        if entry is None or not content.has(entry.digest):
            raise NoSuchPlatform(name=name, wanted=wanted)
        return make_plan(content, entry, name, wanted)
    plan = Plan(descriptor, data, descriptor.platform)
    _gather(content, plan, document, depth=0)
    if isinstance(document, Manifest) and wanted is not None:
        config = _config_platform(content, document)
        if not config.matches(wanted):
            raise NoSuchPlatform(name=name, wanted=wanted)
    return plan


def host_image(content: ContentStore, plan: Plan, name: str) -> Plan:
    """In place of an index that is not whole: the image that its name means here. Raises NotAllPlatforms."""
    _, index = _read(content, plan.top)
    assert isinstance(index, Index)
    images = [entry for entry in index.manifests if content.has(entry.digest) and not is_attestation(entry)]
    here = Index(schema_version=2, manifests=images)
    entry = choose(here, host_platform()) or (choose(here, plan.platform) if plan.platform else None)
    if entry is None and len(images) != 1:
        missing = ", ".join(str(entry.platform or entry.digest) for entry in plan.missing[:8])
        raise NotAllPlatforms(name=name, missing=missing)
    return make_plan(content, entry or images[0], name)


def _gather(content: ContentStore, plan: Plan, document: Manifest | Index, *, depth: int) -> None:
    if isinstance(document, Manifest):
        known = {part.descriptor.digest for part in plan.parts}
        fresh = {part.descriptor.digest: part for part in _parts(content, document)}
        plan.parts += [part for digest, part in fresh.items() if digest not in known]
        return
    if depth > MAX_INDEX_DEPTH:
        raise MalformedDocument(what=f"index {plan.top.digest}", reason=f"more than {MAX_INDEX_DEPTH} in one another")
    for entry in document.manifests:
        try:
            data, below = _read(content, entry)
        except ContentNotFound:
            plan.missing.append(entry)
            continue
        _gather(content, plan, below, depth=depth + 1)
        plan.children.append((entry, data))


def _read(content: ContentStore, descriptor: Descriptor) -> tuple[bytes, Manifest | Index]:
    data = content.read(descriptor.digest, limit_bytes=MAX_MANIFEST_BYTES)
    what = f"manifest {descriptor.digest}"
    return data, decode_manifest(data, media_type=descriptor.media_type, what=what)


def _parts(content: ContentStore, manifest: Manifest) -> list[Part]:
    config = manifest.config
    raw = content.read(config.digest, limit_bytes=MAX_CONFIG_BYTES)
    diff_ids = _diff_ids(raw, config.digest)
    names = [diff_id.short for diff_id in diff_ids]
    if len(names) != len(manifest.layers):  # an artifact: its layers are no layers
        names = [layer.digest.short for layer in manifest.layers]
    layers = zip(manifest.layers, names, strict=True)
    return [*(Part(layer, name, is_foreign(layer)) for layer, name in layers), Part(config)]


def _diff_ids(raw: bytes, digest: Digest) -> list[Digest]:
    try:
        return decode_image_config(raw, what=f"configuration {digest}").rootfs.diff_ids
    except MalformedDocument:
        return []


def _config_platform(content: ContentStore, manifest: Manifest) -> Platform:
    raw = content.read(manifest.config.digest, limit_bytes=MAX_CONFIG_BYTES)
    return decode_image_config(raw, what=f"configuration {manifest.config.digest}").platform.normalised()


def is_foreign(layer: Descriptor) -> bool:
    """Does the layer's owner forbid registries to hold it?"""
    kind = layer.media_type
    return bool(layer.urls) and (kind == DOCKER_FOREIGN_LAYER or kind.startswith(NONDISTRIBUTABLE))
