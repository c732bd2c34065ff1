"""SOCKS5 proxies (RFC 1928, RFC 1929) by aiohttp-socks; the proxy looks names up, so none leaks to a local resolver.

Imported when the first such proxy is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
from aiohttp_socks import ProxyConnectionError, ProxyConnector, ProxyError, ProxyTimeoutError

from pier.distribution.endpoints import without_password
from pier.distribution.errors import ProxyUnusable, SocksFailed

if TYPE_CHECKING:
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace


class _Connector(ProxyConnector):
    """Raises SocksFailed where the proxy cannot or will not."""

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own
    ) -> Connection:
        try:
            return await super().connect(req, traces, timeout)
        except (ProxyError, ProxyConnectionError, ProxyTimeoutError) as error:
            raise SocksFailed(str(error)) from error


def socks_connector(proxy: str) -> aiohttp.BaseConnector:
    """A connector through `socks5://[user:password@]host[:port]`. Raises ProxyUnusable."""
    url = proxy.replace("socks5h://", "socks5://", 1)
    host = url.partition("://")[2].rpartition("@")[2]
    if ":" not in host.rpartition("]")[2]:
        url = f"{url.rstrip('/')}:1080"
    try:
        return _Connector.from_url(url, rdns=True)
    except ValueError as error:
        raise ProxyUnusable(proxy=without_password(proxy), reason=str(error)) from None
