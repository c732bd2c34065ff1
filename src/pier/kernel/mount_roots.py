"""The root of another mount namespace, seen from outside (setns(2), mount_namespaces(7)).

Not `/proc/PID/root`: a process may have changed its root (chroot(2)), and then shows that one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pier.kernel import mounts, namespaces
from pier.kernel.paths import (
    CGROUP2_SUPER_MAGIC,
    CGROUP_SUPER_MAGIC,
    PROC_SUPER_MAGIC,
    SYSFS_MAGIC,
    closing,
    fs_magic,
)

T = TypeVar("T")

KERNEL_FILE_SYSTEMS = frozenset(
    {
        PROC_SUPER_MAGIC,
        SYSFS_MAGIC,
        CGROUP_SUPER_MAGIC,
        CGROUP2_SUPER_MAGIC,
        0x1CD1,  # devpts
        0x19800202,  # mqueue
        0x64626720,  # debugfs
        0x74726163,  # tracefs
        0x73636673,  # securityfs
        0xF97CFF8C,  # selinuxfs
        0xCAFE4A11,  # bpf
        0x62656570,  # configfs
        0xDE5E81E4,  # efivarfs
        0x42494E4D,  # binfmt_misc
        0x6165676C,  # pstore
        0x65735543,  # fusectl
        0x6E736673,  # nsfs
    }
)
"""Magic numbers of file systems that hold no files of anybody's (linux/magic.h): what is read or written there talks to
the kernel."""


def on_kernel_fs(fd: int) -> bool:
    """Whether a descriptor is of one of KERNEL_FILE_SYSTEMS."""
    return fs_magic(fd) in KERNEL_FILE_SYSTEMS


def root_of(namespace_fd: int) -> int:
    """An O_PATH descriptor of the root of the mount namespace behind `namespace_fd`.

    What is resolved below it (`open_in_root`) crosses that namespace's mounts, as long as the namespace is there: keep
    `namespace_fd` open. Raises OSError.
    """

    def look() -> int:
        namespaces.unshare(namespaces.CLONE_FS)
        namespaces.setns(namespace_fd, namespaces.CLONE_NEWNS)
        return os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    return _aside(look)


def make_namespace(furnish: Callable[[], int]) -> tuple[int, int]:
    """(root, namespace): run `furnish` in a mount namespace of its own, from which the host gets no mount.

    It returns a descriptor of what it has mounted, which stays as long as the descriptor of the namespace is open.
    """

    def make() -> tuple[int, int]:
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mounts.mount(None, "/", None, mounts.MS_SLAVE | mounts.MS_REC)
        root_fd = furnish()
        try:
            return root_fd, os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            os.close(root_fd)
            raise

    return _aside(make)


def _aside(deed: Callable[[], T]) -> T:
    """Run it in a thread that ends with it: what the thread has left or joined touches no other."""
    with ThreadPoolExecutor(1, thread_name_prefix="mount-namespace") as thread:
        return thread.submit(deed).result()


def mount_id(fd: int) -> int:
    """Which mount a descriptor is on (proc_pid_fdinfo(5))."""
    with closing(os.open(f"/proc/self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC)) as info:
        for line in os.read(info, 4096).splitlines():
            if line.startswith(b"mnt_id:"):
                return int(line.split()[1])
    raise OSError(f"/proc/self/fdinfo/{fd} has no mnt_id")
