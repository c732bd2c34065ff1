import json

import pytest

from pier.events import matches
from pier.model.event import EventActor, EventMessage
from pier.model.filters import Filters

CONTAINER = EventMessage(
    type="container",
    action="exec_create: sh -c true",
    actor=EventActor(id="0123456789ab", attributes={"name": "web", "image": "localhost:5000/app:1", "tier": "front"}),
)
IMAGE = EventMessage(
    type="image", action="tag", actor=EventActor(id="sha256:ffee", attributes={"name": "busybox:latest"})
)


@pytest.mark.parametrize(
    ("filters", "container", "image"),
    [
        ({}, True, True),
        ({"type": ["container"]}, True, False),
        ({"type": ["container", "image"]}, True, True),
        ({"type": {"image": True}}, False, True),
        ({"event": ["exec_create"]}, True, False),
        ({"event": ["exec"]}, False, False),
        ({"event": ["tag", "exec_start"]}, False, True),
        ({"event": ["ta", "exec_start"]}, False, True),
        ({"event": ["ta"]}, False, False),
        ({"container": ["web"]}, True, False),
        ({"container": ["we"]}, True, False),
        ({"container": ["0123"]}, True, False),
        ({"container": ["eb"]}, False, False),
        ({"image": ["localhost:5000/app"]}, True, False),
        ({"image": ["localhost:5000/app:1"]}, True, False),
        ({"image": ["localhost"]}, False, False),
        ({"image": ["busybox"]}, False, True),
        ({"image": ["sha256:ffee"]}, False, True),
        ({"label": ["tier"]}, True, False),
        ({"label": ["tier=front"]}, True, False),
        ({"label": ["tier=back"]}, False, False),
        ({"label": ["tier", "name=web"]}, True, False),
        ({"label": ["tier", "missing"]}, False, False),
        ({"type": ["container"], "container": ["db"]}, False, False),
        ({"scope": ["swarm"]}, False, False),
        ({"nonsense": ["x"]}, True, True),
    ],
)
def test_matches(filters: dict[str, object], container: bool, image: bool) -> None:
    parsed = Filters.parse(json.dumps(filters))
    assert (matches(CONTAINER, parsed), matches(IMAGE, parsed)) == (container, image)
