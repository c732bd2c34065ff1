"""Containers of a volume that stand still while it is copied."""

from __future__ import annotations

import contextlib

from pier.cli.each import path
from pier.cli.errors import ApiError
from pier.cli.format import filters_query

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pier.cli.main import Context


@contextlib.contextmanager
def standing_still(cx: Context, volume: str, *, wanted: bool) -> Iterator[None]:
    """Pause the containers that run with a volume, if wanted; those that are paused already stay so."""
    paused: list[str] = []
    client = cx.another_client() if wanted else cx.client  # the block's connection may be in the middle of an answer
    try:
        if wanted:
            running = filters_query([("volume", volume), ("status", "running")])
            for container in client.get("/containers/json", filters=running):
                with contextlib.suppress(ApiError):  # it has just ended
                    client.post(path("containers", container["Id"], "pause"))
                    paused.append(container["Id"])
        yield
    finally:
        for id in paused:
            with contextlib.suppress(ApiError):
                client.post(path("containers", id, "unpause"))
