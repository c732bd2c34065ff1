"""A Dockerfile's text -> its stages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from pier.builder.dockerfile import instructions as i
from pier.builder.dockerfile.gotext import trim
from pier.builder.dockerfile.lines import LineReader, LogicalLine, decode, escape_token, find_directives
from pier.builder.dockerfile.readings import READINGS, unknown
from pier.builder.dockerfile.source import DockerfileError, Fault, SourceRange, SyntaxFault
from pier.builder.dockerfile.statement import Statement, split

DEFAULT_NAME: Final = "Dockerfile"
MAX_INSTRUCTIONS: Final = 10_000
"""An image's history has no more entries."""


def parse(data: bytes, name: str = DEFAULT_NAME) -> i.Dockerfile:
    """The whole file. Raises DockerfileError, for an instruction that cannot be read its child SyntaxFault."""
    text = decode(data, name)
    if not trim(text):
        raise DockerfileError("the Dockerfile cannot be empty" if not text else "file with no instructions")
    directives, skip = find_directives(text, name)
    escape = escape_token(directives, name)
    stages: list[tuple[i.From, list[i.Instruction]]] = []
    global_args: list[i.Arg] = []
    empty: list[SourceRange] = []
    reader = LineReader(text, name, escape=escape, skip=skip)
    for count, (instruction, continuations) in enumerate(_instructions(reader, escape), 1):
        empty += continuations
        if count > MAX_INSTRUCTIONS:
            message = f"{name} has more than the {MAX_INSTRUCTIONS} instructions a Dockerfile may have"
            raise DockerfileError(message, at=[instruction.source])
        if isinstance(instruction, i.From):
            stages.append((instruction, []))
        elif stages:
            stages[-1][1].append(instruction)
        elif isinstance(instruction, i.Arg):
            global_args.append(instruction)
        else:
            raise DockerfileError("no build stage in current context", at=[instruction.source])
    if not stages:
        raise DockerfileError("dockerfile contains no stages to build" if global_args else "file with no instructions")
    return i.Dockerfile(
        name=name,
        text=text,
        stages=tuple(i.Stage(start, tuple(body)) for start, body in stages),
        global_args=tuple(global_args),
        escape=escape,
        syntax=directives["syntax"].value if "syntax" in directives else "",
        check=directives["check"].value if "check" in directives else "",
        empty_continuations=tuple(empty),
    )


def parse_trigger(trigger: str, at: SourceRange) -> i.Instruction:
    """An ONBUILD trigger, which is blamed on `at`. Raises DockerfileError."""
    found = list(_instructions(LineReader(trigger, at.file, escape="\\"), "\\"))
    if len(found) != 1:
        raise DockerfileError("onbuild trigger should be a single expression", at=[at])
    return msgspec.structs.replace(found[0][0], source=at, comments=())


def _instructions(reader: LineReader, escape: str) -> Iterator[tuple[i.Instruction, list[SourceRange]]]:
    """(instruction, the lines that continued it with nothing), one by one."""
    for line in reader:
        try:
            statement = split(line.text, escape)
            read = READINGS.get(statement.name)
            if read is None:
                raise Fault(unknown(statement.keyword), len(line.text) - len(line.text.lstrip()))
            statement = _with_heredocs(statement, line, reader)
            instruction = read(statement)
        except Fault as fault:
            raise SyntaxFault(fault.reason, at=_blame(line, fault, reader.line)) from None
        empty = [SourceRange(line.file, reader.line, reader.line)] if line.empty_continuations else []
        yield instruction, empty


def _blame(line: LogicalLine, fault: Fault, last_line: int) -> SourceRange:
    """The instruction's lines from the one that is wrong on."""
    if fault.offset is None:
        return line.range(last_line)
    return msgspec.structs.replace(line.place(fault.offset), last_line=max(line.last_line, last_line))


def _with_heredocs(statement: Statement, line: LogicalLine, reader: LineReader) -> Statement:
    heredocs = []
    for heredoc in statement.heredocs_started():
        content = reader.heredoc(heredoc.name, chomp=heredoc.chomp)
        if content is None:
            opened = line.text.find("<<")
            raise Fault(f"unterminated heredoc: no line is {heredoc.name}", opened)
        heredocs.append(msgspec.structs.replace(heredoc, content=content))
    source = line.range(reader.line)
    return msgspec.structs.replace(statement, heredocs=tuple(heredocs), comments=line.comments, source=source)
