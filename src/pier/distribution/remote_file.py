"""A file at a URL, for `import`: fetched once, front to back, through the daemon's proxies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from yarl import URL

from pier.distribution.endpoints import Endpoint
from pier.distribution.request import Request
from pier.distribution.transport import Transport, shown
from pier.errors import InvalidParameter

CHUNK: Final = 256 << 10


class BadSource(InvalidParameter):
    """{url} is no URL to fetch an archive from: {reason}"""

    remedy = "http:// or https:// and a host, or the archive itself as the body"


class NotThere(InvalidParameter):
    """failed to GET {url} with status {status} {reason}"""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """Bytes as they come."""

    chunks: AsyncIterator[bytes]
    size: int = 0
    """Bytes in all; 0 where nobody has said."""
    last_modified: str = ""
    """As the server has it (RFC 9110, section 8.8.2); empty where it does not say."""


@asynccontextmanager
async def remote_file(transport: Transport, text: str) -> AsyncIterator[RemoteFile]:
    """Open `text`, a URL, while the block runs; redirects are followed. Raises BadSource, NotThere, RegistryError."""
    url = parse_source(text)
    endpoint = Endpoint(str(url.origin()))
    async with transport.fetch(url, endpoint=endpoint, request=Request("GET", url, {})) as response:
        if response.status != 200:
            raise NotThere(url=shown(url), status=response.status, reason=response.reason or "")
        modified = response.headers.get("Last-Modified", "")
        yield RemoteFile(response.content.iter_chunked(CHUNK), response.content_length or 0, modified)


def printable(text: str) -> str:
    """A source as it may be kept in an image's history: without a login and without a query, which may be signed."""
    return shown(parse_source(text))


def parse_source(text: str) -> URL:
    """Where `import` takes an archive from; without a scheme http is meant, as Docker does. Raises BadSource."""
    try:
        url = URL(text if "://" in text else f"http://{text}")
    except ValueError as error:
        raise BadSource(url=text[:256], reason=str(error)) from None
    if url.scheme not in ("http", "https"):
        raise BadSource(url=text[:256], reason=f"{url.scheme} is not http or https")
    if not url.host:
        raise BadSource(url=text[:256], reason="it names no host")
    return url
