"""Every instruction of the language as a value (Dockerfile reference). Variables in them are not expanded yet."""

from __future__ import annotations

import msgspec

from pier.builder.dockerfile.heredoc import Heredoc
from pier.builder.dockerfile.source import SourceRange
from pier.oci.image_config import HealthConfig


class Instruction(msgspec.Struct, frozen=True, kw_only=True):
    source: SourceRange
    keyword: str
    """As written: `RUN`, `run`."""
    code: str
    """The whole line, continuations joined, without heredocs' bodies."""
    comments: tuple[str, ...] = ()
    """The comment lines above, without `#`; an empty line is an empty comment."""

    @property
    def name(self) -> str:
        return self.keyword.upper()


class Pair(msgspec.Struct, frozen=True):
    """`name=value` of ENV and LABEL."""

    name: str
    value: str
    legacy: bool = False
    """Written `name value`."""


class Definition(msgspec.Struct, frozen=True):
    """One name of ARG."""

    name: str
    default: str | None = None
    comment: str = ""
    """Its description: a comment above that begins with its name."""


class Command(msgspec.Struct, frozen=True):
    """A command line in one of its two forms."""

    words: tuple[str, ...]
    shell_form: bool
    """One word for the shell, else a program and its arguments."""


class From(Instruction, frozen=True, kw_only=True):
    base: str
    stage: str = ""
    """The stage's name in lower case."""
    stage_written: str = ""
    as_written: str = ""
    """The keyword `AS`."""
    platform: str = ""
    description: str = ""


class Arg(Instruction, frozen=True, kw_only=True):
    definitions: tuple[Definition, ...]


class Env(Instruction, frozen=True, kw_only=True):
    pairs: tuple[Pair, ...]


class Label(Instruction, frozen=True, kw_only=True):
    pairs: tuple[Pair, ...]


class Transfer(Instruction, frozen=True, kw_only=True):
    """What COPY and ADD have in common."""

    sources: tuple[str, ...]
    contents: tuple[Heredoc, ...] = ()
    """Files written down in the Dockerfile itself."""
    dest: str
    chown: str = ""
    chmod: str = ""
    link: bool = False
    exclude: tuple[str, ...] = ()


class Copy(Transfer, frozen=True, kw_only=True):
    from_: str = ""
    """A stage, its number, an image or a named context; empty: the build context."""
    parents: bool = False


class Add(Transfer, frozen=True, kw_only=True):
    keep_git_dir: bool | None = None
    checksum: str = ""
    unpack: bool | None = None
    """None: local archives are unpacked, remote ones are not."""


class Run(Instruction, frozen=True, kw_only=True):
    command: Command
    heredocs: tuple[Heredoc, ...] = ()
    mounts: tuple[str, ...] = ()
    """The values of `--mount`, as written."""
    network: str = ""
    security: str = ""
    devices: tuple[str, ...] = ()


class Cmd(Instruction, frozen=True, kw_only=True):
    command: Command


class Entrypoint(Instruction, frozen=True, kw_only=True):
    command: Command


class Healthcheck(Instruction, frozen=True, kw_only=True):
    check: HealthConfig


class Shell(Instruction, frozen=True, kw_only=True):
    words: tuple[str, ...]


class Expose(Instruction, frozen=True, kw_only=True):
    ports: tuple[str, ...]


class Volume(Instruction, frozen=True, kw_only=True):
    paths: tuple[str, ...]


class User(Instruction, frozen=True, kw_only=True):
    user: str


class Workdir(Instruction, frozen=True, kw_only=True):
    path: str


class StopSignal(Instruction, frozen=True, kw_only=True):
    signal: str


class Maintainer(Instruction, frozen=True, kw_only=True):
    author: str


class Onbuild(Instruction, frozen=True, kw_only=True):
    trigger: str
    """The instruction that a build upon this image runs first, heredocs and all."""


class Stage(msgspec.Struct, frozen=True):
    start: From
    instructions: tuple[Instruction, ...]


class Dockerfile(msgspec.Struct, frozen=True):
    name: str
    text: str
    stages: tuple[Stage, ...]
    global_args: tuple[Arg, ...]
    """Those before the first FROM."""
    escape: str = "\\"
    syntax: str = ""
    """The value of `# syntax=`."""
    check: str = ""
    """The value of `# check=`."""
    empty_continuations: tuple[SourceRange, ...] = ()
