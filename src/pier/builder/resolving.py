"""Base images' configurations for the compiler: what a FROM means now, asked once a build."""

from __future__ import annotations

import time

from pier.builder.dockerfile.options import ResolvedImage
from pier.builder.graph import Note, Source, Vertex
from pier.builder.progress import Broadcast, Finished, Started, Step
from pier.builder.solver import Build
from pier.builder.sources.image import ImageSource
from pier.errors import PierError
from pier.images.image import Image
from pier.oci import Platform, Reference


class ImageResolver:
    """The compiler's `Resolver` for one build."""

    def __init__(self, images: ImageSource, build: Build, platform: Platform | None) -> None:
        """`platform`: the one the client has asked for; None: an image of another one is taken as it is."""
        self._images = images
        self._build = build
        self._platform = platform

    async def resolve(self, reference: str, platform: Platform, mode: str) -> ResolvedImage:
        """Raises NoSuchImage, InvalidReference, RegistryError, PierError."""
        name = str(Reference.parse(reference))
        note = Note(f"[internal] load metadata for {name}")
        vertex = Vertex(Source(f"metadata://{name}"), platform=platform, note=note)
        step, broadcast = Step.of(vertex), Broadcast(Step.of(vertex))
        if step.digest in self._build.told:  # two stages of one base: it is asked for once, and told of once
            return ResolvedImage(reference, (await self._image(reference, platform, broadcast, mode)).config)
        broadcast.join(self._build.say, vertex)
        self._build.say(Started(step, time.time_ns()))
        try:
            image = await self._image(reference, platform, broadcast, mode)
        except PierError as error:
            self._build.say(Finished(step, time.time_ns(), error=error.message))
            raise
        self._build.say(Finished(step, time.time_ns()))
        return ResolvedImage(reference, image.config)

    async def _image(self, reference: str, platform: Platform, say: Broadcast, mode: str) -> Image:
        wanted = platform if self._platform else None
        return await self._images.image(reference, wanted, self._build, say, mode=mode)
