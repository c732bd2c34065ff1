"""Trying credentials at a registry, for `docker login` (Engine API, POST /auth; distribution token spec)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from yarl import URL

from pier.distribution.authenticator import Authenticator
from pier.distribution.credentials import Credentials, parse_challenges
from pier.distribution.endpoints import Endpoint, endpoints_for
from pier.distribution.errors import LoginFailed, PlainHttpAnswer, RegistryUnreachable, RequestRefused, describe_refusal
from pier.distribution.session import MAX_ERROR_BYTES
from pier.distribution.transport import Transport, read_bounded, shown
from pier.oci.reference import DEFAULT_DOMAIN, LEGACY_DEFAULT_DOMAIN

_HUB: Final = frozenset({"", DEFAULT_DOMAIN, LEGACY_DEFAULT_DOMAIN, "registry-1.docker.io"})


@dataclass(frozen=True, slots=True)
class Login:
    """A registry took the credentials."""

    identity_token: str = ""
    """What to keep in place of the password, where the registry gave one."""


def server_domain(server: str) -> str:
    """A server as users and configuration files write it -> the domain of its image names.

    >>> server_domain("https://index.docker.io/v1/"), server_domain("http://r.test:5000/v2/")
    ('docker.io', 'r.test:5000')
    """
    host = server.partition("://")[2] if "://" in server else server
    host = host.partition("/")[0]
    return DEFAULT_DOMAIN if host in _HUB else host


async def log_in(transport: Transport, server: str, credentials: Credentials) -> Login:
    """Ask `/v2/` with the credentials. Raises LoginFailed, RegistryError."""
    endpoints = [e for e in endpoints_for(server_domain(server), transport.config, push=True) if not e.mirror]
    for endpoint in endpoints[:-1]:
        try:
            return await _log_in_at(transport, endpoint, credentials)
        except (RegistryUnreachable, PlainHttpAnswer):
            continue
    return await _log_in_at(transport, endpoints[-1], credentials)


async def _log_in_at(transport: Transport, endpoint: Endpoint, credentials: Credentials) -> Login:
    url = URL(f"{endpoint.base}/")
    async with transport.send("GET", url, endpoint=endpoint, headers={}) as response:
        status, body = response.status, await read_bounded(response, MAX_ERROR_BYTES)
        challenges = parse_challenges(response.headers.getall("WWW-Authenticate", []))
        reason = response.reason or ""
    if status == 401:
        authenticator = Authenticator(transport, credentials)
        header = await authenticator.answer(endpoint, challenges, "", offline=True)
        async with transport.send("GET", url, endpoint=endpoint, headers={"Authorization": header}) as response:
            status, body = response.status, await read_bounded(response, MAX_ERROR_BYTES)
            reason = response.reason or ""
        if status == 200:
            return Login(authenticator.refresh_token)
    if status == 200:
        return Login()
    code, detail = describe_refusal(status, reason, body)
    if status in (401, 403):
        words = f"login attempt to {shown(url)} failed with status: {status} {reason}"
        raise LoginFailed(detail=detail if code and "authentication required" not in detail else words)
    raise RequestRefused(what=f"login attempt to {shown(url)}", detail=detail)
