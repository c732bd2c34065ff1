"""What the daemon asks of the runtime: start a container, run one more process in it. Data only.

The zygote reads these from a socket, so they are plain dataclasses over the standard library, carried as JSON.
`spec` is the OCI runtime configuration (runtime-spec 1.2, config.md); what OCI has no word for stands beside it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple


def _fields(record: Any) -> dict[str, Any]:
    """A struct of this module as a dict, not copied any deeper: `dataclasses.asdict` takes 1 ms for a spec."""
    return {name: getattr(record, name) for name in type(record).__annotations__}


def _encode(record: Any) -> str:
    return json.dumps(record, separators=(",", ":"), default=_fields)


@dataclass(frozen=True, slots=True)
class OverlayRoot:
    """A root file system made of layers, mounted only in the container's own mount namespace."""

    lower: list[str]
    """Absolute paths of the read-only layers, topmost first."""
    upper: str
    work: str
    volatile: bool = False
    """What is written need not outlive a loss of power, so nothing waits for the disk (`mounts.mount_overlay`)."""


@dataclass(frozen=True, slots=True)
class BindRoot:
    """A root file system that is a directory of the host: a bundle's (`pier-runtime`), or a driver's tree."""

    path: str
    """Absolute, without symbolic links."""
    pivot: bool = True
    """False: the root is moved over `/` and entered by chroot, for hosts whose root is a ramdisk (`--no-pivot`)."""
    at_home: bool = True
    """Whether the root is mounted at its own path, where hooks look for it, rather than at `/`."""


class DetachedRoot(NamedTuple):
    """A root file system that is mounted, attached nowhere: what `remap.cross` makes of an OverlayRoot."""

    fd: int


@dataclass(frozen=True, slots=True)
class Interface:
    """One device in a container's network namespace, and the device of the host that it hangs on."""

    name: str
    """Inside, e.g. `eth0`."""
    host_name: str
    """The host's end of a veth pair, at most 15 bytes, e.g. `veth1a2b3c4`; empty for other kinds."""
    parent: str
    """A device of the host: the bridge that a veth pair is a port of, the parent of a macvlan or ipvlan."""
    mac: str
    """Empty: the kernel's choice; always so for an ipvlan, which has its parent's."""
    addresses: list[str]
    """With prefix length, both families, link-local ones too: `172.17.0.2/16`, `fd00::2/64`."""
    gateways: list[str]
    """One default route each, at most one a family; empty where another interface has them, or the network none."""
    mtu: int = 1500
    """0, except for a veth: the parent's."""
    kind: str = "veth"
    """`veth`, `macvlan` or `ipvlan`."""
    mode: str = ""
    """Of a macvlan `private`, `vepa`, `bridge`, `passthru`, of an ipvlan `l2`, `l3`, `l3s`; empty: `bridge`, `l2`.

    Of a veth `isolated`: kept from the bridge's other ports that are; empty: not.
    """
    flag: str = ""
    """Of an ipvlan: `bridge`, `private` or `vepa`; empty: `bridge`."""
    routes: list[tuple[str, str]] = field(default_factory=list)
    """More routes: destination with prefix length, gateway; an empty gateway for what is reached without one."""
    sysctls: dict[str, str] = field(default_factory=dict)
    """Settings of this device, `IFNAME` for its name: `net.ipv4.conf.IFNAME.log_martians`."""


class LogFile(NamedTuple):
    """A log, written by the monitor: `path`, `path.1`, … `path.(max_files-1)`, or `path.1.gz`."""

    path: str
    max_size_bytes: int = 0
    """0: never rotated."""
    max_files: int = 1
    driver: str = "json-file"
    """`json-file` or `local`."""
    attrs: str = ""
    """JSON of what each entry of a json-file says of the container besides its output; empty: nothing."""
    forward: dict[str, Any] | None = None
    """Where the output goes besides (`log/forward.py`). With it `path` may be empty: no log is kept."""
    compress: bool = False
    """Have all but the newest file compressed (`log/compress.py`)."""


