"""Stages of a Dockerfile with their FROM lines' variables put in, connected, and the one that is to be built. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pier.builder.dockerfile import instructions as i
from pier.builder.dockerfile import lint
from pier.builder.dockerfile.casing import check_file, check_from_args
from pier.builder.dockerfile.lint import Linter
from pier.builder.dockerfile.named_contexts import NamedContext, find_context
from pier.builder.dockerfile.options import Options
from pier.builder.dockerfile.scope import GlobalArgs, global_args, platform_args
from pier.builder.dockerfile.shell import BadWord, Expansion, Lexer
from pier.builder.dockerfile.source import DockerfileError, meant
from pier.builder.dockerfile.stages import StageNode, Stages, refuse_circles
from pier.oci import Platform
from pier.oci.platform import InvalidPlatform


@dataclass(frozen=True, slots=True)
class Plan:
    file: i.Dockerfile
    options: Options
    lexer: Lexer
    args: GlobalArgs
    stages: Stages
    target: StageNode
    target_platform: Platform
    contexts: Mapping[int, NamedContext]
    """`id()` of a stage's node -> the context that stands in for it."""


def make_plan(file: i.Dockerfile, options: Options, linter: Linter) -> Plan:
    check_file(file, linter)
    lexer = Lexer(escape=file.escape)
    target_platform = options.target_platform or options.build_platform
    if target_platform.os != "linux":
        raise DockerfileError(f"images for {target_platform.os} cannot be built here: only those for linux can")
    target_name = options.target or file.stages[-1].start.stage
    predefined = platform_args(options.build_platform, target_platform, target_name, options.build_args)
    check_from_args(file, lexer, predefined, linter)
    args = global_args(predefined, file.global_args, options.build_args, lexer)
    stages = Stages()
    contexts: dict[int, NamedContext] = {}
    for number, stage in enumerate(file.stages):
        node = _node(number, stage, args, lexer, linter)
        context = find_context(options, node.name) if node.name else None
        if context is not None:
            node.context = node.name
            contexts[id(node)] = context
        stages.add(node)
    for node, stage in zip(list(stages.nodes), file.stages, strict=True):
        if node.context is None:
            node.steps = [stages.connect(node, instruction) for instruction in stage.instructions]
    refuse_circles(stages.nodes)
    if len(stages.nodes) == 1:
        stages.nodes[0].label = ""
    target = stages.target(options.target)
    return Plan(file, options, lexer, args, stages, target, target_platform, contexts)


def _node(number: int, stage: i.Stage, args: GlobalArgs, lexer: Lexer, linter: Linter) -> StageNode:
    start = stage.start
    base = _expanded_from(start, start.base, args, lexer, linter)
    if not base.text:
        raise DockerfileError(f"base name ({start.base}) should not be blank", at=[start.source])
    node = StageNode(
        base_name=base.text,
        at=start.source,
        name=start.stage,
        label=start.stage or f"stage-{number}",
        start=start,
        used_args=set(base.matched),
    )
    if start.platform:
        found = _expanded_from(start, start.platform, args, lexer, linter)
        node.used_args |= found.matched
        _check_platform(start, found, args, linter)
        node.platform = _platform(start, found, args)
    return node


def _expanded_from(start: i.From, word: str, args: GlobalArgs, lexer: Lexer, linter: Linter) -> Expansion:
    try:
        found = lexer.expand(word, args.values)
    except BadWord as fault:
        raise DockerfileError(str(fault), at=[start.source]) from None
    known = {*args.values, *args.info}
    for name in sorted(found.unmatched - known):
        detail = meant(f"FROM argument '{name}' is not declared", name, sorted(known))
        linter.report(lint.UNDEFINED_ARG_IN_FROM, detail, start.source)
    return found


def _check_platform(start: i.From, found: Expansion, args: GlobalArgs, linter: Linter) -> None:
    if found.matched == {"TARGETPLATFORM"} and not found.unmatched:
        if found.text == args.values.get("TARGETPLATFORM"):
            detail = (
                f"Setting platform to predefined {start.platform} in FROM is redundant as this is the default behavior"
            )
            linter.report(lint.REDUNDANT_TARGET_PLATFORM, detail, start.source)
    elif not found.matched and not found.unmatched:
        try:
            platform = Platform.parse(found.text)
        except InvalidPlatform:
            return
        if platform.os not in start.stage and platform.architecture not in start.stage:
            detail = f'FROM --platform flag should not use constant value "{found.text}"'
            linter.report(lint.FROM_PLATFORM_FLAG_CONST_DISALLOWED, detail, start.source)


def _platform(start: i.From, found: Expansion, args: GlobalArgs) -> Platform:
    if not found.text:
        message = f"empty platform value from expression {start.platform}"
        for name in sorted(found.unmatched):
            message = meant(message, name, sorted(args.values))
        raise DockerfileError(message, at=[start.source])
    try:
        platform = Platform.parse(found.text)
    except InvalidPlatform as error:
        raise DockerfileError(
            f"failed to parse platform {start.platform}: {error.message}", at=[start.source]
        ) from None
    if platform.os != "linux":
        raise DockerfileError(
            f"stages for {platform.os} cannot be built here: only those for linux can", at=[start.source]
        )
    return platform
