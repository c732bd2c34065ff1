"""Images as sources: those that are here, else pulled from their registry."""

from __future__ import annotations

from typing import Final

from pier.builder import layers
from pier.builder.graph import Source, Vertex
from pier.builder.ground import Ground
from pier.builder.progress import Broadcast
from pier.builder.solver import Build, Found, Work
from pier.builder.tree import LayerRef, Result, Tree
from pier.errors import NotFound
from pier.images.image import Image
from pier.oci import Manifest, Platform, Reference, decode_manifest, host_platform
from pier.oci.manifest import MAX_MANIFEST_BYTES

RESOLVE_MODE: Final = "image.resolvemode"
"""Attribute of the source: `pull`, or anything else for what is here."""


class ImageSource:
    """The kind `docker-image`."""

    type = ""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def find(self, vertex: Vertex, build: Build, say: Broadcast) -> Found:
        """Which image a name means. Raises NoSuchImage, InvalidReference, PierError."""
        assert isinstance(vertex.op, Source)
        mode = vertex.op.attrs.get(RESOLVE_MODE, "")
        image = await self.image(vertex.op.rest, vertex.platform, build, say, mode=mode)
        return Found(str(image.id), image)

    async def image(
        self, name: str, platform: Platform | None, build: Build, say: Broadcast, *, mode: str = ""
    ) -> Image:
        """The image that a name means for a platform, pulled where it has to be; within a build always the same.

        `mode`: `pull` looks at the registry first, whatever is here.
        """
        key = "image", name, str(platform or host_platform())
        async with build.lock(key):
            if key not in build.memory:
                build.memory[key] = await self._look_up(name, platform, build, say, pull=mode == "pull")
        image: Image = build.memory[key]
        return image

    async def _look_up(
        self, name: str, platform: Platform | None, build: Build, say: Broadcast, *, pull: bool
    ) -> Image:
        images, wanted = self._ground.images, platform or host_platform()
        if not pull:
            try:
                image = await images.get(name)
            except NotFound:
                pass
            else:
                fitting = image.for_platform(wanted)
                if fitting is not None or platform is None:
                    return fitting or image
        reference = Reference.parse(name)
        auth = await build.session.auth(reference.domain)
        asked = str(platform) if platform else ""
        async for message in images.pull(str(reference), platform=asked, auth=dict(auth) if auth else None):
            detail = message.get("progressDetail") or {}
            if message.get("id"):
                current, total = detail.get("current", 0), detail.get("total", 0)
                say.counted(message["id"], message.get("status", ""), current, total)
        return await images.get(name, str(wanted))

    async def fetch(self, work: Work, found: Found) -> Result:
        return await self._ground.in_thread(tree_of, self._ground, found.pinned)


def tree_of(ground: Ground, image: Image) -> Tree:
    """An image's files. Blocks. Raises ContentNotFound, LayerNotFound."""
    raw = ground.content.read(image.manifest.digest, limit_bytes=MAX_MANIFEST_BYTES)
    document = decode_manifest(raw, media_type=image.manifest.media_type, what=f"manifest {image.manifest.digest}")
    assert isinstance(document, Manifest)
    diff_ids = image.config.rootfs.diff_ids
    tree = Tree(tuple(LayerRef(*pair) for pair in zip(diff_ids, document.layers, strict=True)))
    for chain_id in tree.chain:
        if not ground.snapshots.has_layer(chain_id):
            raise layers.LayerNotFound(chain_id=chain_id)
    return tree
