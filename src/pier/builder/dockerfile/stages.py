"""Stages as nodes: which one stands on which, which ones the target needs, and circles (trap 24). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from pier.builder.dockerfile import instructions as i
from pier.builder.dockerfile.mounts import MountKind, parse_mount
from pier.builder.dockerfile.source import DockerfileError, Fault, SourceRange, meant
from pier.oci import Platform

SCRATCH: Final = "scratch"


@dataclass(slots=True, eq=False)
class Step:
    """One instruction of a stage and the stages it takes files from."""

    instruction: i.Instruction
    sources: list[StageNode | None] = field(default_factory=list)
    """COPY: one; RUN: one for each mount, None where a mount needs none."""
    onbuild: bool = False


@dataclass(slots=True, eq=False)
class StageNode:
    base_name: str
    """Variables put in."""
    at: SourceRange
    name: str = ""
    label: str = ""
    """For people: the name, or `stage-0`; empty where there is but one."""
    start: i.From | None = None
    """None: an image that is only copied or mounted from."""
    platform: Platform | None = None
    base: StageNode | None = None
    steps: list[Step] = field(default_factory=list)
    used_args: set[str] = field(default_factory=set)
    """Global arguments in its FROM line."""
    context: str | None = None
    """A named context stands in for the stage."""
    triggers_added: bool = False

    @property
    def implicit(self) -> bool:
        return self.start is None

    def sources(self) -> Iterator[tuple[StageNode, i.Instruction]]:
        """(stage, the instruction that takes files from it)."""
        for step in self.steps:
            for source in step.sources:
                if source is not None:
                    yield source, step.instruction


class Stages:
    """All stages of a file, in its order, and images that are copied from behind them."""

    def __init__(self) -> None:
        self.nodes: list[StageNode] = []
        self._by_name: dict[str, StageNode] = {}

    def add(self, node: StageNode) -> None:
        if node.context is None:
            node.base = self._by_name.get(node.base_name)
        self.nodes.append(node)
        if node.name:
            self._by_name[node.name] = node

    def by_name(self, name: str) -> StageNode | None:
        return self._by_name.get(name.lower())

    def names(self) -> list[str]:
        return [node.label for node in self.nodes if node.label]

    def target(self, name: str) -> StageNode:
        """The stage to build. Raises DockerfileError."""
        if not name:
            return [node for node in self.nodes if not node.implicit][-1]
        found = self.by_name(name)
        if found is None and re.fullmatch(r"[0-9]{1,6}", name) and int(name) < len(self.nodes):
            found = self.nodes[int(name)]
        if found is None:
            raise DockerfileError(meant(f'target stage "{name}" could not be found', name, self.names()))
        return found

    def connect(self, node: StageNode, instruction: i.Instruction, *, onbuild: bool = False) -> Step:
        """The instruction as a step of the stage; stages and images it takes files from are found or added."""
        step = Step(instruction, onbuild=onbuild)
        if isinstance(instruction, i.Copy) and instruction.from_:
            if re.search(r"\$.", instruction.from_):
                raise DockerfileError(
                    "variable expansion is not supported for --from, define a new stage with FROM using ARG from "
                    "global scope as a workaround",
                    at=[instruction.source],
                )
            step.sources = [self._source(instruction.from_, instruction.source, numbers=True)]
        elif isinstance(instruction, i.Run):
            step.sources = [self._mount_source(text, instruction.source) for text in instruction.mounts]
        return step

    def _mount_source(self, text: str, at: SourceRange) -> StageNode | None:
        try:
            mount = parse_mount(re.sub(r"\$[^,\"]*", "0", text), lambda value: value)
        except Fault:
            # what variables make of it is judged when they have values; `from` has none
            mount = None
        from_ = mount.from_ if mount else _from_of(text)
        kind = mount.kind if mount else MountKind.BIND
        if not from_ or kind is MountKind.TMPFS or from_ == SCRATCH:
            return None
        return self._source(from_, at, numbers=False)

    def _source(self, name: str, at: SourceRange, *, numbers: bool) -> StageNode:
        if numbers and re.fullmatch(r"[+-]?[0-9]+", name):
            index = int(name) if len(name) < 10 else -1
            if not 0 <= index < len(self.nodes):
                raise DockerfileError(f"invalid stage index {name}", at=[at])
            return self.nodes[index]
        found = self.by_name(name)
        if found is None:
            found = StageNode(base_name=name, at=at)
            self.nodes.append(found)
        return found


def _from_of(text: str) -> str:
    match = re.search(r"(?:^|,)from=([^,]*)", text, re.IGNORECASE)
    return match[1] if match else ""


def reachable(target: StageNode) -> list[StageNode]:
    """The stages that a stage needs, itself among them."""
    found: dict[int, StageNode] = {}
    waiting = [target]
    while waiting:
        node = waiting.pop()
        if id(node) in found:
            continue
        found[id(node)] = node
        waiting += [source for source, _ in node.sources()]
        if node.base is not None:
            waiting.append(node.base)
    return list(found.values())


def refuse_circles(nodes: Iterable[StageNode]) -> None:
    """Raises DockerfileError that names every step of a circle of stages that take files from each other."""
    done: set[int] = set()
    for start in nodes:
        if id(start) not in done:
            _walk(start, done)


def _walk(start: StageNode, done: set[int]) -> None:
    """Depth first without recursion: a file may have thousands of stages."""
    path: list[StageNode] = [start]
    reasons: list[i.Instruction] = []
    edges = [_edges(start)]
    while path:
        edge = next(edges[-1], None)
        if edge is None:
            done.add(id(path.pop()))
            edges.pop()
            if reasons:
                reasons.pop()
            continue
        node, reason = edge
        if node in path:
            first = path.index(node)
            raise _circle(path[first:], [*reasons[first:], reason])
        if id(node) not in done:
            path.append(node)
            reasons.append(reason)
            edges.append(_edges(node))


def _edges(node: StageNode) -> Iterator[tuple[StageNode, i.Instruction]]:
    yield from node.sources()
    if node.base is not None and node.start is not None:
        yield node.base, node.start


def _circle(path: Sequence[StageNode], reasons: Sequence[i.Instruction]) -> DockerfileError:
    """`path[n]` needs `path[n + 1]` by `reasons[n]`, the last one needs the first."""
    names = [node.name or node.label or node.base_name for node in path]
    chain = " -> ".join([*names, names[0]])
    lines = ", ".join(
        f"line {reason.source.first_line}: {name} needs {names[(number + 1) % len(names)]} by {reason.code}"
        for number, (name, reason) in enumerate(zip(names, reasons, strict=True))
    )
    message = f"circular dependency detected on stage: {names[0]} ({chain}; {lines})"
    return DockerfileError(message, at=[reason.source for reason in reasons])
