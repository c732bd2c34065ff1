"""Searching an index by its v1 protocol, the only one that `docker search` knows: GET /v1/search?q=&n=."""

from __future__ import annotations

from typing import Final

import msgspec
from yarl import URL

from pier.distribution.credentials import Credentials
from pier.distribution.endpoints import Endpoint, endpoints_for
from pier.distribution.errors import ContentRefused, PlainHttpAnswer, RegistryUnreachable, RequestRefused, tame
from pier.distribution.request import Request
from pier.distribution.transport import Transport, read_bounded
from pier.oci.reference import DEFAULT_DOMAIN, LEGACY_DEFAULT_DOMAIN, split_domain

MAX_BYTES: Final = 4 << 20


class SearchResult(msgspec.Struct):
    """One repository, as the index describes it."""

    name: str = ""
    description: str | None = None
    star_count: int = 0
    is_official: bool = False
    is_automated: bool = False


class _Answer(msgspec.Struct):
    results: list[SearchResult] | None = None


def split_term(term: str) -> tuple[str, str]:
    """The index's domain and what to look for there.

    >>> split_term("busybox"), split_term("r.test:5000/busybox")
    (('docker.io', 'busybox'), ('r.test:5000', 'busybox'))
    """
    domain, rest = split_domain(term)
    return (DEFAULT_DOMAIN, term.removeprefix("docker.io/")) if domain == DEFAULT_DOMAIN else (domain, rest)


async def search(transport: Transport, term: str, *, limit: int, credentials: Credentials) -> list[SearchResult]:
    """At most `limit` results, in the index's order. Raises RegistryError."""
    domain, query = split_term(term)
    host = LEGACY_DEFAULT_DOMAIN if domain == DEFAULT_DOMAIN else domain
    endpoints = [e for e in endpoints_for(host, transport.config, push=True) if not e.mirror]
    for endpoint in endpoints[:-1]:
        try:
            return await _search_at(transport, endpoint, query, limit, credentials)
        except (RegistryUnreachable, PlainHttpAnswer):
            continue
    return await _search_at(transport, endpoints[-1], query, limit, credentials)


async def _search_at(
    transport: Transport, endpoint: Endpoint, query: str, limit: int, credentials: Credentials
) -> list[SearchResult]:
    url = URL(f"{endpoint.url}/v1/search").with_query({"q": query, "n": str(limit)})
    headers = {"X-Docker-Token": "true", **({"Authorization": credentials.basic} if credentials.basic else {})}
    async with transport.fetch(url, endpoint=endpoint, request=Request("GET", url, headers)) as response:
        if response.status != 200:
            raise RequestRefused(what=endpoint.host, detail=f"Unexpected status code {response.status}")
        body = await read_bounded(response, MAX_BYTES)
    try:
        found = msgspec.json.decode(body, type=_Answer).results or []
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ContentRefused(what="search result", host=endpoint.host, reason=str(error)) from None
    return [
        SearchResult(tame(r.name), tame(r.description or ""), r.star_count, r.is_official, r.is_automated)
        for r in found[:limit]
    ]
