"""The build graph: what is to be built, as immutable vertices that mirror BuildKit's LLB (ops.proto) one to one.

A vertex is one operation over the results of others; a result is the tree of files one of its outputs names. Vertices
are made bottom up and never change, so a graph has no cycle, and each has a digest over its operation and everything
below it: two vertices of one digest are the same step, in whichever builds they stand. What a person is shown of a
step, and whether the cache may answer for it, is no part of that identity and stands in its `Note`.

    Vertex ── op: Source | Exec | File | Merge | Diff
       └───── inputs: Output(vertex, index), …
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from pier.errors import InvalidParameter
from pier.oci import Digest, Platform

EMPTY: Final = -1
"""As an input: nothing, an empty tree (scratch). As an output of a mount or file action: not a result."""
MAX_INPUTS: Final = 10_000


class InvalidVertex(InvalidParameter):
    """invalid build step {name!r}: {reason}"""


# --- SourceOp


class Source(msgspec.Struct, frozen=True, tag="source"):
    """Files from outside the graph. One output, number 0."""

    identifier: str
    """`docker-image://REF[@DIGEST]`, `local://NAME`, `git://…`, `http://…`, `https://…`, `oci-layout://REF@DIGEST`."""
    attrs: Mapping[str, str] = msgspec.field(default_factory=dict)
    """As in ops.proto's comments: `local.includepattern`, `git.keepgitdir`, `http.checksum`, …; lists are JSON."""

    @property
    def scheme(self) -> str:
        return self.identifier.partition("://")[0]

    @property
    def rest(self) -> str:
        """What follows `://`."""
        return self.identifier.partition("://")[2]


# --- ExecOp


class NetMode(enum.IntEnum):
    """The network of a step."""

    UNSET = 0
    """The builder's default: a bridge."""
    HOST = 1
    NONE = 2


class SecurityMode(enum.IntEnum):
    SANDBOX = 0
    INSECURE = 1


class MountType(enum.IntEnum):
    BIND = 0
    SECRET = 1
    SSH = 2
    CACHE = 3
    TMPFS = 4


class CacheSharing(enum.IntEnum):
    SHARED = 0
    """Several steps at once."""
    PRIVATE = 1
    """A second step at the same time gets one of its own."""
    LOCKED = 2
    """A second step at the same time waits."""


