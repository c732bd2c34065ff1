"""One repository as a client sees it: what a name points at, manifests, blobs (distribution-spec, "Pull").

Mirrors and, for insecure registries, plain http are tried in the order of `endpoints_for`; what failed is not asked
again for the same pull.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, TypeVar

import aiohttp
from yarl import URL

from pier.distribution.authenticator import Authenticator
from pier.distribution.credentials import ANONYMOUS, Credentials, parse_challenges
from pier.distribution.download import Backoff, Watcher, download
from pier.distribution.endpoints import Endpoint, RegistryConfig, endpoints_for
from pier.distribution.errors import (
    AccessDenied,
    BlobUnknown,
    ContentRefused,
    LoginFailed,
    LoginRefused,
    ManifestUnknown,
    PlainHttpAnswer,
    RegistryError,
    RegistryUnreachable,
    RequestRefused,
    ServerFailed,
    TooManyRequests,
    describe_refusal,
)
from pier.distribution.transport import Transport, host_of, read_bounded, shown
from pier.oci import Descriptor, Digest, InvalidDigest, Reference
from pier.oci.manifest import INDEX_TYPES, MANIFEST_TYPES, MAX_MANIFEST_BYTES, SCHEMA1_TYPES
from pier.storage.content import ContentStore
from pier.storage.errors import ContentMismatch

# Schema 1 is asked for too, so that a registry which has nothing else says so instead of "not found".
ACCEPT_MANIFESTS: Final = ", ".join([*sorted(MANIFEST_TYPES), *sorted(INDEX_TYPES), *sorted(SCHEMA1_TYPES)])
DENIED: Final = "denied: requested access to the resource is denied"
"""Docker's words, for an answer that has none."""
MAX_ERROR_BYTES: Final = 64 << 10
MAX_FOREIGN_URLS: Final = 4

T = TypeVar("T")
_Answer = AbstractAsyncContextManager[aiohttp.ClientResponse]


class Registries:
    """All registries, under one configuration; lives as long as the daemon."""

    def __init__(self, config: RegistryConfig, *, backoff: Backoff | None = None) -> None:
        self.config = config
        self._backoff = backoff or Backoff()
        self._transport = Transport(config)

    def repository(self, reference: Reference, credentials: Credentials = ANONYMOUS) -> Repository:
        """A handle for one pull; needs no closing."""
        return Repository(self._transport, reference, credentials, backoff=self._backoff)

    async def close(self) -> None:
        await self._transport.close()


