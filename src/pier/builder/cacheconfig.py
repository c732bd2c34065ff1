"""What a build cache that travels says of itself: BuildKit's document `application/vnd.buildkit.cacheconfig.v0`.

Records stand for steps that were done, each with a digest and the layers that came of it; layers form a tree by their
parents. An image that carries its own cache has the records alone in its configuration (`moby.buildkit.cache.v0`);
their layers are the image's, by number. What our records have besides is under `pier`: readers of BuildKit's pass it
over, and records without it are another builder's, whose digests are worked out in another way.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from pier.builder.cache import KEYS_MAX, REGULAR, Record
from pier.builder.tree import Tree
from pier.errors import InvalidParameter
from pier.model.time import rfc3339_nano
from pier.oci import Descriptor, Digest
from pier.oci.document import decode
from pier.oci.image_config import MAX_CONFIG_BYTES, MAX_HISTORY
from pier.oci.manifest import MAX_LAYERS

CONFIG: Final = "application/vnd.buildkit.cacheconfig.v0"
INLINE: Final = "moby.buildkit.cache.v0"
MAX_DOCUMENT_BYTES: Final = 64 << 20
TEXT_MAX: Final = 4096
NO_PARENT: Final = -1


class NoCache(InvalidParameter):
    """there is no build cache in it that can be used: {reason}"""


class LayerFacts(msgspec.Struct, omit_defaults=True):
    """What of a layer its blob's digest does not say."""

    media_type: str = msgspec.field(default="", name="mediaType")
    diff_id: str = msgspec.field(default="", name="diffID")
    size: int = 0
    created_at: str = msgspec.field(default="", name="createdAt")
    """RFC 3339; empty: it came with an image."""


class CacheLayer(msgspec.Struct, omit_defaults=True):
    blob: Digest
    parent: int = 0
    """Number of the layer it lies on; NO_PARENT: on nothing."""
    annotations: LayerFacts = msgspec.field(default_factory=LayerFacts)


class TopLayer(msgspec.Struct, omit_defaults=True):
    """A result by the number of its uppermost layer."""

    layer: int = 0
    created_at: str = msgspec.field(default="", name="createdAt")


class Chain(msgspec.Struct, omit_defaults=True):
    """A result by the numbers of all its layers, the base first."""

    layers: list[int]
    created_at: str = msgspec.field(default="", name="createdAt")


class Link(msgspec.Struct, omit_defaults=True):
    """The record that an input of a step is."""

    link: int = 0


class Facts(msgspec.Struct, omit_defaults=True):
    """What our records have besides."""

    keys: list[str]
    """Further keys of the step; the record's digest is the first."""
    gaps: list[list[int]] = msgspec.field(default_factory=list)
    """`Tree.gaps` of each output."""
    type: str = REGULAR
    description: str = ""
    created_ns: int = 0
    mount: Digest | None = None
    """Of a cache mount: the archive of its files."""


class CacheRecord(msgspec.Struct, omit_defaults=True):
    digest: str
    inputs: list[list[Link]] = msgspec.field(default_factory=list)
    layers: list[TopLayer] = msgspec.field(default_factory=list)
    chains: list[Chain] = msgspec.field(default_factory=list)
    pier: Facts | None = None

    @property
    def keys(self) -> list[str]:
        return [self.digest, *(self.pier.keys if self.pier else ())]

    @property
    def below(self) -> list[int]:
        """Numbers of the records it stands on."""
        return [each.link for links in self.inputs for each in links]


class CacheConfig(msgspec.Struct, omit_defaults=True):
    layers: list[CacheLayer] = msgspec.field(default_factory=list)
    records: list[CacheRecord] = msgspec.field(default_factory=list)


# --- reading


def read(data: bytes) -> CacheConfig:
    """A cache's document, checked. Raises MalformedDocument, NoCache."""
    config = decode(data, CacheConfig, what="build cache", limit_bytes=MAX_DOCUMENT_BYTES)
    check(config)
    return config


