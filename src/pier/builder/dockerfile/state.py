"""What a stage is after each of its instructions: files, environment, image configuration, history."""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from pier.builder.dockerfile.instructions import Definition, Instruction
from pier.builder.dockerfile.lint import Linter
from pier.builder.dockerfile.options import Options
from pier.builder.dockerfile.scope import ArgInfo, GlobalArgs
from pier.builder.dockerfile.shell import BadWord, Lexer
from pier.builder.dockerfile.source import DockerfileError, SourceRange
from pier.builder.dockerfile.stages import StageNode
from pier.builder.graph import Location, Note, Output, Position, ProxyEnv
from pier.model.time import rfc3339_nano
from pier.oci import Platform
from pier.oci.image_config import MAX_CONFIG_BYTES, MAX_HISTORY, History, ImageConfig, RootFS, RunConfig

HISTORY_COMMENT: Final = "buildkit.dockerfile.v0"
DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHELL: Final = ("/bin/sh", "-c")


@dataclass(frozen=True, slots=True)
class Shared:
    """What all stages of one compilation have in common."""

    options: Options
    linter: Linter
    lexer: Lexer
    global_args: GlobalArgs
    target_platform: Platform
    proxy: ProxyEnv | None
    context: Output
    """The build context."""
    epoch_s: int | None
    """`SOURCE_DATE_EPOCH`, Unix seconds."""


@dataclass(slots=True)
class Secret:
    """For outlines."""

    id: str
    required: bool
    at: SourceRange


