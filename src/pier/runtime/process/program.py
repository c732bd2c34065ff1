"""The last steps before a container's program runs: identity, privileges, filter, limits, execve.

Shared by the container's first process and by exec. Called inside the container's namespaces and root, with everything
loaded: from here on no module is imported and no name is looked up. Order and reasons: capabilities(7), seccomp(2).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from pier.kernel import capabilities, seccomp
from pier.kernel.paths import (
    PROC_SUPER_MAGIC,
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_XDEV,
    closing,
    mkdir_in_root,
    open_in_root,
    require_fs,
)
from pier.kernel.process import (
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    prctl,
    set_rlimit,
)
from pier.kernel.schedule import set_affinity, set_io_priority, set_scheduler
from pier.runtime.process import failure
from pier.runtime.process.blame import FieldError, asked_by
from pier.runtime.process.users import Identity, identify

NULL_DEVICE = os.makedev(1, 3)
HOST_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


class Filter:
    """A compiled seccomp filter and how to install it."""

    def __init__(self, bpf: bytes, flags: int = seccomp.DEFAULT_FLAGS) -> None:
        self.bpf = bpf
        self.flags = flags

    def install(self) -> None:
        """Confine this process, for good. Raises OSError."""
        seccomp.install(self.bpf, self.flags)


Labels = list[tuple[int, bytes]]
"""Descriptors of this process's attr files, and what is to be written there before execve."""


class Program(NamedTuple):
    """What is to be executed and as whom: an OCI `process` object with its user already looked up."""

    process: dict[str, Any]
    identity: Identity
    env: dict[bytes, bytes]
    seccomp: Filter | None
    labels: Labels


def prepare(
    process: dict[str, Any],
    user: str,
    group_add: list[str],
    *,
    filter: Filter | None,
    root_fd: int,
    labels: Labels,
) -> Program:
    """Look up everything that has to be looked up; `root_fd` is the container's root. Raises UserError, OSError."""
    if user or group_add or "user" not in process:
        identity = identify(root_fd, user, group_add)
        # The primary group is among the supplementary ones too: none gains by leaving it (CVE-2022-36109).
        groups = dict.fromkeys([identity.gid, *identity.additional_gids])
        identity = identity._replace(additional_gids=list(groups))
    else:
        given = process["user"]
        identity = Identity(given["uid"], given["gid"], given.get("additionalGids", []), "")
    home = identity.home or identify(root_fd, str(identity.uid), []).home
    return Program(process, identity, environment(process.get("env", []), home), filter, labels)


APPARMOR_ENABLED = "/sys/module/apparmor/parameters/enabled"
SELINUX_ROOT = "/sys/fs/selinux/enforce"


def check_labels(process: dict[str, Any]) -> None:
    """Raise OSError where the kernel lacks the security module of a label: to run without it would be a lie."""
    profile, label = process.get("apparmorProfile"), process.get("selinuxLabel")
    if profile and profile != "unconfined" and not os.path.exists(APPARMOR_ENABLED):
        text = f"the AppArmor profile {profile!r} is asked for, this kernel has no AppArmor"
        raise FieldError(errno.ENOTSUP, text, "process.apparmorProfile")
    if label and not os.path.exists(SELINUX_ROOT):
        text = f"the SELinux label {label!r} is asked for, this kernel has no SELinux"
        raise FieldError(errno.ENOTSUP, text, "process.selinuxLabel")


def check_mount_label(linux: dict[str, Any]) -> None:
    """The same for the files of the container's own file systems. Raises FieldError."""
    label = linux.get("mountLabel")
    if label and not os.path.exists(SELINUX_ROOT):
        text = f"the SELinux label {label!r} is asked for, this kernel has no SELinux"
        raise FieldError(errno.ENOTSUP, text, "linux.mountLabel")


def has_labels(process: dict[str, Any]) -> bool:
    """Whether `open_labels` may have something to open."""
    return bool(process.get("apparmorProfile") or process.get("selinuxLabel"))


def open_labels(process: dict[str, Any]) -> Labels:
    """Open what this process's AppArmor profile and SELinux label are written to. Raises OSError."""
    labels: Labels = []
    profile, label = process.get("apparmorProfile"), process.get("selinuxLabel")
    if profile and profile != "unconfined":
        labels.append((_open_attr("apparmor/exec", "exec"), f"exec {profile}".encode()))
    if label:
        labels.append((_open_attr("exec"), label.encode()))
    return labels


def _open_attr(*names: str) -> int:
    """The first that is there of this thread's attributes, in a real procfs with nothing mounted on it (attack 5)."""
    inside = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS
    with closing(os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)) as proc:
        require_fs(proc, PROC_SUPER_MAGIC, "/proc")
        *first, last = names
        for name in first:
            with contextlib.suppress(FileNotFoundError):
                return open_in_root(proc, f"thread-self/attr/{name}", os.O_WRONLY, resolve=inside)
        return open_in_root(proc, f"thread-self/attr/{last}", os.O_WRONLY, resolve=inside)


