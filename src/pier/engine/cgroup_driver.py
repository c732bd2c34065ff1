"""Who keeps the containers' cgroups: Pier itself, or systemd (`exec-opts`, `native.cgroupdriver`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pier.errors import PierError
from pier.kernel.cgroups import Layout
from pier.runtime.systemd import scopes
from pier.runtime.systemd.units import DEFAULT_SLICE, is_slice

CGROUPFS, SYSTEMD = "cgroupfs", "systemd"
OPTION = "native.cgroupdriver"
CGROUPFS_PARENT = "/pier"
BAD_SLICE = 'cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"'


class BadParent(PierError):
    """{reason}"""

    exit_code = 1
    remedy = "set cgroup-parent to a slice such as pier.slice, or exec-opts to native.cgroupdriver=cgroupfs"


@dataclass(frozen=True, slots=True)
class CgroupDriver:
    """What was chosen, and where containers are that name no parent."""

    name: str
    parent: str

    @property
    def is_systemd(self) -> bool:
        return self.name == SYSTEMD


def option_of(exec_opts: Iterable[str]) -> str:
    """The driver that was asked for, empty for none; of several options the first counts, as in Docker."""
    for option in exec_opts:
        key, _, value = option.partition("=")
        if key.strip().lower() == OPTION:
            return value.strip()
    return ""


def find_problem(exec_opts: Iterable[str], parent: str) -> str:
    """What is wrong with the options themselves, in Docker's words; empty when nothing is."""
    for option in exec_opts:
        key, _, value = option.partition("=")
        if not key or not value:
            return f"invalid exec-opt ({option}): must be formatted 'opt=value'"
        if key.strip().lower() != OPTION:
            return f"invalid exec-opt ({option}): unknown option: '{key}'"
    wanted = option_of(exec_opts)
    if wanted == "none":
        return f"{OPTION} option {wanted} is internally used and cannot be specified manually"
    if wanted not in ("", CGROUPFS, SYSTEMD):
        return f"{OPTION} option {wanted} not supported"
    return BAD_SLICE if wanted == SYSTEMD and parent and not is_slice(parent) else ""


def choose(exec_opts: Iterable[str], parent: str, layout: Layout, *, booted: bool) -> CgroupDriver:
    """As Docker does it: what was asked for, else systemd where that is init (`booted`) and cgroups are v2.

    Raises BadParent; NoSystemd where systemd was asked for and is not there.
    """
    name = option_of(exec_opts) or (SYSTEMD if booted and layout.mode == "v2" else CGROUPFS)
    if name == CGROUPFS:
        return CgroupDriver(name, parent or CGROUPFS_PARENT)
    if not booted:
        raise scopes.NoSystemd(reason=f"{OPTION}=scopes, and systemd is not init on this machine")
    if parent and not is_slice(parent):
        raise BadParent(reason=BAD_SLICE)
    return CgroupDriver(name, parent or DEFAULT_SLICE)
