"""Import: a root file system's tar becomes an image of one layer (Engine API, POST /images/create?fromSrc=-).

The layer is kept as the plain archive it is, bit for bit, so blob and diff_id are one digest. Blocks.
"""

from __future__ import annotations

import sys
from typing import Final

from pier import __version__
from pier.images.admit import admit
from pier.images.archive import IMAGE_NAMES, ROOT_FS_NAMES, ImageArchive
from pier.images.load import Loaded
from pier.model.time import rfc3339_nano
from pier.oci import Descriptor, ImageConfig, Manifest, Platform, RunConfig, encode
from pier.oci.image_config import History, RootFS
from pier.oci.manifest import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
from pier.storage import ContentStore, Snapshotter, Writer
from pier.storage.compression import decompressed
from pier.storage.errors import TooLarge
from pier.storage.stream import CHUNK, ReadAhead, Reader
from pier.storage.tar import TarLimits, TarReader

UNBOUNDED: Final = TarLimits(entries=sys.maxsize)
"""The daemon's bound is the unpacking's to keep."""
MAX_PADDING_BYTES: Final = 16 << 20
"""Behind the end of the archive: programs fill up a record, tapes a block of some MiB."""


class _Tee:
    """A reader that writes what passes into a blob."""

    def __init__(self, source: Reader, writer: Writer) -> None:
        self._source = source
        self._writer = writer

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self._writer.write(data)
        return data


def import_root(
    stream: Reader,
    store: ContentStore,
    snapshots: Snapshotter,
    *,
    config: RunConfig,
    platform: Platform,
    message: str,
    now_ns: int,
) -> Loaded:
    """Make the image; call it inside `store.keep()`. Raises BadArchive and its kinds, ImageArchive."""
    layer = store_layer(stream, store)
    created = rfc3339_nano(now_ns)
    document = ImageConfig(
        created=created,
        docker_version=__version__,
        architecture=platform.architecture,
        variant=platform.variant,
        os=platform.os,
        config=config,
        rootfs=RootFS(diff_ids=[layer.digest]),
        history=[History(created=created, comment=message)],
    )
    config_descriptor = store.put(encode(document), OCI_CONFIG)
    manifest = Manifest(schema_version=2, media_type=OCI_MANIFEST, config=config_descriptor, layers=[layer])
    descriptor = store.put(encode(manifest), OCI_MANIFEST)
    admit(store, snapshots, manifest, what="the imported image")
    return Loaded(config_descriptor.digest, descriptor, ())


def store_layer(stream: Reader, store: ContentStore) -> Descriptor:
    """Write the plain archive into the store while its structure is checked. Raises BadArchive, ImageArchive (T3)."""
    top_names: set[bytes] = set()
    with store.ingest() as writer:
        _, plain = decompressed(stream)
        with ReadAhead(_Tee(plain, writer)) as ahead:
            for entry in TarReader(ahead, UNBOUNDED):
                first = next((part for part in entry.name.split(b"/") if part not in (b"", b".")), b"")
                if first in IMAGE_NAMES or first in ROOT_FS_NAMES:
                    top_names.add(first)
            _read_padding(ahead)
        if top_names & IMAGE_NAMES and not top_names & ROOT_FS_NAMES:
            raise ImageArchive
        return writer.commit(OCI_LAYER)


def _read_padding(archive: Reader) -> None:
    """What is behind the end of an archive: kept, for it is in its digest. Raises TooLarge."""
    size = 0
    while data := archive.read(CHUNK):
        size += len(data)
        if size > MAX_PADDING_BYTES:
            raise TooLarge(reason=f"more than {MAX_PADDING_BYTES} bytes behind its end")
