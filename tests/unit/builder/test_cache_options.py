"""`--cache-to`: read, and refused in BuildKit's words; what has no effect is warned of."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pier.builder.cache_form import Form
from pier.builder.cache_options import read_exports, read_imports, wants_inline
from pier.errors import InvalidParameter

TO: Mapping[str, str] = {"dest": "/x"}


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ([("nonesuch", {})], 'unknown cache exporter: "nonesuch"'),
        ([("local", {})], "local cache exporter requires dest"),
        ([("registry", {"mode": "max"})], "registry cache exporter requires ref"),
        ([("inline", {}), ("inline", {"mode": "max"})], "duplicate cache exports [inline]"),
        ([("local", TO), ("local", TO)], "duplicate cache exports [local]"),
        ([("local", {**TO, "compression": "rar"})], "unsupported compression type rar"),
        ([("local", {**TO, "compression-level": "x"})], "non-integer value x specified for compression-level"),
        ([("local", {**TO, "ignore-error": "x"})], "failed to parse ignore-error: strconv.ParseBool"),
        ([("local", {**TO, "oci-mediatypes": "0", "image-manifest": "1"})], "invalid configuration for remote cache"),
    ],
)
def test_refused(wishes: list[tuple[str, Mapping[str, str]]], words: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        read_exports(wishes)
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("kind", "attrs", "words"),
    [
        ("gha", {}, "the cache is not exported to gha"),
        ("inline", {"mode": "max"}, "mode=max has no effect with type=inline"),
        ("local", {**TO, "mode": "most"}, "mode=most is neither min nor max"),
        ("local", {**TO, "compression": "estargz"}, "compression=estargz has no effect here"),
        ("local", {**TO, "compression-level": "3"}, "compression-level has no effect without"),
    ],
)
def test_warned_of(kind: str, attrs: Mapping[str, str], words: str) -> None:
    [found] = read_exports([(kind, attrs)])
    assert any(words in warning for warning in found.warnings), found.warnings


def test_what_is_understood() -> None:
    attrs = {"mode": "max", "compression": "zstd", "compression-level": "7", "force-compression": "true"}
    [found] = read_exports([("registry", {"ref": "r/a", "oci-mediatypes": "false", **attrs})])
    assert (found.where, found.everything, found.warnings) == ("r/a", True, ())
    assert found.form == Form(oci=False, image_manifest=False, compression="zstd", level=7, force=True)


def test_a_cache_is_asked_once() -> None:
    found = read_imports([("registry", {"ref": "a"}), ("registry", {"ref": "a"}), ("local", {"src": "/x"})])
    assert [each.name for each in found] == ["a", "local:/x"]


def test_the_build_argument_of_old() -> None:
    assert wants_inline({"build-arg:BUILDKIT_INLINE_CACHE": "1"})
    assert wants_inline({"BUILDKIT_INLINE_CACHE": "true"})
    assert not wants_inline({"BUILDKIT_INLINE_CACHE": "0"})
