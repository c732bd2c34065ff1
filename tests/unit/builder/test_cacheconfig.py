"""The documents of a build cache: written and read again; from strangers, refused before anything acts on them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from pier.builder import cacheconfig
from pier.builder.cache import Record
from pier.builder.cacheconfig import INLINE, NoCache
from pier.builder.tree import LayerRef, Tree
from pier.errors import InvalidParameter
from pier.oci import Descriptor, Digest, encode
from pier.oci.manifest import MAX_LAYERS, OCI_LAYER

A, B, C = (Digest.of(name) for name in (b"a", b"b", b"c"))
BASE = LayerRef(A)
MADE = LayerRef(B, None, 1_000_000_001)
LINKED = LayerRef(C, None, 2_000_000_000)


def record(key: str, *trees: Tree, **more: Any) -> Record:
    return Record(id=f"id-{key}", keys=[key, f"{key}-again"], results=list(trees), created_ns=5, **more)


def archives(tree: Tree) -> list[Descriptor]:
    return [Descriptor(media_type=OCI_LAYER, digest=Digest.of(layer.diff_id.encode()), size=7) for layer in tree.layers]


def test_records_and_layers_come_back() -> None:
    below = record("below", Tree((BASE, MADE), (1,)), description="RUN below")
    top = record("top", Tree((BASE, MADE, LINKED), (1, 3)), parents=["id-below", "id-gone"], type="source.git.checkout")
    two = record("two", Tree((LINKED,)), Tree())
    config = cacheconfig.describe([below, top, two], cacheconfig.Layers(archives), {})
    again = cacheconfig.read(encode(config))
    assert again == config
    assert [cacheconfig.results(again, each) for each in again.records] == [[[0, 1]], [[0, 1, 2]], [[3], []]]
    assert [each.annotations.diff_id for each in again.layers] == [A, B, C, C]
    assert [bool(each.annotations.created_at) for each in again.layers] == [False, True, True, True]
    facts = again.records[1].pier
    assert facts is not None
    assert (again.records[1].keys, again.records[1].below) == (["top", "top-again"], [0])
    assert (facts.gaps, facts.type) == ([[1, 3]], "source.git.checkout")


def test_an_image_carries_the_records_whose_layers_it_has() -> None:
    image = Tree((BASE, MADE, LINKED))
    records = [
        record("top", image),
        record("link", Tree((LINKED,))),
        record("made", Tree((BASE, MADE)), parents=["id-elsewhere"]),
        record("elsewhere", Tree((LayerRef(Digest.of(b"d")),))),
    ]
    document = {"os": "linux", "rootfs": {"type": "layers", "diff_ids": image.diff_ids}}
    raw = cacheconfig.with_inline(json.dumps(document).encode(), records, image)
    assert raw == cacheconfig.with_inline(json.dumps(document).encode(), records[::-1], image)
    config = cacheconfig.read_inline(raw, archives(image))
    assert config is not None
    found = {each.digest: cacheconfig.results(config, each) for each in config.records}
    assert found == {"top": [[0, 1, 2]], "made": [[0, 1]], "link": [[2]]}
    assert [each.annotations.created_at for each in config.layers] == [
        "",
        "1970-01-01T00:00:01.000000001Z",
        "1970-01-01T00:00:02Z",
    ]


def test_an_image_without_a_cache_is_as_it_was() -> None:
    raw = b'{"os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
    assert cacheconfig.with_inline(raw, [record("elsewhere", Tree((MADE,)))], Tree()) == raw
    assert cacheconfig.read_inline(raw, []) is None


LAYER = {"blob": A, "parent": -1, "annotations": {"size": 1}}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"layers": [{"blob": A, "parent": 0}]}, "layer 0 lies on layer 0"),
        ({"layers": [LAYER, {"blob": A, "parent": -2}]}, "layer 1 lies on layer -2"),
        ({"layers": [{**LAYER, "annotations": {"size": -1}}]}, "layer 0 has -1 bytes"),
        ({"layers": [LAYER] + [{"blob": A, "parent": at} for at in range(MAX_LAYERS)]}, "more than 1000 layers on"),
        ({"layers": [{"blob": "sha256:../../etc/passwd", "parent": -1}]}, "invalid digest"),
        ({"records": [{"digest": "x", "layers": [{"layer": 0}]}]}, "record 0 names a layer that there is not"),
        ({"records": [{"digest": "x", "chains": [{"layers": [-1]}]}]}, "record 0 names a layer that there is not"),
        ({"records": [{"digest": "x", "inputs": [[{"link": 1}]]}]}, "stands on a record that there is not"),
        (
            {"layers": [LAYER], "records": [{"digest": "x", "chains": [{"layers": [0] * 1001}]}]},
            "more than 1000 layers",
        ),
        ({"records": [{"digest": "x", "pier": {"keys": ["k"] * 64}}]}, "too many or too long"),
        ({"records": [{"digest": "x" * 5000, "pier": {"keys": []}}]}, "too many or too long"),
        ({"records": [{"digest": "x", "pier": {"keys": [], "description": "d" * 5000}}]}, "words of record 0"),
        ({"records": [{"digest": "x", "chains": [{"layers": []}], "pier": {"keys": [], "gaps": [[1]]}}]}, "gaps"),
        ({"records": [{"digest": 7}]}, "Expected `str`"),
        ({"records": [[]] * 200_001}, "more than 200000 values"),
    ],
)
def test_attack_19_a_document_of_a_stranger(document: object, words: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        cacheconfig.read(json.dumps(document).encode())
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("cache", "words"),
    [
        ("%", "not base64"),
        (base64.b64encode(b"{").decode(), "build cache of an image"),
        (base64.b64encode(b'[{"digest":"x","layers":[{"layer":3}]}]').decode(), "names a layer that there is not"),
    ],
)
def test_attack_19_a_cache_of_a_strangers_image(cache: str, words: str) -> None:
    raw = json.dumps({"rootfs": {"diff_ids": [A]}, INLINE: cache}).encode()
    with pytest.raises(InvalidParameter) as caught:
        cacheconfig.read_inline(raw, archives(Tree((BASE,))))
    assert words in caught.value.message


def test_an_image_that_lies_about_its_layers() -> None:
    raw = json.dumps({"rootfs": {"diff_ids": [A, B]}, INLINE: "W10="}).encode()
    with pytest.raises(NoCache, match="has 1 layers, and says it has 2"):
        cacheconfig.read_inline(raw, archives(Tree((BASE,))))


def test_records_of_buildkits_own_are_read_and_of_no_use() -> None:
    """As Docker 28.5 writes them."""
    records = [
        {
            "layers": [{"layer": 1, "createdAt": "2026-11-21T21:27:07.494246542Z"}],
            "digest": A,
            "inputs": [[{"link": 1}]],
        },
        {"digest": B},
    ]
    raw = json.dumps({"rootfs": {"diff_ids": [A, B]}, INLINE: base64.b64encode(json.dumps(records).encode()).decode()})
    config = cacheconfig.read_inline(raw.encode(), archives(Tree((BASE, MADE))))
    assert config is not None
    assert [each.pier for each in config.records] == [None, None]
