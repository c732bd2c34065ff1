"""Descriptors: a reference to content by type, digest and size (image-spec, descriptor.md)."""

from __future__ import annotations

from typing import Annotated

import msgspec

from pier.oci.digest import Digest
from pier.oci.platform import Platform

Size = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""Bytes; what a signed 64-bit integer holds."""


class Descriptor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What to fetch, and what it must turn out to be."""

    media_type: str
    digest: Digest
    size: Size
    urls: tuple[str, ...] = ()
    """Other places to fetch it from; never given credentials (attack 18)."""
    annotations: dict[str, str] = msgspec.field(default_factory=dict)
    platform: Platform | None = None
    artifact_type: str = ""
