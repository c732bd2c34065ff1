"""Archives of Docker before 1.10: a folder a layer, with its own configuration, each naming its parent.

    repositories        {"name": {"tag": "<id>"}}
    <id>/json           configuration of the image as of this layer, "parent" among it
    <id>/layer.tar

They are rewritten to what an archive has today, to the byte as Docker does it with what Docker 1.8.3 and later wrote:
the image gets the same id.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from pier.images.archive import Blob, Contents, NotAnImageArchive, SavedImage
from pier.oci import Digest
from pier.oci.digest import hasher
from pier.oci.document import MalformedDocument, decode
from pier.oci.image_config import MAX_CONFIG_BYTES
from pier.oci.manifest import MAX_LAYERS, MAX_MANIFEST_BYTES, OCI_CONFIG
from pier.storage import ContentStore
from pier.storage.compression import decompressed, kind_of
from pier.storage.stream import CHUNK

_OF_A_LAYER: Final = frozenset({"id", "parent", "Size", "parent_id", "layer_id", "throwaway"})
"""Members of a layer's configuration that are none of the image's."""
_ESCAPED: Final = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
"""How Go writes these in JSON."""


class _Command(msgspec.Struct, rename="pascal"):
    cmd: list[str] | None = None


class _Layer(msgspec.Struct):
    """What is asked of a layer's configuration."""

    id: str
    parent: str = ""
    created: str = ""
    author: str = ""
    comment: str = ""
    container_config: _Command = msgspec.field(default_factory=_Command)


class _Names(msgspec.Struct):
    repositories: dict[str, dict[str, str]]


def convert(contents: Contents, store: ContentStore) -> Iterator[SavedImage]:
    """The images of such an archive, as manifest.json would list them; their configurations become blobs of it.

    Raises NotAnImageArchive, MalformedDocument, ContentNotFound.
    """
    layers = {
        name.removesuffix("/json"): _layer(store, name, blob)
        for name, blob in contents.blobs.items()
        if name.endswith("/json") and name.count("/") == 1
    }
    if not layers:
        raise NotAnImageArchive(reason="neither manifest.json nor index.json is in it")
    for head, tags in _heads(contents, layers).items():
        chain = _chain(head, layers)
        files = [f"{id}/layer.tar" for id in chain]
        diff_ids = [_diff_id(store, contents.find(name)) for name in files]
        document = _configuration(_raw(store, contents.find(f"{head}/json")), [layers[id] for id in chain], diff_ids)
        stored = store.put(document, OCI_CONFIG)
        name = f"{head}/json as of today"
        contents.blobs[name] = Blob(stored.digest, stored.size, b"{")
        yield SavedImage(config=name, layers=files, repo_tags=tags)


def _heads(contents: Contents, layers: dict[str, _Layer]) -> dict[str, list[str]]:
    """Id of the last layer -> names; without a table of names, what is nobody's parent."""
    if "repositories" not in contents.documents:
        parents = {layer.parent for layer in layers.values()}
        return {id: [] for id in layers if id not in parents}
    wrapped = b'{"repositories":' + contents.documents["repositories"] + b"}"
    names = decode(wrapped, _Names, what="repositories", limit_bytes=2 * MAX_MANIFEST_BYTES).repositories
    heads: dict[str, list[str]] = {}
    for repository, tags in names.items():
        for tag, id in tags.items():
            heads.setdefault(id, []).append(f"{repository}:{tag}")
    return heads


def _chain(head: str, layers: dict[str, _Layer]) -> list[str]:
    """Ids from the base to `head`."""
    chain: list[str] = []
    current = head
    while current:
        if current not in layers:
            raise NotAnImageArchive(reason=f"layer {current[:80]!r}, which it names, is not in it")
        if current in chain or len(chain) == MAX_LAYERS:
            raise NotAnImageArchive(reason=f"the layers of {head[:80]!r} have no end")
        chain.append(current)
        current = layers[current].parent
    return chain[::-1]


def _layer(store: ContentStore, name: str, blob: Blob) -> _Layer:
    raw = store.read(blob.digest, limit_bytes=MAX_CONFIG_BYTES)
    return decode(raw, _Layer, what=name, limit_bytes=MAX_CONFIG_BYTES)


def _raw(store: ContentStore, blob: Blob) -> dict[str, msgspec.Raw]:
    raw = store.read(blob.digest, limit_bytes=MAX_CONFIG_BYTES)
    return msgspec.json.decode(raw, type=dict[str, msgspec.Raw])


def _configuration(members: dict[str, msgspec.Raw], layers: list[_Layer], diff_ids: list[Digest]) -> bytes:
    """The image's configuration: its last layer's, without what is of the layer, with all layers and their history."""
    kept: dict[str, bytes] = {key: bytes(raw) for key, raw in members.items() if key not in _OF_A_LAYER}
    rootfs = {"type": "layers", "diff_ids": [str(diff_id) for diff_id in diff_ids]}
    kept["rootfs"] = msgspec.json.encode(rootfs)
    kept["history"] = msgspec.json.encode([_history(layer) for layer in layers])
    body = b",".join(msgspec.json.encode(key) + b":" + _as_go(kept[key]) for key in sorted(kept))
    return b"{" + body + b"}"


def _history(layer: _Layer) -> dict[str, Any]:
    entry = {
        "created": layer.created or "0001-01-01T00:00:00Z",
        "created_by": " ".join(layer.container_config.cmd or ()),
        "author": layer.author,
        "comment": layer.comment,
    }
    return {key: text for key, text in entry.items() if text}


def _as_go(raw: bytes) -> bytes:
    """A JSON value without white space, and escaped as Go's encoder does."""
    try:
        text = msgspec.json.format(raw, indent=-1).decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedDocument(what="a layer's configuration", reason=str(error)) from None
    for character, escape in _ESCAPED.items():
        text = text.replace(character, escape)
    return text.encode()


def _diff_id(store: ContentStore, blob: Blob) -> Digest:
    if not kind_of(blob.head):
        return blob.digest
    state = hasher()
    with store.open(blob.digest) as reader:
        _, plain = decompressed(reader)
        while data := plain.read(CHUNK):
            state.update(data)
    return Digest.finish(state)
