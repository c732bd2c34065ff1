"""What a step is known by in the cache: what was asked for, and what it was asked to work on.

The definition key of a step is a digest over its operation and the definition keys of its inputs, a source's being what
it is at the moment (an image's digest, a commit, a checksum): if it is known, nothing below the step has to be looked
at. The content key is one over the operation and what its inputs hold; where a step only takes some files of an input,
over these files alone. So a change that does not concern a step leaves it cached.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pier.builder.graph import Copy, Exec, File, MountType, NamedUser, Op, Remove, Vertex
from pier.oci import Digest, Platform


class Selection(msgspec.Struct, frozen=True):
    """Files of a tree."""

    path: str
    """From the tree's root; with wildcards where they are allowed."""
    wildcards: bool = False
    follow: bool = True
    """The last component too is followed where it is a link."""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


Usage = tuple[Selection, ...] | None
"""What a step takes of one input; None: the tree as it is."""


def usages(op: Op, inputs: int) -> list[Usage]:
    """What an operation takes of each of its inputs."""
    whole: set[int] = set()
    parts: dict[int, list[Selection]] = {}
    match op:
        case File(actions=actions):
            for action in actions:
                whole.add(action.input)
                deed = action.deed
                if not isinstance(deed, Remove) and deed.owner is not None:
                    whole.update(who.input for who in (deed.owner.user, deed.owner.group) if isinstance(who, NamedUser))
                if isinstance(deed, Copy):
                    parts.setdefault(action.secondary_input, []).append(selection_of(deed))
        case Exec(mounts=mounts):
            for mount in mounts:
                if mount.type is MountType.BIND and mount.readonly and mount.dest != "/" and mount.output < 0:
                    parts.setdefault(mount.input, []).append(Selection(mount.selector or "/"))
                else:
                    whole.add(mount.input)
        case _:
            return [None] * inputs
    return [None if index in whole or index not in parts else tuple(parts[index]) for index in range(inputs)]


def selection_of(copy: Copy) -> Selection:
    """The files a Copy takes."""
    return Selection(copy.src, copy.allow_wildcard, copy.follow_symlink, copy.include_patterns, copy.exclude_patterns)


def definition_key(op: Op, platform: Platform | None, inputs: Sequence[tuple[str, int]]) -> str:
    """The key of a step, no source, over (definition key, output) of its inputs."""
    return _digest("definition", op, platform, inputs)


def content_key(op: Op, platform: Platform | None, contents: Sequence[str]) -> str:
    """The key of a step, no source, over what it takes of each input, as a digest of that."""
    return _digest("content", op, platform, contents)


def _digest(kind: str, op: Op, platform: Platform | None, inputs: object) -> str:
    identity = (kind, op, str(platform) if platform else "", inputs)
    return str(Digest.of(msgspec.json.encode(identity, order="deterministic")))


def source_key(vertex: Vertex, found: str) -> str:
    """The key of a source that was found to be `found`, such as a digest or a commit."""
    platform = str(vertex.platform) if vertex.platform else ""
    assert not isinstance(vertex.op, File | Exec)
    return str(Digest.of(msgspec.json.encode(("source", platform, found), order="deterministic")))
