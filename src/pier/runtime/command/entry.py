"""`pier-runtime`: the first lines that run. Light modules only, and for a process that enters containers a safe binary.

A program of the container's that is `/proc/self/exe` runs the interpreter that forked it. So that its file cannot be
written through /proc/PID/exe (attack 1, CVE-2019-5736), verbs that enter a container first execute the interpreter anew
from a detached read-only mount of it; nothing else of them runs before.
"""

from __future__ import annotations

import posix
import sys

ENTERING = frozenset({"create", "run", "exec"})


def main() -> int:
    """Does not return: what the interpreter would tidy up at its end takes as long as a container's start."""
    import gc  # noqa: PLC0415

    gc.disable()  # a short life
    if ENTERING.intersection(sys.argv[1:]) and not posix.statvfs("/proc/self/exe").f_flag & posix.ST_RDONLY:
        try:
            _run_from_read_only_mount()
        except OSError as error:
            sys.stderr.write(f"pier-runtime: cannot run the interpreter from a read-only mount: {error.strerror}\n")
            return 1
    from pier.runtime import stand_ins  # noqa: PLC0415 - not loaded twice

    stand_ins.install(late=True)
    from pier.runtime.command.main import run  # noqa: PLC0415

    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = code or 1
    posix._exit(code)


def _run_from_read_only_mount() -> None:
    """Execute this command line anew. Raises OSError.

    The two calls are `kernel.mounts`' own, made without it: this interpreter lives for them alone.
    """
    import ctypes  # noqa: PLC0415

    libc = ctypes.CDLL(None, use_errno=True)
    open_tree, mount_setattr, here = 428, 442, -100
    clone_cloexec = 1 | posix.O_CLOEXEC
    binary = libc.syscall(open_tree, here, b"/proc/self/exe", clone_cloexec)
    attributes = (ctypes.c_uint64 * 4)(1 | 2 | 4)  # struct mount_attr: set RDONLY, NOSUID, NODEV
    empty_path = 0x1000
    if binary < 0 or libc.syscall(mount_setattr, binary, b"", empty_path, attributes, ctypes.sizeof(attributes)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, posix.strerror(number))
    posix.execve(f"/proc/self/fd/{binary}", sys.orig_argv, posix.environ)
