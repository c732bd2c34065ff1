"""The files of an image archive, taken in as the archive is read: blobs into the content store, documents into memory.

An archive's names are keys of a table here and never paths of the host; links in it are aliases in that table. So
nothing it says can reach a file (attack 10); blobs named by their digest must have it (attack 11).
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec

from pier.errors import InvalidParameter
from pier.oci import Descriptor, Digest
from pier.oci.digest import InvalidDigest
from pier.oci.manifest import MAX_LAYERS
from pier.storage import ContentStore
from pier.storage.compression import MAGIC_BYTES
from pier.storage.errors import BadArchive, HostileEntry, TooLarge
from pier.storage.layer import components
from pier.storage.stream import CHUNK, Reader
from pier.storage.tar import TarLimits, TarReader
from pier.storage.tar_header import DIRECTORY, HARD_LINK, REGULAR, SYMLINK, Entry

DOCUMENTS: Final = frozenset({"manifest.json", "index.json", "oci-layout", "repositories"})
MAX_DOCUMENT_BYTES: Final = 8 << 20
MAX_FILES: Final = 100_000
MAX_LINKS: Final = 40
ROOT_FS_NAMES: Final = frozenset(
    b"bin boot dev etc home lib lib64 media mnt opt proc root run sbin srv sys tmp usr var .dockerenv".split()
)
"""What stands at the top of a root file system, and never of an image archive."""
IMAGE_NAMES: Final = frozenset({b"manifest.json", b"oci-layout", b"index.json", b"repositories"})
"""What stands at the top of an image archive."""


class NotAnImageArchive(BadArchive):
    """this is no archive of images: {reason}"""

    remedy = (
        "`load` takes what `docker save` or `skopeo copy … docker-archive:/oci-archive:` wrote, "
        "`import` takes a root file system, as `docker export` writes it"
    )


class RootFilesystemArchive(InvalidParameter):
    """this archive holds a root file system, as `docker export` writes it, not images"""

    remedy = "take it in with `import FILE NAME:TAG`"


class ImageArchive(InvalidParameter):
    """this archive holds images, as `docker save` writes them, not a root file system"""

    remedy = "take it in with `load --input FILE`"


class SavedImage(msgspec.Struct, rename="pascal"):
    """One element of manifest.json; paths are names in the archive."""

    config: str
    layers: Annotated[list[str], msgspec.Meta(max_length=MAX_LAYERS)] = msgspec.field(default_factory=list)
    repo_tags: list[str] = msgspec.field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Blob:
    """A file of the archive, now in the content store."""

    digest: Digest
    size: int
    head: bytes
    """The first MAGIC_BYTES bytes: tell how it is compressed."""


@dataclass(slots=True)
class Contents:
    """What an archive held, by its names in it."""

    documents: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, Blob] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)

    def find(self, name: str) -> Blob:
        """The file `name`, through links inside the archive. Raises NotAnImageArchive."""
        current = posixpath.normpath(name)
        for _ in range(MAX_LINKS):
            if current in self.blobs:
                return self.blobs[current]
            if current not in self.aliases:
                break
            current = self.aliases[current]
        raise NotAnImageArchive(reason=f"{name[:200]!r}, which it names, is not in it")


def take_in(stream: Reader, store: ContentStore) -> Contents:
    """Read a plain tar to its end. Raises BadArchive and its kinds, ContentMismatch, RootFilesystemArchive."""
    contents = Contents()
    archive = TarReader(stream, TarLimits(entries=MAX_FILES))
    for entry in archive:
        parts = components(entry, entry.name)
        if not parts:
            continue
        if parts[0] in ROOT_FS_NAMES:
            raise RootFilesystemArchive
        name = b"/".join(parts).decode("utf-8", "surrogateescape")
        _forget(contents, name)
        if entry.type == REGULAR and name in DOCUMENTS:
            contents.documents[name] = _document(archive, entry)
        elif entry.type == REGULAR:
            contents.blobs[name] = _blob(archive, entry, name, store)
        elif entry.type in (SYMLINK, HARD_LINK):
            contents.aliases[name] = alias_target(entry, name)
        elif entry.type != DIRECTORY:
            raise HostileEntry(name=entry.shown, reason="an archive of images has no devices and pipes")
    return contents


def alias_target(entry: Entry, name: str) -> str:
    """The name in the archive that a link means. Raises HostileEntry where it leads out of it."""
    link = entry.linkname.decode("utf-8", "surrogateescape")
    base = posixpath.dirname(name) if entry.type == SYMLINK else ""
    target = posixpath.normpath(posixpath.join(base, link))
    if not link or target.startswith("/") or target == ".." or target.startswith("../"):
        raise HostileEntry(name=entry.shown, reason="a link that leads out of the archive")
    return target


def _forget(contents: Contents, name: str) -> None:
    """The last of equal names counts, as with any tar."""
    contents.documents.pop(name, None)
    contents.blobs.pop(name, None)
    contents.aliases.pop(name, None)


def _document(archive: TarReader, entry: Entry) -> bytes:
    if entry.size > MAX_DOCUMENT_BYTES:
        raise TooLarge(reason=f"{entry.shown} has {entry.size} bytes, more than {MAX_DOCUMENT_BYTES}")
    return b"".join(iter(lambda: archive.read(CHUNK), b""))


def _blob(archive: TarReader, entry: Entry, name: str, store: ContentStore) -> Blob:
    expected = _digest_in(entry, name)
    head = b""
    with store.ingest(expected=expected, size=entry.size) as writer:
        while data := archive.read(CHUNK):
            if len(head) < MAGIC_BYTES:
                head = (head + data)[:MAGIC_BYTES]
            writer.write(data)
        stored = writer.commit()
    return Blob(stored.digest, stored.size, head)


def _digest_in(entry: Entry, name: str) -> Digest | None:
    """The digest that the name `blobs/<algorithm>/<hex>` promises; None for any other name."""
    parts = name.split("/")
    if parts[0] != "blobs" or len(parts) != 3:
        return None
    try:
        return Digest(f"{parts[1]}:{parts[2]}")
    except InvalidDigest as error:
        raise HostileEntry(name=entry.shown, reason=error.message) from None


def descriptor(blob: Blob, media_type: str) -> Descriptor:
    return Descriptor(media_type=media_type, digest=blob.digest, size=blob.size)
