"""Log drivers that hand the output on to a service, syslog or journald: what may be asked of them, whether they can be
reached, and what the monitor is told."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from pier.containers import log_attributes
from pier.containers.record import Record
from pier.errors import InvalidParameter, NotImplementedYet, PierError

SYSLOG_SOCKETS = ("/dev/log", "/var/run/syslog", "/var/run/log")
SYSLOG_PORT = 514
JOURNAL_SOCKET = "/run/systemd/journal/socket"
FACILITIES = {
    name: number
    for number, name in enumerate(
        (
            "kern user mail daemon auth syslog lpr news uucp cron authpriv ftp - - - - "
            "local0 local1 local2 local3 local4 local5 local6 local7"
        ).split()
    )
    if name != "-"
}
FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
SYSLOG_TLS = ("syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key", "syslog-tls-skip-verify")
SYSLOG_OPTIONS = ("syslog-address", "syslog-facility", "syslog-format", *SYSLOG_TLS)
CONNECT_S = 5.0

_NOT_IN_A_FIELD = re.compile(r"[^A-Z0-9_]")


class UnsupportedFacility(InvalidParameter):
    """invalid syslog facility {facility}"""


class InvalidAddress(InvalidParameter):
    """{reason}"""


class DriverFailed(PierError):
    """failed to create task for container: failed to initialize logging driver: {reason}"""


def check_syslog(options: Mapping[str, str]) -> None:
    """Raises UnsupportedFacility, InvalidAddress, NotImplementedYet."""
    if any(options.get(name) for name in SYSLOG_TLS):
        raise NotImplementedYet(what="syslog over TLS (--log-opt syslog-tls-…)")
    if options.get("syslog-format", "") not in FORMATS:
        raise InvalidParameter("Invalid syslog format")
    facility(options.get("syslog-facility", ""))
    parse_address(options.get("syslog-address", ""))


def facility(text: str) -> int:
    """A facility's name or number as its number, `daemon` where none is given. Raises UnsupportedFacility."""
    if not text:
        return FACILITIES["daemon"]
    if text.isascii() and text.isdigit() and int(text[:3]) in FACILITIES.values():
        return int(text)
    if text not in FACILITIES:
        raise UnsupportedFacility(facility=text)
    return FACILITIES[text]


def parse_address(text: str) -> tuple[str, str, int]:
    """(transport, path or host, port); an empty path: the local one, to be found. Raises InvalidAddress."""
    if not text:
        return "unixgram", "", 0
    try:
        url = urlsplit(text)
        port = url.port or SYSLOG_PORT
    except ValueError as error:
        raise InvalidAddress(reason=f"syslog-address {text!r}: {error}") from error
    match url.scheme:
        case "unix" | "unixgram":
            if not os.path.exists(url.path):
                raise InvalidAddress(reason=f"stat {url.path}: no such file or directory")
            return url.scheme, url.path, 0
        case "udp" | "tcp":
            if not url.hostname:
                raise InvalidAddress(reason=f"syslog-address {text!r} names no host")
            return url.scheme, url.hostname, port
        case "tcp+tls":
            raise NotImplementedYet(what="syslog over TLS (tcp+tls://)")
        case _:
            raise InvalidAddress(reason=f"syslog-address should be in form proto://address, got {text}")


def syslog(record: Record, options: Mapping[str, str]) -> dict[str, Any]:
    """What the monitor is told (`runtime.log_forward`). Blocking: names are looked up. Raises DriverFailed."""
    transport, place, port = parse_address(options.get("syslog-address", ""))
    if transport in ("udp", "tcp"):
        kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
        try:
            family, _, _, _, address = socket.getaddrinfo(place, port, type=kind)[0]
        except OSError as error:
            raise DriverFailed(reason=f"dial {transport}: lookup {place}: {error.strerror}") from error
        target = {"family": int(family), "kind": int(kind), "address": list(address[:2])}
    else:
        place = place or next((path for path in SYSLOG_SOCKETS if os.path.exists(path)), "")
        if not place:
            raise DriverFailed(reason="Unix syslog delivery error")
        kind = socket.SOCK_DGRAM if transport == "unixgram" else socket.SOCK_STREAM
        target = {"family": int(socket.AF_UNIX), "kind": int(kind), "address": place}
    return {
        "driver": "syslog",
        **target,
        "facility": facility(options.get("syslog-facility", "")),
        "format": options.get("syslog-format", ""),
        "tag": log_attributes.tag(record, options),
        "hostname": os.uname().nodename,
    }


def journald(record: Record, options: Mapping[str, str]) -> dict[str, Any]:
    """What the monitor is told. Raises DriverFailed."""
    if not os.path.exists(JOURNAL_SOCKET):
        raise DriverFailed(reason="journald is not enabled on this host")
    name = log_attributes.tag(record, options)
    fields = {
        **{field_name(key): value for key, value in log_attributes.attributes(record, options).items()},
        "CONTAINER_ID": record.id[: log_attributes.SHORT_ID],
        "CONTAINER_ID_FULL": record.id,
        "CONTAINER_NAME": record.name,
        "CONTAINER_TAG": name,
        "IMAGE_NAME": record.config.image,
        "SYSLOG_IDENTIFIER": name,
    }
    return {
        "driver": "journald",
        "family": int(socket.AF_UNIX),
        "kind": int(socket.SOCK_DGRAM),
        "address": JOURNAL_SOCKET,
        "fields": fields,
    }


def field_name(text: str) -> str:
    """A label or variable as a name that journald takes: upper case, digits, no underscore first."""
    return _NOT_IN_A_FIELD.sub("_", text.upper()).lstrip("_")


def try_out(forward: Mapping[str, Any]) -> None:
    """Connect as the monitor will. Blocking. Raises DriverFailed."""
    address = forward["address"]
    with socket.socket(forward["family"], forward["kind"]) as sock:
        sock.settimeout(CONNECT_S)
        try:
            sock.connect(tuple(address) if isinstance(address, list) else address)
        except OSError as error:
            shown = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
            reason = f"dial {shown}: connect: {(error.strerror or str(error)).lower()}"
            raise DriverFailed(reason=reason) from error


FORWARDS: dict[str, Callable[[Record, Mapping[str, str]], dict[str, Any]]] = {"syslog": syslog, "journald": journald}