class Repository:
    """Answers about one name. Every method raises RegistryError."""

    def __init__(
        self, transport: Transport, reference: Reference, credentials: Credentials, *, backoff: Backoff
    ) -> None:
        self.reference = reference
        self.scope = f"repository:{reference.path}:pull"
        self._transport = transport
        self._backoff = backoff
        self._authenticator = Authenticator(transport, credentials)
        self._endpoints = endpoints_for(reference.domain, transport.config)

    async def resolve(self) -> Descriptor:
        """What the tag or digest points at: one HEAD request where the registry answers it in full."""
        found = await self._first_that_can(self._resolve_at)
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

        return await self._first_that_can(fetch)

    async def download(self, descriptor: Descriptor, content: ContentStore, watcher: Watcher) -> None:
        """Put a blob into the content store; also raises ContentMismatch. What ends it early leaves nothing there."""

        async def fetch(endpoint: Endpoint) -> None:
            def open_blob(headers: Mapping[str, str]) -> _Answer:
                return self._ask(endpoint, f"blobs/{descriptor.digest}", headers)

            backoff = Backoff(retries=0) if endpoint.mirror else self._backoff
            await download(open_blob, descriptor, content, watcher, backoff=backoff)

        try:
            await self._first_that_can(fetch)
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
                async with self._transport.get(url, endpoint=endpoint, headers=headers) as response:
                    await self._check(response, endpoint, url.path)
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

    async def _first_that_can(self, ask: Callable[[Endpoint], Awaitable[T]]) -> T:
        """Ask the endpoints in order; what fails where another may do better is forgotten."""
        tried: list[str] = []
        while True:
            endpoint, *others = self._endpoints
            try:
                return await ask(endpoint)
            except (RegistryError, ContentMismatch) as error:
                tried += [endpoint.host] if endpoint.host not in tried else []
                if others and (endpoint.mirror or isinstance(error, RegistryUnreachable | PlainHttpAnswer)):
                    self._endpoints = others if self._endpoints[0] == endpoint else self._endpoints
                    continue
                if isinstance(error, RegistryUnreachable) and len(tried) > 1:
                    raise error.at(" and ".join(tried)) from error
                raise

    async def _resolve_at(self, endpoint: Endpoint) -> Descriptor:
        try:
            async with self._ask(
                endpoint, f"manifests/{self.reference.identifier}", {"Accept": ACCEPT_MANIFESTS}, method="HEAD"
            ) as response:
                described = describe_head(response.headers)
            if described is not None:
                return described
        except (RequestRefused, ManifestUnknown):
            pass  # a registry without HEAD, or one whose reason only GET tells
        data, media_type = await self._get_manifest(endpoint, self.reference.identifier)
        algorithm = self.reference.digest.algorithm if self.reference.digest else "sha256"
        return Descriptor(media_type, Digest.of(data, algorithm), len(data))

    async def _get_manifest(self, endpoint: Endpoint, identifier: str) -> tuple[bytes, str]:
        """A manifest's bytes, unverified, and its media type."""
        async with self._ask(endpoint, f"manifests/{identifier}", {"Accept": ACCEPT_MANIFESTS}) as response:
            return await read_bounded(response, MAX_MANIFEST_BYTES), response.content_type

    @asynccontextmanager
    async def _ask(
        self, endpoint: Endpoint, path: str, headers: Mapping[str, str], *, method: str = "GET"
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A 2xx answer of the registry, after logging in where it asks for that."""
        url = URL(f"{endpoint.url}/v2/{self.reference.path}/{path}")
        authorization = self._authenticator.header(endpoint, self.scope)
        sent = {**headers, "Authorization": authorization} if authorization else headers
        async with self._transport.get(url, endpoint=endpoint, headers=sent, method=method) as response:
            # Only the registry itself may ask for a login, not a place it redirected to.
            if response.status != 401 or response.url.origin() != url.origin():
                await self._check(response, endpoint, path)
                yield response
                return
            challenges = parse_challenges(response.headers.getall("WWW-Authenticate", []))
        try:
            authorization = await self._authenticator.answer(endpoint, challenges, self.scope)
        except LoginFailed as error:
            said = self._denial(endpoint, error.message)
            raise LoginRefused(method=method.capitalize(), url=shown(url), **said) from error
        sent = {**headers, "Authorization": authorization}
        async with self._transport.get(url, endpoint=endpoint, headers=sent, method=method) as response:
            await self._check(response, endpoint, path)
            yield response

    async def _check(self, response: aiohttp.ClientResponse, endpoint: Endpoint, path: str) -> None:
        """Raise what an error status means."""
        if response.status in (200, 206):
            return
        body = await read_bounded(response, MAX_ERROR_BYTES)
        code, detail = describe_refusal(response.status, response.reason or "", body)
        host, kind = host_of(response.url), path.partition("/")[0]
        if response.status in (401, 403) or code in ("DENIED", "UNAUTHORIZED"):
            default = "unauthorized: authentication required" if response.status == 401 else DENIED
            raise AccessDenied(**self._denial(endpoint, detail if code else default))
        if response.status == 404 and kind == "manifests":
            raise ManifestUnknown(name=self.reference.familiar, detail=detail)
        if response.status == 404:
            raise BlobUnknown(
                digest=path.rpartition("/")[2], name=self.reference.familiar_name, host=host, detail=detail
            )
        if response.status == 429:
            raise TooManyRequests(what=host, detail=detail, host=host)
        raise (ServerFailed if response.status >= 500 else RequestRefused)(what=host, detail=detail)

    def _denial(self, endpoint: Endpoint, detail: str) -> dict[str, str]:
        """What T25 tells: registry, user and scope."""
        return {
            "name": self.reference.familiar_name,
            "detail": detail,
            "host": endpoint.host if endpoint.mirror else self.reference.domain,
            "user": self._authenticator.credentials_for(endpoint).who,
            "scope": self.scope,
        }


def describe_head(headers: Mapping[str, str]) -> Descriptor | None:
    """The descriptor in the headers of a HEAD answer; None where one is missing or makes no sense."""
    try:
        digest = Digest(headers.get("Docker-Content-Digest", ""))
        size = int(headers.get("Content-Length", ""))
    except (InvalidDigest, ValueError):
        return None
    media_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return Descriptor(media_type, digest, size) if size > 0 else None
