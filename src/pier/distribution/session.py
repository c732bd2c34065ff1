"""Requests about one repository: the endpoints tried in turn, logins where they are asked for, refusals in sentences.

Mirrors and, for insecure registries, plain http are tried in the order of `endpoints_for`; what failed is not asked
again for the same pull.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import aiohttp
from yarl import URL

from pier.distribution.authenticator import Authenticator
from pier.distribution.credentials import Credentials, parse_challenges
from pier.distribution.endpoints import Endpoint, endpoints_for
from pier.distribution.errors import (
    AccessDenied,
    BlobUnknown,
    LoginFailed,
    LoginRefused,
    ManifestUnknown,
    NoBasicCredentials,
    NoCredentials,
    PlainHttpAnswer,
    PushDenied,
    RegistryError,
    RegistryUnreachable,
    RepositoryUnknown,
    RequestRefused,
    ServerFailed,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    describe_refusal,
    tame,
)
from pier.distribution.request import Request, with_header
from pier.distribution.transport import Transport, host_of, read_bounded, shown
from pier.oci import Reference
from pier.storage.errors import ContentMismatch

DENIED: Final = "denied: requested access to the resource is denied"
"""Docker's words, for an answer that has none."""
MAX_ERROR_BYTES: Final = 64 << 10
_GOOD: Final = frozenset({200, 201, 202, 204, 206})

T = TypeVar("T")


class Session:
    """One name at one registry, for one user and one purpose (`pull` or `pull,push`)."""

    def __init__(
        self, transport: Transport, reference: Reference, credentials: Credentials, *, actions: str = "pull"
    ) -> None:
        self.reference = reference
        self.scope = f"repository:{reference.path}:{actions}"
        self.transport = transport
        self.credentials = credentials
        self._pushes = "push" in actions
        self._authenticator = Authenticator(transport, credentials)
        self._endpoints = endpoints_for(reference.domain, transport.config, push=self._pushes)

    async def first_that_can(self, ask: Callable[[Endpoint], Awaitable[T]]) -> T:
        """Ask the endpoints in order; what fails where another may do better is forgotten. Raises RegistryError."""
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

    def url(self, endpoint: Endpoint, path: str | URL) -> URL:
        """Where a path of this repository is at an endpoint."""
        return path if isinstance(path, URL) else URL(f"{endpoint.base}/{self.reference.path}/{path}")

    @asynccontextmanager
    async def ask(self, endpoint: Endpoint, request: Request) -> AsyncIterator[aiohttp.ClientResponse]:
        """A 2xx answer of the registry, after logging in where it asks for that. Raises RegistryError."""
        url, scope = self.url(endpoint, request.path), request.scope or self.scope
        # A place that the registry named for an upload may be another host: it gets no login (attack 18).
        ours = url.origin() == URL(endpoint.url).origin()
        authorization = self._authenticator.header(endpoint, scope) if ours else None
        sent = with_header(request, authorization)
        async with self.transport.fetch(url, endpoint=endpoint, request=sent) as response:
            # Only the registry itself may ask for a login, not a place it redirected to.
            if response.status != 401 or not ours or response.url.origin() != url.origin():
                await self.check(response, endpoint, request.path)
                yield response
                return
            challenges = parse_challenges(response.headers.getall("WWW-Authenticate", []))
        try:
            authorization = await self._authenticator.answer(endpoint, challenges, scope)
        except LoginFailed as error:
            said = self._denial(endpoint, error.message)
            refused = NoCredentials if isinstance(error, NoBasicCredentials) else LoginRefused
            asked = "" if self._pushes else f'{request.method.capitalize()} "{shown(url)}": '
            raise refused(request=asked, **said) from error
        sent = with_header(request, authorization)
        async with self.transport.fetch(url, endpoint=endpoint, request=sent) as response:
            await self.check(response, endpoint, request.path)
            yield response

    async def check(self, response: aiohttp.ClientResponse, endpoint: Endpoint, path: str | URL) -> None:
        """Raise what an error status means."""
        if response.status in _GOOD:
            return
        body = await read_bounded(response, MAX_ERROR_BYTES)
        code, detail = describe_refusal(response.status, response.reason or "", body)
        host, text = host_of(response.url), path if isinstance(path, str) else ""
        if response.status in (401, 403) or code in ("DENIED", "UNAUTHORIZED"):
            raise self._denied(endpoint, response, code, detail)
        if response.status == 404 and (code == "NAME_UNKNOWN" or text.startswith("tags/")):
            raise RepositoryUnknown(name=self.reference.familiar_name, detail=detail)
        if response.status == 404 and text.startswith("manifests/"):
            raise ManifestUnknown(name=self.reference.familiar, detail=detail)
        if response.status == 404 and text.startswith("blobs/sha"):
            raise BlobUnknown(
                digest=text.rpartition("/")[2], name=self.reference.familiar_name, host=host, detail=detail
            )
        if response.status == 429:
            raise TooManyRequests(what=host, detail=detail, host=host)
        if response.status == 413:
            raise TooLarge(what=host, detail=detail)
        if response.status >= 500:
            said = f": {detail}" if code else ""
            raise ServerFailed(what=host, detail=f"{response.status} {tame(response.reason or '')}{said}")
        raise RequestRefused(what=host, detail=detail)

    def _denied(self, endpoint: Endpoint, response: aiohttp.ClientResponse, code: str, detail: str) -> AccessDenied:
        """A refusal for who asked: a token that is good but not for this is a denial (RFC 6750, section 3.1)."""
        challenges = parse_challenges(response.headers.getall("WWW-Authenticate", []))
        errors = {challenge.parameters.get("error") for challenge in challenges if challenge.scheme == "bearer"}
        if response.status == 401 and "insufficient_scope" not in errors:
            said = detail if code else "unauthorized: authentication required"
            return Unauthorized(**self._denial(endpoint, said))
        denied = PushDenied if self._pushes else AccessDenied
        return denied(**self._denial(endpoint, detail if code == "DENIED" else DENIED))

    def _denial(self, endpoint: Endpoint, detail: str) -> dict[str, str]:
        """What T25 tells: registry, user and scope."""
        return {
            "name": self.reference.familiar_name,
            "detail": detail,
            "host": endpoint.host if endpoint.mirror else self.reference.domain,
            "user": self._authenticator.credentials_for(endpoint).who,
            "scope": self.scope,
        }
