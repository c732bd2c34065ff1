"""The content store: an OCI image layout on disk (image-spec, image-layout.md), which skopeo and crane read in place.

    <root>/oci-layout            {"imageLayoutVersion":"1.0.0"}
    <root>/index.json            one descriptor a name, and one without a name for each image that has none
    <root>/blobs/sha256/<hex>    written once, complete, verified and on the disk before they appear under that name
    <root>/recipes/              how blobs that were dropped are made again (`rebuild`); they count as being here
    <root>/ingest/               what is being written; what is found here at the start is thrown away, but for
                                 <algorithm>-<hex>.part, a download that was cut and can go on

All calls block; the daemon makes them in worker threads. One daemon owns the folder (T19); its threads share a lock.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, Self, cast

import msgspec

from pier.oci import Descriptor, Digest, Index, encode
from pier.oci.digest import hasher
from pier.oci.manifest import OCI_INDEX
from pier.storage.durable import fsync_dir, write_file
from pier.storage.errors import ContentMismatch, ContentNotFound, LayerTooLarge
from pier.storage.faults import point
from pier.storage.layer import DEFAULT_LAYER_BYTES
from pier.storage.leases import Leases
from pier.storage.rebuild import Recipes, Stop, never

if TYPE_CHECKING:
    from hashlib import _Hash

LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
REF_NAME: Final = "org.opencontainers.image.ref.name"
"""What skopeo and crane look for; the full name here, since two repositories may have the same tag."""
FULL_NAME: Final = "io.containerd.image.name"
MAX_INDEX_BYTES: Final = 256 << 20
PART_MAX_AGE_S: Final = 7 * 24 * 3600
"""How long a cut download waits to be gone on with."""
_PART: Final = re.compile(r"(sha\d+)-([0-9a-f]+)\.part")


class Source(Protocol):
    """Where a blob's bytes come from: its file, or its recipe."""

    def read(self, size: int = -1, /) -> bytes: ...
    def close(self) -> None: ...


