"""Manifests and indexes: one reading or none."""

import json
from typing import Any

import pytest

from pier.oci.descriptor import Descriptor
from pier.oci.digest import Digest
from pier.oci.document import MAX_VALUES, MalformedDocument, encode
from pier.oci.manifest import (
    DOCKER_MANIFEST,
    DOCKER_MANIFEST_LIST,
    DOCKER_SCHEMA1_SIGNED,
    MAX_LAYERS,
    MAX_MANIFEST_BYTES,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    AmbiguousManifest,
    Index,
    Manifest,
    SchemaOneManifest,
    choose,
    decode_manifest,
    media_type_of,
)
from pier.oci.platform import Platform


def descriptor(name: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": OCI_LAYER, "digest": Digest.of(name.encode()), "size": 3, **more}


IMAGE = {"schemaVersion": 2, "config": descriptor("config"), "layers": [descriptor("layer")]}
INDEX = {"schemaVersion": 2, "manifests": [descriptor("image", platform={"os": "linux", "architecture": "amd64"})]}


def read(document: object, media_type: str = "") -> Manifest | Index:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return decode_manifest(data, media_type=media_type, what="manifest of busybox:latest")


@pytest.mark.parametrize("media_type", [DOCKER_MANIFEST, OCI_MANIFEST, "", "application/json", "text/plain"])
def test_image_manifest(media_type: str) -> None:
    manifest = read(IMAGE, media_type)
    assert isinstance(manifest, Manifest)
    assert manifest.layers[0].digest == Digest.of(b"layer")
    assert isinstance(manifest.layers[0].digest, Digest)
    expected = media_type if media_type in (DOCKER_MANIFEST, OCI_MANIFEST) else OCI_MANIFEST
    assert media_type_of(manifest, media_type) == expected


@pytest.mark.parametrize("media_type", [DOCKER_MANIFEST_LIST, OCI_INDEX + "; charset=utf-8", ""])
def test_index(media_type: str) -> None:
    index = read(INDEX, media_type)
    assert isinstance(index, Index)
    assert index.manifests[0].platform == Platform(os="linux", architecture="amd64")


@pytest.mark.parametrize(
    ("document", "media_type"),
    [
        ({**IMAGE, **INDEX}, OCI_MANIFEST),
        ({**IMAGE, **INDEX}, OCI_INDEX),
        ({**IMAGE, "manifests": []}, OCI_MANIFEST),
        ({**INDEX, "layers": []}, OCI_INDEX),
        ({**IMAGE, "mediaType": OCI_INDEX}, OCI_INDEX),
        ({**INDEX, "mediaType": OCI_MANIFEST}, ""),
        ({**IMAGE, "mediaType": OCI_MANIFEST}, OCI_INDEX),
        ({**IMAGE, "mediaType": OCI_MANIFEST}, DOCKER_MANIFEST),
        (INDEX, OCI_MANIFEST),
        (IMAGE, DOCKER_MANIFEST_LIST),
        ({**IMAGE, "fsLayers": []}, OCI_MANIFEST),
    ],
)
def test_attack_11_manifest_that_is_also_an_index(document: dict[str, Any], media_type: str) -> None:
    with pytest.raises(AmbiguousManifest, match=r"manifest of busybox:latest: .*CVE-2021-41190"):
        read(document, media_type)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", "truncated"),
        (b"null", "got `null`"),
        (b"[]", "got `array`"),
        (b"{", "truncated"),
        (b"\xff\xfe", "malformed"),
        (b'{"schemaVersion":2,"x":' + b"[" * 5000 + b"]" * 5000 + b"}", "nested too deeply"),
        ({}, "schemaVersion is None"),
        ({**IMAGE, "schemaVersion": 1}, "schemaVersion is 1"),
        ({"schemaVersion": 2}, "missing required field"),
        ({**IMAGE, "config": None}, "null"),
        ({**IMAGE, "config": {}}, "missing required field"),
        ({**IMAGE, "config": descriptor("c", digest="sha256:../../x")}, "invalid digest"),
        ({**IMAGE, "config": descriptor("c", digest=None)}, "digest"),
        ({**IMAGE, "config": descriptor("c", size=-1)}, ">= 0"),
        ({**IMAGE, "config": descriptor("c", size=2**63)}, "size"),
        ({**IMAGE, "config": descriptor("c", size="3")}, "Expected `int`"),
        ({**IMAGE, "layers": [None]}, "got `null`"),
        ({**IMAGE, "layers": {}}, "got `object`"),
        ({**IMAGE, "mediaType": "application/x-tar"}, "unsupported media type application/x-tar"),
    ],
)
def test_attack_11_malformed_manifest_names_the_object(document: object, reason: str) -> None:
    with pytest.raises(MalformedDocument) as caught:
        read(document)
    assert caught.value.message.startswith("manifest of busybox:latest: ")
    assert reason in caught.value.message


