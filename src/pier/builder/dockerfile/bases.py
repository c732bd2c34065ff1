"""Where stages begin: the configurations of base images, asked for all at once, and what their ONBUILD triggers add."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pier.builder.dockerfile import instructions as i
from pier.builder.dockerfile.named_contexts import NamedContext, find_context
from pier.builder.dockerfile.options import Resolver
from pier.builder.dockerfile.parse import parse_trigger
from pier.builder.dockerfile.plan import Plan
from pier.builder.dockerfile.source import DockerfileError, meant
from pier.builder.dockerfile.stages import SCRATCH, StageNode, reachable, refuse_circles
from pier.builder.dockerfile.state import empty_image
from pier.errors import PierError
from pier.oci import Platform
from pier.oci.image_config import ImageConfig
from pier.oci.reference import InvalidReference, Reference

COMMON_IMAGES: Final = ("alpine", "busybox", "centos", "debian", "fedora", "golang", "ubuntu")


@dataclass(frozen=True, slots=True)
class Base:
    """Where a stage begins that stands on no other stage."""

    image: ImageConfig
    platform: Platform
    reference: str = ""
    """Of an image that has layers."""
    context: NamedContext | None = None
    """Files that are no image."""
    original: ImageConfig | None = None
    """The image's configuration as it came."""


async def resolve_bases(plan: Plan, resolver: Resolver) -> dict[int, Base]:
    """Base of each stage that the target needs, by `id()` of its node; the stages' ONBUILD triggers are added."""
    bases: dict[int, Base] = {}
    while True:
        wanted = plan.stages.nodes if plan.options.all_stages else reachable(plan.target)
        missing = [node for node in wanted if node.base is None and id(node) not in bases]
        found = await _all_bases(plan, missing, resolver)
        bases |= {id(node): base for node, base in zip(missing, found, strict=True)}
        further = [_add_triggers(plan, node, bases) for node in wanted]
        if not any(further):
            return bases


async def _all_bases(plan: Plan, nodes: Sequence[StageNode], resolver: Resolver) -> list[Base]:
    """Side by side; the first that fails ends all."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_base(plan, node, resolver)) for node in nodes]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def _add_triggers(plan: Plan, node: StageNode, bases: Mapping[int, Base]) -> bool:
    """Put the ONBUILD triggers of what a stage stands on before its instructions; whether that needs further stages."""
    if node.triggers_added or node.implicit or node.context is not None:
        return False
    node.triggers_added = True
    if node.base is None:
        triggers = bases[id(node)].image.config.on_build
    else:
        triggers = [each.instruction.trigger for each in node.base.steps if isinstance(each.instruction, i.Onbuild)]
    added = [plan.stages.connect(node, parse_trigger(each, node.at), onbuild=True) for each in triggers]
    node.steps = [*added, *node.steps]
    further = any(source is not None for step in added for source in step.sources)
    if further:
        refuse_circles([node])
    return further


async def _base(plan: Plan, node: StageNode, resolver: Resolver) -> Base:
    options = plan.options
    platform = node.platform or plan.target_platform
    context = plan.contexts.get(id(node)) or find_context(options, node.base_name)
    if context is not None and context.reference is None:
        return Base(empty_image(platform), platform, context=context)
    if node.base_name == SCRATCH and context is None:
        return Base(empty_image(plan.target_platform), plan.target_platform)
    written = node.base_name if context is None else str(context.reference)
    try:
        reference = str(Reference.parse(written))
        found = await resolver.resolve(reference, platform, options.image_resolve_mode)
    except InvalidReference as error:
        message = f'failed to parse stage name "{written}": {error.message}'
        raise DockerfileError(message, at=[node.at]) from None
    except PierError as error:
        message = meant(f"{written}: {error.message}", written, [*plan.stages.names(), *COMMON_IMAGES])
        failure = DockerfileError(message, at=[node.at])
        failure.status = error.status
        raise failure from error
    if found.config.os not in ("", "linux"):
        raise DockerfileError(
            f"{written} is an image for {found.config.os}: only those for linux can be built upon", at=[node.at]
        )
    if node.platform is None and options.target_platform is None:
        platform = _as_it_is(found.config, platform)
    empty = not found.config.rootfs.diff_ids and all(entry.empty_layer for entry in found.config.history)
    return Base(found.config, platform, reference="" if empty else found.reference, original=found.config)


def _as_it_is(image: ImageConfig, wanted: Platform) -> Platform:
    """Nobody asked for a platform: the base image's own counts."""
    if (image.os, image.architecture) == (wanted.os, wanted.architecture) or not image.os or not image.architecture:
        return wanted
    return image.platform