def read_inline(image: bytes, blobs: Sequence[Descriptor]) -> CacheConfig | None:
    """The cache in an image's configuration, whose layers are `blobs`; None: there is none.

    Raises MalformedDocument, NoCache.
    """
    found = decode(image, _Carrier, what="configuration of an image", limit_bytes=MAX_CONFIG_BYTES)
    if not found.cache:
        return None
    if len(found.rootfs.diff_ids) != len(blobs):
        raise NoCache(reason=f"its image has {len(blobs)} layers, and says it has {len(found.rootfs.diff_ids)}")
    try:
        raw = base64.b64decode(found.cache, validate=True)
    except binascii.Error as error:
        raise NoCache(reason=f"{INLINE} is not base64 ({error})") from None
    records = decode(raw, list[CacheRecord], what="build cache of an image", limit_bytes=MAX_CONFIG_BYTES)
    facts = [
        LayerFacts(blob.media_type, str(diff_id), blob.size)
        for blob, diff_id in zip(blobs, found.rootfs.diff_ids, strict=True)
    ]
    config = CacheConfig([CacheLayer(blob.digest, at - 1, facts[at]) for at, blob in enumerate(blobs)], records)
    check(config)
    for record in records:
        for layers, created_at in zip(results(config, record), _times(record), strict=True):
            if layers and created_at:
                facts[layers[-1]].created_at = created_at
    return config


class _RootFS(msgspec.Struct):
    diff_ids: list[Digest] = msgspec.field(default_factory=list)


class _Carrier(msgspec.Struct):
    """What of an image's configuration concerns its cache."""

    rootfs: _RootFS = msgspec.field(default_factory=_RootFS)
    cache: str = msgspec.field(default="", name=INLINE)


def check(config: CacheConfig) -> None:
    """Every number means something, no layer lies on itself, nothing is larger than ours ever are. Raises NoCache."""
    depths: list[int] = []
    for at, layer in enumerate(config.layers):
        if not NO_PARENT <= layer.parent < at:
            raise NoCache(reason=f"layer {at} lies on layer {layer.parent}")
        if not 0 <= layer.annotations.size < 1 << 63:
            raise NoCache(reason=f"layer {at} has {layer.annotations.size} bytes")
        depths.append(1 if layer.parent == NO_PARENT else depths[layer.parent] + 1)
        if depths[-1] > MAX_LAYERS:
            raise NoCache(reason=f"more than {MAX_LAYERS} layers on one another")
    for at, record in enumerate(config.records):
        numbers = [
            *(each.layer for each in record.layers),
            *(number for each in record.chains for number in each.layers),
        ]
        if any(not 0 <= number < len(config.layers) for number in numbers):
            raise NoCache(reason=f"record {at} names a layer that there is not")
        if any(not 0 <= number < len(config.records) for number in record.below):
            raise NoCache(reason=f"record {at} stands on a record that there is not")
        if any(len(chain.layers) > MAX_LAYERS for chain in record.chains):
            raise NoCache(reason=f"record {at} has more than {MAX_LAYERS} layers")
        if record.pier is not None:
            _check_facts(at, record, record.pier)


def _check_facts(at: int, record: CacheRecord, facts: Facts) -> None:
    if len(record.keys) > KEYS_MAX or any(len(key) > TEXT_MAX for key in record.keys):
        raise NoCache(reason=f"the keys of record {at} are too many or too long")
    if len(facts.description) > TEXT_MAX or len(facts.type) > TEXT_MAX:
        raise NoCache(reason=f"the words of record {at} are too long")
    heights = [MAX_LAYERS for _ in record.layers] + [len(chain.layers) for chain in record.chains]
    for gaps, highest in zip(facts.gaps, heights, strict=False):
        if len(gaps) > MAX_HISTORY or any(not 0 <= gap <= highest for gap in gaps):
            raise NoCache(reason=f"the gaps of record {at} lie outside its layers")


def results(config: CacheConfig, record: CacheRecord) -> list[list[int]]:
    """Each output of a step as the numbers of its layers, the base first; `config` was checked."""
    found = []
    for top in record.layers:
        numbers, number = [], top.layer
        while number != NO_PARENT:
            numbers.append(number)
            number = config.layers[number].parent
        found.append(numbers[::-1])
    return found + [list(chain.layers) for chain in record.chains]


def _times(record: CacheRecord) -> list[str]:
    return [top.created_at for top in record.layers] + [chain.created_at for chain in record.chains]


# --- writing


