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
from pier.kernel.paths import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, closing, mkdir_in_root, open_in_root
from pier.kernel.process import (
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    prctl,
    set_rlimit,
)
from pier.runtime import failure
from pier.runtime.users import Identity, identify

NULL_DEVICE = os.makedev(1, 3)
HOST_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


class Program(NamedTuple):
    """What is to be executed and as whom: an OCI `process` object with its user already looked up."""

    process: dict[str, Any]
    identity: Identity
    env: dict[bytes, bytes]
    seccomp_bpf: bytes | None


def prepare(
    process: dict[str, Any], user: str, group_add: list[str], seccomp_bpf: bytes | None, root_fd: int
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
    return Program(process, identity, environment(process.get("env", []), home), seccomp_bpf)


def read_filter(path: str | None) -> bytes | None:
    """The compiled filter's bytes. It is the daemon's file: read it before the container's root is entered."""
    if path is None:
        return None
    with closing(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as fd:
        return os.read(fd, os.fstat(fd).st_size)


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
    if program.seccomp_bpf is not None and not no_new_privileges:
        # Without no_new_privs a filter takes CAP_SYS_ADMIN, which is about to go.
        seccomp.install(program.seccomp_bpf)
    os.umask(process.get("user", {}).get("umask", 0o022))
    capabilities.drop_bounding(sets.bounding)
    capabilities.keep_across_setuid(True)
    os.setgroups(identity.additional_gids)
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)
    # A change of identity makes the process as dumpable as fs.suid_dumpable says; its full capabilities still keep the
    # container's other processes out of its memory, what `apply` leaves of them would not.
    prctl(PR_SET_DUMPABLE, 0)
    capabilities.apply(sets)
    if no_new_privileges:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        if program.seccomp_bpf is not None:
            seccomp.install(program.seccomp_bpf)


def set_limits(rlimits: list[dict[str, Any]], requested: set[str], warn: Callable[[str], None]) -> None:
    """Set rlimits. What the user did not ask for and this host does not grant is a warning. Raises OSError."""
    for limit in rlimits:
        name = limit["type"]
        try:
            set_rlimit(name, limit["soft"], limit["hard"])
        except (OSError, ValueError) as error:
            text = f"error setting rlimit type {name} to {limit['soft']}:{limit['hard']}: {error}"
            if f"process.rlimits.{name}" in requested:
                raise OSError(errno.EPERM, text) from error
            warn(text)


def execute(program: Program, *, die_with_parent: int) -> NoReturn:
    """Find the program and replace this process by it. Raises ProgramError.

    `die_with_parent` is the signal that comes when the monitor is killed.
    """
    args = program.process["args"]
    path = failure.find(args[0], os.fsdecode(program.env.get(b"PATH", b"/usr/local/bin:/usr/bin:/bin")))
    prctl(PR_SET_PDEATHSIG, die_with_parent)
    try:
        os.execve(path, args, program.env)  # noqa: S606
    except OSError as error:
        raise failure.explain(path, error.errno or errno.EINVAL, HOST_ARCH) from None
