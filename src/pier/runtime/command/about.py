"""`spec` and `features`: documents about the runtime itself (runtime-spec features.md)."""

from __future__ import annotations

import os
import sys
from typing import Any

from pier.kernel import mounts
from pier.kernel.capabilities import NAMES, last_cap
from pier.kernel.namespaces import OCI_TYPES
from pier.runtime.command.bundle import CONFIG_NAME, HOOK_KINDS
from pier.runtime.command.flags import Line
from pier.runtime.command.main import Context
from pier.runtime.command.output import pretty
from pier.runtime.command.state import VERSION, StateError
from pier.runtime.process.program import APPARMOR_ENABLED, SELINUX_ROOT
from pier.runtime.process.rootfs import ATTRIBUTES, BIND_WORDS, PASSED_OVER, RECURSIVE_ATTRIBUTES

_FILESYSTEM_FLAGS = ("dirsync", "iversion", "lazytime", "mand", "sync")
_CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]


def _mount(destination: str, fstype: str, source: str, *options: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"destination": destination, "type": fstype, "source": source}
    return entry | ({"options": list(options)} if options else {})


def starter() -> dict[str, Any]:
    """The configuration that `spec` writes: a shell with few privileges."""
    return {
        "ociVersion": VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {kind: list(_CAPABILITIES) for kind in ("bounding", "effective", "permitted")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "pier",
        "mounts": [
            _mount("/proc", "proc", "proc"),
            _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            _mount(
                "/dev/pts", "devpts", "devpts",
                "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5",
            ),
            _mount("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),  # noqa: S108
            _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
            _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", "ro"),
            _mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro"),
        ],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
            "maskedPaths": [
                f"/proc/{name}"
                for name in (
                    "acpi asound kcore keys latency_stats timer_list timer_stats sched_debug scsi"
                ).split()
            ] + ["/sys/firmware"],
            "readonlyPaths": [f"/proc/{name}" for name in ("bus", "fs", "irq", "sys", "sysrq-trigger")],
        },
    }  # fmt: skip


def spec(context: Context, line: Line) -> int:
    """Write the starter configuration into the bundle; one that is there is kept."""
    if line.on("rootless"):
        raise StateError("spec --rootless: rootless containers are not implemented by Pier")
    folder = line.text("bundle") or "."
    if not os.path.isdir(folder):
        raise StateError(f"chdir {folder}: no such file or directory")
    path = os.path.join(folder, CONFIG_NAME)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        raise StateError(f"File {CONFIG_NAME} exists. Remove it first") from None
    with open(fd, "w", encoding="utf-8") as file:
        file.write(pretty(starter(), "\t"))
    return 0


def features(context: Context, line: Line) -> int:
    sys.stdout.write(pretty(document(), "    ") + "\n")
    return 0


def document() -> dict[str, Any]:
    """What this runtime understands, on any kernel, save the capabilities and the security modules: on this one."""
    from pier.kernel.seccomp import FLAGS  # noqa: PLC0415
    from pier.kernel.seccomp_rules import ACTIONS, ARCHITECTURES, OPERATORS  # noqa: PLC0415 - no other verb needs it

    options = {*ATTRIBUTES, *RECURSIVE_ATTRIBUTES, *PASSED_OVER, *BIND_WORDS, *mounts.PROPAGATION, *_FILESYSTEM_FLAGS}
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": VERSION,
        "hooks": list(HOOK_KINDS),
        "mountOptions": sorted(options),
        "linux": {
            "namespaces": sorted(OCI_TYPES),
            "capabilities": list(NAMES[: last_cap() + 1]),
            "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": False, "rdma": True},
            "seccomp": {
                "enabled": True,
                "actions": sorted(ACTIONS),
                "operators": sorted(OPERATORS),
                "archs": sorted(f"SCMP_ARCH_{name}" for name in ARCHITECTURES),
                "knownFlags": sorted(FLAGS),
                "supportedFlags": sorted(FLAGS),
            },
            "apparmor": {"enabled": os.path.exists(APPARMOR_ENABLED)},
            "selinux": {"enabled": os.path.exists(SELINUX_ROOT)},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
        },
        "annotations": {"org.opencontainers.runc.checkpoint.enabled": "false"},
        "potentiallyUnsafeConfigAnnotations": [],
    }
