"""From a Dockerfile to a tree and the configuration of its image: read, compiled, solved."""

from __future__ import annotations

from dataclasses import dataclass

from pier.builder.dockerfile.compile import Compiled, compile_dockerfile
from pier.builder.dockerfile.instructions import Dockerfile
from pier.builder.dockerfile.options import Options
from pier.builder.progress import Warned
from pier.builder.resolving import ImageResolver
from pier.builder.service import BuildService
from pier.builder.solver import Build
from pier.builder.tree import SCRATCH, Folder, Tree


@dataclass(frozen=True, slots=True)
class Built:
    """What came of a Dockerfile."""

    compiled: Compiled
    tree: Tree


async def compiled(service: BuildService, build: Build, file: Dockerfile, options: Options) -> Compiled:
    """The graph of a Dockerfile; what its checks found is told. Raises DockerfileError, NoSuchImage, PierError."""
    resolver = ImageResolver(service.images, build, options.target_platform)
    result = await compile_dockerfile(file, options, resolver)
    for warning in result.warnings:
        build.say(Warned(None, str(warning)))
    if result.unused_args:
        build.say(Warned(None, f"One or more build-args {sorted(result.unused_args)} were not consumed"))
    return result


async def built(service: BuildService, build: Build, wanted: Compiled) -> Built:
    """The tree of a graph. Raises StepFailed."""
    if wanted.output is None:
        return Built(wanted, SCRATCH)
    [result] = await service.solve(build, [wanted.output])
    tree = await service.as_tree(result) if isinstance(result, Folder) else result
    return Built(wanted, tree)
