"""A Dockerfile -> the build graph of one target for one platform, and the configuration of its image.

Stages and what they need are found first (`stages.py`), then the configurations of the base images that the target
needs are asked for, all at once, and what their ONBUILD triggers add; then each stage's instructions are gone through
in the file's order. That last part is pure and is done twice: only afterwards it is known which files of the build
context are used at all, and nothing else is to be sent.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from pier.builder.dockerfile import instructions as i
from pier.builder.dockerfile import lint
from pier.builder.dockerfile.bases import Base, resolve_bases
from pier.builder.dockerfile.configuring import CONFIGURING
from pier.builder.dockerfile.expand import expanded
from pier.builder.dockerfile.lint import CheckOptions, Linter, Warning
from pier.builder.dockerfile.options import Options, Resolver, check_text, with_build_args
from pier.builder.dockerfile.plan import Plan, make_plan
from pier.builder.dockerfile.running import run
from pier.builder.dockerfile.scope import platform_args, proxy_env, unused
from pier.builder.dockerfile.source import DockerfileError
from pier.builder.dockerfile.stages import SCRATCH, StageNode, Step, reachable
from pier.builder.dockerfile.state import DEFAULT_PATH, Shared, StageState, location
from pier.builder.dockerfile.transferring import USUAL_FOLDERS, transfer
from pier.builder.dockerfile.words_in_stage import expand_content, expand_word
from pier.builder.epoch import SOURCE_DATE_EPOCH, BadEpoch, parse_epoch
from pier.builder.graph import Note, Output, Source, Vertex
from pier.oci import Platform
from pier.oci.image_config import ImageConfig

CONTEXT: Final = "context"
BUILDERS_OWN: Final = (["docker", "dockerfile"], ["docker", "dockerfile-upstream"])
"""Frontends of `# syntax=` whose language is this one: how their names end, of whichever registry or mirror."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """What is to be built."""

    output: Output | None
    """The target's files; None: none at all (`FROM scratch` and nothing more)."""
    image: ImageConfig
    """Its history has an entry for each instruction; layers and times are for the exporter to fill in."""
    base_image: ImageConfig | None
    platform: Platform
    warnings: tuple[Warning, ...]
    unused_args: tuple[str, ...]
    """`--build-arg` that no ARG has taken."""
    target: StageState
    states: Mapping[int, StageState]
    """`id()` of a stage's node -> the stage at its end."""

    @property
    def epoch_s(self) -> int | None:
        """`SOURCE_DATE_EPOCH`, Unix seconds."""
        return self.target.shared.epoch_s


async def compile_dockerfile(
    file: i.Dockerfile, options: Options, resolver: Resolver, linter: Linter | None = None
) -> Compiled:
    """Raises DockerfileError, also for an image that the resolver does not find: with the line that wants it.

    `linter` gathers what the checks find, and has it when this raises, too.
    """
    options = with_build_args(options)
    _refuse_foreign_frontend(options.build_args.get("BUILDKIT_SYNTAX") or file.syntax)
    linter = linter or Linter(CheckOptions.parse(check_text(options, file.check)))
    plan = await asyncio.to_thread(make_plan, file, options, linter)
    images = await resolve_bases(plan, resolver)
    return await asyncio.to_thread(_compiled, plan, images, linter)


def _compiled(plan: Plan, images: Mapping[int, Base], linter: Linter) -> Compiled:
    first = _Pass(plan, images, linter, _context(plan.options, ()))
    first.run()
    linter.verdict()
    second = _Pass(plan, images, Linter(CheckOptions(skip_all=True)), _context(plan.options, first.context_paths()))
    second.run()
    return second.result(linter.warnings)


def _refuse_foreign_frontend(syntax: str) -> None:
    name = syntax.partition(" ")[0].partition("@")[0]
    name = name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name
    if name and name.split("/")[-2:] not in BUILDERS_OWN:
        raise DockerfileError(
            f"# syntax={syntax}: a frontend from an image is not run: the language here is that of docker/dockerfile, "
            "in every version; remove the line if the file is a plain Dockerfile"
        )


