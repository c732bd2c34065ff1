"""What `rmi` takes away and what forbids it, in the words and the order observed of Docker Engine 28."""

from __future__ import annotations

import pytest

from pier.errors import Conflict
from pier.images.delete import Plan, User, plan_delete
from pier.images.image import Image
from pier.oci import Descriptor, Digest, ImageConfig
from pier.oci.image_config import RootFS

ID = Digest("sha256:" + "ec363522b58e" + "0" * 52)
RUNNING: list[User] = [("e95d8bc5b49d" + "0" * 52, True)]
STOPPED: list[User] = [("e8aa511e27de" + "0" * 52, False)]
A, B, C = "docker.io/library/a:1", "docker.io/library/b:1", "docker.io/library/a:2"
PINNED = "docker.io/library/a@sha256:" + "9" * 64


def image(*names: str) -> Image:
    return Image(
        id=ID,
        config=ImageConfig(architecture="amd64", os="linux", rootfs=RootFS()),
        layers=[],
        manifest=Descriptor(media_type="", digest=ID, size=0),
        root=Descriptor(media_type="", digest=ID, size=0),
        content=frozenset(),
        roots=frozenset(),
        tags=tuple(name for name in names if "@" not in name),
        digests=tuple(name for name in names if "@" in name),
    )


@pytest.mark.parametrize(
    ("names", "text", "users", "force", "plan"),
    [
        ([A], "a:1", [], False, Plan((A,), delete=True)),
        ([A, B], "a:1", [], False, Plan((A,), delete=False)),
        ([A, B], "a:1", RUNNING, False, Plan((A,), delete=False)),
        ([A], "a:1", STOPPED, True, Plan((A,), delete=True)),
        ([A], "a:1", RUNNING, True, Plan((A,), delete=False)),
        ([A], "ec363522b58e", [], False, Plan((A,), delete=True)),
        ([A], str(ID), [], False, Plan((A,), delete=True)),
        ([A, B], "ec36", [], True, Plan((A, B), delete=True)),
        ([A, B], "ec36", STOPPED, True, Plan((A, B), delete=True)),
        ([], "ec36", [], False, Plan((), delete=True)),
        ([A, PINNED], "a:1", [], False, Plan((A, PINNED), delete=True)),
        ([A, C, PINNED], "a:1", [], False, Plan((A,), delete=False)),
        ([A, B, PINNED], "a:1", [], False, Plan((A, PINNED), delete=False)),
        ([A, PINNED], "ec36", [], False, Plan((A, PINNED), delete=True)),
        ([A, PINNED], "a@sha256:" + "9" * 64, [], False, Plan((PINNED,), delete=False)),
    ],
)
def test_plans(names: list[str], text: str, users: list[User], force: bool, plan: Plan) -> None:
    assert plan_delete(image(*names), text, users, force=force) == plan


NAME_IN_USE = (
    'conflict: unable to remove repository reference "a:1" (must force) - '
    "container e8aa511e27de is using its referenced image ec363522b58e"
)
STOPPED_TEXT = (
    "conflict: unable to delete ec363522b58e (must be forced) - image is being used by stopped container e8aa511e27de"
)
RUNNING_TEXT = (
    "conflict: unable to delete ec363522b58e (cannot be forced) - image is being used by running container e95d8bc5b49d"
)
SEVERAL_TEXT = "conflict: unable to delete ec363522b58e (must be forced) - image is referenced in multiple repositories"


@pytest.mark.parametrize(
    ("names", "text", "users", "force", "message"),
    [
        ([A], "a:1", STOPPED, False, NAME_IN_USE),
        ([A], "ec36", STOPPED, False, STOPPED_TEXT),
        ([], "ec36", STOPPED, False, STOPPED_TEXT),
        ([A], "ec36", RUNNING, False, RUNNING_TEXT),
        ([A], "ec36", RUNNING, True, RUNNING_TEXT),
        ([A], "ec36", STOPPED + RUNNING, True, RUNNING_TEXT),
        ([A, B], "ec36", [], False, SEVERAL_TEXT),
        ([A, C], "ec36", STOPPED, False, SEVERAL_TEXT),
        ([A, B], "ec36", RUNNING, False, RUNNING_TEXT),
    ],
)
def test_conflicts(names: list[str], text: str, users: list[User], force: bool, message: str) -> None:
    with pytest.raises(Conflict) as caught:
        plan_delete(image(*names), text, users, force=force)
    assert str(caught.value) == message
