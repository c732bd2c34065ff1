"""Checks that need the file alone: names and casing of stages and instructions, comments, arguments of FROM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pier.builder.dockerfile import instructions as i
from pier.builder.dockerfile import lint
from pier.builder.dockerfile.gotext import quote
from pier.builder.dockerfile.lint import Linter
from pier.builder.dockerfile.scope import global_args
from pier.builder.dockerfile.shell import BadWord, Lexer
from pier.builder.dockerfile.source import DockerfileError, SourceRange
from pier.oci.reference import InvalidReference, Reference

RESERVED_STAGES = ("context", "scratch")


def check_file(file: i.Dockerfile, linter: Linter) -> None:
    for at in file.empty_continuations:
        linter.report(lint.NO_EMPTY_CONTINUATION, "Empty continuation line", at)
    for arg in file.global_args:
        _check_arg(arg, linter)
    for stage in file.stages:
        _check_from(stage.start, linter)
        for instruction in stage.instructions:
            if isinstance(instruction, i.Maintainer):
                detail = "Maintainer instruction is deprecated in favor of using label"
                linter.report(lint.MAINTAINER_DEPRECATED, detail, instruction.source)
            elif isinstance(instruction, i.Arg):
                _check_arg(instruction, linter)
    _check_stage_names(file, linter)
    _check_casing(file, linter)


def _check_from(start: i.From, linter: Linter) -> None:
    if start.stage_written != start.stage:
        detail = f"Stage name '{start.stage_written}' should be lowercase"
        linter.report(lint.STAGE_NAME_CASING, detail, start.source)
    keyword, as_word = start.keyword, start.as_written
    if as_word and _consistent(keyword) and as_word != ("as" if keyword.islower() else "AS"):
        detail = f"'{as_word}' and '{keyword}' keywords' casing do not match"
        linter.report(lint.FROM_AS_CASING, detail, start.source)
    if start.stage:
        _check_description("FROM", [start.stage], start.comments, start.source, linter)


def _check_arg(arg: i.Arg, linter: Linter) -> None:
    _check_description("ARG", [each.name for each in arg.definitions], arg.comments, arg.source, linter)


def _check_description(
    name: str, keys: Sequence[str], comments: Sequence[str], at: SourceRange, linter: Linter
) -> None:
    near = comments[-1].split(" ")[0] if comments else ""
    if not near or near in keys:
        return
    example = keys[0] if len(keys) == 1 else "<arg_key>"
    detail = f"Comment for {name} should follow the format: `# {example} <description>`"
    linter.report(lint.INVALID_DEFINITION_DESCRIPTION, detail, at)


def _check_stage_names(file: i.Dockerfile, linter: Linter) -> None:
    seen = set()
    for stage in file.stages:
        name = stage.start.stage
        if not name:
            continue
        if name in RESERVED_STAGES:
            detail = f"Stage name should not use the same name as reserved stage {quote(name)}"
            linter.report(lint.RESERVED_STAGE_NAME, detail, stage.start.source)
        if name in seen:
            detail = f"Duplicate stage name {quote(name)}, stage names should be unique"
            linter.report(lint.DUPLICATE_STAGE_NAME, detail, stage.start.source)
        seen.add(name)


def _consistent(word: str) -> bool:
    return word in (word.lower(), word.upper())


def _check_casing(file: i.Dockerfile, linter: Linter) -> None:
    """The casing of most instructions is the casing of all."""
    listed: list[i.Instruction] = []
    for stage in file.stages:
        listed += [stage.start, *stage.instructions]
    consistent = [each.keyword for each in listed if _consistent(each.keyword)]
    lower = sum(keyword.islower() for keyword in consistent)
    most_lower = lower > len(consistent) - lower
    casing = "lowercase" if most_lower else "uppercase"
    for each in listed:
        if each.keyword != (each.keyword.lower() if most_lower else each.keyword.upper()):
            detail = f"Command '{each.keyword}' should match the case of the command majority ({casing})"
            linter.report(lint.CONSISTENT_INSTRUCTION_CASING, detail, each.source)


def check_from_args(file: i.Dockerfile, lexer: Lexer, predefined: Mapping[str, str], linter: Linter) -> None:
    """Whether each base image has a name without anything on the command line."""
    try:
        defaults = global_args(predefined, file.global_args, {}, lexer).values
        names = [(stage.start, lexer.expand(stage.start.base, defaults).text) for stage in file.stages]
    except (BadWord, DockerfileError):
        return  # it fails with that soon enough
    for start, name in names:
        try:
            Reference.parse(name)
        except InvalidReference:
            detail = f"Default value for ARG {start.base} results in empty or invalid base image name"
            linter.report(lint.INVALID_DEFAULT_ARG_IN_FROM, detail, start.source)
