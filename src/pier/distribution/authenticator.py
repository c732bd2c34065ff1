"""Logging in: from a registry's challenge to an Authorization header (distribution-spec tokens, OAuth2 refresh).

One Authenticator serves one repository of one registry; its credentials are for that registry's own endpoints.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from pier.distribution.credentials import ANONYMOUS, Challenge, Credentials, check_realm
from pier.distribution.endpoints import Endpoint
from pier.distribution.errors import LoginFailed, NoBasicCredentials, RequestRefused, describe_refusal
from pier.distribution.transport import Transport, read_bounded

MAX_TOKEN_BYTES: Final = 1 << 20
LEAST_LIFETIME_S: Final = 60.0
"""A token without `expires_in`, or with less, is used this long (distribution token spec)."""
CLIENT_ID: Final = "pier"


class _Answer(msgspec.Struct):
    token: str | None = None
    access_token: str | None = None
    refresh_token: str | None = None
    expires_in: float | None = None


@dataclass(frozen=True, slots=True)
class _Token:
    header: str
    expires_at_s: float


class Authenticator:
    """Keeps the Authorization headers that were earned, by endpoint and scope."""

    def __init__(
        self, transport: Transport, credentials: Credentials, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._transport = transport
        self._credentials = credentials
        self._clock = clock
        self._tokens: dict[tuple[str, str], _Token] = {}
        self.refresh_token = ""
        """The one that came with a token that was asked for `offline`."""

    def credentials_for(self, endpoint: Endpoint) -> Credentials:
        """None for a mirror: it is another party (attack 18)."""
        return ANONYMOUS if endpoint.mirror else self._credentials

    def header(self, endpoint: Endpoint, scope: str) -> str | None:
        """What may be sent without being asked again; None where nothing was earned yet."""
        token = self._tokens.get((endpoint.url, scope))
        return token.header if token and token.expires_at_s > self._clock() else None

    async def answer(
        self, endpoint: Endpoint, challenges: list[Challenge], scope: str, *, offline: bool = False
    ) -> str:
        """The header that answers a challenge; `offline` asks for a refresh token beside it.

        Raises LoginFailed, RealmRefused, RegistryError.
        """
        credentials = self.credentials_for(endpoint)
        by_scheme = {challenge.scheme: challenge for challenge in reversed(challenges)}
        if "bearer" in by_scheme:
            token = await self._bearer(endpoint, by_scheme["bearer"], credentials, scope, offline=offline)
        elif "basic" in by_scheme:
            if credentials.basic is None:
                raise NoBasicCredentials
            token = _Token(credentials.basic, float("inf"))
        else:
            raise LoginFailed(detail="unauthorized: authentication required")
        self._tokens[endpoint.url, scope] = token
        return token.header

    async def _bearer(
        self, endpoint: Endpoint, challenge: Challenge, credentials: Credentials, scope: str, *, offline: bool
    ) -> _Token:
        if credentials.registry_token:
            return _Token(f"Bearer {credentials.registry_token}", float("inf"))
        realm = check_realm(challenge.parameters.get("realm", ""), endpoint)
        service = challenge.parameters.get("service", "")
        fields = {name: value for name, value in {"service": service, "scope": scope}.items() if value}
        headers: dict[str, str] = {}
        if credentials.identity_token:
            method, form = (
                "POST",
                {
                    "grant_type": "refresh_token",
                    "client_id": CLIENT_ID,
                    "refresh_token": credentials.identity_token,
                    **fields,
                },
            )
        else:
            method, form = "GET", None
            if credentials.basic is not None:
                headers["Authorization"] = credentials.basic
                fields["account"] = credentials.username
                fields |= {"client_id": CLIENT_ID, "offline_token": "true"} if offline else {}
            # One `scope` each in a query, all in one with spaces in a form (distribution token spec).
            realm = realm.update_query({**fields, "scope": scope.split()} if scope else fields)
        asked_at = self._clock()
        async with self._transport.send(method, realm, endpoint=endpoint, headers=headers, body=form) as response:
            body = await read_bounded(response, MAX_TOKEN_BYTES)
        if response.status != 200:
            code, detail = describe_refusal(response.status, response.reason or "", body)
            if response.status in (401, 403) or code in ("UNAUTHORIZED", "DENIED"):
                raise LoginFailed(detail=detail if code else "unauthorized: incorrect username or password")
            raise RequestRefused(what=f"token server {realm.host}", detail=detail)
        token, self.refresh_token = _read_token(body, asked_at, realm.host or "")
        return token


def _read_token(body: bytes, asked_at_s: float, host: str) -> tuple[_Token, str]:
    """The bearer header in a token server's answer, and its refresh token if any. Raises RequestRefused."""
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestRefused(what=f"token server {host}", detail=f"unreadable answer: {error}") from None
    token = answer.token or answer.access_token or ""
    if not token or not token.isascii() or not token.isprintable():
        raise RequestRefused(what=f"token server {host}", detail="authorization server did not include a token")
    lifetime_s = max(answer.expires_in or 0.0, LEAST_LIFETIME_S)
    # Let it go a tenth early, so that it does not end on the way.
    refresh_token = answer.refresh_token or ""
    if not refresh_token.isascii() or not refresh_token.isprintable():
        refresh_token = ""
    return _Token(f"Bearer {token}", asked_at_s + lifetime_s * 0.9), refresh_token
