"""What this machine knows of an image beyond its content: when it was named, what it was committed from.

Kept in the state database by image id, for the content store has no place for it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Final

import msgspec

from pier.oci import Digest
from pier.state.store import Delete, Put, Store

KIND: Final = "image-meta"


class ImageMeta(msgspec.Struct, omit_defaults=True):
    """One image's notes."""

    last_tag_ns: int = 0
    """When it last got a name here; 0: never."""
    parent: str = ""
    """Id of the image that it was committed from; that one may be gone."""


class Notes:
    """All of them, in memory; each change is written before it counts."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._metas: dict[str, ImageMeta] = {}

    async def load(self) -> None:
        """Read what was written."""
        found = await self._store.load(KIND)
        self._metas = {key: msgspec.json.decode(value, type=ImageMeta) for key, value in found.items()}

    def of(self, image_id: Digest) -> ImageMeta:
        return self._metas.get(image_id) or ImageMeta()

    async def add(self, image_id: Digest, **facts: int | str) -> None:
        """Note something about an image; the fields are those of ImageMeta, others stay as they are."""
        meta = msgspec.structs.replace(self.of(image_id), **facts)
        await self._store.write(Put(KIND, str(image_id), msgspec.json.encode(meta)))
        self._metas[str(image_id)] = meta

    async def forget(self, image_ids: Iterable[Digest]) -> None:
        """These images are gone."""
        known = [str(image_id) for image_id in image_ids if image_id in self._metas]
        if known:
            await self._store.write(*(Delete(KIND, key) for key in known))
        for key in known:
            del self._metas[key]

    async def keep_only(self, image_ids: Container[Digest]) -> None:
        """Forget all images but these."""
        await self.forget([Digest(key) for key in self._metas if key not in image_ids])