class Layers:
    """The layers of a cache that is written, each once for every stack it is the top of."""

    def __init__(self, archives: Callable[[Tree], Iterable[Descriptor]]) -> None:
        """`archives`: a tree's layers as they travel."""
        self.list: list[CacheLayer] = []
        self.blobs: dict[Digest, Descriptor] = {}
        self._archives = archives
        self._numbers: dict[Digest, int] = {}

    def top(self, tree: Tree) -> int:
        """The number of a tree's uppermost layer; NO_PARENT: it has none."""
        chain = tree.chain
        if not chain or chain[-1] in self._numbers:
            return self._numbers[chain[-1]] if chain else NO_PARENT
        number = NO_PARENT
        for layer, chain_id, blob in zip(tree.layers, chain, self._archives(tree), strict=True):
            if chain_id not in self._numbers:
                made = rfc3339_nano(layer.created_ns) if layer.created_ns else ""
                facts = LayerFacts(blob.media_type, str(layer.diff_id), blob.size, made)
                self._numbers[chain_id] = len(self.list)
                self.list.append(CacheLayer(blob.digest, number, facts))
                self.blobs.setdefault(blob.digest, blob)
            number = self._numbers[chain_id]
        return number


def describe(records: Sequence[Record], layers: Layers, mounts: dict[str, Digest]) -> CacheConfig:
    """The document of these records; `mounts`: of those that are cache mounts their archives, by id."""
    numbers = {record.id: number for number, record in enumerate(records)}
    found = []
    for record in records:
        made = record_of(record, numbers, mounts.get(record.id))
        if len(record.results) == 1 and record.results[0].layers:
            tree = record.results[0]
            made.layers = [TopLayer(layers.top(tree), _made(tree))]
        else:
            for tree in record.results:
                made.chains.append(Chain(_stack(layers, tree), _made(tree)))
        found.append(made)
    return CacheConfig(layers.list, found)


def _stack(layers: Layers, tree: Tree) -> list[int]:
    numbers, number = [], layers.top(tree)
    while number != NO_PARENT:
        numbers.append(number)
        number = layers.list[number].parent
    return numbers[::-1]


def inline(records: Sequence[Record], image: Tree) -> bytes:
    """The records of an image's own cache: those whose layers it has. Empty: none of them is worth it."""
    places = {diff_id: number for number, diff_id in enumerate(image.diff_ids)}
    chain = image.chain
    fitting = [
        record
        for record in records
        if record.keys and record.results and all(set(tree.diff_ids) <= set(places) for tree in record.results)
    ]
    fitting.sort(key=lambda record: record.keys[0])  # the same image on every machine
    numbers = {record.id: number for number, record in enumerate(fitting)}
    found = []
    for record in fitting:
        made = record_of(record, numbers, None)
        made.inputs.sort(key=lambda links: links[0].link)
        for tree in record.results:
            if len(record.results) == 1 and tree.layers and chain[: len(tree.layers)] == tree.chain:
                made.layers.append(TopLayer(len(tree.layers) - 1, _made(tree)))
            else:
                made.chains.append(Chain([places[diff_id] for diff_id in tree.diff_ids], _made(tree)))
        found.append(made)
    return msgspec.json.encode(found, enc_hook=str) if any(record.layers or record.chains for record in found) else b""


def with_inline(image: bytes, records: Sequence[Record], tree: Tree) -> bytes:
    """An image's configuration with its cache in it; as it was where there is none, or it would be too large."""
    cache = inline(records, tree)
    if not cache:
        return image
    document: dict[str, Any] = msgspec.json.decode(image)
    document[INLINE] = base64.b64encode(cache).decode()
    whole = msgspec.json.encode(document)
    return whole if len(whole) <= MAX_CONFIG_BYTES else image


def record_of(record: Record, numbers: dict[str, int], mount: Digest | None) -> CacheRecord:
    """A record without its results; `numbers`: of the records in the document, by id."""
    facts = Facts(
        record.keys[1:],
        [list(tree.gaps) for tree in record.results] if any(tree.gaps for tree in record.results) else [],
        record.type,
        record.description,
        record.created_ns if mount is not None else 0,
        mount,
    )
    inputs = [[Link(numbers[id])] for id in record.parents if id in numbers]
    return CacheRecord(record.keys[0], inputs, pier=facts)


def _made(tree: Tree) -> str:
    return rfc3339_nano(tree.layers[-1].created_ns) if tree.layers and tree.layers[-1].created_ns else ""
