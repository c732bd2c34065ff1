"""In which form a build cache leaves: its manifest or index, media types, and how its layers are compressed. Blocks."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec
import zstandard
from isal import isal_zlib

from pier.builder import layers
from pier.builder.ground import Ground
from pier.builder.tree import Tree
from pier.errors import InvalidParameter
from pier.images.commit import OCI_FORMS, oci_form
from pier.oci import Descriptor, Digest
from pier.oci.manifest import OCI_LAYER
from pier.storage.compression import decompressed
from pier.storage.stream import CHUNK

COMPRESSIONS: Final = ("uncompressed", "gzip", "zstd")
ESTARGZ: Final = "estargz"
DOCKER_FORMS: Final = {oci: docker for docker, oci in reversed(list(OCI_FORMS.items()))}
GZIP_WINDOW: Final = 31
FAST_GZIP: Final = 2
"""ISA-L's highest level but one: the sizes of zlib's first, at several times its speed."""


class BadForm(InvalidParameter):
    """{reason}"""


@dataclass(frozen=True, slots=True)
class Form:
    """What an export's attributes say."""

    oci: bool = True
    image_manifest: bool = True
    """A manifest whose configuration is the cache's document; else an index that names blobs, as older readers want."""
    compression: str = ""
    """One of COMPRESSIONS for layers that are not compressed yet; empty: as they lie here, and as images have them."""
    level: int | None = None
    force: bool = False
    """Layers that came compressed are changed, too."""


def read_form(attrs: Mapping[str, str]) -> tuple[Form, list[str]]:
    """(form, warnings) of an export's attributes. Raises BadForm, in BuildKit's words."""
    warnings = []
    oci = flag(attrs, "oci-mediatypes", True)
    image_manifest = flag(attrs, "image-manifest", oci)
    if image_manifest and not oci:
        raise BadForm(reason="invalid configuration for remote cache: image-manifest needs oci-mediatypes")
    compression = attrs.get("compression", "")
    if compression == ESTARGZ:
        warnings.append("compression=estargz has no effect here: the cache's layers are written as gzip")
        compression = "gzip"
    if compression and compression not in COMPRESSIONS:
        raise BadForm(reason=f"unsupported compression type {compression}")
    text = attrs.get("compression-level", "")
    try:
        level = int(text) if text else None
    except ValueError:
        raise BadForm(reason=f"non-integer value {text} specified for compression-level") from None
    if level is not None and compression not in ("gzip", "zstd"):
        warnings.append("compression-level has no effect without compression=gzip or zstd")
    return Form(oci, image_manifest, compression, level, flag(attrs, "force-compression", False)), warnings


def flag(attrs: Mapping[str, str], name: str, default: bool) -> bool:
    """A boolean attribute. Raises BadForm."""
    text = attrs.get(name)
    if text is None:
        return default
    if text not in ("1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False"):
        raise BadForm(reason=f'failed to parse {name}: strconv.ParseBool: parsing "{text}": invalid syntax')
    return text in ("1", "t", "T", "true", "TRUE", "True")


def archives(ground: Ground, form: Form) -> Callable[[Tree], Iterator[Descriptor]]:
    """What gives a tree's layers as they leave; a layer is compressed once. Raises LayerNotFound, OSError."""
    made: dict[Digest, Descriptor] = {}

    def of(tree: Tree) -> Iterator[Descriptor]:
        parent: Digest | None = None
        for layer, chain_id in zip(tree.layers, tree.chain, strict=True):
            blob = oci_form(layers.blob_of(ground, layer, chain_id, parent))
            if blob.digest not in made:
                made[blob.digest] = _formed(ground, blob, form)
            yield made[blob.digest]
            parent = chain_id

    return of


def _formed(ground: Ground, blob: Descriptor, form: Form) -> Descriptor:
    kind = blob.media_type.partition("+")[2]
    wanted = "" if form.compression == "uncompressed" else form.compression
    if form.compression and wanted != kind and (form.force or not kind):
        with ground.content.open(blob.digest, blob.size) as packed, ground.content.ingest() as writer:
            _, plain = decompressed(packed)
            compressor = _compressor(wanted, form.level)
            while data := plain.read(CHUNK):
                writer.write(compressor.compress(data))
            writer.write(compressor.flush())
            blob = writer.commit(f"{OCI_LAYER}+{wanted}" if wanted else OCI_LAYER)
    kind = blob.media_type if form.oci else DOCKER_FORMS.get(blob.media_type, blob.media_type)
    return msgspec.structs.replace(blob, media_type=kind)


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def _compressor(kind: str, level: int | None) -> _Compressor:
    if kind == "zstd":
        return zstandard.ZstdCompressor(level=3 if level is None else max(1, min(level, 22))).compressobj()
    if kind == "gzip" and level is None:
        compressor: _Compressor = isal_zlib.compressobj(FAST_GZIP, isal_zlib.DEFLATED, GZIP_WINDOW)
        return compressor
    return zlib.compressobj(max(0, min(level or 0, 9)), zlib.DEFLATED, GZIP_WINDOW) if kind == "gzip" else _Plain()
