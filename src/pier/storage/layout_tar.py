"""An OCI image layout as a tar archive (image-spec, image-layout.md): documents and blobs become entries.

Owners and times are 0, so that the same content gives the same bytes. All of it blocks.
"""

from __future__ import annotations

from typing import Final

from pier.oci import Descriptor, Digest
from pier.storage.content import ContentStore
from pier.storage.tar_header import DIRECTORY, REGULAR, Entry
from pier.storage.tar_writer import TarWriter

__all__ = ["add_blob", "add_document", "add_folder", "blob_name"]

PIECE: Final = 1 << 20
"""Each piece is handed from thread to thread on its way to a client: larger ones cost less."""


def blob_name(digest: Digest) -> str:
    """Where a layout has a blob."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def add_folder(out: TarWriter, name: str) -> None:
    """An entry for a folder, whose name ends with a slash."""
    out.add(Entry(name=name.encode(), type=DIRECTORY, mode=0o755, uid=0, gid=0, size=0, mtime_ns=0))


def add_document(out: TarWriter, name: str, data: bytes) -> None:
    """`index.json`, `oci-layout` and what else stands beside the blobs."""
    out.add(_file(name, len(data)))
    out.content(data)
    out.end_content()


def add_blob(out: TarWriter, store: ContentStore, blob: Descriptor) -> None:
    """A blob of the store's, verified as it goes. Raises ContentNotFound, ContentMismatch, OSError."""
    out.add(_file(blob_name(blob.digest), blob.size))
    with store.open(blob.digest, blob.size) as reader:
        while data := reader.read(PIECE):
            out.content(data)
    out.end_content()


def _file(name: str, size_bytes: int) -> Entry:
    return Entry(name=name.encode(), type=REGULAR, mode=0o644, uid=0, gid=0, size=size_bytes, mtime_ns=0)
