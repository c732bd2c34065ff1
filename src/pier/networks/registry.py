"""The networks there are, found by name, id or the beginning of an id; and which of them a list shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pier.errors import Conflict, InvalidParameter, NotFound, PierError
from pier.model.filters import Filters
from pier.networks.records import NetworkRecord

__all__ = ["AmbiguousNetwork", "NetworkExists", "NetworkNotFound", "Registry", "matcher"]

LIST_FILTERS = ("dangling", "driver", "id", "label", "name", "scope", "type")
TYPES = ("builtin", "custom")


class NetworkNotFound(NotFound):
    """network {name} not found"""


class AmbiguousNetwork(InvalidParameter):
    """network {name} is ambiguous ({count} matches found based on ID prefix)"""


class NetworkExists(Conflict):
    """network with name {name} already exists"""


class UnknownType(PierError):
    """invalid filter: 'type'='{value}'"""


class BadDangling(InvalidParameter):
    """invalid value for filter 'dangling', must be "true" (or "1"), or "false" (or "0")"""


class SeveralDangling(InvalidParameter):
    """got more than one value for filter key "dangling\""""


class Registry:
    """Records by id and by name. Touched on the event loop's thread only."""

    def __init__(self) -> None:
        self._by_id: dict[str, NetworkRecord] = {}
        self._by_name: dict[str, NetworkRecord] = {}

    def __iter__(self) -> Iterator[NetworkRecord]:
        return iter(list(self._by_id.values()))

    def put(self, record: NetworkRecord) -> None:
        """Add a record, or replace the one with its id."""
        self._by_id[record.id] = self._by_name[record.name] = record

    def drop(self, record: NetworkRecord) -> None:
        self._by_id.pop(record.id, None)
        self._by_name.pop(record.name, None)

    def get(self, id: str) -> NetworkRecord | None:
        """By whole id."""
        return self._by_id.get(id)

    def named(self, name: str) -> NetworkRecord | None:
        """By name alone."""
        return self._by_name.get(name)

    def find(self, ref: str) -> NetworkRecord:
        """By id, then name, then the beginning of an id: Docker's order. Raises NetworkNotFound, AmbiguousNetwork."""
        found = self._by_id.get(ref) or self._by_name.get(ref)
        if found is not None:
            return found
        matches = [record for id, record in self._by_id.items() if ref and id.startswith(ref)]
        if len(matches) > 1:
            raise AmbiguousNetwork(name=ref, count=len(matches))
        if not matches:
            raise NetworkNotFound(name=ref)
        return matches[0]


def matcher(filters: Filters, in_use: Callable[[str], bool]) -> Callable[[NetworkRecord], bool]:
    """Which networks the filters of a list let pass; `in_use` says of an id whether a container is on it.

    Raises UnknownFilter, InvalidFilterValue, UnknownType, BadDangling, SeveralDangling.
    """
    filters.validate(LIST_FILTERS)
    for value in filters.get("type"):
        if value not in TYPES:
            raise UnknownType(value=value)
    dangling = _dangling(filters.get("dangling"))

    def matches(record: NetworkRecord) -> bool:
        return (
            filters.exact("driver", record.driver)
            and filters.pattern("id", record.id)
            and filters.pattern("name", record.name)
            and filters.key_values("label", record.labels)
            and filters.exact("scope", record.scope)
            and filters.exact("type", "builtin" if record.predefined else "custom")
            and (dangling is None or dangling == (not record.predefined and not in_use(record.id)))
        )

    return matches


def _dangling(values: tuple[str, ...]) -> bool | None:
    if not values:
        return None
    if len(values) > 1:
        raise SeveralDangling
    if values[0].lower() in ("1", "true"):
        return True
    if values[0].lower() in ("0", "false"):
        return False
    raise BadDangling
