"""HTTP towards registries: one session for the daemon, redirects followed by our own rules, failures in sentences.

Attack 18: an Authorization header is sent to the host it was made for and to no other; once a redirect has left that
host, the header does not come back. Cookies are not kept.
"""

from __future__ import annotations

import copy
import os
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

import aiohttp
from yarl import URL

import pier
from pier.distribution.blocking import in_thread
from pier.distribution.endpoints import (
    Endpoint,
    RegistryConfig,
    TlsFiles,
    is_insecure,
    is_socks,
    proxy_for,
    without_password,
)
from pier.distribution.errors import (
    CertificateRefused,
    ContentRefused,
    PlainHttpAnswer,
    RedirectRefused,
    RegistryError,
    RegistryUnreachable,
    SocksFailed,
    tame,
)
from pier.distribution.request import Request
from pier.distribution.tls import Contexts, describe_certificate, speaks_plain_http, verification_reason

CONNECT_TIMEOUT_S: Final = 15.0
SILENCE_TIMEOUT_S: Final = 60.0
"""Longest wait for the next byte of an answer."""
MAX_REDIRECTS: Final = 5
MAX_HEADER: Final = 32 << 10
"""Bytes of one header line: signed URLs of object stores are long."""
READ_BUFFER: Final = 1 << 18
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_SAME_METHOD: Final = frozenset({307, 308})


class Transport:
    """Sends requests; made and closed inside a running event loop."""

    def __init__(self, config: RegistryConfig) -> None:
        self.config = config
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._contexts = Contexts()

    def trusting(self, host: str) -> Transport:
        """The same, over the same connections, for which `host[:port]` is among the insecure registries."""
        other = copy.copy(self)
        other.config = replace(self.config, insecure=(*self.config.insecure, host))
        return other

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    def reconfigure(self, config: RegistryConfig) -> None:
        """From the next request on. Sessions stay: those that run may use them still."""
        self.config = config

    @asynccontextmanager
    async def fetch(self, url: URL, *, endpoint: Endpoint, request: Request) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and follow redirects. Raises RegistryError when there is no answer to be had.

        `endpoint` is whom the headers, an Authorization among them, are meant for. What would change GET to another
        method is not followed: an upload goes where 307 and 308 send it and nowhere else.
        """
        sent = dict(request.headers)
        followed = _REDIRECTS if request.method in ("GET", "HEAD") else _SAME_METHOD
        for _ in range(MAX_REDIRECTS + 1):
            body = request.body() if request.body else None
            async with self.send(request.method, url, endpoint=endpoint, headers=sent, body=body) as response:
                target = location_of(response, url) if response.status in followed else None
                if target is None:
                    yield response
                    return
            self.check_target(url, target, endpoint)
            if target.origin() != url.origin():
                sent.pop("Authorization", None)
            url = target
        raise RedirectRefused(url=shown(url), target="yet another place", reason=f"more than {MAX_REDIRECTS} in a row")

    @asynccontextmanager
    async def send(
        self,
        method: str,
        url: URL,
        *,
        endpoint: Endpoint,
        headers: Mapping[str, str],
        body: Mapping[str, str] | bytes | AsyncIterable[bytes] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request, redirects not followed. Raises RegistryError, also while the body is read in the block.

        A mapping as `body` is sent as a form.
        """
        proxy = proxy_for(url, self.config.proxies)
        at_home = url.origin() == URL(endpoint.url).origin()
        verify = endpoint.verify if at_home else not is_insecure(host_of(url), self.config.insecure)
        # The registry's own host as the user wrote it: that is what its folder in certs.d is called.
        host = endpoint.host if at_home else host_of(url)
        files = endpoint.tls if at_home else TlsFiles()
        context = await self._context(url, host, verify=verify, files=files)
        if at_home and endpoint.headers:
            headers = {**dict(endpoint.headers), **headers}
        socks = proxy is not None and is_socks(proxy)
        try:
            response = await self._session(proxy if socks else None).request(
                method,
                url,
                headers=headers,
                data=body,
                ssl=context,
                proxy=None if socks else proxy,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise await self._explain(error, method, url, host, verify=verify, proxy=proxy) from error
        try:
            yield response
        except aiohttp.ClientError as error:
            raise await self._explain(error, method, url, host, verify=verify, proxy=proxy) from error
        finally:
            response.close()

    def _session(self, socks: str | None) -> aiohttp.ClientSession:
        """The session for direct connections and HTTP proxies, or the one through a SOCKS proxy."""
        session = self._sessions.get(socks or "")
        if session is None:
            session = self._sessions[socks or ""] = aiohttp.ClientSession(
                connector=_through(socks) if socks else None,
                headers={"User-Agent": f"pier/{pier.__version__}", "Accept-Encoding": "identity"},
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=SILENCE_TIMEOUT_S),
                auto_decompress=False,  # a digest is of the bytes as they are sent
                requote_redirect_url=False,
                read_bufsize=READ_BUFFER,
                max_line_size=MAX_HEADER,
                max_field_size=MAX_HEADER,
            )
        return session

    async def _context(self, url: URL, host: str, *, verify: bool, files: TlsFiles) -> ssl.SSLContext | bool:
        if url.scheme != "https":
            return True
        return await in_thread(self._contexts.get, host, verify=verify, certs_dirs=self.config.certs_dirs, files=files)

    def check_target(self, url: URL, target: URL, endpoint: Endpoint) -> None:
        """Raise RedirectRefused for a place that a registry must not send its clients to (attack 18)."""
        if target.scheme not in ("http", "https") or not target.host or target.user or target.password:
            raise RedirectRefused(url=shown(url), target=shown(target), reason="not an http URL without a login")
        in_the_clear = target.scheme == "http"
        same_place = target.origin() == URL(endpoint.url).origin()
        if in_the_clear and not same_place and not is_insecure(host_of(target), self.config.insecure):
            raise RedirectRefused(
                url=shown(url), target=shown(target), reason=f"{host_of(target)} is not among insecure-registries"
            )

    async def _explain(
        self, error: Exception, method: str, url: URL, host: str, *, verify: bool, proxy: str | None
    ) -> RegistryError:
        """What to tell about a request that got no (whole) answer."""
        # Docker asks with GET where HEAD is enough here, and users search for its words.
        where, verb = shown(url), "Get" if method == "HEAD" else method.capitalize()
        via = f" through the proxy {without_password(proxy)}" if proxy else ""
        cause = error.certificate_error if isinstance(error, aiohttp.ClientConnectorCertificateError) else error
        if isinstance(cause, ssl.SSLCertVerificationError) and verify:
            return CertificateRefused(
                method=verb,
                url=where,
                host=host,
                reason=verification_reason(cause, url.host or ""),
                certificate=f"seen{via}" if proxy else await describe_certificate(url),
                folder=f"{self.config.certs_dirs[0]}/{host}",
            )
        tls_error = _tls_error(error)
        if tls_error is not None and speaks_plain_http(tls_error) and not proxy:
            return PlainHttpAnswer(method=verb, url=where, host=host)
        return RegistryUnreachable(method=verb, url=where, host=host, reason=_reason(error, url), via=via)


