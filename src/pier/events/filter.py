"""Which events a client asked for: the filters of `GET /events`, with Docker's own matching.

A filter that Docker does not know narrows nothing.
"""

from __future__ import annotations

from pier.model.event import EventMessage
from pier.model.filters import Filters

ACTIONS_WITH_DETAIL = ("health_status", "exec_create", "exec_start")
"""Sent as `exec_create: sh -c …`: asking for one of them makes every wanted action a prefix."""

BY_NAME = ("daemon", "container", "plugin", "volume", "network", "builder", "node", "service", "secret", "config")
"""Filters whose values are an object's id, its name, or the beginning of either."""


def matches(event: EventMessage, filters: Filters) -> bool:
    """Does the event pass every filter given?"""
    attributes = event.actor.attributes
    name = attributes.get("name", "")
    return (
        filters.exact("type", event.type)
        and filters.exact("scope", event.scope)
        and _is_action(event.action, filters)
        and filters.key_values("label", attributes)
        and any(filters.exact("image", image) for image in _image_names(event))
        and all(filters.prefix(kind, event.actor.id) or filters.prefix(kind, name) for kind in BY_NAME)
    )


def _is_action(action: str, filters: Filters) -> bool:
    if any(detailed in filters.get("event") for detailed in ACTIONS_WITH_DETAIL):
        return filters.prefix("event", action)
    return filters.exact("event", action)


def _image_names(event: EventMessage) -> set[str]:
    """What `image=` may say of an event: the image's id or name, with or without the tag.

    A container's event carries its image's name in the attribute `image`, an image's event its own in `name`.
    """
    attribute = "name" if event.type == "image" else "image"
    names = {event.actor.id, event.actor.attributes.get(attribute, "")}
    return names | {_without_tag(name) for name in names}


def _without_tag(name: str) -> str:
    """`localhost:5000/a:1` -> `localhost:5000/a`; a registry's port is no tag."""
    head, slash, tail = name.rpartition("/")
    return head + slash + tail.partition("@")[0].partition(":")[0]
