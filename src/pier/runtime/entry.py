"""`pier-runtime`: the first lines that run. Light modules only, and for a process that enters containers a safe binary.

A program of the container's that is `/proc/self/exe` runs the interpreter that forked it. So that its file cannot be
written through /proc/PID/exe (attack 1, CVE-2019-5736), verbs that enter a container first execute the interpreter anew
from a detached read-only mount of it; nothing else of them runs before.
"""

from __future__ import annotations

import os
import sys

from pier.runtime import stand_ins

ENTERING = frozenset({"create", "run", "exec"})


def main() -> int:
    """Returns the exit code."""
    stand_ins.install()
    if ENTERING.intersection(sys.argv[1:]) and not os.statvfs("/proc/self/exe").f_flag & os.ST_RDONLY:
        try:
            _run_from_read_only_mount()
        except OSError as error:
            sys.stderr.write(f"pier-runtime: cannot run the interpreter from a read-only mount: {error.strerror}\n")
            return 1
    from pier.runtime.command import run  # noqa: PLC0415 - not loaded twice

    return run(sys.argv[1:])


def _run_from_read_only_mount() -> None:
    from pier.kernel import mounts  # noqa: PLC0415 - only here, and before the other modules

    binary = mounts.open_tree(mounts.AT_FDCWD, "/proc/self/exe", clone=True)
    mounts.mount_setattr(binary, set=mounts.MOUNT_ATTR_RDONLY | mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NODEV)
    os.execve(f"/proc/self/fd/{binary}", sys.orig_argv, os.environ)  # noqa: S606
