"""The trees of a build, with what makes images of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pier.builder.dockerfile.state import empty_image
from pier.builder.tree import Result
from pier.oci import ImageConfig, Platform
from pier.oci.platform import host_platform

__all__ = ["PlatformResult", "Results"]


@dataclass(frozen=True, slots=True)
class PlatformResult:
    """One tree."""

    tree: Result
    config: ImageConfig | None = None
    """Of its image, as the frontend gives it; None: it has none."""
    platform: Platform | None = None
    """None: the builder's own."""
    squash_from: int | None = None
    """Its layers from this number on become one."""

    @property
    def target(self) -> Platform:
        return self.platform or host_platform()

    @property
    def image(self) -> ImageConfig:
        return self.config if self.config is not None else empty_image(self.target)


@dataclass(frozen=True, slots=True)
class Results:
    """One result, under the name "", or one for each platform, under the platform's."""

    parts: Mapping[str, PlatformResult]
    epoch_s: int | None = None
    """SOURCE_DATE_EPOCH of the build."""
    name: str = ""
    """What the frontend calls the image."""
    carry_cache: bool = False
    """Its images tell which steps made their layers (`--cache-to type=inline`)."""

    @property
    def several(self) -> bool:
        """Are they told apart by their platforms, be it one alone?"""
        return list(self.parts) != [""]
