"""`pier build --cache-from` and `--cache-to`: caches elsewhere, in buildx's words; those in folders here are sent."""

from __future__ import annotations

import os

from pier.cli.build_outputs import Output, fields_of
from pier.cli.errors import ApiError, Failure, reason
from pier.cli.jsontext import dumps, loads
from pier.cli.words import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from pier.cli.http import Client

LATEST = "latest"
REF_NAME = "org.opencontainers.image.ref.name"
CHUNK_BYTES = 1 << 18


class Cache:
    """One of them."""

    def __init__(self, kind: str, attrs: dict[str, str]) -> None:
        self.kind = kind
        self.attrs = attrs

    def as_asked(self) -> dict[str, Any]:
        return {"type": self.kind, "attrs": self.attrs}


def caches_of(texts: list[str]) -> list[Cache]:
    """`type=…,KEY=VALUE,…`, or names at registries. Failure in buildx's words."""
    found = []
    for text in filter(None, texts):
        fields = fields_of(text)
        if not any("=" in field for field in fields):
            found += [Cache("registry", {"ref": name}) for name in fields]
            continue
        attrs = {}
        for field in fields:
            key, equals, value = field.partition("=")
            if not equals:
                raise Failure(f"invalid value {field}")
            attrs[key.strip().lower()] = value
        kind = attrs.pop("type", "")
        if not kind:
            raise Failure(f"type required form> {quote(text)}")
        found.append(Cache(kind, attrs))
    return found


def folders_of(caches: list[Cache]) -> list[Output]:
    """Where the daemon's exports of the type `local` go to. Failure in BuildKit's words."""
    for each in caches:
        if each.kind == "local" and not each.attrs.get("dest"):
            raise Failure("local cache exporter requires dest")
    return [Output("local", {}, each.attrs["dest"]) for each in caches if each.kind == "local"]


def send(client: Client, caches: list[Cache]) -> list[str]:
    """Give the daemon what is in folders here; returns why that cannot be, for those of which it cannot."""
    warnings = []
    for each in caches:
        folder = each.attrs.get("src", "")
        if not folder:
            raise Failure("local cache importer requires src")
        try:
            parts = _parts(folder, each.attrs.get("tag") or LATEST, each.attrs.get("digest", ""))
            client.request("POST", "/build/cache", stream=_archive(folder, parts)).read()
        except OSError as error:
            warnings.append(f"local cache import at {folder} not found due to err: {reason(error)}")
        except (ValueError, KeyError, TypeError, AttributeError):
            warnings.append(f"local cache import at {folder} is no OCI image layout")
        except ApiError as error:
            warnings.append(f"failed to configure local cache importer: {error}")
    return warnings


def _parts(folder: str, tag: str, digest: str) -> list[dict[str, Any]]:
    """The chosen entry of a layout's index, and the blobs that it names. Raises OSError, ValueError, LookupError."""
    entries = _json(f"{folder}/index.json")["manifests"]
    chosen = [
        entry
        for entry in entries
        if (entry["digest"] == digest if digest else (entry.get("annotations") or {}).get(REF_NAME, LATEST) == tag)
    ]
    if not chosen:
        raise FileNotFoundError(2, f"no cache is called {digest or tag}")
    manifest = _json(_blob(folder, chosen[-1]))
    below = [manifest["config"], *manifest["layers"]] if "config" in manifest else manifest["manifests"]
    return [chosen[-1], *below]


def _json(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        document = loads(file.read())
    return dict(document)


def _blob(folder: str, descriptor: dict[str, Any]) -> str:
    algorithm, _, digits = descriptor["digest"].partition(":")
    if not (algorithm.isalnum() and digits.isalnum()):
        raise ValueError(descriptor["digest"])
    return f"{folder}/blobs/{algorithm}/{digits}"


def _archive(folder: str, parts: list[dict[str, Any]]) -> Iterator[bytes]:
    from tarfile import BLOCKSIZE, TarInfo  # noqa: PLC0415 - slow to load, and seldom wanted

    def head(name: str, size: int) -> bytes:
        entry = TarInfo(name)
        entry.size, entry.mode = size, 0o644
        return entry.tobuf()

    index = dumps({"schemaVersion": 2, "manifests": parts[:1]}).encode()
    yield head("index.json", len(index)) + index + bytes(-len(index) % BLOCKSIZE)
    for part in {part["digest"]: part for part in parts}.values():
        path = _blob(folder, part)
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            yield head(path.removeprefix(f"{folder}/"), size)
            left = size
            while left:
                data = file.read(min(left, CHUNK_BYTES)) or bytes(min(left, CHUNK_BYTES))
                left -= len(data)
                yield data
            yield bytes(-size % BLOCKSIZE)
    yield bytes(2 * BLOCKSIZE)
