"""Trees shown with other ids (mount_setattr(2), "ID-mapped mounts"), and whether a file system can do that.

A map of a mount is that of a user namespace, which only a process of one thread can make: the daemon has another make
it, one that waits until the mount is there.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pier
from pier.kernel import mounts
from pier.kernel.mounts import filesystem_type
from pier.kernel.namespaces import namespace_path
from pier.kernel.paths import closing
from pier.runtime import idmap_probe
from pier.runtime.process import idmap
from pier.storage.ids import IdMap

TIMEOUT_S = 30.0


def fault(folder: str, *, overlay: bool) -> str:
    """Why it cannot be done in `folder`, for layers of an `overlay` or a whole tree; empty where it can.

    Tried in a process of its own. Blocking, 50 ms.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".idmap-") as place:
        done = subprocess.run(
            _command("probe_overlay" if overlay else "probe_tree", place),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    said = done.stdout.strip() or (done.stderr.strip().rpartition("\n")[2] if done.returncode else "")
    return f"{folder} is on {filesystem_type(folder) or 'an unknown file system'}: {said}" if said else ""


@contextlib.contextmanager
def shown(tree: str, id_map: IdMap, *, recursive: bool = False) -> Iterator[int]:
    """A descriptor of a mount of `tree`, attached nowhere, whose files have the ids that `id_map` has for theirs.

    With `recursive` what is mounted below is there, too, as it is. Blocking, 30 ms. Raises OSError.
    """
    with closing(mounts.open_tree(mounts.AT_FDCWD, tree, clone=True, recursive=recursive)) as fd:
        with closing(user_namespace(id_map)) as user_fd:
            mounts.mount_setattr(fd, set=mounts.MOUNT_ATTR_IDMAP, userns_fd=user_fd)
        yield fd


def user_namespace(id_map: IdMap) -> int:
    """A descriptor of a new user namespace with these ids. Blocking, 30 ms. Raises OSError."""
    maps = id_map.oci()
    with subprocess.Popen(_command("hold"), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        if holder.stdout.read(1) != idmap_probe.READY:
            raise OSError("a user namespace cannot be made: see user.max_user_namespaces (sysctl)")
        idmap.write_maps(holder.pid, maps["uidMappings"], maps["gidMappings"])
        fd = os.open(namespace_path(holder.pid, "user"), os.O_RDONLY | os.O_CLOEXEC)
        holder.stdin.close()
        return fd


def _command(deed: str, *arguments: str) -> list[str]:
    source = os.path.dirname(os.path.dirname(os.path.realpath(pier.__file__)))
    boot = f"import sys; sys.path.insert(0, {source!r}); from {idmap_probe.__name__} import main; main()"
    return [sys.executable, "-I", "-S", "-c", boot, deed, *arguments]
