"""What a client's frontend gives back."""

from __future__ import annotations

import json

import pytest

from pier.buildkit.pb import gateway_pb2 as gateway
from pier.buildkit.results import PLATFORMS_KEY, NoSuchResult, Parts
from pier.errors import InvalidParameter


def platforms(*names: str) -> bytes:
    listed = [
        {"ID": each, "Platform": dict(zip(("os", "architecture"), each.split("/"), strict=True))} for each in names
    ]
    return json.dumps({"Platforms": listed}).encode()


@pytest.mark.parametrize("names", [("linux/amd64", "linux/arm64"), ("linux/arm64", "linux/amd64")])
def test_platforms_keep_the_order_they_are_listed_in(names: tuple[str, ...]) -> None:
    """An index is made in that order; the map of results has none."""
    result = gateway.Result(metadata={PLATFORMS_KEY: platforms(*names)})
    for name in ("linux/amd64", "linux/arm64"):
        result.refs.refs[name].CopyFrom(gateway.Ref())
    found = Parts().read(result)
    assert list(found.parts) == list(names)
    assert [str(part.platform) for part in found.parts.values()] == list(names)


def test_what_is_not_known_or_cannot_be_read() -> None:
    result = gateway.Result(ref=gateway.Ref(id="gone"))
    with pytest.raises(NoSuchResult):
        Parts().read(result)
    with pytest.raises(InvalidParameter, match="metadata refs"):
        Parts().read(gateway.Result(metadata={PLATFORMS_KEY: b"[]"}))
