"""What registries have: tags, manifests, platforms, search, logins. Nothing of it goes through the store."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pier.distribution import Credentials, Registries, Repository
from pier.distribution.login import Login
from pier.distribution.search import SearchResult
from pier.errors import InvalidParameter
from pier.images.manifest_list import ListEntry, ListPush
from pier.images.manifests import wire_platform
from pier.images.telling import single_error
from pier.model.filters import Filters
from pier.model.image import DistributionInspect, OCIDescriptor, RemoteTag
from pier.oci import Descriptor, Index, Manifest, Platform, Reference, decode_image_config, decode_manifest
from pier.oci.image_config import MAX_CONFIG_BYTES
from pier.oci.manifest import choose, media_type_of
from pier.oci.platform import host_platform

SEARCH_LIMIT: Final = 25
MAX_SEARCH: Final = 100
SEARCH_FILTERS: Final = ("is-automated", "is-official", "stars")
AT_ONCE: Final = 6
"""Tags that are looked at side by side."""

Auth = Mapping[str, str] | None


class SearchLimit(InvalidParameter):
    """limit {limit} is outside the range of [1, 100]"""


class BadStars(InvalidParameter):
    """invalid filter 'stars={value}': strconv.Atoi: parsing "{value}": invalid syntax"""


@dataclass(frozen=True, slots=True)
class RawManifest:
    """A manifest or index as the registry has it."""

    descriptor: Descriptor
    data: bytes


class Remote:
    """One per daemon. Every method raises RegistryError."""

    def __init__(self, registries: Registries) -> None:
        self._registries = registries

    async def log_in(self, server: str, auth: Auth) -> Login:
        """Try credentials at a registry."""
        return await self._registries.log_in(server, Credentials.from_auth_config(auth))

    async def search(
        self, term: str, *, limit: int = 0, filters: Filters | None = None, auth: Auth = None
    ) -> list[SearchResult]:
        """Ask an index. Raises SearchLimit, UnknownFilter, InvalidFilterValue."""
        filters = filters or Filters()
        filters.validate(SEARCH_FILTERS)
        if limit and not 1 <= limit <= MAX_SEARCH:
            raise SearchLimit(limit=limit)
        wanted = search_filter(filters)
        credentials = Credentials.from_auth_config(auth)
        found = await self._registries.search(term, limit=limit or SEARCH_LIMIT, credentials=credentials)
        return [result for result in found if wanted.takes(result)]

    async def manifest(self, name: str, auth: Auth) -> RawManifest:
        """What a name points at, verified. Raises InvalidReference."""
        repository = self._repository(name, auth)
        top = await repository.resolve()
        return RawManifest(top, await repository.manifest(top))

    async def inspect(self, name: str, auth: Auth) -> DistributionInspect:
        """Descriptor and platforms of a name, without pulling it."""
        repository = self._repository(name, auth)
        top = await repository.resolve()
        document = await _document(repository, top)
        if isinstance(document, Index):
            platforms = [entry.platform for entry in document.manifests if entry.platform]
        else:
            config = decode_image_config(await _config(repository, document), what=f"configuration of {name}")
            platforms = [config.platform]
        kind = media_type_of(document, top.media_type)
        return DistributionInspect(
            descriptor=OCIDescriptor(media_type=kind, digest=str(top.digest), size=top.size),
            platforms=[wire_platform(platform) for platform in platforms],
        )

    async def tags(self, name: str, auth: Auth, *, details: bool) -> list[RemoteTag]:
        """The tags of a repository; with `details` each is looked into, a few at a time (wish 2)."""
        reference = Reference.parse(name, default_tag=None)
        repository = self._repository(str(reference), auth)
        tags = await repository.tags()
        if not details:
            return [RemoteTag(name=tag) for tag in tags]
        slots = asyncio.Semaphore(AT_ONCE)

        async def look(tag: str) -> RemoteTag:
            async with slots:
                return await _look(repository.at(tag), tag)

        async def look_at_all() -> list[RemoteTag]:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(look(tag)) for tag in tags]
            return [task.result() for task in tasks]

        return await single_error(look_at_all())

    async def push_list(self, name: str, media_type: str, entries: list[ListEntry], auth: Auth) -> Descriptor:
        """Put together an index of manifests that this registry has, and push it. Raises what `ListPush.run` does."""
        target = Reference.parse(name)
        pushing = ListPush(self._registries, target, Credentials.from_auth_config(auth))
        return await single_error(pushing.run(media_type, entries))

    def _repository(self, name: str, auth: Auth) -> Repository:
        return self._registries.repository(Reference.parse(name), Credentials.from_auth_config(auth))


@dataclass(frozen=True, slots=True)
class SearchFilter:
    """The filters of a search, read."""

    stars: int = 0
    official: bool | None = None
    automated: bool | None = None

    def takes(self, result: SearchResult) -> bool:
        return (
            result.star_count >= self.stars
            and self.official in (None, result.is_official)
            and self.automated in (None, result.is_automated)
        )


def search_filter(filters: Filters) -> SearchFilter:
    """Raises InvalidFilterValue, BadStars."""
    stars = [_stars(value) for value in filters.get("stars")]
    flags = {name: filters.boolean(name) if name in filters else None for name in ("is-official", "is-automated")}
    return SearchFilter(max(stars, default=0), flags["is-official"], flags["is-automated"])


def _stars(value: str) -> int:
    if not value.isascii() or not value.removeprefix("-").isdecimal():
        raise BadStars(value=value)
    return int(value)


async def _look(repository: Repository, tag: str) -> RemoteTag:
    """A tag with its digest, platforms, the size of what would be fetched for this host, and its date."""
    top = await repository.resolve()
    document = await _document(repository, top)
    platforms: list[Platform] = []
    if isinstance(document, Index):
        images = [entry for entry in document.manifests if entry.platform and entry.platform.os not in ("", "unknown")]
        platforms = [entry.platform.normalised() for entry in images if entry.platform]
        chosen = choose(document, host_platform()) or (images[0] if images else None)
        below = await _document(repository, chosen) if chosen else None
        if not isinstance(below, Manifest):
            return RemoteTag(name=tag, digest=str(top.digest), platforms=[str(one) for one in platforms])
        document = below
    config = decode_image_config(await _config(repository, document), what=f"configuration of {tag}")
    return RemoteTag(
        name=tag,
        digest=str(top.digest),
        platforms=[str(one) for one in platforms or [config.platform.normalised()]],
        size=sum(layer.size for layer in document.layers) + document.config.size,
        created=config.created,
    )


async def _document(repository: Repository, descriptor: Descriptor) -> Manifest | Index:
    data = await repository.manifest(descriptor)
    return decode_manifest(data, media_type=descriptor.media_type, what=f"manifest {descriptor.digest}")


async def _config(repository: Repository, manifest: Manifest) -> bytes:
    return await repository.small_blob(manifest.config, limit_bytes=MAX_CONFIG_BYTES)
