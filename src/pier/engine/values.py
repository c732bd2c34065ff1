"""Texts in which flags and `daemon.json` write sizes, limits and address pools."""

from __future__ import annotations

import re
from typing import Any

from pier.errors import PierError

UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class BadValue(PierError):
    """{reason}"""

    exit_code = 1


def size_bytes(text: str) -> int:
    """`64m`, `64MiB`, `1.5g`, `4096` -> bytes, as Docker reads sizes. Raises BadValue."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([bkmgt]?)(?:i?b)?", text.strip().lower(), re.ASCII)
    if not found:
        raise BadValue(reason=f"invalid size: '{text}'")
    return int(float(found[1]) * UNITS[found[2]])


def parse_ulimit(text: str) -> tuple[str, dict[str, Any]]:
    """`nofile=1024[:2048]` -> the name and the entry `daemon.json` would hold. Raises BadValue."""
    found = re.fullmatch(r"([a-z]+)=(-?\d+)(?::(-?\d+))?", text, re.ASCII)
    if not found:
        raise BadValue(reason=f"invalid ulimit argument: {text}")
    name, soft, hard = found[1], int(found[2]), int(found[3] or found[2])
    if hard != -1 and (soft > hard or soft == -1):
        raise BadValue(reason=f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
    return name, {"Name": name, "Soft": soft, "Hard": hard}


def parse_network_opt(text: str) -> tuple[str, str, str]:
    """`bridge=com.docker.network.driver.mtu=1400` -> driver, key, value. Raises BadValue."""
    driver, equals, option = text.partition("=")
    key, more, value = option.partition("=")
    if not (driver and equals and key and more):
        raise BadValue(reason=f"invalid default network option: {text}: DRIVER=KEY=VALUE is wanted")
    return driver, key, value


def parse_pool(text: str) -> dict[str, Any]:
    """`base=10.0.0.0/8,size=24` -> the entry `daemon.json` would hold. Raises BadValue."""
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    if fields.keys() != {"base", "size"} or not fields["size"].isdecimal():
        raise BadValue(reason=f"invalid default address pool: {text}: base=CIDR,size=N is wanted")
    return {"base": fields["base"], "size": int(fields["size"])}
