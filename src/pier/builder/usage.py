"""What the build cache takes on the disk, and what of it goes: `docker builder du` and `prune`, and the daemon's limit.

Space is counted as it is: a layer once, however many records have it, and none that an image needs anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

from pier.builder.cache import FRONTEND, INTERNAL, Cache, Record
from pier.model.build import BuildCache
from pier.model.filters import Filters
from pier.model.time import parse_duration, rfc3339_nano
from pier.oci import Digest

FILTERS: Final = (
    "description",
    "id",
    "immutable",
    "inuse",
    "label",
    "mutable",
    "parent",
    "parents",
    "private",
    "shared",
    "type",
    "unused-for",
    "until",
)
KEPT_UNLESS_ALL: Final = frozenset({INTERNAL, FRONTEND})
"""`prune` without `--all` leaves these."""


def entries(cache: Cache, shared: Collection[Digest], filters: Filters, *, now_ns: int) -> list[BuildCache]:
    """Records as the Engine API shows them, the oldest first; `shared` are the layers of images. Blocks.

    Raises InvalidFilterValue, BadDuration.
    """
    meant = fitting(cache, filters, shared, now_ns=now_ns)
    found = sorted(filter(meant, cache.records.values()), key=lambda one: one.created_ns)
    return [entry(cache, record, shared) for record in found]


def entry(cache: Cache, record: Record, shared: Collection[Digest]) -> BuildCache:
    return BuildCache(
        id=record.id,
        parents=list(record.parents) or None,
        type=record.type,
        description=record.description,
        in_use=record.id in cache.in_use,
        shared=is_shared(record, shared),
        size=cache.size(record),
        created_at=rfc3339_nano(record.created_ns),
        last_used_at=rfc3339_nano(record.used_ns) if record.used_ns else None,
        usage_count=record.uses,
    )


def is_shared(record: Record, shared: Collection[Digest]) -> bool:
    """Whether images have the record's layers too: with the record no space goes."""
    return any(chain_id in shared for chain_id in record.own)


def fitting(cache: Cache, filters: Filters, shared: Collection[Digest], *, now_ns: int) -> Callable[[Record], bool]:
    """Whether a record is meant. Raises InvalidFilterValue, BadDuration."""
    unused_ns = [parse_duration(text) for name in ("unused-for", "until") for text in filters.get(name)]
    latest = now_ns - max(unused_ns, default=0)
    private, wants_shared = filters.boolean("private"), filters.boolean("shared")
    wants_used = filters.boolean("inuse")

    def fits(record: Record) -> bool:
        is_common = is_shared(record, shared)
        return (
            not (wants_used and record.id not in cache.in_use)
            and (record.used_ns or record.created_ns) <= latest
            and not (private and is_common)
            and not (wants_shared and not is_common)
            and filters.prefix("id", record.id)
            and filters.exact("type", record.type)
            and filters.pattern("description", record.description)
            and all(parent in record.parents for name in ("parent", "parents") for parent in filters.get(name))
        )

    return fits


def chosen(
    cache: Cache, filters: Filters, shared: Collection[Digest], *, everything: bool, now_ns: int
) -> list[Record]:
    """The records that a prune may take, those that were not used for the longest time first.

    Raises InvalidFilterValue, BadDuration.
    """
    meant = fitting(cache, filters, shared, now_ns=now_ns)
    found = [
        record
        for record in cache.records.values()
        if record.id not in cache.in_use
        and (everything or (record.type not in KEPT_UNLESS_ALL and not is_shared(record, shared)))
        and meant(record)
    ]
    return sorted(found, key=lambda one: one.used_ns or one.created_ns)


def to_drop(candidates: Sequence[Record], size: Callable[[Record], int], total: int, keep_bytes: int) -> list[Record]:
    """Of the candidates, in their order, as many as bring the total down to what may stay; 0: all."""
    if not keep_bytes:
        return list(candidates)
    found = []
    for record in candidates:
        if total <= keep_bytes:
            break
        found.append(record)
        total -= size(record)
    return found


def total_bytes(cache: Cache, records: Iterable[Record], shared: Collection[Digest]) -> int:
    """What records take together, without what images have too."""
    layers = {chain_id for record in records for chain_id in record.own if chain_id not in shared}
    folders = sum(record.size_bytes for record in records if record.folder)
    return folders + sum(cache.snapshots.layer_sizes(chain_id)[1] for chain_id in layers)
