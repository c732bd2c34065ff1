"""`user[:group]` of --chown, USER and WORKDIR, and the modes of --chmod."""

from __future__ import annotations

import re
from typing import Final

from pier.builder.graph import NamedUser, Owner, UserID

MAX_MODE: Final = 0o7777
_SYMBOLIC: Final = re.compile(r"[ugoa]*(?:[-+=](?:[rwxXst]*|[ugo]))+(?:,[ugoa]*(?:[-+=](?:[rwxXst]*|[ugo]))+)*")
_ID: Final = re.compile(r"[0-9]{1,10}")


def owner_of(text: str, lookup: int) -> Owner:
    """Names are looked up in the tree of input `lookup`."""
    user, colon, group = text.partition(":")
    return Owner(user=_who(user, lookup), group=_who(group, lookup) if colon else None)


def has_names(text: str) -> bool:
    """Whether an owner must be looked up in the image that the files go to."""
    return any(part and not _ID.fullmatch(part) for part in text.split(":", 1))


def _who(text: str, lookup: int) -> NamedUser | UserID | None:
    if not text:
        return None
    return UserID(int(text)) if _ID.fullmatch(text) else NamedUser(text, lookup)


def parse_mode(text: str) -> tuple[int, str]:
    """(octal mode or -1, symbolic mode). Raises ValueError with the reason."""
    if not text:
        return -1, ""
    if re.fullmatch(r"[0-9]+", text):
        if not re.fullmatch(r"[0-7]{1,11}", text) or int(text, 8) > MAX_MODE:
            raise ValueError(f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777")
        return int(text, 8), ""
    if not _SYMBOLIC.fullmatch(text):
        raise ValueError(f"invalid chmod parameter: '{text}'. it should be octal, or symbolic such as u=rwX,go-w")
    return -1, text