def _through(proxy: str) -> aiohttp.BaseConnector:
    from pier.distribution.socks import socks_connector  # noqa: PLC0415 - only with such a proxy

    return socks_connector(proxy)


def host_of(url: URL) -> str:
    """`host[:port]`, the port only where it is not the scheme's own."""
    return url.host_port_subcomponent or ""


def shown(url: URL) -> str:
    """A URL as it may be shown and logged: without a login, and without a query, which may be signed."""
    try:
        return tame(str(url.with_user(None).with_query(None).with_fragment(None)))
    except ValueError:
        return tame(url.path)


async def read_bounded(response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    """The body. Raises ContentRefused when there is more of it than `limit_bytes`."""
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > limit_bytes:
            raise ContentRefused(
                what=shown(response.url), host=host_of(response.url), reason=f"more than {limit_bytes} bytes"
            )
        parts.append(part)
    return b"".join(parts)


def location_of(response: aiohttp.ClientResponse, url: URL) -> URL | None:
    """Where a response points to; raises RedirectRefused for a place that is no URL."""
    if not response.headers.get("Location"):
        return None
    location = response.headers["Location"]
    try:
        return url.join(URL(location, encoded=True))
    except ValueError:
        raise RedirectRefused(url=shown(url), target=tame(location), reason="not a URL") from None


def _tls_error(error: Exception) -> ssl.SSLError | None:
    """The TLS failure beneath a client error, if there is one."""
    if isinstance(error, aiohttp.ClientConnectorError):  # which may claim to be an SSLError itself
        error = error.os_error
    return error if isinstance(error, ssl.SSLError) else None


def _reason(error: Exception, url: URL) -> str:
    """The cause in a few words, the layer first as Go tells it."""
    match error:
        case aiohttp.ClientProxyConnectionError() | aiohttp.ClientHttpProxyError() | SocksFailed():
            words = f"proxyconnect tcp: {tame(str(error))}"
        case aiohttp.ClientConnectorDNSError():
            words = f"dial tcp: lookup {url.host}: {_words(error.os_error)}"
        case aiohttp.ClientConnectorSSLError():
            words = f"tls: {tame(str(error.os_error))}"
        case aiohttp.ConnectionTimeoutError():
            words = f"dial tcp {url.host}:{url.port}: i/o timeout"
        case aiohttp.ClientConnectorError():
            words = f"dial tcp {url.host}:{url.port}: connect: {_words(error.os_error)}"
        case TimeoutError():
            words = f"no answer within {SILENCE_TIMEOUT_S:.0f} seconds"
        case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError():
            words = "unexpected EOF"
        case _:
            words = tame(str(error)) or type(error).__name__
    return words


def _words(error: OSError) -> str:
    """What the system calls it: asyncio's own text repeats the address instead. Name look-ups have negative numbers."""
    number = error.errno or 0
    return (os.strerror(number) if number > 0 else error.strerror or str(error)).lower()
