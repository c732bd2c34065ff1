"""What a client wants of a result: BuildKit's exporters and their attributes, read before anything is built.

An attribute that no exporter knows means nothing, as there; but it is said (`Export.unknown`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pier.builder.compressing import GZIP, KINDS, PLAIN, Compression
from pier.builder.epoch import parse_epoch
from pier.builder.exports.annotations import Annotations
from pier.errors import InvalidParameter
from pier.model.booleans import parse_bool

__all__ = ["ArchiveExport", "Export", "FilesExport", "ImageExport", "ImageForm", "read"]

IMAGE_KINDS: Final = ("moby", "image")
ARCHIVE_KINDS: Final = ("docker", "oci")
FILE_KINDS: Final = ("local", "tar")
EPOCH_ATTR: Final = "source-date-epoch"
MEANINGLESS: Final = frozenset(
    {
        "attestation-inline",
        "attestation-prefix",
        "buildinfo",
        "buildinfo-attrs",
        "context",
        "dest",
        "prefer-image-digest",
        "prefer-nondist-layers",
        "unpack",
    }
)
"""Of attestations, of which there are none; for the client; or always so: layers are unpacked and keep their types."""


class UnknownExport(InvalidParameter):
    """exporter "{kind}" could not be found"""

    remedy = "there are: cacheonly, docker, image, local, moby, oci, tar"


class BadBool(InvalidParameter):
    """{words}: strconv.ParseBool: parsing "{value}": invalid syntax"""


class BadNumber(InvalidParameter):
    """non-integer value {value} specified for {name}: strconv.ParseInt: parsing "{value}": invalid syntax"""


class BadCompression(InvalidParameter):
    """unsupported compression type {kind}"""

    remedy = "one of " + ", ".join(KINDS)


class OnlyIndexes(InvalidParameter):
    """docker exporter does not currently support exporting manifest lists"""

    remedy = "use the oci exporter instead"


@dataclass(frozen=True, slots=True)
class Export:
    """One wish; this one alone is `cacheonly`, of which nothing comes but the cache."""

    kind: str
    number: int = 0
    """Among the build's exports: which of the client's places is meant."""
    unknown: tuple[str, ...] = ()
    """Attributes that mean nothing."""


@dataclass(frozen=True, slots=True)
class ImageForm:
    """How an image is to be written."""

    names: str = ""
    """With commas between; `*`: the one that the frontend gives."""
    oci_types: bool = True
    """OCI's media types, not Docker's."""
    compression: Compression = field(default_factory=Compression)
    annotations: Annotations = field(default_factory=Annotations)
    epoch_s: int | None = None
    """None: the build's own SOURCE_DATE_EPOCH, if it has one."""
    rewrite_timestamps: bool = True


@dataclass(frozen=True, slots=True)
class ImageExport(Export):
    """An image in the store, or at a registry, or both."""

    form: ImageForm = field(default_factory=ImageForm)
    push: bool = False
    push_by_digest: bool = False
    insecure: bool = False
    """The registry may be spoken to in the clear."""
    store: bool = True
    """The image stays here."""
    name_canonical: bool = False
    """It is called NAME@DIGEST too."""
    dangling_prefix: str = ""
    """An image without a name is called PREFIX@DIGEST."""


@dataclass(frozen=True, slots=True)
class ArchiveExport(Export):
    """An image as files for the client: an archive, or the folder of an OCI layout."""

    form: ImageForm = field(default_factory=ImageForm)
    as_folder: bool = False


@dataclass(frozen=True, slots=True)
class FilesExport(Export):
    """The files of a result, in a folder of the client's (`local`) or in an archive (`tar`)."""

    split: bool | None = None
    """Each platform in a folder of its own; None: where there are several."""
    epoch_s: int | None = None


def read(kind: str, attrs: Mapping[str, str], number: int = 0) -> Export:
    """Raises UnknownExport, BadBool, BadNumber, BadCompression, BadEpoch, BadAnnotation, UnknownPlace."""
    if kind == "cacheonly":
        return Export(kind, number)
    if kind in FILE_KINDS:
        rest = _Attributes(attrs)
        split = rest.flag_or_none("platform-split", "non-bool value for {name}: {value}")
        epoch_s = parse_epoch(rest.text(EPOCH_ATTR), EPOCH_ATTR)
        return FilesExport(kind, number, rest.unknown(), split=split, epoch_s=epoch_s)
    if kind not in IMAGE_KINDS + ARCHIVE_KINDS:
        raise UnknownExport(kind=kind)
    annotations, others = Annotations.read(attrs)
    rest = _Attributes(others)
    if kind in ARCHIVE_KINDS:
        form = _form(rest, annotations, default=GZIP, oci_types=kind == "oci")
        as_folder = not rest.flag("tar", default=True)
        return ArchiveExport(kind, number, rest.unknown(), form=form, as_folder=as_folder)
    push, by_digest = rest.flag("push"), rest.flag("push-by-digest")
    form = _form(rest, annotations, default=GZIP if push else PLAIN, oci_types=True)
    insecure, store, canonical = (
        rest.flag("registry.insecure"),
        rest.flag("store", default=True),
        rest.flag("name-canonical"),
    )
    prefix = rest.text("dangling-name-prefix")
    return ImageExport(
        kind,
        number,
        rest.unknown(),
        form=form,
        push=push,
        push_by_digest=by_digest,
        insecure=insecure,
        store=store,
        name_canonical=canonical,
        dangling_prefix=prefix,
    )


def _form(rest: _Attributes, annotations: Annotations, *, default: str, oci_types: bool) -> ImageForm:
    return ImageForm(
        names=rest.text("name"),
        oci_types=rest.flag("oci-mediatypes", default=oci_types) or bool(annotations),
        compression=_compression(rest, default),
        annotations=annotations,
        epoch_s=parse_epoch(rest.text(EPOCH_ATTR), EPOCH_ATTR),
        rewrite_timestamps=rest.flag("rewrite-timestamp", default=True),
    )


def _compression(rest: _Attributes, default: str) -> Compression:
    kind, level = rest.text("compression") or default, rest.text("compression-level")
    if kind not in KINDS:
        raise BadCompression(kind=kind)
    try:
        number = int(level) if level else None
    except ValueError:
        raise BadNumber(name="compression-level", value=level) from None
    force = rest.flag("force-compression", words="non-bool value {value} specified for {name}")
    return Compression(kind, number, force=force)


class _Attributes:
    """Those that nobody has asked for yet."""

    def __init__(self, attrs: Mapping[str, str]) -> None:
        self._left = dict(attrs)

    def text(self, name: str) -> str:
        return self._left.pop(name, "")

    def flag(self, name: str, default: bool = False, words: str = "non-bool value specified for {name}") -> bool:
        """A name without a value means yes. Raises BadBool."""
        found = self.flag_or_none(name, words)
        return default if found is None else found

    def flag_or_none(self, name: str, words: str) -> bool | None:
        value = self._left.pop(name, None)
        if value is None:
            return None
        try:
            return parse_bool(value or "true")
        except ValueError:
            raise BadBool(words=words.format(name=name, value=value), value=value) from None

    def unknown(self) -> tuple[str, ...]:
        return tuple(sorted(set(self._left) - MEANINGLESS))