class VerifiedReader:
    """A blob's bytes; the read that reaches the end raises ContentMismatch unless digest and size are right.

    Whoever acts on the bytes reads to the end first.
    """

    def __init__(self, source: Source, digest: Digest, size: int) -> None:
        self._file = source
        self._digest = digest
        self._hash = digest.hasher()
        self._seen = 0
        self.size = size

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        if data:
            self._hash.update(data)
            self._seen += len(data)
        if size < 0 or (not data and size):
            self._verify()
        return data

    def _verify(self) -> None:
        if self._seen != self.size:
            raise ContentMismatch(digest=self._digest, reason=f"{self._seen} bytes, not {self.size}")
        found = Digest.finish(self._hash.copy())
        if found != self._digest:
            raise ContentMismatch(digest=self._digest, reason=f"its digest is {found}")

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Writer:
    """One blob on its way in; nothing is seen of it until `commit`."""

    def __init__(
        self, store: ContentStore, path: str, expected: Digest | None, size: int | None, *, resume: bool = False
    ) -> None:
        self._store = store
        self._path = path
        self._file = open(path, "a+b" if resume else "xb", buffering=0)  # noqa: SIM115 - closed by `abandon`
        self._hash: _Hash = expected.hasher() if expected else hasher()
        self._expected = expected
        self._expected_size = size
        self._keep = resume
        self.offset = 0
        """Bytes that are here; more than none at the start where a cut ingest goes on."""
        if resume:
            self._read_again()

    def _read_again(self) -> None:
        """Hash what an earlier ingest left; more than there should be is worth nothing."""
        self._file.seek(0)
        while data := self._file.read(1 << 20):
            self._hash.update(data)
            self.offset += len(data)
        if self._expected_size is not None and self.offset > self._expected_size:
            self.restart()

    def restart(self) -> None:
        """Throw away what is here, and begin anew."""
        self._file.truncate(0)
        self._hash = self._expected.hasher() if self._expected else hasher()
        self.offset = 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append; raises ContentMismatch as soon as there are more bytes than there should be, LayerTooLarge."""
        if self._expected_size is not None and self.offset + len(data) > self._expected_size:
            self._fail(f"more than the {self._expected_size} bytes it should have")
        if self.offset + len(data) > self._store.max_blob_bytes:
            self._keep = False
            reason = f"a blob of more than {self._store.max_blob_bytes} bytes"
            raise LayerTooLarge(reason=reason, key="max-layer-size")
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self._hash.update(data)
        self.offset += len(data)
        point("blob-written")
        return len(data)

    def commit(self, media_type: str = "application/octet-stream") -> Descriptor:
        """Verify, flush to the disk and give the blob its name; one that is there already stays. Raises
        ContentMismatch."""
        if self._expected_size is not None and self.offset != self._expected_size:
            self._fail(f"{self.offset} bytes, not {self._expected_size}")
        digest = Digest.finish(self._hash)
        if self._expected is not None and digest != self._expected:
            self._fail(f"its digest is {digest}")
        os.fsync(self._file.fileno())
        point("blob-flushed")
        self._file.close()
        self._store.leases.meet(digest)
        place = self._store.path(digest)
        os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
        os.rename(self._path, place)
        point("blob-named")
        fsync_dir(os.path.dirname(place))
        point("blob-durable")
        return Descriptor(media_type=media_type, digest=digest, size=self.offset)

    def abandon(self) -> None:
        """Throw away what was written, or keep it to be resumed where that was asked for; after a commit, nothing."""
        self._file.close()
        if not self._keep or not self.offset:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)

    def _fail(self, reason: str) -> None:
        self._keep = False  # whatever is wrong with it, going on would not mend it
        raise ContentMismatch(digest=self._expected or "being written", reason=reason)


class ContentStore:
    """Blobs by digest, and the names that point at them."""

    def __init__(self, root: str, *, leases: Leases | None = None, max_blob_bytes: int = DEFAULT_LAYER_BYTES) -> None:
        self.root = root
        self.max_blob_bytes = max_blob_bytes
        """What a blob may have, whoever sends it; most are bounded further by what names them."""
        self.leases = leases or Leases()
        """Shared with the snapshot driver: one lease keeps blobs and layers."""
        self._lock = threading.RLock()
        self._serial = 0
        self._resuming: set[str] = set()
        for folder in ("", "blobs", "blobs/sha256", "ingest"):
            os.makedirs(os.path.join(root, folder), mode=0o700, exist_ok=True)
        os.chmod(root, 0o700)
        self.drop_parts(PART_MAX_AGE_S)
        if not os.path.exists(os.path.join(root, "oci-layout")):
            write_file(os.path.join(root, "oci-layout"), LAYOUT)
        if not os.path.exists(self._index_path):
            self._write_index([])
        self._entries = self._read_index()
        self.recipes = Recipes(root)
        """Of blobs that were dropped; `recipes.open_layer` must be set before one is read."""
        self.generation = 0
        """Counts the changes of the index, so that whoever keeps a view of it knows when to look again."""

    @property
    def _index_path(self) -> str:
        return os.path.join(self.root, "index.json")

    @property
    def _ingest_dir(self) -> str:
        return os.path.join(self.root, "ingest")

    def drop_parts(self, max_age_s: float = 0) -> int:
        """Delete what cut ingests have left: what cannot go on, and what nobody has gone on with for so long.

        Returns the bytes that this has freed. What is being written now stays.
        """
        freed = 0
        with self._lock:
            for left in os.listdir(self._ingest_dir):
                path = os.path.join(self._ingest_dir, left)
                with contextlib.suppress(FileNotFoundError):
                    info = os.stat(path)
                    may_go_on = _PART.fullmatch(left) and time.time() - info.st_mtime < max_age_s
                    if not may_go_on and path not in self._resuming:
                        os.unlink(path)
                        freed += info.st_blocks * 512
        return freed

    # --- blobs

    def path(self, digest: Digest) -> str:
        """Where the blob is, or would be."""
        digest = Digest(digest)
        return os.path.join(self.root, "blobs", digest.algorithm, digest.hex)

    def has(self, digest: Digest) -> bool:
        self.leases.meet(digest)
        return os.path.exists(self.path(digest)) or self.recipes.usable(Digest(digest)) is not None

    def size(self, digest: Digest) -> int:
        """Bytes of a blob; raises ContentNotFound."""
        self.leases.meet(digest)
        try:
            return os.stat(self.path(digest)).st_size
        except FileNotFoundError:
            header = self.recipes.usable(Digest(digest))
        if header is None:
            raise ContentNotFound(digest=digest)
        return header.size

    def open(self, digest: Digest, size: int | None = None) -> VerifiedReader:
        """Read a blob, verified at its end, also against `size` where it is given. Raises ContentNotFound."""
        self.leases.meet(digest)
        digest = Digest(digest)
        stated = self.size(digest) if size is None else size
        try:
            file = os.fdopen(os.open(self.path(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0)
            return VerifiedReader(cast(Source, file), digest, stated)
        except FileNotFoundError:
            rebuilt = self.recipes.open(digest)
        if rebuilt is None:
            raise ContentNotFound(digest=digest)
        return VerifiedReader(rebuilt, digest, stated)

    def drop(self, digest: Digest, chain_id: Digest, stop: Stop = never) -> int:
        """Delete a layer's blob if it can be made again of the layer's tree, which is proved first.

        Returns the bytes that this frees, 0 where the blob stays. Call it inside `keep`. Raises ContentNotFound,
        ContentMismatch, OSError, and Stopped once `stop` says so.
        """
        place = self.path(digest)
        size = self.size(digest)
        if not os.path.exists(place):
            return 0
        if self.recipes.hopeless(digest):
            return 0
        if not self.recipes.proves(
            digest, stop
        ):  # a recipe that was good may have brought the blob back by being so no more
            with contextlib.ExitStack() as stack:

                def read() -> VerifiedReader:
                    return stack.enter_context(self.open(digest))

                if not self.recipes.make(digest, size, chain_id, read, stop):
                    return 0
        before = os.stat(place).st_blocks * 512
        os.unlink(place)
        point("blob-dropped")
        return max(0, before - os.stat(self.recipes.path(digest)).st_blocks * 512)

    def read(self, digest: Digest, *, limit_bytes: int) -> bytes:
        """A small blob whole and verified. Raises ContentNotFound, ContentMismatch."""
        if self.size(digest) > limit_bytes:
            raise ContentMismatch(digest=digest, reason=f"more than the {limit_bytes} bytes allowed here")
        with self.open(digest) as reader:
            return reader.read()

    @contextlib.contextmanager
    def ingest(
        self, *, expected: Digest | None = None, size: int | None = None, resume: bool = False
    ) -> Iterator[Writer]:
        """Write a blob; without a `commit` before the block ends nothing remains of it.

        With `resume` (and `expected`) what was written remains, and the next such ingest of that digest goes on there:
        see `Writer.offset`. Two at once do not share it: the second begins anew.
        """
        path, resumes = self._ingest_path(expected if resume else None)
        try:
            writer = Writer(self, path, expected, size, resume=resumes)
            try:
                point("blob-begun")
                yield writer
            finally:
                writer.abandon()
        finally:
            with self._lock:
                self._resuming.discard(path)

    def _ingest_path(self, resumed: Digest | None) -> tuple[str, bool]:
        with self._lock:
            if resumed is not None:
                path = os.path.join(self._ingest_dir, f"{resumed.algorithm}-{resumed.hex}.part")
                if path not in self._resuming:
                    self._resuming.add(path)
                    return path, True
            self._serial += 1
            path = os.path.join(self._ingest_dir, f"{os.getpid()}-{self._serial}")
            self._resuming.add(path)
            return path, False

    def put(self, data: bytes, media_type: str) -> Descriptor:
        """Store a small blob that is in memory."""
        with self.ingest(size=len(data)) as writer:
            writer.write(data)
            return writer.commit(media_type)

    # --- names

    def tags(self) -> dict[str, Descriptor]:
        """Full name (`docker.io/library/busybox:latest`, `…@sha256:…`) -> manifest or index."""
        with self._lock:
            return {entry.annotations[FULL_NAME]: entry for entry in self._entries if FULL_NAME in entry.annotations}

    def roots(self) -> list[Descriptor]:
        """Every manifest or index that is kept, named or not; one with several names comes once a name."""
        with self._lock:
            return list(self._entries)

    def set_tag(self, name: str, descriptor: Descriptor) -> None:
        """Point a full name at a manifest or index, durably; takes it from what it pointed at before.

        What loses its last name is kept without one, until `forget`.
        """
        with self._lock:
            before = self.tags().get(name)
            entries = [entry for entry in self._entries if entry.annotations.get(FULL_NAME) != name]
            entries = [e for e in entries if e.annotations.get(FULL_NAME) or e.digest != descriptor.digest]
            entries.append(_named(descriptor, name))
            self._replace(_keep(entries, before))

    def add(self, descriptor: Descriptor) -> None:
        """Keep a manifest or index that has no name (yet)."""
        with self._lock:
            self._replace(_keep(self._entries, descriptor))

    def remove_tag(self, name: str) -> None:
        """Take a name away; what it pointed at is kept, until `forget`. A name that is not there is no error."""
        with self._lock:
            before = self.tags().get(name)
            if before is not None:
                rest = [entry for entry in self._entries if entry.annotations.get(FULL_NAME) != name]
                self._replace(_keep(rest, before))

    def forget(self, digests: Iterable[Digest]) -> None:
        """Keep these manifests or indexes no longer, under no name."""
        gone = set(digests)
        with self._lock:
            self._replace([entry for entry in self._entries if entry.digest not in gone])

    def _replace(self, entries: list[Descriptor]) -> None:
        if entries != self._entries:
            self._write_index(entries)
            self._entries = entries
            self.generation += 1

    def _write_index(self, entries: list[Descriptor]) -> None:
        index = Index(schema_version=2, media_type=OCI_INDEX, manifests=entries)
        write_file(self._index_path, encode(index))

    def _read_index(self) -> list[Descriptor]:
        with open(self._index_path, "rb") as file:
            data = file.read(MAX_INDEX_BYTES + 1)
        # Our own file: bounded by its size alone, a thousand images have more values than one document of others may.
        return msgspec.json.decode(data, type=Index, dec_hook=lambda _, text: Digest(text)).manifests

    # --- garbage

    def keep(self) -> contextlib.AbstractContextManager[None]:
        """A lease: what the block writes, opens or finds to be here is not swept before it ends (`leases`)."""
        return self.leases.hold()

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Nobody changes a name inside the block, so that what the names reach can be worked out."""
        with self._lock:
            yield

    def sweep(self, reachable: Iterable[Digest]) -> dict[Digest, int]:
        """Delete every blob but these and those that leases protect; returns what was deleted and its bytes on disk.

        Called inside `exclusive`, with `reachable` worked out there. Pulls and loads go on meanwhile.
        """
        wanted = frozenset(reachable)
        gone: dict[Digest, int] = {}
        for digest in self.blobs() - wanted:
            taken = self.taken(digest)
            if self.leases.sweep(digest, partial(self._delete, digest)):
                gone[digest] = taken
                point("blob-swept")
        return gone

    def discard(self, manifests: Iterable[Digest]) -> None:
        """Delete manifests of an index that goes on without them; those that leases protect stay."""
        with self._lock:
            for digest in manifests:
                self.leases.sweep(digest, partial(self._delete, digest))
            self.generation += 1

    def taken(self, digest: Digest) -> int:
        """Bytes of a blob on disk; nothing where it is gone or kept as a recipe."""
        try:
            return os.stat(self.path(digest)).st_blocks * 512
        except FileNotFoundError:
            return 0

    def _delete(self, digest: Digest) -> None:
        self.recipes.forget(digest)  # first: a recipe without layer or blob would be taken for damage
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(digest))

    def blobs(self) -> set[Digest]:
        """All blobs that are here, as files or as recipes."""
        return self.stored() | self.recipes.all()

    def stored(self) -> set[Digest]:
        """The blobs that are files."""
        folder = os.path.join(self.root, "blobs")
        return {
            Digest(f"{algorithm}:{name}")
            for algorithm in os.listdir(folder)
            for name in os.listdir(os.path.join(folder, algorithm))
        }


def _named(descriptor: Descriptor, name: str) -> Descriptor:
    return msgspec.structs.replace(descriptor, annotations={REF_NAME: name, FULL_NAME: name})


def _keep(entries: list[Descriptor], descriptor: Descriptor | None) -> list[Descriptor]:
    """The entries, with `descriptor` added without a name unless it is among them."""
    if descriptor is None or any(entry.digest == descriptor.digest for entry in entries):
        return entries
    return [*entries, msgspec.structs.replace(descriptor, annotations={})]
