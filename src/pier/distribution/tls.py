"""TLS towards registries: CAs and client certificates from `certs.d/HOST:PORT/`, and why a certificate was refused.

The layout is Docker's: `*.crt` are authorities beside the system's, `NAME.cert` and `NAME.key` are a client's pair.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
from collections.abc import Iterable
from typing import Final

from yarl import URL

from pier.distribution.endpoints import NO_FILES, TlsFiles
from pier.distribution.errors import BadCertificateFile
from pier.distribution.x509 import subject_and_issuer

PROBE_TIMEOUT_S: Final = 5.0
Stamp = tuple[str, int, int]
"""A file's path, time of change in nanoseconds and inode; zeros where it is not there."""

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


class Contexts:
    """Contexts by registry, made anew when a file they were made from changes: no restart for a new certificate."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, bool, TlsFiles], tuple[tuple[Stamp, ...], ssl.SSLContext]] = {}
        self._lock = threading.Lock()

    def get(self, host: str, *, verify: bool, certs_dirs: Iterable[str], files: TlsFiles) -> ssl.SSLContext:
        """As `client_context`; blocks on files. Raises BadCertificateFile."""
        wanted = [*_in_folders(host, certs_dirs), *files.paths]
        stamps = tuple(map(_stamp, wanted))
        with self._lock:
            before = self._made.get((host, verify, files))
            if before is None or before[0] != stamps:
                made = client_context(host, verify=verify, certs_dirs=certs_dirs, files=files)
                before = self._made[host, verify, files] = stamps, made
            return before[1]


def client_context(host: str, *, verify: bool, certs_dirs: Iterable[str], files: TlsFiles = NO_FILES) -> ssl.SSLContext:
    """A context for one registry; blocks on files. Raises BadCertificateFile."""
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for path in _in_folders(host, certs_dirs):
        if path.endswith(".crt"):
            _load_authority(context, path)
        elif path.endswith(".cert"):
            _load_pair(context, path, path.removesuffix(".cert") + ".key")
    for path in files.authorities:
        _load_authority(context, path)
    for certificate, key in files.clients:
        _load_pair(context, certificate, key or certificate)
    return context


def _in_folders(host: str, certs_dirs: Iterable[str]) -> list[str]:
    folders = (os.path.join(root, host) for root in certs_dirs)
    return [os.path.join(folder, name) for folder in folders for name in sorted(_listed(folder))]


def _stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return path, 0, 0
    return path, found.st_mtime_ns, found.st_ino


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise BadCertificateFile(path=folder, reason=error.strerror) from None


def _load_authority(context: ssl.SSLContext, path: str) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise BadCertificateFile(path=path, reason=str(error)) from None


def _load_pair(context: ssl.SSLContext, certificate: str, key: str) -> None:
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as error:
        raise BadCertificateFile(path=certificate, reason=str(error)) from None


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
