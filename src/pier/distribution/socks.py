"""SOCKS5 proxies (RFC 1928, RFC 1929) by aiohttp-socks; the proxy looks names up, so none leaks to a local resolver."""

from __future__ import annotations

import aiohttp
from aiohttp_socks import ProxyConnector, ProxyError

from pier.distribution.endpoints import without_password
from pier.distribution.errors import ProxyUnusable

__all__ = ["ProxyError", "socks_connector"]


def socks_connector(proxy: str) -> aiohttp.BaseConnector:
    """A connector through `socks5://[user:password@]host[:port]`. Raises ProxyUnusable."""
    url = proxy.replace("socks5h://", "socks5://", 1)
    host = url.partition("://")[2].rpartition("@")[2]
    if ":" not in host.rpartition("]")[2]:
        url = f"{url.rstrip('/')}:1080"
    try:
        connector: aiohttp.BaseConnector = ProxyConnector.from_url(url, rdns=True)
    except ValueError as error:
        raise ProxyUnusable(proxy=without_password(proxy), reason=str(error)) from None
    return connector
