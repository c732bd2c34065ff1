"""Image archives in every form, and a service on a folder of its own."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from pier.distribution import Registries
from pier.events.bus import EventBus
from pier.images import ImageService
from pier.model.event import EventMessage
from pier.oci import Digest
from pier.oci.manifest import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from pier.state.memory import MemoryStore
from pier.storage import ContentStore, Setup
from pier.storage.overlay2 import Overlay2

CREATED = "2024-05-06T07:08:09.123456789Z"


def tar(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    """An archive of files, and of symbolic links by name -> target."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return buffer.getvalue()


BASE, TOP = tar({"bin/tool": b"#!" * 50, "etc/name": b"base"}), tar({"etc/name": b"top"})


def config(layers: Iterable[bytes] = (BASE, TOP), **more: Any) -> bytes:
    """An image configuration over plain layers; `more` goes into its `config`."""
    diff_ids = [str(Digest.of(layer)) for layer in layers]
    history = [{"created": CREATED, "comment": "step"} for _ in diff_ids]
    document = {
        "created": CREATED,
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["tool"], **more},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": history,
    }
    return json.dumps(document).encode()


def docker_archive(*tags: str, layers: Iterable[bytes] = (BASE, TOP), document: bytes | None = None) -> bytes:
    """As `docker save` wrote them until version 24."""
    layers = list(layers)
    document = document or config(layers)
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": f"{Digest.of(document).hex}.json", "RepoTags": list(tags) or None, "Layers": names}]
    files = dict(zip(names, layers, strict=True))
    return tar({f"{Digest.of(document).hex}.json": document, **files, "manifest.json": json.dumps(manifest).encode()})


def layout_files(
    name: str, layers: Iterable[bytes] = (BASE, TOP), *, compress: Callable[[bytes], bytes] = gzip.compress
) -> dict[str, bytes]:
    """The files of an OCI image layout with one image."""
    layers = list(layers)
    document, blobs = config(layers), [compress(layer) for layer in layers]
    suffix = "+gzip" if compress is gzip.compress else ""

    def described(data: bytes, kind: str) -> dict[str, Any]:
        return {"mediaType": kind, "digest": str(Digest.of(data)), "size": len(data)}

    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": described(document, OCI_CONFIG),
            "layers": [described(blob, OCI_LAYER + suffix) for blob in blobs],
        }
    ).encode()
    entry = described(manifest, OCI_MANIFEST)
    if name:
        entry["annotations"] = {"org.opencontainers.image.ref.name": name}
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}).encode()
    files = {f"blobs/sha256/{Digest.of(data).hex}": data for data in (document, manifest, *blobs)}
    return {**files, "index.json": index, "oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}


def described(data: bytes, kind: str, **more: Any) -> dict[str, Any]:
    """A descriptor as JSON."""
    return {"mediaType": kind, "digest": str(Digest.of(data)), "size": len(data), **more}


def index_files(name: str, *platforms: str, leave_out: Iterable[str] = ()) -> dict[str, bytes]:
    """The files of a layout whose one entry is an index; what is for `leave_out` is not in it."""
    files, children = {}, []
    for platform in platforms:
        os, architecture = platform.split("/")[:2]
        layer = tar({"etc/platform": platform.encode()})
        document = json.dumps({**json.loads(config([layer])), "os": os, "architecture": architecture}).encode()
        parts = {"config": described(document, OCI_CONFIG), "layers": [described(layer, OCI_LAYER)]}
        manifest = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, **parts}).encode()
        children.append(described(manifest, OCI_MANIFEST, platform={"os": os, "architecture": architecture}))
        if platform not in leave_out:
            files |= {f"blobs/sha256/{Digest.of(data).hex}": data for data in (layer, document, manifest)}
    inner = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}).encode()
    entry = described(inner, OCI_INDEX, annotations={"io.containerd.image.name": f"docker.io/library/{name}"})
    outer = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}).encode()
    files[f"blobs/sha256/{Digest.of(inner).hex}"] = inner
    return {**files, "index.json": outer, "oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}


def index_archive(name: str, *platforms: str, leave_out: Iterable[str] = ()) -> bytes:
    """The same as an archive."""
    return tar(index_files(name, *platforms, leave_out=leave_out))


class Lab:
    """A service, what it stands on, and what it told."""

    def __init__(self, root: str, *, rebuilds_blobs: bool = False) -> None:
        self.root = root
        self.rebuilds_blobs = rebuilds_blobs
        self.content = ContentStore(f"{root}/content")
        self.snapshots = Overlay2(root, Setup(leases=self.content.leases))
        self.store = MemoryStore()
        self.bus = EventBus()
        self.images = self.service()

    def service(self, registries: Registries | None = None) -> ImageService:
        return ImageService(
            self.content,
            self.snapshots,
            self.store,
            self.bus,
            registries=registries,
            rebuilds_blobs=self.rebuilds_blobs,
            clock_ns=lambda: 1_700_000_000_500_000_000,
        )

    async def load(self, data: bytes, *, quiet: bool = True, **options: Any) -> list[dict[str, Any]]:
        return [message async for message in self.images.archives.load(pieces(data), quiet=quiet, **options)]

    async def import_(self, data: bytes, **options: Any) -> str:
        messages = [message async for message in self.images.archives.import_(pieces(data), **options)]
        return str(messages[-1]["status"])

    async def save(self, *refs: str, **options: Any) -> bytes:
        return b"".join([piece async for piece in await self.images.archives.save(refs, **options)])

    async def events(self) -> list[EventMessage]:
        async with self.bus.subscribe(since_ns=1, until_ns=2**62) as stream:
            self.bus.close()
            return [event async for event in stream]

    async def close(self) -> None:
        await self.images.close()
        self.snapshots.close()


async def pieces(data: bytes, size: int = 10_000) -> AsyncIterator[bytes]:
    """A request body."""
    for start in range(0, len(data), size):
        yield data[start : start + size]
