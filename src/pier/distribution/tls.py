"""TLS towards registries: CAs and client certificates from `certs.d/HOST:PORT/`, and why a certificate was refused.

The layout is Docker's: `*.crt` are authorities beside the system's, `NAME.cert` and `NAME.key` are a client's pair.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Iterable
from typing import Final

from yarl import URL

from pier.distribution.errors import BadCertificateFile
from pier.distribution.x509 import subject_and_issuer

PROBE_TIMEOUT_S: Final = 5.0

_REASONS: Final = {
    # X509_V_ERR_* -> Go's words
    9: "certificate has expired or is not yet valid",
    10: "certificate has expired or is not yet valid",
    18: "certificate signed by unknown authority",
    19: "certificate signed by unknown authority",
    20: "certificate signed by unknown authority",
    21: "certificate signed by unknown authority",
    62: "certificate is not valid for {host}",
    64: "certificate is not valid for {host}",
}
_NOT_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH_TOO_LONG"})


def client_context(host: str, *, verify: bool, certs_dirs: Iterable[str]) -> ssl.SSLContext:
    """A context for one registry; blocks on files. Raises BadCertificateFile."""
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for folder in (os.path.join(root, host) for root in certs_dirs):
        for name in sorted(_listed(folder)):
            _load(context, folder, name)
    return context


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise BadCertificateFile(path=folder, reason=error.strerror) from None


def _load(context: ssl.SSLContext, folder: str, name: str) -> None:
    path = os.path.join(folder, name)
    try:
        if name.endswith(".crt"):
            context.load_verify_locations(cafile=path)
        elif name.endswith(".cert"):
            context.load_cert_chain(path, path.removesuffix(".cert") + ".key", password=_no_password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise BadCertificateFile(path=path, reason=str(error)) from None


def _no_password() -> bytes:
    """Asked for where a key is encrypted; without it OpenSSL would ask on the daemon's terminal."""
    return b""


def speaks_plain_http(error: ssl.SSLError) -> bool:
    """Did the peer answer a TLS greeting with something that is not TLS?"""
    return error.reason in _NOT_TLS


def verification_reason(error: ssl.SSLCertVerificationError, host: str) -> str:
    """Why a certificate was refused, in the words Docker's users search for."""
    words = _REASONS.get(error.verify_code, error.verify_message or "certificate refused")
    return words.format(host=host)


async def describe_certificate(url: URL) -> str:
    """Subject and issuer of the certificate that a server shows, fetched without trusting it; for a message."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            _, writer = await asyncio.open_connection(url.host, url.port, ssl=context)
            shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            writer.close()
        subject, issuer = subject_and_issuer(shown or b"")
    except (OSError, ValueError):
        return f"the certificate of {url.host} could not be read"
    return f"the certificate's subject is {subject}, its issuer {issuer}"
