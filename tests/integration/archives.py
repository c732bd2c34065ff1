"""Image archives as `docker save` and `skopeo copy … oci-archive:` write them, made by hand."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """A tar archive of regular files and the folders they lie in."""
    text = io.BytesIO()
    with tarfile.open(fileobj=text, mode="w") as tar:
        for folder in sorted({str(parent) for name in files for parent in Path(name).parents} - {"."}):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return text.getvalue()


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def config_of(layers: Iterable[bytes], **config: Any) -> bytes:
    """An image's configuration over layers, the lowest first."""
    diff_ids = [digest_of(layer) for layer in layers]
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
    ).encode()


def docker_archive(tags: list[str], layers: list[bytes], **config: Any) -> bytes:
    """What `docker save` writes."""
    text = config_of(layers, **config)
    name = f"{digest_of(text)[7:]}.json"
    files = {f"{number}/layer.tar": layer for number, layer in enumerate(layers)}
    manifest = [{"Config": name, "RepoTags": tags, "Layers": list(files)}]
    return tar_of({**files, name: text, "manifest.json": json.dumps(manifest).encode()})


def oci_archive(tag: str, layers: list[bytes], **config: Any) -> bytes:
    """An OCI image layout in a tar archive, its layers compressed; `tag` is a whole name."""
    packed = [gzip.compress(layer, mtime=0) for layer in layers]
    text = config_of(layers, **config)
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": described(text, "application/vnd.oci.image.config.v1+json"),
            "layers": [described(blob, "application/vnd.oci.image.layer.v1.tar+gzip") for blob in packed],
        }
    ).encode()
    entry = described(manifest, "application/vnd.oci.image.manifest.v1+json")
    annotations = {"io.containerd.image.name": tag, "org.opencontainers.image.ref.name": tag.rpartition(":")[2]}
    index = {"schemaVersion": 2, "manifests": [{**entry, "annotations": annotations}]}
    blobs = {f"blobs/sha256/{digest_of(blob)[7:]}": blob for blob in (*packed, text, manifest)}
    layout = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode()}
    return tar_of({**layout, **blobs})


def described(blob: bytes, media_type: str) -> dict[str, Any]:
    """A descriptor."""
    return {"mediaType": media_type, "digest": digest_of(blob), "size": len(blob)}
