"""The cgroup that an OCI configuration's `linux.cgroupsPath` means, as Pier writes it."""

from __future__ import annotations

from collections.abc import Mapping

from pier.kernel.cgroup_layout import Layout
from pier.kernel.cgroups import Cgroup

SCOPE_PREFIX = "pier"
"""Before the id of a daemon's container in the name of its scope, `pier-ID.scope`: which daemons clean up."""
OWN_SCOPE_PREFIX = "pier-runtime"
"""The same for a container of the command line's that asks for no place."""


def group_at(layout: Layout, cgroups_path: str, annotations: Mapping[str, str] | None = None) -> Cgroup:
    """`/a/b`: a cgroup of our own making; `slice:prefix:name`: a scope of systemd's.

    Annotations `org.systemd.property.NAME` ask for properties of a scope. Raises CgroupError, InvalidParameter.
    """
    if cgroups_path.startswith("/"):
        return Cgroup(layout, cgroups_path)
    # Not for those who do without systemd; the zygote has it loaded where it is wanted.
    from pier.runtime.systemd.scopes import Scope  # noqa: PLC0415
    from pier.runtime.systemd.units import ScopeName, asked_for  # noqa: PLC0415

    return Scope(layout, ScopeName.parse(cgroups_path), asked_for(annotations or {}))
