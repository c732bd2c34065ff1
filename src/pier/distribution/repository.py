"""One repository as a client sees it: what a name points at, manifests, blobs, tags (distribution-spec).

Uploads are in `upload`, what every request goes through in `session`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import aiohttp
import msgspec
from yarl import URL

from pier.distribution.credentials import Credentials
from pier.distribution.download import Backoff, Watcher, download
from pier.distribution.endpoints import Endpoint
from pier.distribution.errors import (
    BlobUnknown,
    ContentRefused,
    ManifestUnknown,
    RegistryError,
    RequestRefused,
    TooManyRequests,
    tame,
)
from pier.distribution.request import Request
from pier.distribution.session import Session
from pier.distribution.transport import Transport, read_bounded
from pier.distribution.upload import Source, UploadWatcher, upload
from pier.oci import Descriptor, Digest, InvalidDigest, Reference
from pier.oci.manifest import INDEX_TYPES, MANIFEST_TYPES, MAX_MANIFEST_BYTES, OCI_INDEX, SCHEMA1_TYPES
from pier.oci.reference import InvalidTag, check_tag
from pier.storage.content import ContentStore
from pier.storage.errors import ContentMismatch

# Schema 1 is asked for too, so that a registry which has nothing else says so instead of "not found".
ACCEPT_MANIFESTS: Final = ", ".join([*sorted(MANIFEST_TYPES), *sorted(INDEX_TYPES), *sorted(SCHEMA1_TYPES)])
MAX_FOREIGN_URLS: Final = 4
MAX_TAGS: Final = 100_000
MAX_PAGE_BYTES: Final = 8 << 20
TAGS_A_PAGE: Final = 1000
MAX_TAG: Final = 128
NO_REFERRERS: Final = b'{"schemaVersion":2,"mediaType":"%s","manifests":[]}' % OCI_INDEX.encode()

_Answer = AbstractAsyncContextManager[aiohttp.ClientResponse]


class _Tags(msgspec.Struct):
    tags: list[str] | None = None


class Repository:
    """One name, for one user; made with `push` where it is to be written to. Every method raises RegistryError."""

    def __init__(
        self,
        transport: Transport,
        reference: Reference,
        credentials: Credentials,
        *,
        backoff: Backoff,
        push: bool = False,
        session: Session | None = None,
    ) -> None:
        self.reference = reference
        self._backoff = backoff
        self._session = session or Session(transport, reference, credentials, actions="pull,push" if push else "pull")

    async def resolve(self) -> Descriptor:
        """What the tag or digest points at: one HEAD request where the registry answers it in full."""
        found = await self._session.first_that_can(self._resolve_at)
        if self.reference.digest not in (None, found.digest):
            raise ContentRefused(
                what=f"manifest {self.reference.familiar}", host=self.reference.domain, reason=f"it is {found.digest}"
            )
        return found

    async def manifest(self, descriptor: Descriptor) -> bytes:
        """The bytes of a manifest or index, verified against the descriptor."""
        what = f"manifest {descriptor.digest} of {self.reference.familiar_name}"
        if descriptor.size > MAX_MANIFEST_BYTES:
            reason = f"{descriptor.size} bytes, more than the {MAX_MANIFEST_BYTES} allowed"
            raise ContentRefused(what=what, host=self.reference.domain, reason=reason)

        async def fetch(endpoint: Endpoint) -> bytes:
            data, _ = await self._get_manifest(endpoint, descriptor.digest)
            found = Digest.of(data, descriptor.digest.algorithm)
            if found != descriptor.digest or len(data) != descriptor.size:
                reason = f"it is {found} of {len(data)} bytes, not of {descriptor.size}"
                raise ContentRefused(what=what, host=endpoint.host, reason=reason)
            return data

        return await self._session.first_that_can(fetch)

    async def download(self, descriptor: Descriptor, content: ContentStore, watcher: Watcher) -> None:
        """Put a blob into the content store; also raises ContentMismatch. What ends it early leaves nothing there."""

        async def fetch(endpoint: Endpoint) -> None:
            def open_blob(headers: Mapping[str, str]) -> _Answer:
                return self._ask(endpoint, f"blobs/{descriptor.digest}", headers)

            backoff = Backoff(retries=0) if endpoint.mirror else self._backoff
            await download(open_blob, descriptor, content, watcher, backoff=backoff)

        try:
            await self._session.first_that_can(fetch)
        except BlobUnknown:
            if not descriptor.urls:
                raise
            await self._download_foreign(descriptor, content, watcher)

    async def _download_foreign(self, descriptor: Descriptor, content: ContentStore, watcher: Watcher) -> None:
        """From the places a manifest names for a layer that registries may not hold: https, nobody logged in."""
        failure: Exception | None = None
        for text in descriptor.urls[:MAX_FOREIGN_URLS]:
            try:
                url = URL(text)
                endpoint = Endpoint(str(url.origin()), mirror=True)
            except ValueError:
                continue
            if url.scheme != "https":
                continue

            @asynccontextmanager
            async def open_blob(
                headers: Mapping[str, str], url: URL = url, endpoint: Endpoint = endpoint
            ) -> AsyncIterator[aiohttp.ClientResponse]:
                async with self._session.transport.fetch(
                    url, endpoint=endpoint, request=Request("GET", url, headers)
                ) as response:
                    await self._session.check(response, endpoint, url)
                    yield response

            try:
                return await download(open_blob, descriptor, content, watcher, backoff=self._backoff)
            except (RegistryError, ContentMismatch) as error:
                failure = error
        raise failure or BlobUnknown(
            digest=descriptor.digest,
            name=self.reference.familiar_name,
            host=self.reference.domain,
            detail="none of its urls is https",
        )

    async def upload(self, source: Source, watcher: UploadWatcher, *, mount_from: tuple[str, ...] = ()) -> str:
        """See that the repository has a blob; returns how: `exists`, `mounted REPOSITORY` or `uploaded`.

        `mount_from` are paths of repositories of this registry that may have it.
        """

        async def send(endpoint: Endpoint) -> str:
            return await upload(self._session, endpoint, source, watcher, backoff=self._backoff, mount_from=mount_from)

        return await self._session.first_that_can(send)

    async def put_manifest(self, descriptor: Descriptor, data: bytes, identifier: str) -> None:
        """Store a manifest or index under a tag or its digest; the registry must name the same digest."""
        headers = {"Content-Type": descriptor.media_type}

        async def put(endpoint: Endpoint) -> None:
            request = Request("PUT", f"manifests/{identifier}", headers, body=lambda: data)
            async with self._session.ask(endpoint, request) as response:
                said = response.headers.get("Docker-Content-Digest", "")
            if said and said != descriptor.digest:
                what = f"manifest {self.reference.familiar_name}:{identifier}"
                raise ContentRefused(what=what, host=endpoint.host, reason=f"it was stored as {tame(said)}")

        await self._session.first_that_can(put)

    async def tag_digest(self, tag: str) -> Digest | None:
        """What a tag points at now; None where the registry does not say."""

        async def look(endpoint: Endpoint) -> Digest | None:
            accept = {"Accept": ACCEPT_MANIFESTS}
            async with self._ask(endpoint, f"manifests/{tag}", accept, method="HEAD") as response:
                described = describe_head(response.headers)
            return described.digest if described else None

        return await self._session.first_that_can(look)

    async def small_blob(self, descriptor: Descriptor, *, limit_bytes: int) -> bytes:
        """A blob into memory, verified. What is larger than `limit_bytes` is refused."""
        what = f"blob {descriptor.digest} of {self.reference.familiar_name}"
        if descriptor.size > limit_bytes:
            reason = f"{descriptor.size} bytes, more than the {limit_bytes} allowed"
            raise ContentRefused(what=what, host=self.reference.domain, reason=reason)

        async def fetch(endpoint: Endpoint) -> bytes:
            async with self._ask(endpoint, f"blobs/{descriptor.digest}", {}) as response:
                data = await read_bounded(response, descriptor.size)
            if len(data) != descriptor.size or Digest.of(data, descriptor.digest.algorithm) != descriptor.digest:
                raise ContentRefused(what=what, host=endpoint.host, reason="its digest is another")
            return data

        return await self._session.first_that_can(fetch)

    def at(self, tag: str) -> Repository:
        """The same repository and login, for another tag."""
        return Repository(
            self._session.transport,
            self.reference.with_tag(tag),
            self._session.credentials,
            backoff=self._backoff,
            session=self._session,
        )

    async def has_manifest(self, digest: Digest) -> bool:
        """Is a manifest there already?"""

        async def look(endpoint: Endpoint) -> bool:
            try:
                async with self._ask(endpoint, f"manifests/{digest}", {"Accept": ACCEPT_MANIFESTS}, method="HEAD"):
                    return True
            except ManifestUnknown:
                return False

        return await self._session.first_that_can(look)

    async def tags(self) -> list[str]:
        """All tags, page by page, as the registry sorts them; those that are no tags are left out."""
        return await self._session.first_that_can(self._tags_at)

    async def _tags_at(self, endpoint: Endpoint) -> list[str]:
        found: dict[str, None] = {}
        page: str | URL = f"tags/list?n={TAGS_A_PAGE}"
        while True:
            async with self._session.ask(endpoint, Request("GET", page, {})) as response:
                body = await read_bounded(response, MAX_PAGE_BYTES)
                following = next_page(response, endpoint)
            before = len(found)
            found.update(dict.fromkeys(tag for tag in _decode_tags(body, endpoint.host) if is_tag(tag)))
            if following is None or len(found) == before or len(found) > MAX_TAGS:
                return list(found)
            page = following

    async def referrers(self, digest: Digest) -> bytes:
        """The index of what refers to a manifest: by the API, else under the tag `ALGORITHM-HEX`."""

        async def fetch(endpoint: Endpoint) -> bytes:
            try:
                async with self._ask(endpoint, f"referrers/{digest}", {"Accept": OCI_INDEX}) as response:
                    if response.content_type == OCI_INDEX:
                        return await read_bounded(response, MAX_MANIFEST_BYTES)
            except RequestRefused:
                pass  # a registry without the API
            try:
                data, _ = await self._get_manifest(endpoint, f"{digest.algorithm}-{digest.hex}"[:MAX_TAG])
            except ManifestUnknown:
                return NO_REFERRERS
            return data

        return await self._session.first_that_can(fetch)

    async def _resolve_at(self, endpoint: Endpoint) -> Descriptor:
        try:
            async with self._ask(
                endpoint, f"manifests/{self.reference.identifier}", {"Accept": ACCEPT_MANIFESTS}, method="HEAD"
            ) as response:
                described = describe_head(response.headers)
            if described is not None:
                return described
        except (RequestRefused, ManifestUnknown, TooManyRequests):
            pass  # a registry without HEAD, or one whose reason only GET tells
        data, media_type = await self._get_manifest(endpoint, self.reference.identifier)
        algorithm = self.reference.digest.algorithm if self.reference.digest else "sha256"
        return Descriptor(media_type, Digest.of(data, algorithm), len(data))

    async def _get_manifest(self, endpoint: Endpoint, identifier: str) -> tuple[bytes, str]:
        """A manifest's bytes, unverified, and its media type."""
        async with self._ask(endpoint, f"manifests/{identifier}", {"Accept": ACCEPT_MANIFESTS}) as response:
            return await read_bounded(response, MAX_MANIFEST_BYTES), response.content_type

    def _ask(self, endpoint: Endpoint, path: str, headers: Mapping[str, str], *, method: str = "GET") -> _Answer:
        return self._session.ask(endpoint, Request(method, path, headers))


def describe_head(headers: Mapping[str, str]) -> Descriptor | None:
    """The descriptor in the headers of a HEAD answer; None where one is missing or makes no sense."""
    try:
        digest = Digest(headers.get("Docker-Content-Digest", ""))
        size = int(headers.get("Content-Length", ""))
    except (InvalidDigest, ValueError):
        return None
    media_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return Descriptor(media_type, digest, size) if size > 0 else None


def next_page(response: aiohttp.ClientResponse, endpoint: Endpoint) -> URL | None:
    """The `Link: …; rel="next"` of a paginated answer, where it stays at the registry."""
    link = response.links["next"].get("url") if "next" in response.links else None
    if not isinstance(link, URL) or link.origin() != URL(endpoint.url).origin():
        return None
    return link


def is_tag(text: str) -> bool:
    try:
        check_tag(text)
    except InvalidTag:
        return False
    return True


def _decode_tags(body: bytes, host: str) -> list[str]:
    try:
        return msgspec.json.decode(body, type=_Tags).tags or []
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ContentRefused(what="list of tags", host=host, reason=str(error)) from None
