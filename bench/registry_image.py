"""Make images and put them into a registry: `registry_image.py HOST:PORT REPOSITORY LAYERS FILES BYTES [IMAGES]`.

One is tagged 1; of several, tagged 1 to IMAGES, each has a top layer of its own over layers that all have.

A program of its own, so that it can be run where the registry can be seen. Standard library only.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import platform
import random
import sys
import tarfile
import time

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
WORDS = [bytes(random.Random(number).choices(range(97, 123), k=3 + number % 9)) for number in range(4000)]


def text(seed: int, size: int) -> bytes:
    """Words, which compress as programs and documents do."""
    chooser = random.Random(seed)
    return b" ".join(chooser.choices(WORDS, k=size // 7))[:size].ljust(size, b".")


def layer(number: int, files: int, size: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for file in range(files):
            entry = tarfile.TarInfo(f"data/{number}/{file % 50}/{file}")
            entry.size, entry.mtime, entry.mode = size, 1_700_000_000, 0o644
            archive.addfile(entry, io.BytesIO(text(number * files + file, size)))
    return out.getvalue()


class Registry:
    """The least of the distribution protocol."""

    def __init__(self, host: str, repository: str) -> None:
        self._host = host
        self._repository = repository

    def _ask(self, method: str, path: str, body: bytes = b"", kind: str = "") -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(self._host, timeout=60)
        connection.request(method, path, body, {"Content-Type": kind} if kind else {})
        answer = connection.getresponse()
        answer.read()
        if answer.status >= 400:
            raise SystemExit(f"{method} {path}: {answer.status}")
        return answer

    def put_blob(self, data: bytes) -> dict[str, object]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        place = self._ask("POST", f"/v2/{self._repository}/blobs/uploads/").headers["Location"]
        path = "/" + place.partition("://")[2].partition("/")[2] if "://" in place else place
        mark = "&" if "?" in path else "?"
        self._ask("PUT", f"{path}{mark}digest={digest}", data, "application/octet-stream")
        return {"digest": digest, "size": len(data)}

    def put_manifest(self, tag: str, document: dict[str, object]) -> None:
        kind = str(document["mediaType"])
        self._ask("PUT", f"/v2/{self._repository}/manifests/{tag}", json.dumps(document).encode(), kind)

    def wait(self) -> None:
        """Until it answers."""
        for _ in range(200):
            try:
                self._ask("GET", "/v2/")
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise SystemExit(f"no registry at {self._host}")


def main() -> None:
    host, repository = sys.argv[1:3]
    layers, files, size = map(int, sys.argv[3:6])
    images = int(sys.argv[6]) if len(sys.argv) > 6 else 1
    registry = Registry(host, repository)
    registry.wait()
    below = [_put_layer(registry, layer(number, files // layers, size)) for number in range(layers - 1)]
    for image in range(images):
        top = _put_layer(registry, layer(layers - 1 + image, files // layers, size))
        _put_image(registry, str(image + 1), [*below, top])


def _put_layer(registry: Registry, archive: bytes) -> tuple[str, dict[str, object]]:
    """Its diff_id and its blob."""
    blob = registry.put_blob(gzip.compress(archive, 6, mtime=0))
    return f"sha256:{hashlib.sha256(archive).hexdigest()}", blob


def _put_image(registry: Registry, tag: str, layers: list[tuple[str, dict[str, object]]]) -> None:
    config = {
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {},
        "rootfs": {
            "type": "layers",
            "diff_ids": [diff_id for diff_id, _ in layers],
        },
    }
    base = "application/vnd.oci.image"
    described = {"mediaType": f"{base}.config.v1+json", **registry.put_blob(json.dumps(config).encode())}
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{base}.manifest.v1+json",
        "config": described,
        "layers": [{"mediaType": f"{base}.layer.v1.tar+gzip", **blob} for _, blob in layers],
    }
    registry.put_manifest(tag, manifest)
    total = sum(int(str(blob["size"])) for _, blob in layers)
    print(f"{tag}: {total / 1e6:.0f} MB compressed", file=sys.stderr)


if __name__ == "__main__":
    main()
