"""Who the user is at a registry, and the challenges a registry answers with (RFC 7235, distribution token spec)."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from yarl import URL

from pier.distribution.endpoints import Endpoint
from pier.distribution.errors import RealmRefused, tame
from pier.errors import InvalidParameter

MAX_CHALLENGE: Final = 8192
"""Characters of one WWW-Authenticate header that are looked at."""

_SCHEME: Final = re.compile(r"\s*,?\s*([A-Za-z][A-Za-z0-9-]*)(?:\s+|$)")
_PARAMETER: Final = re.compile(r'\s*,?\s*([A-Za-z_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')


class BadCredentials(InvalidParameter):
    """invalid registry credentials: {reason}"""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the client sent in X-Registry-Auth; any field may be empty. The secrets stay out of its repr."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    """An OAuth2 refresh token, traded for a bearer token at the realm."""
    registry_token: str = field(default="", repr=False)
    """A bearer token, used as it is."""

    @classmethod
    def from_auth_config(cls, config: Mapping[str, str] | None) -> Self:
        """From the Engine API's AuthConfig, `auth` (base64 of user:password) included. Raises BadCredentials."""
        config = config or {}
        username, password = config.get("username", ""), config.get("password", "")
        if config.get("auth") and not username:
            try:
                pair = base64.b64decode(config["auth"], validate=True).decode()
            except ValueError:
                raise BadCredentials(reason="auth is not base64 of user:password") from None
            username, _, password = pair.rstrip("\0").partition(":")
        found = cls(username, password, config.get("identitytoken", ""), config.get("registrytoken", ""))
        # A line break here would be a header of its own there.
        if any(c < " " for c in found.registry_token) or ":" in username:
            raise BadCredentials(reason="a user name without a colon and a token on one line are wanted")
        return found

    @property
    def who(self) -> str:
        """For messages: the user's name, or that there is none."""
        if self.username and self.username != "<token>":
            return f"user {tame(self.username)}"
        return "the owner of a token" if self.identity_token or self.registry_token else "nobody (not logged in)"

    @property
    def basic(self) -> str | None:
        """The value of an Authorization header with name and password."""
        if not self.username or not self.password:
            return None
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


ANONYMOUS: Final = Credentials()


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way of logging in that a registry offers."""

    scheme: str
    """Lower case: `basic`, `bearer`."""
    parameters: Mapping[str, str]
    """Names in lower case: `realm`, `service`, `scope`, `error`."""


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """All challenges of the WWW-Authenticate headers, in order; what cannot be read ends that header."""
    found: list[Challenge] = []
    for header in headers:
        text, at = header[:MAX_CHALLENGE], 0
        while scheme := _SCHEME.match(text, at):
            at = scheme.end()
            parameters: dict[str, str] = {}
            while parameter := _PARAMETER.match(text, at):
                name, quoted, bare = parameter.groups()
                value = bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                parameters.setdefault(name.lower(), value)
                at = parameter.end()
            found.append(Challenge(scheme.group(1).lower(), parameters))
    return found


def check_realm(realm: str, endpoint: Endpoint) -> URL:
    """The URL of the token server, or RealmRefused where a password must not be sent (attack 18).

    A registry may name another host, as Docker Hub does, but encrypted; in the clear only itself, and only where it is
    spoken to in the clear already.
    """
    try:
        url = URL(realm)
    except ValueError:
        raise RealmRefused(host=endpoint.host, realm=tame(realm), reason="not a URL") from None
    if not url.host or url.user or url.password:
        raise RealmRefused(host=endpoint.host, realm=tame(realm), reason="not the URL of a token server")
    if url.scheme == "https" or (url.scheme == "http" and endpoint.plain and url.host == URL(endpoint.url).host):
        return url
    raise RealmRefused(host=endpoint.host, realm=tame(realm), reason="not https")
