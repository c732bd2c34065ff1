"""Annotations of an image that its builder is asked for, each at its place (BuildKit's exporter, annotations.md).

annotation[-PLACE][\\[PLATFORM\\]].KEY    PLACE: manifest (the default), manifest-descriptor, index, index-descriptor
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from pier.errors import InvalidParameter
from pier.oci import Platform

__all__ = ["Annotations"]

MANIFEST: Final = "manifest"
MANIFEST_DESCRIPTOR: Final = "manifest-descriptor"
INDEX: Final = "index"
INDEX_DESCRIPTOR: Final = "index-descriptor"
PLACES: Final = (MANIFEST, MANIFEST_DESCRIPTOR, INDEX, INDEX_DESCRIPTOR)
_PREFIX: Final = re.compile(r"annotation[-.\[]")
_KEY: Final = re.compile(r"annotation(?:-([a-z-]+))?(?:\[([A-Za-z0-9_/-]+)\])?\.(\S+)")


class BadAnnotation(InvalidParameter):
    """could not fully parse annotation {name}"""

    remedy = "written annotation.KEY, or annotation-PLACE[os/arch].KEY; a PLACE is one of " + ", ".join(PLACES)


class UnknownPlace(InvalidParameter):
    """unrecognized annotation type {place}"""

    remedy = BadAnnotation.remedy


class NoIndex(InvalidParameter):
    """index annotations not supported for single platform export"""

    remedy = "an image of one platform has a manifest alone"


@dataclass(frozen=True, slots=True)
class Annotations:
    """What was asked for, by place and platform; the platform `None` is all of them."""

    by_place: Mapping[tuple[str, tuple[str, str, str] | None], Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, attrs: Mapping[str, str]) -> tuple[Self, dict[str, str]]:
        """(annotations, the attributes that are none). Raises BadAnnotation, UnknownPlace, InvalidPlatform."""
        found: dict[tuple[str, tuple[str, str, str] | None], dict[str, str]] = {}
        rest = {}
        for name, value in attrs.items():
            if not _PREFIX.match(name):
                rest[name] = value
                continue
            matched = _KEY.fullmatch(name)
            if matched is None:
                raise BadAnnotation(name=name)
            place, platform, key = matched[1] or MANIFEST, matched[2], matched[3]
            if place not in PLACES:
                raise UnknownPlace(place=place)
            found.setdefault((place, Platform.parse(platform).key() if platform else None), {})[key] = value
        return cls(found), rest

    def __bool__(self) -> bool:
        return bool(self.by_place)

    def of_manifest(self, platform: Platform | None) -> dict[str, str]:
        """`platform` None: a single image, of which nothing says for which it is."""
        return self._at(MANIFEST, platform)

    def of_manifest_descriptor(self, platform: Platform | None) -> dict[str, str]:
        """The manifest's entry in its index; of a single image in the index of the archive."""
        return self._at(MANIFEST_DESCRIPTOR, platform)

    def of_index(self) -> dict[str, str]:
        return self._everywhere(INDEX)

    def of_index_descriptor(self) -> dict[str, str]:
        return self._everywhere(INDEX_DESCRIPTOR)

    def require_no_index(self) -> None:
        """Raises NoIndex."""
        if self.of_index() or self.of_index_descriptor():
            raise NoIndex

    def _at(self, place: str, platform: Platform | None) -> dict[str, str]:
        found = dict(self.by_place.get((place, None), {}))
        return found | dict(self.by_place.get((place, platform.key()), {})) if platform is not None else found

    def _everywhere(self, wanted: str) -> dict[str, str]:
        return {
            key: value for (place, _), each in self.by_place.items() if place == wanted for key, value in each.items()
        }
