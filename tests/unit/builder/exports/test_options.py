"""Attributes of exporters, with BuildKit's words for what is wrong with them."""

from __future__ import annotations

import pytest

from pier.builder.compressing import Compression
from pier.builder.exports.annotations import Annotations
from pier.builder.exports.options import ArchiveExport, FilesExport, ImageExport, read
from pier.errors import InvalidParameter
from pier.oci import Platform

AMD64, ARM64 = Platform.parse("linux/amd64"), Platform.parse("linux/arm64")


@pytest.mark.parametrize(
    ("kind", "attrs", "message"),
    [
        ("foo", {}, 'exporter "foo" could not be found'),
        ("oci", {"compression": "estargz"}, "unsupported compression type estargz"),
        ("oci", {"compression-level": "x"}, "non-integer value x specified for compression-level: strconv.ParseInt"),
        ("oci", {"force-compression": "maybe"}, "non-bool value maybe specified for force-compression: strconv.Parse"),
        ("oci", {"oci-mediatypes": "maybe"}, "non-bool value specified for oci-mediatypes: strconv.ParseBool"),
        ("image", {"push": "maybe"}, 'non-bool value specified for push: strconv.ParseBool: parsing "maybe": invalid'),
        ("local", {"platform-split": "x"}, "non-bool value for platform-split: x: strconv.ParseBool"),
        ("tar", {"source-date-epoch": "x"}, "invalid source-date-epoch: x"),
        ("image", {"annotation-foo.a": "b"}, "unrecognized annotation type foo"),
        ("image", {"annotation.": "b"}, "could not fully parse annotation annotation."),
        ("image", {"annotation[a/b/c/d].a": "b"}, "cannot parse platform specifier"),
    ],
)
def test_what_is_wrong(kind: str, attrs: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        read(kind, attrs)
    assert message in caught.value.message


def test_kinds_have_their_own_defaults() -> None:
    kept, pushed, docker, oci = read("image", {}), read("moby", {"push": "true"}), read("docker", {}), read("oci", {})
    assert isinstance(kept, ImageExport)
    assert isinstance(pushed, ImageExport)
    assert isinstance(docker, ArchiveExport)
    assert isinstance(oci, ArchiveExport)
    kinds = [each.form.compression.kind for each in (kept, pushed, docker, oci)]
    assert kinds == ["uncompressed", "gzip", "gzip", "gzip"]
    assert [each.form.oci_types for each in (kept, pushed, docker, oci)] == [True, True, False, True]
    assert (kept.store, kept.push, pushed.push) == (True, False, True)


def test_a_name_alone_means_yes() -> None:
    found = read("image", {"push": "", "store": "false", "name-canonical": "1", "push-by-digest": "T"})
    assert isinstance(found, ImageExport)
    assert (found.push, found.store, found.name_canonical, found.push_by_digest) == (True, False, True, True)
    folder, files = (
        read("oci", {"tar": "false"}),
        read("local", {"platform-split": "false", "source-date-epoch": "7"}, 3),
    )
    assert isinstance(folder, ArchiveExport)
    assert folder.as_folder
    assert isinstance(files, FilesExport)
    assert (files.split, files.epoch_s, files.number) == (False, 7, 3)


def test_compression_and_what_means_nothing() -> None:
    attrs = {"compression": "zstd", "compression-level": "19", "force-compression": "true", "unpack": "1", "odd": "x"}
    found = read("image", attrs)
    assert isinstance(found, ImageExport)
    assert found.form.compression == Compression("zstd", 19, force=True)
    assert found.unknown == ("odd",)


def test_annotations_go_to_their_places() -> None:
    attrs = {
        "annotation.all": "1",
        "annotation[linux/arm64/v8].arm": "2",
        "annotation-manifest.all2": "3",
        "annotation-manifest-descriptor[linux/amd64].entry": "4",
        "annotation-index.top": "5",
        "annotation-index-descriptor.outer": "6",
        "other": "7",
    }
    found, rest = Annotations.read(attrs)
    assert rest == {"other": "7"}
    assert found.of_manifest(AMD64) == {"all": "1", "all2": "3"}
    assert found.of_manifest(ARM64) == {"all": "1", "all2": "3", "arm": "2"}
    assert (found.of_manifest_descriptor(AMD64), found.of_manifest_descriptor(ARM64)) == ({"entry": "4"}, {})
    assert (found.of_index(), found.of_index_descriptor()) == ({"top": "5"}, {"outer": "6"})
    with pytest.raises(InvalidParameter, match="index annotations not supported for single platform export"):
        found.require_no_index()


def test_annotations_need_the_types_of_oci() -> None:
    found = read("docker", {"annotation.a": "b", "oci-mediatypes": "false"})
    assert isinstance(found, ArchiveExport)
    assert found.form.oci_types
