"""From a Dockerfile to a tree and the configuration of its image: read, compiled, solved."""

from __future__ import annotations

from dataclasses import dataclass

from pier.builder.dockerfile.compile import Compiled, compile_dockerfile
from pier.builder.dockerfile.instructions import Dockerfile
from pier.builder.dockerfile.lint import CheckOptions, Linter, Warning
from pier.builder.dockerfile.options import Options, check_text
from pier.builder.graph import Location, Position
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
    linter = Linter(CheckOptions.parse(check_text(options, file.check)))
    try:
        result = await compile_dockerfile(file, options, resolver, linter)
    finally:  # where the file is refused, too: what was found may be why
        for warning in linter.warnings:
            _tell_once(build, _told(warning))
    if result.unused_args:
        names = ", ".join(sorted(result.unused_args))
        _tell_once(build, Warned(None, f"One or more build-args [{names}] were not consumed"))
    return result


def _tell_once(build: Build, warned: Warned) -> None:
    """A file that is compiled for several platforms has its faults for each."""
    key = "warned", warned.text
    if key not in build.memory:
        build.memory[key] = warned
        build.say(warned)


def _told(warning: Warning) -> Warned:
    """What a check has found, as BuildKit words it."""
    place, rule = warning.at, warning.rule
    location = Location(place.file, ((Position(place.first_line), Position(place.last_line)),))
    text = f"{rule.name}: {warning.detail} (line {place.first_line})"
    return Warned(None, text, (rule.description,), rule.url, location)


async def built(service: BuildService, build: Build, wanted: Compiled) -> Built:
    """The tree of a graph. Raises StepFailed."""
    if wanted.output is None:
        return Built(wanted, SCRATCH)
    [result] = await service.solve(build, [wanted.output])
    tree = await service.as_tree(result) if isinstance(result, Folder) else result
    return Built(wanted, tree)