def test_attack_12_limits_on_manifests() -> None:
    with pytest.raises(MalformedDocument, match=f"more than the {MAX_MANIFEST_BYTES} allowed"):
        read(b" " * (MAX_MANIFEST_BYTES + 1))
    with pytest.raises(MalformedDocument, match=f"more than {MAX_VALUES} values"):
        read(b'{"x":[' + b"0," * MAX_VALUES + b"0]}")
    with pytest.raises(MalformedDocument, match="1001 layers"):
        read({**IMAGE, "layers": [descriptor("l")] * (MAX_LAYERS + 1)})
    with pytest.raises(MalformedDocument, match="1001 manifests"):
        read({"schemaVersion": 2, "manifests": [descriptor("l")] * 1001})


def test_schema_1_is_refused_with_advice() -> None:
    document = {"schemaVersion": 1, "fsLayers": [], "history": []}
    for media_type in (DOCKER_SCHEMA1_SIGNED, "application/json"):
        with pytest.raises(SchemaOneManifest, match=r"has been removed\..*pushing it again"):
            read(document, media_type)


def test_null_is_read_as_go_reads_it() -> None:
    manifest = read({**IMAGE, "layers": None, "annotations": None, "subject": None, "unknown": {"a": None}})
    assert isinstance(manifest, Manifest)
    assert manifest.layers == []
    assert manifest.annotations == {}
    manifest = read({**IMAGE, "config": descriptor("c", urls=None, annotations={"k": None}, platform=None)})
    assert isinstance(manifest, Manifest)
    assert manifest.config.annotations == {"k": ""}


def entry(name: str, os: str, architecture: str, variant: str = "") -> Descriptor:
    platform = Platform(os=os, architecture=architecture, variant=variant)
    return Descriptor(OCI_MANIFEST, Digest.of(name.encode()), 1, platform=platform)


def test_choose_the_best_platform() -> None:
    entries = [
        entry("attestation", "unknown", "unknown"),
        entry("386", "linux", "386"),
        entry("v5", "linux", "arm", "v5"),
        entry("v7", "linux", "arm", "v7"),
        entry("amd64", "linux", "amd64"),
        entry("amd64 again", "linux", "amd64"),
    ]
    index = Index(2, entries)
    for wanted, name in [("linux/amd64", "amd64"), ("linux/arm/v7", "v7"), ("linux/arm64", "v7"), ("linux/386", "386")]:
        chosen = choose(index, Platform.parse(wanted))
        assert chosen is not None
        assert chosen.digest == Digest.of(name.encode())
    assert choose(index, Platform.parse("linux/arm/v6")) == entries[2]
    assert choose(index, Platform.parse("linux/s390x")) is None
    bare = Descriptor(OCI_MANIFEST, Digest.of(b"x"), 1)
    assert choose(Index(2, [bare]), Platform.parse("linux/s390x")) == bare
    assert choose(Index(2, [bare, bare]), Platform.parse("linux/s390x")) is None


def test_encoding_reads_back_and_omits_what_is_empty() -> None:
    config = Descriptor(OCI_CONFIG, Digest.of(b"{}"), 2)
    manifest = Manifest(2, config, [], media_type=OCI_MANIFEST)
    data = encode(manifest)
    assert json.loads(data) == {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": str(config.digest), "size": 2},
        "layers": [],
    }
    assert read(data, OCI_MANIFEST) == manifest
