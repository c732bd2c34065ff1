"""Builds in the Engine API: POST /build, its cache."""

from __future__ import annotations

from typing import Annotated

from msgspec import field

from .wire import OMIT, Struct


class BuildCache(Struct):
    """One entry of the build cache; `type` is regular, internal, frontend, source.local, source.git.checkout or
    exec.cachemount, `size` in bytes."""

    id: str = field(name="ID", default="")
    parents: Annotated[list[str] | None, OMIT] = None
    type: str = ""
    description: str = ""
    in_use: bool = False
    shared: bool = False
    size: int = 0
    created_at: str = ""
    last_used_at: str | None = None
    usage_count: int = 0


class BuildCacheImported(Struct):
    """What POST /build/cache, Pier's own, has taken in: how many records there were, and how many of them are new."""

    added: int = 0
    records: int = 0