@dataclass(frozen=True, slots=True)
class StartRequest:
    """Everything the runtime needs to start a container; nothing in it is looked up again."""

    id: str
    """64 hexadecimal digits; also the last component of the cgroup path."""
    spec: dict[str, Any]
    """OCI runtime configuration. `root.path` is ignored when `root` is given; `process.user` when `user` is."""
    root: OverlayRoot | BindRoot | DetachedRoot
    exec_dir: str
    """The container's folder under the exec root, made by the daemon (0700): `monitor.sock` appears there."""
    exit_file: str
    """Where the monitor writes how the container ended (`ExitRecord` as JSON) before it tells anyone."""
    user: str = ""
    """Docker's USER: `name|uid[:group|gid]`, resolved against the container's own /etc/passwd and /etc/group."""
    group_add: list[str] = field(default_factory=list)
    open_stdin: bool = False
    stdin_once: bool = False
    log: LogFile | None = None
    interfaces: list[Interface] = field(default_factory=list)
    resolver: bool = False
    """Whether the container's network namespace, a new one, gets a name server at 127.0.0.11: the sockets come with
    `Monitor.resolver`."""
    seccomp_bpf: str | None = None
    """Path of the compiled filter (an array of `struct sock_filter`); None: unconfined."""
    init: bool = False
    """Run a reaper as pid 1 in front of the program (`docker run --init`)."""
    oci_runtime: list[str] = field(default_factory=list)
    """Another OCI runtime that is to make the container: its absolute path and the arguments that come before all
    others. Empty: Pier's own. Another one gets the seccomp profile in `spec`, not `seccomp_bpf`."""
    requested: list[str] = field(default_factory=list)
    """What the user asked for by name rather than got by default, as OCI paths such as
    `process.oomScoreAdj` or `process.rlimits.RLIMIT_NOFILE`: a failure there is an error, elsewhere a warning."""

    def having(self, **changes: Any) -> StartRequest:
        """This request with other values in some fields."""
        return StartRequest(**_fields(self) | changes)

    def to_json(self) -> str:
        return _encode(self)

    @classmethod
    def from_json(cls, text: str) -> StartRequest:
        """Raises ValueError, KeyError, TypeError for what is not a request."""
        fields = json.loads(text)
        root = fields["root"]
        fields["root"] = BindRoot(**root) if "path" in root else OverlayRoot(**root)
        fields["interfaces"] = [Interface(**item) for item in fields.get("interfaces", [])]
        fields["log"] = LogFile(*fields["log"]) if fields.get("log") else None
        return cls(**fields)


PARKED_NAMESPACES = ("ipc", "network", "pid", "uts")
"""The OCI names of the namespaces that a parked first process has already (`parking`); those of mounts and cgroups show
the host as it is at the start."""


class Supervision(NamedTuple):
    """The part of a start request that the monitor itself needs; the rest is for the container's first process.

    It travels as a list: a monitor that handles no field's name touches, and so copies, fewer of the zygote's pages.
    """

    id: str
    exec_dir: str
    exit_file: str
    cgroup_path: str
    terminal: bool
    open_stdin: bool
    stdin_once: bool
    oci_runtime: list[str]
    """As in StartRequest."""
    ordinary: bool
    """Whether a parked first process will do: the container's namespaces are the usual ones, and all new."""
    log: LogFile | None
    pid_namespace: str | None
    """Path of the pid namespace to join, "" for a new one, None for the monitor's own."""

    @classmethod
    def of(cls, request: StartRequest) -> Supervision:
        linux = request.spec.get("linux", {})
        paths = {item["type"]: item.get("path", "") for item in linux.get("namespaces", [])}
        return cls(
            id=request.id,
            exec_dir=request.exec_dir,
            exit_file=request.exit_file,
            cgroup_path=linux["cgroupsPath"],
            terminal=bool(request.spec["process"].get("terminal")),
            open_stdin=request.open_stdin,
            stdin_once=request.stdin_once,
            oci_runtime=request.oci_runtime,
            ordinary="user" not in paths and all(paths.get(kind) == "" for kind in PARKED_NAMESPACES),
            log=request.log,
            # One that belongs to a user namespace is the first process's to make (`remap.cross`).
            pid_namespace=None if "user" in paths else paths.get("pid"),
        )

    @classmethod
    def from_list(cls, fields: list[Any]) -> Supervision:
        """Raises TypeError for what is not a supervision."""
        *plain, log, pid_namespace = fields
        return cls(*[*plain, LogFile(*log) if log else None, pid_namespace])


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """One more process in a running container."""

    exec_id: str
    """64 hexadecimal digits."""
    process: dict[str, Any]
    """OCI `process` object: args, env, cwd, terminal, consoleSize, capabilities, noNewPrivileges, …"""
    user: str = ""
    """As in StartRequest; empty: the container's own user is what the caller put in `process.user`."""
    group_add: list[str] = field(default_factory=list)
    open_stdin: bool = False
    seccomp_bpf: str | None = None
    remapped_root: list[int] | None = None
    """The host's uid and gid of the container's root; None: it has no user namespace of its own."""
    note: str = ""
    """The monitor keeps it, for a daemon that has to learn anew what runs."""

    def to_dict(self) -> dict[str, Any]:
        return _fields(self)


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """How a container's or an exec's first process ended."""

    exit_code: int
    """0 to 255; 128 + n for a process killed by signal n, as shells and Docker count."""
    finished_at_ns: int
    """CLOCK_REALTIME, nanoseconds since 1970."""
    oom_killed: bool = False

    def to_dict(self) -> dict[str, Any]:
        return _fields(self)

    def to_json(self) -> bytes:
        return _encode(self).encode()

    @classmethod
    def from_json(cls, data: bytes) -> ExitRecord:
        return cls(**json.loads(data))


@dataclass(frozen=True, slots=True)
class AttachEnd:
    """One client's end of a container's streams: the runtime keeps `fd`'s peer.

    The socket is a connected AF_UNIX SOCK_STREAM. Towards the client it carries Docker's multiplexed frames (8-byte
    header: stream number, three zero bytes, big-endian length) or, for a tty, raw bytes; from the client it carries
    raw standard input. SHUT_WR on either side means end of file on that side.
    """

    fd: int
    stdin: bool
    stdout: bool
    stderr: bool
