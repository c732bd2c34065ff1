"""Compilation without a world: a resolver that knows a few images, and short ways to look at a graph."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from pier.builder.dockerfile.compile import Compiled, compile_dockerfile
from pier.builder.dockerfile.options import Options, ResolvedImage
from pier.builder.dockerfile.parse import parse
from pier.builder.graph import Exec, File, Output, Source, Vertex, below
from pier.errors import NotFound
from pier.oci import Digest, Platform
from pier.oci.image_config import History, ImageConfig, RootFS, RunConfig

AMD64 = Platform(os="linux", architecture="amd64")
ARM64 = Platform(os="linux", architecture="arm64")
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def image(config: RunConfig | None = None, platform: Platform = AMD64) -> ImageConfig:
    return ImageConfig(
        created="2020-01-01T00:00:00Z",
        architecture=platform.architecture,
        os=platform.os,
        variant=platform.variant,
        config=config or RunConfig(env=[PATH], cmd=["sh"]),
        rootfs=RootFS(diff_ids=[Digest.of(b"layer")]),
        history=[History(created="2020-01-01T00:00:00Z", created_by="base")],
    )


class Images:
    """A resolver; `asked` are the images that were wanted."""

    def __init__(self, known: Mapping[str, ImageConfig]) -> None:
        self._known = {f"docker.io/library/{name}:latest": config for name, config in known.items()}
        self.asked: list[tuple[str, str]] = []

    async def resolve(self, reference: str, platform: Platform, mode: str) -> ResolvedImage:
        self.asked.append((reference, str(platform)))
        if reference not in self._known:
            raise NotFound(f"{reference}: not found")
        return ResolvedImage(reference, self._known[reference])


def compiled(text: str, images: Images | None = None, /, **options: Any) -> Compiled:
    wanted = Options(**{"build_platform": AMD64, **options})
    known = images or Images({"busybox": image()})
    return asyncio.run(compile_dockerfile(parse(text.encode()), wanted, known))


def steps(found: Compiled | Output | None) -> list[Vertex]:
    """Every vertex, those that others need first."""
    output = found.output if isinstance(found, Compiled) else found
    return list(below([output])) if output is not None else []


def names(found: Compiled) -> list[str]:
    return [vertex.name for vertex in steps(found)]


def last(found: Compiled) -> Any:
    """The operation of the last step."""
    assert found.output is not None
    return found.output.vertex.op


def execs(found: Compiled) -> list[Exec]:
    return [vertex.op for vertex in steps(found) if isinstance(vertex.op, Exec)]


def files(found: Compiled) -> list[File]:
    return [vertex.op for vertex in steps(found) if isinstance(vertex.op, File)]


def sources(found: Compiled) -> list[Source]:
    return [vertex.op for vertex in steps(found) if isinstance(vertex.op, Source)]


def history(found: Compiled) -> list[str]:
    return [entry.created_by for entry in found.image.history[1:]]
