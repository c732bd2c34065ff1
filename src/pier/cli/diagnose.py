"""Why the daemon does not answer: one cause and one remedy (trap 18).

The first line is Docker's, because tools match on it; the lines after it tell the dozen causes apart.
"""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.endpoint import Endpoint

PID_FILE = "/run/pier/pier.pid"
LOG_FILES = ("/var/log/pier.log", "/run/pier/pierd.log")
_LOG_LINES = 3


def cannot_connect(endpoint: Endpoint, error: OSError) -> str:
    """The text for a connection that could not be made."""
    return "\n".join((_docker_line(endpoint, error), *_causes(endpoint, error)))


def broken_answer(endpoint: Endpoint, error: Exception) -> str:
    """The text for something that answered, but not as a daemon does."""
    first = f"Cannot connect to the Docker daemon at {endpoint.text}. Is the docker daemon running?"
    if isinstance(error, EOFError | ConnectionResetError):
        causes = ["The connection was closed before an answer came."]
        if endpoint.host and not endpoint.tls:
            causes.append("If that daemon expects TLS, add --tlsverify (and --tlscacert, --tlscert, --tlskey).")
        else:
            causes += _last_log_lines()
        return "\n".join((first, *causes))
    if isinstance(error, ValueError) and str(error)[:1] in ("\x15", "\x16"):
        return f"{first}\nThat daemon speaks TLS: add --tlsverify (and --tlscacert, --tlscert, --tlskey)."
    if isinstance(error, OSError):
        return f"{first}\n{error.strerror or error}"
    return f"{first}\nWhat listens there does not speak HTTP (its answer began with {str(error)!r})."


def _docker_line(endpoint: Endpoint, error: OSError) -> str:
    if endpoint.path and error.errno == errno.EACCES:
        return f"permission denied while trying to connect to the Docker daemon socket at {endpoint.text}"
    return f"Cannot connect to the Docker daemon at {endpoint.text}. Is the docker daemon running?"


def _causes(endpoint: Endpoint, error: OSError) -> list[str]:
    lines = _unix_causes(endpoint.path, error) if endpoint.path else _tcp_causes(endpoint, error)
    if endpoint.source in ("PIER_HOST", "DOCKER_HOST"):
        lines.append(f"The address comes from {endpoint.source}; `unset {endpoint.source}` to use Pier's own socket.")
    return lines


def _unix_causes(path: str, error: OSError) -> list[str]:  # noqa: PLR0911 - one return a cause
    if error.errno == errno.ENOENT:
        return [_missing_socket(path), "Start the daemon with `pier daemon` or `systemctl start pier`."]
    if error.errno == errno.EACCES:
        return _permission(path)
    if error.errno == errno.ECONNREFUSED:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return [f"{path} is not a socket; -H takes unix:///path/to.sock or tcp://host:port."]
        return [f"{path} is there, but nothing listens on it: the daemon has died.", *_last_log_lines()]
    if error.errno == errno.ENOTDIR:
        return [f"A part of {path} is not a directory."]
    if str(error) == "AF_UNIX path too long":
        return [f"{path} is longer than the 107 bytes a socket's path can have."]
    return [error.strerror or str(error)]


def _missing_socket(path: str) -> str:
    """Names the first part of the path that is missing."""
    parent = os.path.dirname(path) or "/"
    if not os.path.isdir(parent):
        return f"There is no directory {parent}."
    return f"There is no socket {path}: no daemon has made it."


def _permission(path: str) -> list[str]:
    """Who may use the socket, and how to become one of them."""
    try:
        status = os.stat(path)
    except OSError:
        return [f"You may not even look into {os.path.dirname(path)}: run this as root."]
    import grp  # noqa: PLC0415 - only to name a group
    import pwd  # noqa: PLC0415

    try:
        group = grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        group = str(status.st_gid)
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    if not status.st_mode & stat.S_IWGRP:
        return [f"Only its owner may use {path}: run this as root."]
    return [
        f"{path} is open to root and to the group {group}, and user {user} is not in it.",
        f"Run `sudo usermod -aG {group} {user}` and log in again, or use sudo.",
    ]


def _tcp_causes(endpoint: Endpoint, error: OSError) -> list[str]:
    where = f"{endpoint.host}:{endpoint.port}"
    name = type(error).__name__
    if name.startswith("SSL"):
        return _tls_causes(where, error)
    if name == "gaierror":
        return [f"The name {endpoint.host} cannot be resolved ({error.strerror}): is the address right?"]
    if isinstance(error, FileNotFoundError):
        return [f"A certificate file is missing: {error.filename or error.strerror} (see --tlscacert)."]
    if error.errno == errno.ECONNREFUSED:
        return [f"Nothing listens on {where}; start the daemon there with -H tcp://…"]
    if error.errno in (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH):
        return [f"{where} cannot be reached ({error.strerror}): network or firewall."]
    return [error.strerror or str(error)]


def _tls_causes(where: str, error: OSError) -> list[str]:
    reason = getattr(error, "reason", "") or str(error)
    if reason == "CERTIFICATE_VERIFY_FAILED":
        message = getattr(error, "verify_message", "")
        return [f"The certificate of {where} is not trusted ({message}): --tlscacert must name the CA that signed it."]
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
        return [f"{where} does not speak TLS: leave out --tls and --tlsverify, and unset DOCKER_TLS_VERIFY."]
    if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason:
        return [f"{where} wants a client certificate: --tlscert and --tlskey."]
    return [f"The TLS handshake with {where} failed: {reason}"]


def _last_log_lines() -> list[str]:
    """The end of the daemon's log, where one is readable."""
    for path in LOG_FILES:
        try:
            with open(path, "rb") as log:
                log.seek(0, os.SEEK_END)
                log.seek(max(0, log.tell() - 4096))
                tail = log.read().decode("utf-8", "replace").splitlines()[-_LOG_LINES:]
        except OSError:
            continue
        if tail:
            return [f"The last lines of {path}:", *(f"  {line}" for line in tail)]
    return ["`journalctl -u pier -n 20` shows its last words; `pier daemon` or `systemctl start pier` starts it again."]