# --- sources


def _context(options: Options, paths: Sequence[str]) -> Output:
    """The build context, of which only `paths` are used; none named: all of it may be."""
    if options.main_context is not None:
        return options.main_context
    attrs = {"local.sharedkeyhint": CONTEXT}
    if paths:
        attrs["local.followpaths"] = json.dumps(list(paths))
    if options.ignore_patterns:
        attrs["local.excludepatterns"] = json.dumps(list(options.ignore_patterns))
    return Vertex(Source(f"local://{CONTEXT}", attrs), note=Note(name="[internal] load build context")).output()


# --- the stages


class _Pass:
    """One going through all instructions."""

    def __init__(self, plan: Plan, bases: Mapping[int, Base], linter: Linter, context: Output) -> None:
        self._plan = plan
        self._bases = bases
        self._linter = linter
        self._states: dict[int, StageState] = {}
        options = plan.options
        self._shared = Shared(
            options=options,
            linter=linter,
            lexer=plan.lexer,
            global_args=plan.args,
            target_platform=plan.target_platform,
            proxy=proxy_env(options.build_args),
            context=context,
            epoch_s=_epoch(plan),
        )

    def run(self) -> None:
        plan = self._plan
        wanted = {id(node) for node in reachable(plan.target)}
        for node in list(plan.stages.nodes):
            if node.implicit and id(node) in self._bases:
                self._states[id(node)] = self._begin(node)
        for node in list(plan.stages.nodes):
            if node.implicit or not (plan.options.all_stages or id(node) in wanted):
                continue
            state = self._begin(node)
            for step in node.steps:
                self._step(state, step)
            self._states[id(node)] = state

    def _begin(self, node: StageNode) -> StageState:
        if node.base is not None:
            return self._upon(node, self._states[id(node.base)])
        base = self._bases[id(node)]
        # where the image came from is no part of what is made of it
        bare = {"created": "", "container": "", "container_config": None, "docker_version": ""}
        image = msgspec.structs.replace(base.image, **bare)
        state = StageState(node, self._shared, base.platform, None, image, base.original)
        state.output = self._base_output(state, base)
        state.configure(on_build=[])
        if not any(each.partition("=")[0] == "PATH" for each in state.config.env):
            state.configure(env=[*state.config.env, f"PATH={DEFAULT_PATH}"])
        for each in state.config.env:
            name, _, value = each.partition("=")
            state.set_env(name, value)
        state.cwd = "/" + state.config.working_dir.lstrip("/")
        if base.original is not None:
            state.known_folders = {*USUAL_FOLDERS, state.cwd, *state.config.volumes}
        state.user = state.config.user
        if base.original is not None:
            self._check_image_platform(state)
        return state

    def _base_output(self, state: StageState, base: Base) -> Output | None:
        if base.context is not None:
            return base.context.output(base.platform)
        if not base.reference:
            return None
        node, mode = state.node, self._plan.options.image_resolve_mode
        note = Note(
            name=state.step_name(f"FROM {base.reference}"),
            location=location(node.at),
            description={"com.docker.dockerfile.v1.command": node.start.code} if node.start is not None else {},
        )
        source = Source(f"docker-image://{base.reference}", {"image.resolvemode": mode} if mode else {})
        return Vertex(source, platform=base.platform, note=note).output()

    def _check_image_platform(self, state: StageState) -> None:
        image, wanted = state.image.platform, state.platform
        if (image.os, image.architecture) != (wanted.os, wanted.architecture):
            name = state.node.base_name
            detail = f'Base image {name} was pulled with platform "{image}", expected "{wanted}" for current build'
            self._linter.report(lint.INVALID_BASE_IMAGE_PLATFORM, detail, state.node.at)

    def _upon(self, node: StageNode, base: StageState) -> StageState:
        state = StageState(node, self._shared, base.platform, base.output, base.image, base.base_image)
        state.configure(on_build=[])
        state.env = dict(base.env)
        state.cwd, state.user, state.workdir_set = base.cwd, base.user, base.workdir_set
        state.build_args = list(base.build_args)
        state.history_size = base.history_size
        state.known_folders = set(base.known_folders)
        state.commands = list(base.commands)
        return state

    def _step(self, state: StageState, step: Step) -> None:
        state.onbuild = step.onbuild
        instruction = expanded(
            step.instruction,
            lambda word: expand_word(state, step.instruction, word),
            lambda text: expand_content(state, step.instruction, text),
        )
        if isinstance(instruction, i.Run):
            state.commands.append(instruction.code)
            run(state, instruction, [self._mounted(state, instruction, source) for source in self._mount_sources(step)])
        elif isinstance(instruction, i.Copy | i.Add):
            source = step.sources[0] if step.sources else None
            output = self._shared.context if source is None else self._from(state, instruction, source)
            transfer(state, instruction, output, from_context=source is None)
        else:
            CONFIGURING[instruction.name](state, instruction)

    def _mount_sources(self, step: Step) -> list[StageNode | bool]:
        """For each mount a stage, True for the build context, False for an empty tree."""
        assert isinstance(step.instruction, i.Run)
        found: list[StageNode | bool] = []
        for text, source in zip(step.instruction.mounts, step.sources, strict=True):
            fields = {field.strip().lower() for field in text.split(",")}
            needs_none = fields & {"type=cache", "type=tmpfs", "type=secret", "type=ssh", f"from={SCRATCH}"}
            found.append(source if source is not None else not needs_none)
        return found

    def _mounted(self, state: StageState, instruction: i.Instruction, source: StageNode | bool) -> Output | None:
        if isinstance(source, StageNode):
            return self._from(state, instruction, source)
        return self._shared.context if source else None

    def _from(self, state: StageState, instruction: i.Instruction, source: StageNode) -> Output | None:
        found = self._states.get(id(source))
        if found is None:
            name = source.name or source.label
            message = (
                f'cannot copy from stage "{name}", it needs to be defined before current stage "{state.node.label}"'
            )
            raise state.fail(message, instruction)
        return found.output

    # --- what came of it

    def context_paths(self) -> list[str]:
        """What is used of the build context, without the slash at the beginning; empty: all of it."""
        paths = {path for state in self._states.values() for path in state.context_paths}
        return [] if "/" in paths else sorted(path.lstrip("/") for path in paths)

    def result(self, warnings: Sequence[Warning]) -> Compiled:
        plan = self._plan
        state = self._states.get(id(plan.target)) or self._begin(plan.target)
        used = {*plan.args.info, *(name for each in self._states.values() for name in each.arg_uses)}
        predefined = platform_args(plan.options.build_platform, plan.target_platform, "", {})
        return Compiled(
            output=state.output,
            image=self._finished(state),
            base_image=state.base_image,
            platform=state.platform,
            warnings=tuple(warnings),
            unused_args=tuple(unused(plan.options.build_args, used | set(predefined))),
            target=state,
            states=self._states,
        )

    def _finished(self, state: StageState) -> ImageConfig:
        options = self._plan.options
        if options.labels:
            state.configure(labels={**state.config.labels, **options.labels})
        image = state.image
        platform = options.target_platform
        if platform is not None:
            same = (platform.os, platform.architecture) == (image.os, image.architecture)
            image = msgspec.structs.replace(image, os=platform.os, architecture=platform.architecture)
            if platform.variant or not same:
                image = msgspec.structs.replace(image, variant=platform.variant)
            if platform.os_version or not same:
                image = msgspec.structs.replace(image, os_version=platform.os_version)
            if platform.os_features:
                image = msgspec.structs.replace(image, os_features=list(platform.os_features))
        normal = image.platform.normalised()
        return msgspec.structs.replace(image, os=normal.os, architecture=normal.architecture, variant=normal.variant)


def _epoch(plan: Plan) -> int | None:
    text = plan.options.build_args.get(SOURCE_DATE_EPOCH) or plan.args.values.get(SOURCE_DATE_EPOCH, "")
    try:
        return parse_epoch(text)
    except BadEpoch as error:
        raise DockerfileError(error.message) from None