@dataclass(slots=True)
class StageState:
    """Changed by one instruction after another."""

    node: StageNode
    shared: Shared
    platform: Platform
    output: Output | None
    """The files; None: none at all."""
    image: ImageConfig
    base_image: ImageConfig | None = None
    """What the first FROM gave, as it came."""
    env: dict[str, str] = field(default_factory=dict)
    """Of RUN steps: ENV and ARG."""
    cwd: str = "/"
    user: str = ""
    build_args: list[Definition] = field(default_factory=list)
    """With values."""
    workdir_set: bool = False
    used_once: dict[str, Instruction] = field(default_factory=dict)
    """CMD, ENTRYPOINT, HEALTHCHECK: the last one of this stage."""
    context_paths: set[str] = field(default_factory=set)
    """What it takes from the build context; `/` is all of it."""
    known_folders: set[str] = field(default_factory=set)
    """Folders that its own instructions have made, or that its base image says it has."""
    commands: list[str] = field(default_factory=list)
    """Of its RUN instructions: what they name may be a folder they have made."""
    history_size: int = 0
    """Characters of the entries made so far."""
    steps_done: int = 0
    onbuild: bool = False
    """The current instruction comes from a trigger."""
    arg_info: dict[str, ArgInfo] = field(default_factory=dict)
    arg_uses: set[str] = field(default_factory=set)
    secrets: dict[str, Secret] = field(default_factory=dict)
    ssh: dict[str, Secret] = field(default_factory=dict)

    # --- image

    @property
    def config(self) -> RunConfig:
        return self.image.config

    def configure(self, **fields: Any) -> None:
        self.image = msgspec.structs.replace(self.image, config=msgspec.structs.replace(self.image.config, **fields))

    def remember(self, text: str, *, layer: bool = False, step: bool = False) -> None:
        """A history entry; `step`: the builder made files for it."""
        self.history_size += len(text)
        if len(self.image.history) >= MAX_HISTORY or self.history_size > MAX_CONFIG_BYTES:
            raise DockerfileError(
                f"the image's history would have more than {MAX_HISTORY} entries or {MAX_CONFIG_BYTES} characters",
                at=[self.node.at],
            )
        created = _rfc3339(self.shared.epoch_s) if self.shared.epoch_s is not None else ""
        entry = History(
            created=created,
            created_by=f"{text} # buildkit" if step else text,
            comment=HISTORY_COMMENT,
            empty_layer=not layer,
        )
        self.image = msgspec.structs.replace(self.image, history=[*self.image.history, entry])

    def with_shell(self, words: Iterable[str]) -> tuple[str, ...]:
        return (*(self.config.shell or DEFAULT_SHELL), " ".join(words))

    def set_env(self, name: str, value: str) -> None:
        """For RUN steps; the one that was set last stands last."""
        self.env.pop(name, None)
        self.env[name] = value

    # --- steps

    @property
    def timestamp_ns(self) -> int:
        """Of files that a step makes; -1: none is prescribed."""
        return -1 if self.shared.epoch_s is None else self.shared.epoch_s * 1_000_000_000

    @property
    def ignore_cache(self) -> bool:
        options = self.shared.options
        return options.no_cache or (bool(self.node.name) and self.node.name in options.no_cache_stages)

    def note(self, instruction: Instruction, text: str) -> Note:
        """The note of the next step."""
        return Note(
            name=self.step_name(text),
            ignore_cache=self.ignore_cache,
            location=location(instruction.source),
            description={"com.docker.dockerfile.v1.command": instruction.code},
        )

    def step_name(self, text: str) -> str:
        """`[stage 2/5] RUN make`."""
        total = steps_of(self.node)
        if not total:
            return text
        self.steps_done += 1
        words = []
        if self.shared.options.several_platforms:
            words.append(f"{self.platform}{self._cross()}")
        if self.node.label:
            words.append(self.node.label)
        words.append(f"{self.steps_done:{len(str(total))}}/{total}")
        return f"[{' '.join(words)}] {'ONBUILD ' if self.onbuild else ''}{text}"

    def _cross(self) -> str:
        """`->arm64` where the stage compiles for another machine."""
        if "TARGETPLATFORM" not in self.env and "TARGETARCH" not in self.env:
            return ""
        target = self.shared.target_platform
        if target.key() == self.platform.key():
            return ""
        if target.os != self.platform.os:
            return f"->{target}"
        return f"->{target.architecture}" + (f"/{target.variant}" if target.variant else "")

    # --- words

    def fail(self, message: str, instruction: Instruction) -> DockerfileError:
        return DockerfileError(message, at=[instruction.source])

    def shown(self, code: str, env: Mapping[str, str], lexer: Lexer) -> str:
        """An instruction for people: keyword in capitals, variables put in where that is possible."""
        with contextlib.suppress(BadWord):
            code = lexer.expand(code, env).text
        keyword, space, rest = code.partition(" ")
        return keyword.upper() + space + rest

    def absolute(self, path: str) -> str:
        """A destination below the working directory; a slash or `/.` at its end stays."""
        written = "./" if path in ("", ".") else path
        made = posixpath.normpath(posixpath.join("/", self.cwd, written))
        made = "/" + made.lstrip("/")
        if written.endswith("/") and made != "/":
            return made + "/"
        if written.endswith("/."):
            return made.rstrip("/") + "/."
        return made


def steps_of(node: StageNode) -> int:
    """How many steps of a stage are counted in their names."""
    from_image = node.base is None and node.base_name != "scratch" and not node.implicit
    counted = sum(step.instruction.name in ("ADD", "COPY", "RUN", "WORKDIR") for step in node.steps)
    return int(from_image) + counted


def location(at: SourceRange) -> Location:
    return Location(at.file, ((Position(at.first_line), Position(at.last_line)),))


def empty_image(platform: Platform) -> ImageConfig:
    """Of `FROM scratch`."""
    return ImageConfig(
        architecture=platform.architecture,
        variant=platform.variant,
        os=platform.os,
        os_version=platform.os_version,
        os_features=list(platform.os_features),
        config=RunConfig(working_dir="/", env=[f"PATH={DEFAULT_PATH}"]),
        rootfs=RootFS(),
    )


def _rfc3339(seconds: int) -> str:
    return rfc3339_nano(seconds * 1_000_000_000) if seconds else "1970-01-01T00:00:00Z"
