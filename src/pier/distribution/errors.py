"""What can go wrong between Pier and a registry, and what the reader can set.

RegistryError             500   the root
├── RegistryUnreachable         T15: no connection, or it broke
├── CertificateRefused          T16: the certificate does not verify
├── PlainHttpAnswer             T17: https was spoken, http came back
├── ProxyUnusable               a proxy setting that cannot be used
├── BadCertificateFile          a file under certs.d that cannot be read
├── RequestRefused              an answer with an error status
├── LoginFailed           401   name, password or token are wrong
├── BadHostsFile                a hosts.toml that cannot be used
├── TooManyRequests       429   the registry's rate limit
├── AccessDenied          404   T25: the registry wants other credentials (push: 403)
│   ├── Unauthorized      401   it does not take those it was given
│   └── LoginRefused      401   there is no login with them (NoCredentials: there are none, 500)
├── ManifestUnknown       404   no such tag or digest there (RepositoryUnknown: no such repository)
├── RealmRefused                attack 18: credentials would go where they must not
├── RedirectRefused             attack 18: a redirect to where nothing is to be fetched from
├── UploadRefused               attack 11: the registry found another digest in what was sent
└── ContentRefused              attack 11: an answer that is not what its digest or size says
"""

from __future__ import annotations

import re
from typing import Final, Self

import aiohttp
import msgspec

from pier.errors import PierError

CONFIG_FILE: Final = "/etc/pier/daemon.json"
MAX_DETAIL: Final = 300
"""Characters of a registry's own words that are repeated in a message."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


class RegistryError(PierError):
    """{message}"""


class RegistryUnreachable(RegistryError):
    """{method} "{url}": {reason}"""

    remedy = (
        "{host} could not be reached{via}; in "
        f"{CONFIG_FILE} "
        'set "proxies": {{"https-proxy": …, "http-proxy": …, "no-proxy": …}} if this machine goes out through a proxy, '
        'or "registry-mirrors": ["https://…"] if docker.io is to be fetched elsewhere; then `systemctl reload pierd`'
    )

    def at(self, hosts: str) -> Self:
        """The same failure, told of all the hosts that were tried."""
        fields = self.fields
        return type(self)(
            method=fields["method"], url=fields["url"], reason=fields["reason"], via=fields["via"], host=hosts
        )


class CertificateRefused(RegistryError):
    """{method} "{url}": tls: failed to verify certificate: x509: {reason}"""

    remedy = (
        "{certificate}; put the authority's certificate into {folder}/ca.crt, "
        'or, to go without verification, add "{host}" to "insecure-registries" in '
        f"{CONFIG_FILE} and `systemctl reload pierd`"
    )


class PlainHttpAnswer(RegistryError):
    """{method} "{url}": http: server gave HTTP response to HTTPS client"""

    remedy = (
        'to use this registry without encryption add "{host}" to "insecure-registries" in '
        f"{CONFIG_FILE} and `systemctl reload pierd`"
    )


class ProxyUnusable(RegistryError):
    """invalid proxy {proxy!r}: {reason}"""

    remedy = f'set it as http://host:port in "proxies" of {CONFIG_FILE}, or in HTTP_PROXY and HTTPS_PROXY'


class BadHostsFile(RegistryError):
    """{path}: {reason}"""

    remedy = (
        'containerd\'s hosts.toml is wanted: server, and [host."https://…"] with capabilities, ca, client, '
        "skip_verify, override_path, header"
    )


class BadCertificateFile(RegistryError):
    """{path}: {reason}"""

    remedy = "PEM is wanted: CA certificates in *.crt, a client's certificate in NAME.cert with its key in NAME.key"


class RequestRefused(RegistryError):
    """{what}: {detail}"""


class ServerFailed(RequestRefused):
    """received unexpected HTTP status: {detail}"""

    remedy = "{what} is in trouble; try again later"


class TooLarge(RequestRefused):
    """{what}: {detail}"""


class LoginFailed(RegistryError):
    """{detail}"""

    status = 401


class NoBasicCredentials(LoginFailed):
    """no basic auth credentials"""


class TooManyRequests(RegistryError):
    """{detail}"""

    status = 429
    remedy = "{host} limits how much may be fetched; log in with `docker login {host}`, or wait"


class AccessDenied(RegistryError):
    """pull access denied for {name}, repository does not exist or may require 'docker login': {detail}"""

    status = 404
    remedy = "asked {host} as {user} for {scope}; `docker login {host}` with an account that may"


class PushDenied(AccessDenied):
    """{detail}"""

    status = 403


class Unauthorized(AccessDenied):
    """{detail}"""

    status = 401


class LoginRefused(AccessDenied):
    """{request}{detail}"""

    status = 401


class NoCredentials(LoginRefused):
    """{request}{detail}"""

    status = 500  # a 401 makes Docker's client ask for a name and a password, wherever it runs


class ManifestUnknown(RegistryError):
    """manifest for {name} not found: {detail}"""

    status = 404


class RepositoryUnknown(ManifestUnknown):
    """repository {name} not found: {detail}"""


class BlobUnknown(RegistryError):
    """blob {digest} of {name} not found: {detail}"""

    status = 404
    remedy = "the image on {host} is not whole; its owner has to push it again"


class RealmRefused(RegistryError):
    """{host} asks for a login at {realm}: {reason}"""

    remedy = "credentials were not sent"


class RedirectRefused(RegistryError):
    """{url}: redirect to {target} refused: {reason}"""


class ContentRefused(RegistryError):
    """{what}: {reason}"""

    remedy = "{host} sent something else than it announced; nothing of it was kept"


class UploadRefused(RegistryError):
    """blob {digest}: {reason}"""

    remedy = "the blob is damaged here, or on its way; if it happens again, load, pull or build the image anew"


class _Problem(msgspec.Struct):
    code: str | None = None
    message: str | None = None


class _Problems(msgspec.Struct):
    """distribution-spec, "Error Codes"; the token servers' `error`/`details` beside it."""

    errors: list[_Problem] | None = None
    details: str | None = None
    error_description: str | None = None


def tame(text: str) -> str:
    """Text from outside, fit for one line of a message: no control characters, not long."""
    line = _CONTROL.sub(" ", text).strip()
    return line if len(line) <= MAX_DETAIL else line[:MAX_DETAIL] + "…"


def describe_refusal(status: int, reason: str, body: bytes) -> tuple[str, str]:
    """An error answer as (code, sentence): `("MANIFEST_UNKNOWN", "manifest unknown: manifest unknown")`.

    The sentence is worded as Docker words it: the code in small letters, a colon, the registry's message.
    """
    fallback = f"unexpected status code {status} {tame(reason)}".strip()
    try:
        said = msgspec.json.decode(body, type=_Problems)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "", fallback
    if said.errors:
        code, message = said.errors[0].code or "", said.errors[0].message or ""
        words = code.lower().replace("_", " ")
        return code, tame(f"{words}: {message}" if words and message else words or message) or fallback
    return "", tame(said.details or said.error_description or "") or fallback


class SocksFailed(aiohttp.ClientError):
    """A SOCKS proxy could not be reached, or did not connect; becomes RegistryUnreachable."""
