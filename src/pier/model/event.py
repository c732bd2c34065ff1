"""One line of GET /events."""

from __future__ import annotations

from typing import Annotated

from msgspec import field

from .wire import OMIT, Struct


class EventActor(Struct):
    id: str = field(name="ID", default="")
    attributes: dict[str, str] = field(default_factory=dict)


class EventMessage(Struct, kw_only=True):
    """Something that happened. `time` in seconds, `time_nano` in nanoseconds since 1970.

    `status`, `id` and `from_` repeat type, actor and image for clients before API 1.52 and are filled in by
    `api.versions`; the event bus leaves them empty.
    """

    status: Annotated[str, OMIT] = field(name="status", default="")
    id: Annotated[str, OMIT] = field(name="id", default="")
    from_: Annotated[str, OMIT] = field(name="from", default="")
    type: str
    action: str
    actor: EventActor
    scope: Annotated[str, OMIT] = field(name="scope", default="local")
    time: Annotated[int, OMIT] = field(name="time", default=0)
    time_nano: Annotated[int, OMIT] = field(name="timeNano", default=0)
