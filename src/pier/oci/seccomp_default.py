"""Docker's seccomp profiles: the default one, as data beside this module, and what a profile means for one container.

A profile in Docker's own format has conditions (capabilities, architecture, kernel version) on its rules and maps a
machine's architecture to those it runs besides; resolving it gives OCI's `linux.seccomp`. Users give profiles in this
format with `--security-opt seccomp=FILE`, some written for OCI without any condition.

The default is the one that Moby publishes in moby/profiles (2026). Against that of Docker 28 it also keeps AF_ALG
sockets shut, and those of families that the kernel no longer has.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from functools import cache
from importlib import resources
from typing import Any

from pier.errors import InvalidParameter

MAX_PROFILE_BYTES = 1 << 20

_GO_ARCHITECTURES = {
    # uname's machine: (GOARCH as rules name it, OCI's)
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "armv7l": ("arm", "SCMP_ARCH_ARM"),
    "i686": ("x86", "SCMP_ARCH_X86"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "loongarch64": ("loong64", "SCMP_ARCH_LOONGARCH64"),
}


class BadSeccompProfile(InvalidParameter):
    """Decoding seccomp profile failed: {reason}"""


@cache
def default_profile() -> Mapping[str, Any]:
    """Docker's default profile in Docker's format. Do not change what is in it."""
    text = resources.files("pier.oci").joinpath("seccomp_default.json").read_bytes()
    return load(text)


def load(text: str | bytes) -> dict[str, Any]:
    """Read a profile from JSON; its rules are checked when it is resolved and compiled. Raises BadSeccompProfile."""
    if len(text) > MAX_PROFILE_BYTES:
        raise BadSeccompProfile(reason=f"it has {len(text)} bytes, at most {MAX_PROFILE_BYTES} are read")
    try:
        profile = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadSeccompProfile(reason=str(error)) from error
    if not isinstance(profile, dict):
        raise BadSeccompProfile(reason="it is not a JSON object")
    return profile


def resolve(
    profile: Mapping[str, Any],
    capabilities: Collection[str],
    arch: str | None = None,
    kernel_version: tuple[int, int] | None = None,
) -> dict[str, Any] | None:
    """OCI's `linux.seccomp` of a profile for one container; None for a profile that says nothing at all.

    capabilities: names of the bounding set. arch: uname's machine, None: this one's. kernel_version: (major, minor),
    None: the running kernel's. Raises BadSeccompProfile.
    """
    if not profile.get("defaultAction") and not profile.get("syscalls"):
        return None
    if profile.get("architectures") and profile.get("archMap"):
        reason = "'architectures' and 'archMap' were specified in the seccomp profile, use either of them"
        raise BadSeccompProfile(reason=reason)
    machine = arch or os.uname().machine
    version = kernel_version or running_kernel()
    go_arch, oci_arch = _GO_ARCHITECTURES.get(machine, (machine, ""))
    resolved: dict[str, Any] = {
        key: profile[key]
        for key in ("defaultAction", "defaultErrnoRet", "flags", "listenerPath", "listenerMetadata")
        if profile.get(key) is not None
    }
    resolved["architectures"] = _strings(profile, "architectures") or _mapped(profile.get("archMap") or (), oci_arch)
    resolved["syscalls"] = [
        _rule(entry)
        for entry in _objects(profile.get("syscalls") or (), "syscalls")
        if _applies(entry, capabilities, go_arch, version)
    ]
    return resolved


def running_kernel() -> tuple[int, int]:
    """(major, minor) of uname's release."""
    return parse_kernel_version(os.uname().release)


def parse_kernel_version(text: str) -> tuple[int, int]:
    """`4.8`, `6.18.44-generic` -> (4, 8), (6, 18). Raises BadSeccompProfile."""
    match = re.match(r"(\d{1,9})\.(\d{1,9})(?:\D|$)", text)
    if match is None:
        raise BadSeccompProfile(reason=f"invalid kernel version: {text!r}")
    return int(match[1]), int(match[2])


def _mapped(arch_map: Any, oci_arch: str) -> list[str]:
    """The machine's architecture and those that it runs besides; none where the map does not know it."""
    for entry in _objects(arch_map, "archMap"):
        if entry.get("architecture") == oci_arch:
            return [oci_arch, *_strings(entry, "subArchitectures")]
    return []


def _rule(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A rule without its conditions, in OCI's words."""
    name, names = entry.get("name"), _strings(entry, "names")
    if name and names:
        reason = "'name' and 'names' were specified in the seccomp profile, use either 'name' or 'names'"
        raise BadSeccompProfile(reason=reason)
    rule = {"names": [str(name)] if name else names, "action": entry.get("action")}
    if entry.get("errnoRet") is not None:
        rule["errnoRet"] = entry["errnoRet"]
    if entry.get("args"):
        rule["args"] = _objects(entry["args"], "args")
    return rule


def _applies(entry: Mapping[str, Any], capabilities: Collection[str], go_arch: str, version: tuple[int, int]) -> bool:
    """Whether all that the rule includes is there and nothing that it excludes."""
    includes, excludes = (_object(entry, key) for key in ("includes", "excludes"))
    if go_arch in _strings(excludes, "arches"):
        return False
    if any(capability in capabilities for capability in _strings(excludes, "caps")):
        return False
    if excludes.get("minKernel") and version >= parse_kernel_version(str(excludes["minKernel"])):
        return False
    if includes.get("arches") and go_arch not in _strings(includes, "arches"):
        return False
    if not all(capability in capabilities for capability in _strings(includes, "caps")):
        return False
    return not includes.get("minKernel") or version >= parse_kernel_version(str(includes["minKernel"]))


def _object(entry: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = entry.get(key) or {}
    if not isinstance(value, Mapping):
        raise BadSeccompProfile(reason=f"{key} is not an object")
    return value


def _objects(value: Any, key: str) -> list[Mapping[str, Any]]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, Mapping) for item in value):
        raise BadSeccompProfile(reason=f"{key} is no list of objects")
    return list(value)


def _strings(entry: Mapping[str, Any], key: str) -> list[str]:
    value = entry.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadSeccompProfile(reason=f"{key} is no list of names")
    return value
