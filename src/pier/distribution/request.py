"""What is asked of a registry."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Mapping
from dataclasses import dataclass, replace

from yarl import URL


@dataclass(frozen=True, slots=True)
class Request:
    """One request; `path` is below the repository's own, or a whole URL that the registry named."""

    method: str
    path: str | URL
    headers: Mapping[str, str]
    body: Callable[[], AsyncIterable[bytes] | bytes] | None = None
    """Makes the body, anew for each attempt."""
    scope: str = ""
    """The access asked for where it is not the session's own."""


def with_header(request: Request, authorization: str | None) -> Request:
    """The request with its login, where there is one."""
    if not authorization:
        return request
    return replace(request, headers={**request.headers, "Authorization": authorization})
