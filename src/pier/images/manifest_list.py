"""Manifest lists of manifests that a registry has already, as `docker manifest push` makes them."""

from __future__ import annotations

import asyncio
import json
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

from pier.distribution import Credentials, Registries, Repository
from pier.distribution.upload import Blob
from pier.errors import InvalidParameter
from pier.oci import Descriptor, Digest, Manifest, Platform, Reference, decode_manifest
from pier.oci.manifest import DOCKER_MANIFEST_LIST, INDEX_TYPES, OCI_INDEX, media_type_of

MAX_ENTRIES: Final = 1000


class NotAListType(InvalidParameter):
    """{media_type} is no type of a manifest list"""

    remedy = f"{DOCKER_MANIFEST_LIST} or {OCI_INDEX}"


class OtherRegistry(InvalidParameter):
    """cannot use source images from a different registry than the target image: {source} != {target}"""


class ListInList(InvalidParameter):
    """{name} is a manifest list"""

    remedy = "a list is made of manifests of one platform each"


class EmptyList(InvalidParameter):
    """a manifest list of nothing cannot be pushed"""


@dataclass(frozen=True, slots=True)
class ListEntry:
    """One manifest of the list: a name in the registry, and what it is for."""

    reference: str
    platform: Platform


class ListPush:
    """One list on its way."""

    def __init__(self, registries: Registries, target: Reference, credentials: Credentials) -> None:
        self._registries = registries
        self._target = target
        self._credentials = credentials

    async def run(self, media_type: str, entries: list[ListEntry]) -> Descriptor:
        """Push; returns what the tag points at now.

        Raises EmptyList, NotAListType, OtherRegistry, ListInList, MalformedDocument, RegistryError.
        """
        if media_type not in INDEX_TYPES:
            raise NotAListType(media_type=media_type)
        if not entries:
            raise EmptyList
        into = self._registries.repository(self._target, self._credentials, push=True)
        manifests = [await self._bring(into, entry) for entry in entries[:MAX_ENTRIES]]
        data = list_bytes(media_type, manifests)
        pushed = Descriptor(media_type, Digest.of(data), len(data))
        await into.put_manifest(pushed, data, self._target.identifier)
        return pushed

    async def _bring(self, into: Repository, entry: ListEntry) -> Descriptor:
        """See that the target's repository has a manifest and its blobs; its place in the list."""
        source = Reference.parse(entry.reference)
        if source.domain != self._target.domain:
            raise OtherRegistry(source=source.domain, target=self._target.domain)
        repository = self._registries.repository(source, self._credentials)
        found = await repository.resolve()
        data = await repository.manifest(found)
        document = decode_manifest(data, media_type=found.media_type, what=f"manifest of {source.familiar}")
        if not isinstance(document, Manifest):
            raise ListInList(name=source.familiar)
        kind = media_type_of(document, found.media_type)
        described = Descriptor(kind, found.digest, found.size, platform=entry.platform)
        if source.path != self._target.path:
            blobs = {part.digest: part for part in (document.config, *document.layers) if not part.urls}
            async with asyncio.TaskGroup() as group:
                for blob in blobs.values():
                    group.create_task(into.upload(_Elsewhere(blob), _Unwatched(), mount_from=(source.path,)))
            await into.put_manifest(described, data, described.digest)
        return described


def list_bytes(media_type: str, manifests: list[Descriptor]) -> bytes:
    """The list as Docker's client writes it, so that its digest is the same whichever client pushes it."""
    entries = [
        {"mediaType": one.media_type, "size": one.size, "digest": one.digest, "platform": _platform(one.platform)}
        for one in manifests
    ]
    document = {"schemaVersion": 2, "mediaType": media_type, "manifests": entries}
    return json.dumps(document, indent=3, ensure_ascii=False).encode()


def _platform(platform: Platform | None) -> dict[str, object]:
    if platform is None:
        return {"architecture": "", "os": ""}
    more = {"os.version": platform.os_version, "os.features": list(platform.os_features), "variant": platform.variant}
    given = {key: value for key, value in more.items() if value}
    return {"architecture": platform.architecture, "os": platform.os, **given}


class MountRefused(InvalidParameter):
    """the registry does not mount blob {digest} from another repository"""

    remedy = "pull the image, tag it into the target's repository and push it first"


@dataclass(frozen=True, slots=True)
class _Elsewhere:
    """A blob that is only in the registry: it can be mounted and not be sent."""

    descriptor: Descriptor

    def open(self) -> AbstractAsyncContextManager[Blob]:
        raise MountRefused(digest=self.descriptor.digest)


class _Unwatched:
    def sent(self, offset: int) -> None: ...
    def retrying(self, delay_s: float) -> None: ...
