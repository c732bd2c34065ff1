"""`docker rmi`: what a request takes away, a name or the image, and what forbids it; pure, in Docker's words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pier.errors import Conflict
from pier.images.catalog import repository_of
from pier.images.image import SHORT_ID, Image, familiar, is_digest_name
from pier.oci import Reference

User = tuple[str, bool]
"""A container made from the image: its id, and whether it is running."""


class ReferenceInUse(Conflict):
    """conflict: unable to remove repository reference "{name}" (must force) - container {container} is using its \
referenced image {id}"""


class ImageInUse(Conflict):
    """conflict: unable to delete {id} ({how}) - {reason}"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done."""

    untag: tuple[str, ...]
    """Full names to take away, in order."""
    delete: bool
    """And then the image itself."""


def plan_delete(image: Image, text: str, users: Sequence[User], *, force: bool, has_children: bool = False) -> Plan:
    """What `rmi text` means for the image that `text` names; `has_children`: others were committed from it.

    Raises ReferenceInUse, ImageInUse.
    """
    if is_id(image, text):
        return _plan_by_id(image, users, force=force, has_children=has_children)
    name = named(image, text)
    if not force and users and _is_single(image.names):
        raise ReferenceInUse(name=familiar(name), container=users[0][0][:SHORT_ID], id=image.id.short)
    untag = [name]
    repository = repository_of(name)
    rest = [other for other in image.names if other != name]
    if not is_digest_name(name) and not any(repository_of(o) == repository for o in rest if not is_digest_name(o)):
        # The last tag of a repository takes the digests it was pulled by with it.
        untag += [other for other in rest if repository_of(other) == repository]
        rest = [other for other in rest if other not in untag]
    if rest:
        return Plan(tuple(untag), delete=False)
    # Without its last name the image goes too, unless a container or a child holds it: it stays, and that is no error.
    return Plan(tuple(untag), delete=not has_children and _conflict(image, (), users, force=force) is None)


def _plan_by_id(image: Image, users: Sequence[User], *, force: bool, has_children: bool) -> Plan:
    if has_children:
        reason = "image has dependent child images"
        raise ImageInUse(id=image.id.short, how="cannot be forced", reason=reason)
    names = () if _is_single(image.names) else image.names
    conflict = _conflict(image, names, users, force=force)
    if conflict is not None:
        raise conflict
    return Plan(image.names, delete=True)


def _conflict(image: Image, names: Sequence[str], users: Sequence[User], *, force: bool) -> ImageInUse | None:
    """The first thing that forbids deleting the image, which has still these names."""
    running = next((container for container, is_running in users if is_running), None)
    if running is not None:
        reason = f"image is being used by running container {running[:SHORT_ID]}"
        return ImageInUse(id=image.id.short, how="cannot be forced", reason=reason)
    if force:
        return None
    if len(names) > 1:
        return ImageInUse(
            id=image.id.short, how="must be forced", reason="image is referenced in multiple repositories"
        )
    if users:
        reason = f"image is being used by stopped container {users[0][0][:SHORT_ID]}"
        return ImageInUse(id=image.id.short, how="must be forced", reason=reason)
    return None


def check_platform_delete(image: Image, users: Sequence[User], *, is_root: bool, is_shared: bool, force: bool) -> None:
    """May this platform's image go alone? It may be named by itself (a root), or be in another index too.

    Raises ImageInUse.
    """
    conflict = _conflict(image, (), users, force=force)
    if conflict is not None:
        raise conflict
    if is_root or (is_shared and not force):
        how = "cannot be forced" if is_root else "must be forced"
        raise ImageInUse(id=image.id.short, how=how, reason="image is referenced in multiple repositories")


def is_id(image: Image, text: str) -> bool:
    """Whether `text` names the image by its id or the beginning of it."""
    return image.id.startswith(text) or image.id.hex.startswith(text)


def named(image: Image, text: str) -> str:
    """The full name of the image that `text` stands for."""
    reference = Reference.parse(text)
    if reference.digest is not None:
        reference = reference.with_digest(reference.digest)
    return str(reference)


def _is_single(names: Sequence[str]) -> bool:
    """Whether all names are of one repository, with at most one tag among them."""
    tags = [name for name in names if not is_digest_name(name)]
    if len(names) <= 1:
        return True
    return len(tags) <= 1 and len({repository_of(name) for name in names}) == 1
