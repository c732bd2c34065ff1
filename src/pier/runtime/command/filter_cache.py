"""Compiled seccomp filters that the command line keeps for its next containers, below --root.

    ROOT/~seccomp/DIGEST   checksum of the filter (CHECK_BYTES), then the filter

The name is the digest of all that went into the filter; it is no container's, whose ids have no `~`. A file counts only
if root alone can have written it and it is whole; else the filter is compiled anew. It is never a reason to fail.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from typing import Any

from pier import __version__
from pier.kernel.paths import closing

FOLDER = "~seccomp"
KEPT = 64
"""Files; beyond these the least recently made one goes."""
SIZE_MAX = 4096 * 8
"""BPF_MAXINSNS of 8 bytes each."""
CHECK_BYTES = 32


def filter_of(root: str, profile: dict[str, Any]) -> bytes:
    """The filter of an OCI profile: an array of `struct sock_filter`. Raises BadProfile."""
    folder = os.path.join(root, FOLDER)
    name = _digest(f"{__version__} {os.uname().machine} {json.dumps(profile, separators=(',', ':'))}".encode()).hex()
    found = _read(folder, name)
    if found is not None:
        return found
    from pier.kernel.seccomp_compiler import compile_profile  # noqa: PLC0415 - most often there is nothing to compile

    made = compile_profile(profile)
    with contextlib.suppress(OSError):
        _write(folder, name, made)
    return made


def _digest(data: bytes) -> bytes:
    try:
        from _blake2 import blake2b  # noqa: PLC0415 - hashlib loads OpenSSL, which takes longer than to compile a filter
    except ImportError:
        from hashlib import blake2b  # noqa: PLC0415
    return blake2b(data, digest_size=CHECK_BYTES).digest()


def _read(folder: str, name: str) -> bytes | None:
    """The filter of that name; None where there is none, or one that cannot be trusted."""
    try:
        with closing(os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)) as parent:
            if not _ours_alone(os.fstat(parent)):
                return None
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        with closing(fd):
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode) or not _ours_alone(info):
                return None
            data = os.read(fd, CHECK_BYTES + SIZE_MAX + 1)
    except OSError:
        return None
    check, bpf = data[:CHECK_BYTES], data[CHECK_BYTES:]
    return bpf if bpf and len(bpf) <= SIZE_MAX and _digest(name.encode() + bpf) == check else None


def _ours_alone(info: os.stat_result) -> bool:
    return info.st_uid == os.geteuid() and not info.st_mode & 0o077


def _write(folder: str, name: str, bpf: bytes) -> None:
    """Add a file, whole or not at all. Raises OSError."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    with closing(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)) as parent:
        if not _ours_alone(os.fstat(parent)):
            return
        _make_room(parent)
        fresh = f".{name}.{os.getpid()}"
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
        try:
            with closing(fd):
                os.write(fd, _digest(name.encode() + bpf) + bpf)
            os.rename(fresh, name, src_dir_fd=parent, dst_dir_fd=parent)
        except OSError:
            os.unlink(fresh, dir_fd=parent)
            raise


def _make_room(parent: int) -> None:
    ages = []
    for name in os.listdir(parent):
        with contextlib.suppress(OSError):
            ages.append((os.stat(name, dir_fd=parent, follow_symlinks=False).st_mtime_ns, name))
    for _, name in sorted(ages)[: max(0, len(ages) - KEPT + 1)]:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=parent)