def read_filter(path: str | None) -> Filter | None:
    """The compiled filter. It is the daemon's file: read it before the container's root is entered."""
    if path is None:
        return None
    with closing(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as fd:
        return Filter(os.read(fd, os.fstat(fd).st_size))


def environment(entries: list[str], home: str) -> dict[bytes, bytes]:
    """`NAME=value` strings as execve takes them, the last of a name winning, with HOME if it is not set."""
    env: dict[bytes, bytes] = {}
    for entry in entries:
        name, _, value = os.fsencode(entry).partition(b"=")
        if name and b"\0" not in name + value:
            env[name] = value
    if not env.get(b"HOME"):
        env[b"HOME"] = os.fsencode(home or "/")
    return env


def enter_cwd(path: str, *, make: bool) -> None:
    """chdir to the program's working directory and prove that it lies inside the root; `make` it if it is missing.

    A magic link (`/proc/self/fd/7`) could name a directory of the host that a descriptor still holds: refused.
    """
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    with closing(root):
        try:
            fd = open_in_root(root, path, os.O_PATH | os.O_DIRECTORY, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
        except FileNotFoundError:
            if not make:
                text = f'chdir to cwd ("{path}") set in config.json failed: no such file or directory'
                raise failure.ProgramError(text, failure.NOT_FOUND) from None
            fd = mkdir_in_root(root, path)
        with closing(fd):
            os.fchdir(fd)
    # getcwd(2) answers "(unreachable)…" for a directory outside the root; Python raises for it.
    if not os.getcwd().startswith("/"):
        raise OSError(errno.ENOENT, f"working directory {path!r} is outside the container's root")


def own_stdio(uid: int) -> None:
    """Give the program's user its own streams, so that it can open /dev/stdout; /dev/null stays root's."""
    for fd in range(3):
        info = os.fstat(fd)
        if info.st_uid != uid and info.st_rdev != NULL_DEVICE:
            # Some objects have no owner to change: a socket, a file on a read-only mount.
            with contextlib.suppress(OSError):
                os.fchown(fd, uid, -1)


def become(program: Program) -> None:
    """Take on the program's identity and privileges; only limits and execve remain after it."""
    process, identity = program.process, program.identity
    no_new_privileges = process.get("noNewPrivileges", False)
    sets = capabilities.CapabilitySets.from_oci(process.get("capabilities") or {})
    schedule(process)
    if program.seccomp is not None and not no_new_privileges:
        # Without no_new_privs a filter takes CAP_SYS_ADMIN, which is about to go.
        program.seccomp.install()
    os.umask(process.get("user", {}).get("umask", 0o022))
    with asked_by("process.capabilities.bounding"):
        capabilities.drop_bounding(sets.bounding)
    capabilities.keep_across_setuid(True)
    with asked_by("process.user"):
        os.setgroups(identity.additional_gids)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
    # A change of identity makes the process as dumpable as fs.suid_dumpable says; its full capabilities still keep the
    # container's other processes out of its memory, what `apply` leaves of them would not.
    prctl(PR_SET_DUMPABLE, 0)
    with asked_by("process.capabilities"):
        capabilities.apply(sets)
    if no_new_privileges:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        if program.seccomp is not None:
            program.seccomp.install()


def schedule(process: dict[str, Any]) -> None:
    """CPU scheduling, I/O priority and affinity (config.md, "Linux Process"). Raises OSError, ValueError."""
    if process.get("scheduler"):
        with asked_by("process.scheduler"):
            set_scheduler(process["scheduler"])
    if process.get("ioPriority"):
        with asked_by("process.ioPriority"):
            set_io_priority(process["ioPriority"])
    affinity = process.get("execCPUAffinity", {})
    if affinity.get("final") or affinity.get("initial"):
        with asked_by(f"process.execCPUAffinity.{'final' if affinity.get('final') else 'initial'}"):
            set_affinity(affinity.get("final") or affinity["initial"])


def set_limits(rlimits: list[dict[str, Any]], requested: set[str], warn: Callable[[str], None]) -> None:
    """Set rlimits. What the user did not ask for and this host does not grant is a warning. Raises OSError."""
    for index, limit in enumerate(rlimits):
        name = limit["type"]
        try:
            set_rlimit(name, limit["soft"], limit["hard"])
        except OSError as error:
            text = f"error setting rlimit type {name} to {limit['soft']}:{limit['hard']}: {error.strerror}"
            if f"process.rlimits.{name}" in requested:
                raise FieldError(errno.EPERM, text, f"process.rlimits[{index}]") from error
            warn(text)


def find(program: Program) -> str:
    """The file that is to be executed; for its user, in its working directory. Raises ProgramError."""
    return failure.find(
        program.process["args"][0], os.fsdecode(program.env.get(b"PATH", b"/usr/local/bin:/usr/bin:/bin"))
    )


def execute(
    program: Program, path: str, before_execve: Callable[[], None], *, die_with_parent: int, keep_fds: int = 0
) -> NoReturn:
    """Replace this process by the program, which is the file `path`. Raises ProgramError.

    `die_with_parent` is the signal that comes when the parent is gone, 0 for none; `keep_fds` descriptors from 3 on are
    inherited.
    """
    args = program.process["args"]
    prctl(PR_SET_PDEATHSIG, die_with_parent)
    before_execve()
    for fd in range(3, 3 + keep_fds):
        os.set_inheritable(fd, True)
    for fd, text in program.labels:
        os.write(fd, text)
    try:
        os.execve(path, args, program.env)  # noqa: S606
    except OSError as error:
        raise failure.explain(path, error.errno or errno.EINVAL, HOST_ARCH) from None