class CacheMount(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    sharing: CacheSharing = CacheSharing.SHARED


class SecretMount(msgspec.Struct, frozen=True, omit_defaults=True):
    """A secret as a file, or an agent's socket."""

    id: str
    uid: int = 0
    gid: int = 0
    mode: int = 0o400
    optional: bool = False
    """A client that has none is no error; there is no file then."""


class Mount(msgspec.Struct, frozen=True, omit_defaults=True):
    """One mount of a step; the one at `/` is its root."""

    dest: str
    input: int = EMPTY
    """Which input is shown; EMPTY: an empty tree."""
    selector: str = ""
    """Path within the input."""
    output: int = EMPTY
    """Which output the tree becomes afterwards; EMPTY: what is written to it is thrown away."""
    readonly: bool = False
    type: MountType = MountType.BIND
    tmpfs_size_bytes: int = 0
    """0: no limit but memory."""
    cache: CacheMount | None = None
    secret: SecretMount | None = None
    """Of a SECRET or SSH mount."""


class SecretEnv(msgspec.Struct, frozen=True, omit_defaults=True):
    """A secret as a variable of the step's environment."""

    id: str
    name: str
    optional: bool = False


class Ulimit(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    soft: int
    hard: int


class Device(msgspec.Struct, frozen=True, omit_defaults=True):
    """A CDI device."""

    name: str
    optional: bool = False


class HostIP(msgspec.Struct, frozen=True):
    host: str
    ip: str


class ProxyEnv(msgspec.Struct, frozen=True, omit_defaults=True):
    """Proxy variables that the step sees and its cache key does not."""

    http_proxy: str = ""
    https_proxy: str = ""
    ftp_proxy: str = ""
    no_proxy: str = ""
    all_proxy: str = ""


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    """Pier's own: the resources of a build's steps, from the build request. 0 and "" mean none."""

    memory: int = 0
    memory_swap: int = 0
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    shm_size: int = 0
    network: str = ""
    """A network by name, where the operation leaves it to the builder."""


class Meta(msgspec.Struct, frozen=True, omit_defaults=True):
    """The process of a step."""

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    extra_hosts: tuple[HostIP, ...] = ()
    hostname: str = ""
    ulimits: tuple[Ulimit, ...] = ()
    cgroup_parent: str = ""
    remove_mount_stubs_recursive: bool = False
    """Also the parents of the mount points that were made for the step are removed after it, if they are empty."""
    valid_exit_codes: tuple[int, ...] = ()
    """Empty: 0 alone."""


class Exec(msgspec.Struct, frozen=True, tag="exec", omit_defaults=True):
    """A process over its mounts. As many outputs as mounts name."""

    meta: Meta
    mounts: tuple[Mount, ...]
    network: NetMode = NetMode.UNSET
    security: SecurityMode = SecurityMode.SANDBOX
    secret_env: tuple[SecretEnv, ...] = ()
    devices: tuple[Device, ...] = ()


# --- FileOp


class NamedUser(msgspec.Struct, frozen=True, tag="named"):
    """Looked up in /etc/passwd or /etc/group of an input's tree."""

    name: str
    input: int = EMPTY


class UserID(msgspec.Struct, frozen=True, tag="id"):
    id: int


class Owner(msgspec.Struct, frozen=True, omit_defaults=True):
    user: NamedUser | UserID | None = None
    group: NamedUser | UserID | None = None


class Copy(msgspec.Struct, frozen=True, tag="copy", omit_defaults=True):
    """Files of the secondary input into the tree."""

    src: str
    dest: str
    owner: Owner | None = None
    """None: as in the source."""
    mode: int = -1
    """-1: as in the source."""
    mode_str: str = ""
    """As of chmod(1): `u=rwX,go-w` or octal. Goes before `mode`."""
    follow_symlink: bool = False
    """Of the last component of `src`; those before it are always followed, below the source's root."""
    dir_copy_contents: bool = False
    """A directory's contents land in `dest`, not the directory itself."""
    attempt_unpack: bool = False
    """An archive is unpacked (Docker's ADD)."""
    create_dest_path: bool = False
    allow_wildcard: bool = False
    allow_empty_wildcard: bool = False
    timestamp_ns: int = -1
    """-1: as in the source."""
    include_patterns: tuple[str, ...] = ()
    exclude_patterns: tuple[str, ...] = ()
    always_replace_existing_dest_paths: bool = False
    """A file may take the place of a directory, and a directory that of a file."""
    required_paths: tuple[str, ...] = ()


class MakeFile(msgspec.Struct, frozen=True, tag="mkfile", omit_defaults=True):
    path: str
    data: bytes
    mode: int = 0o644
    owner: Owner | None = None
    timestamp_ns: int = -1
    """-1: now."""


class MakeDir(msgspec.Struct, frozen=True, tag="mkdir", omit_defaults=True):
    path: str
    mode: int = 0o755
    make_parents: bool = False
    owner: Owner | None = None
    timestamp_ns: int = -1


class Symlink(msgspec.Struct, frozen=True, tag="symlink", omit_defaults=True):
    oldpath: str
    """What the link says."""
    newpath: str
    owner: Owner | None = None
    timestamp_ns: int = -1


class Remove(msgspec.Struct, frozen=True, tag="rm", omit_defaults=True):
    path: str
    allow_not_found: bool = False
    allow_wildcard: bool = False


Deed = Copy | MakeFile | MakeDir | Symlink | Remove


class FileAction(msgspec.Struct, frozen=True, omit_defaults=True):
    """One deed on one tree. Numbers from `len(inputs)` on name the results of the actions before it, in their order."""

    deed: Deed
    input: int = EMPTY
    """The tree that is changed; EMPTY: an empty one."""
    secondary_input: int = EMPTY
    """Where a Copy takes its files from."""
    output: int = EMPTY
    """Which output of the vertex the tree becomes; EMPTY: only later actions see it."""


class File(msgspec.Struct, frozen=True, tag="file"):
    """Changes of trees without a process."""

    actions: tuple[FileAction, ...]


# --- MergeOp, DiffOp


class Merge(msgspec.Struct, frozen=True, tag="merge"):
    """The inputs' layers over one another, the first lowest. One output."""

    inputs: tuple[int, ...]


class Diff(msgspec.Struct, frozen=True, tag="diff"):
    """What `upper` has that `lower` has not. One output."""

    lower: int
    upper: int


Op = Source | Exec | File | Merge | Diff


# --- vertices


@dataclass(frozen=True, slots=True)
class Position:
    """In a source file; lines count from 1, characters from 0."""

    line: int
    character: int = 0


@dataclass(frozen=True, slots=True)
class Location:
    """Where a step was written down."""

    filename: str
    ranges: tuple[tuple[Position, Position], ...]
    """(first, last) position, both included; usually one."""


@dataclass(frozen=True, slots=True)
class ProgressGroup:
    id: str
    name: str
    weak: bool = False


@dataclass(frozen=True, slots=True)
class Note:
    """What a build says of a vertex besides what it is; no part of its digest (OpMetadata)."""

    name: str = ""
    """For people: `[build 2/5] RUN make`, `[internal] load build context`."""
    ignore_cache: bool = False
    """Run it, whatever the cache has."""
    location: Location | None = None
    group: ProgressGroup | None = None
    description: Mapping[str, str] = field(default_factory=dict)
    """Further keys, such as `com.docker.dockerfile.v1.command`."""
    export_cache: bool | None = None
    limits: Limits | None = None
    """What the processes of the step may use."""
    proxy_env: ProxyEnv | None = None
    """What an Exec sees in its environment besides `meta.env`."""


NO_NOTE: Final = Note()


@dataclass(frozen=True, slots=True, eq=False)
class Vertex:
    """One step. Compare by `digest`; the same step of two builds is two objects of one digest."""

    op: Op
    inputs: tuple[Output, ...] = ()
    platform: Platform | None = None
    constraints: tuple[str, ...] = ()
    """Worker filters, of raw LLB."""
    note: Note = NO_NOTE
    digest: Digest = field(init=False)
    """Over op, platform, constraints and the inputs with all that is below them."""

    def __post_init__(self) -> None:
        """Raises InvalidVertex where the operation names inputs or outputs that there are not."""
        if reason := _fault(self.op, len(self.inputs)):
            raise InvalidVertex(name=self.name, reason=reason)
        object.__setattr__(self, "digest", self._digest())

    def _digest(self) -> Digest:
        identity = (
            self.op,
            [(str(each.vertex.digest), each.index) for each in self.inputs],
            str(self.platform) if self.platform else "",
            self.constraints,
        )
        return Digest.of(msgspec.json.encode(identity, order="deterministic"))

    @property
    def name(self) -> str:
        """For people; a step without a note is described by its operation."""
        return self.note.name or describe(self.op)

    def output(self, index: int = 0) -> Output:
        return Output(self, index)


@dataclass(frozen=True, slots=True)
class Output:
    """A result of a vertex: what other vertices take, and what is exported."""

    vertex: Vertex
    index: int = 0

    @property
    def key(self) -> tuple[Digest, int]:
        return self.vertex.digest, self.index


def below(outputs: Sequence[Output]) -> Iterator[Vertex]:
    """Every vertex that the outputs need, each digest once, inputs before those who take them."""
    seen: set[Digest] = set()
    stack: list[tuple[Vertex, bool]] = [(output.vertex, False) for output in reversed(outputs)]
    while stack:
        vertex, ready = stack.pop()
        if ready:
            yield vertex
        elif vertex.digest not in seen:
            seen.add(vertex.digest)
            stack.append((vertex, True))
            stack.extend((each.vertex, False) for each in reversed(vertex.inputs))


def outputs_of(op: Op) -> int:
    """How many trees come of an operation."""
    match op:
        case Exec(mounts=mounts):
            return sum(mount.output != EMPTY for mount in mounts)
        case File(actions=actions):
            return sum(action.output != EMPTY for action in actions)
        case _:
            return 1


def describe(op: Op) -> str:
    """An operation in a few words."""
    match op:
        case Source(identifier=identifier):
            return identifier
        case Exec(meta=meta):
            return " ".join(meta.args)
        case File(actions=actions):
            return ", ".join(deed_words(action.deed) for action in actions)
        case Merge():
            return "merge"
        case Diff():
            return "diff"


def deed_words(deed: Deed) -> str:
    """A change of files in a few words."""
    match deed:
        case Copy(src=src, dest=dest):
            return f"copy {src} {dest}"
        case MakeFile(path=path):
            return f"mkfile {path}"
        case MakeDir(path=path):
            return f"mkdir {path}"
        case Symlink(oldpath=old, newpath=new):
            return f"symlink {old} -> {new}"
        case Remove(path=path):
            return f"rm {path}"


def _fault(op: Op, inputs: int) -> str:
    """Why an operation cannot stand over that many inputs; empty where it can."""
    if inputs > MAX_INPUTS:
        return f"{inputs} inputs, more than {MAX_INPUTS}"
    match op:
        case Source():
            return (
                "" if not inputs and op.rest else "a source has no inputs and an identifier of the form SCHEME://NAME"
            )
        case Exec():
            return _exec_fault(op, inputs)
        case File(actions=actions):
            return _file_fault(actions, inputs)
        case Merge(inputs=merged):
            return _unknown(merged, inputs)
        case Diff(lower=lower, upper=upper):
            return _unknown((lower, upper), inputs)


def _exec_fault(op: Exec, inputs: int) -> str:
    if not op.meta.args:
        return "no command"
    if sum(mount.dest == "/" for mount in op.mounts) != 1:
        return "exactly one mount is the root"
    return _unknown([mount.input for mount in op.mounts], inputs) or _outputs([mount.output for mount in op.mounts])


def _file_fault(actions: Sequence[FileAction], inputs: int) -> str:
    if not actions:
        return "no action"
    for number, action in enumerate(actions):
        named = (action.input, action.secondary_input, *owner_inputs(action.deed))
        if reason := _unknown(named, inputs + number):
            return reason
    return _outputs([action.output for action in actions])


def owner_inputs(deed: Deed) -> list[int]:
    """The inputs in which the names of a change's owner are looked up."""
    if isinstance(deed, Remove) or deed.owner is None:
        return []
    return [who.input for who in (deed.owner.user, deed.owner.group) if isinstance(who, NamedUser)]


def _unknown(numbers: Sequence[int], known: int) -> str:
    wrong = [number for number in numbers if not EMPTY <= number < known]
    return f"it names input {wrong[0]}, and there are {known}" if wrong else ""


def _outputs(numbers: Sequence[int]) -> str:
    named = sorted(number for number in numbers if number != EMPTY)
    return "" if named == list(range(len(named))) else "its outputs are not numbered from 0 on, each once"
