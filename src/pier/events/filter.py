"""Which events a client asked for: the filters of `GET /events`, with Docker's own matching.

`criteria` is filter name -> wanted values. Several values of one filter are alternatives (of `label`: all must hold),
several filters must all hold; a filter Docker does not know narrows nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pier.model import EventMessage

Criteria = Mapping[str, Collection[str]]

ACTIONS_WITH_DETAIL = frozenset({"health_status", "exec_create", "exec_start"})
"""Sent as `exec_create: sh -c …`: asking for one of them makes every wanted action a prefix."""

BY_NAME = ("daemon", "container", "plugin", "volume", "network", "builder", "node", "service", "secret", "config")
"""Filters whose values are an object's id, its name, or the beginning of either."""


def matches(event: EventMessage, criteria: Criteria) -> bool:
    """Does the event pass every filter given?"""
    return all(_passes(event, name, wanted) for name, wanted in criteria.items() if wanted)


def _passes(event: EventMessage, name: str, wanted: Collection[str]) -> bool:
    attributes = event.actor.attributes
    if name == "event":
        return _is_action(event.action, wanted)
    if name == "type":
        return event.type in wanted
    if name == "scope":
        return event.scope in wanted
    if name == "label":
        return all(_has_label(attributes, label) for label in wanted)
    if name == "image":
        return not _image_names(event).isdisjoint(wanted)
    if name in BY_NAME:
        return any(_begins(text, wanted) for text in (event.actor.id, attributes.get("name", "")))
    return True


def _is_action(action: str, wanted: Collection[str]) -> bool:
    if ACTIONS_WITH_DETAIL.isdisjoint(wanted):
        return action in wanted
    return _begins(action, wanted)


def _begins(text: str, wanted: Collection[str]) -> bool:
    return text.startswith(tuple(wanted))


def _has_label(attributes: Mapping[str, str], label: str) -> bool:
    key, equals, value = label.partition("=")
    return key in attributes and (not equals or attributes[key] == value)


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
