"""Which parts of an instruction have variables (Dockerfile reference, "Environment replacement")."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from pier.builder.dockerfile import instructions as i
from pier.builder.dockerfile.heredoc import Heredoc

Expand = Callable[[str], str]
AnyInstruction = TypeVar("AnyInstruction", bound=i.Instruction)


def expanded(  # noqa: PLR0911  # a table of the language
    instruction: AnyInstruction, expand: Expand, expand_plain: Expand
) -> AnyInstruction:
    """The instruction with its variables put in, as far as that does not depend on its own first values.

    `expand` takes quotes away, `expand_plain`, for the content of files, leaves them. Left as they are: ARG, EXPOSE and
    RUN, whose words are expanded where they are used; CMD, ENTRYPOINT, HEALTHCHECK and ONBUILD, whose variables are for
    the container; SHELL.
    """
    replace = msgspec.structs.replace
    match instruction:
        case i.Env() | i.Label():
            pairs = tuple(i.Pair(expand(pair.name), expand(pair.value), pair.legacy) for pair in instruction.pairs)
            return replace(instruction, pairs=pairs)
        case i.Transfer():
            common = replace(
                instruction,
                chown=expand(instruction.chown),
                chmod=expand(instruction.chmod),
                sources=tuple(map(expand, instruction.sources)),
                dest=expand(instruction.dest),
                exclude=tuple(map(expand, instruction.exclude)),
                contents=tuple(_content(heredoc, expand_plain) for heredoc in instruction.contents),
            )
            return replace(common, checksum=expand(common.checksum)) if isinstance(common, i.Add) else common
        case i.Workdir():
            return replace(instruction, path=expand(instruction.path))
        case i.User():
            return replace(instruction, user=expand(instruction.user))
        case i.Volume():
            return replace(instruction, paths=tuple(map(expand, instruction.paths)))
        case i.StopSignal():
            return replace(instruction, signal=expand(instruction.signal))
    return instruction


def _content(heredoc: Heredoc, expand_plain: Expand) -> Heredoc:
    if not heredoc.expand:
        return heredoc
    return msgspec.structs.replace(heredoc, content=expand_plain(heredoc.text), chomp=False)
