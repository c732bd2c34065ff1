"""Sizes as `--storage-opt size=` and `storage-opts` write them."""

from __future__ import annotations

import re
from typing import Final

from pier.errors import InvalidParameter

_SIZE: Final = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?([kmgtp]?)(?:i?b)?", re.ASCII)


def parse_size(text: str) -> int:
    """`10G`, `1.5g`, `4096` in bytes, units being powers of 1024; `0` is no bound. Raises InvalidParameter."""
    found = _SIZE.fullmatch(text.strip().lower())
    if found is None:
        raise InvalidParameter(f"invalid size: '{text[:40]}'")
    return int(float(found[1]) * (1 << 10 * " kmgtp".index(found[2] or " ")))
