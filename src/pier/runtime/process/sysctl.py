"""Which kernel parameters a container may set: those of namespaces of its own (config-linux.md, "Sysctl")."""

from __future__ import annotations

NAMESPACED_SYSCTLS = {
    "ipc": ("kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
            "kernel.shmmni", "kernel.shm_rmid_forced", "fs.mqueue."),
    "network": ("net.",),
    "uts": ("kernel.domainname", "kernel.hostname"),
}  # fmt: skip
"""Kernel parameters that belong to a namespace; all others are the host's."""


def check_sysctl(key: str, own_namespaces: set[str]) -> None:
    """Raise ValueError unless `key` is a parameter of a namespace that is the container's own."""
    dotted = key.replace("/", ".")
    for namespace, prefixes in NAMESPACED_SYSCTLS.items():
        if any(dotted.startswith(prefix) if prefix.endswith(".") else dotted == prefix for prefix in prefixes):
            if namespace in own_namespaces and ".." not in dotted:
                return
            if namespace == "ipc":
                raise ValueError(f'sysctl "{key}" is not allowed in the hosts ipc namespace')
            raise ValueError(f'sysctl "{key}" not allowed in host {namespace} namespace')
    raise ValueError(f'sysctl "{key}" is not in a separate kernel namespace')
