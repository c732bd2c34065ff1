"""A container's time zone (`pier run --timezone`): TZ, and the host's zone data where the image has none.

Without zone data a program takes UTC for every zone in silence (musl, glibc) or fails to load it (Go).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from pier.containers.own_annotations import timezone
from pier.errors import InvalidParameter
from pier.kernel.paths import closing, open_in_root
from pier.model.container import ContainerConfig
from pier.model.host_config import HostConfig

ZONEINFO = "/usr/share/zoneinfo"
"""Where zone data lies in an image as on the host (tzset(3), tzfile(5))."""


class NoZoneData(InvalidParameter):
    """the time zone {zone} is neither known to the image nor to this host"""

    remedy = f"names are those of files below {ZONEINFO}; the host may lack its package tzdata"


def with_zone(config: ContainerConfig, host: HostConfig, given: Sequence[str] | None) -> list[str] | None:
    """`config.env` with TZ as asked for; a TZ among the variables that the request gave stays."""
    zone = timezone(host.annotations)
    if not zone or any(entry.partition("=")[0] == "TZ" for entry in given or ()):
        return config.env
    return [entry for entry in config.env or () if entry.partition("=")[0] != "TZ"] + [f"TZ={zone}"]


def missing_data(host: HostConfig, tree: int) -> str:
    """The host's folder of zone data if the container's tree (a descriptor) lacks the zone, else "". Blocking.

    Raises NoZoneData.
    """
    zone = timezone(host.annotations)
    if not zone or _has(tree, f"{ZONEINFO}/{zone}"):
        return ""
    if not os.path.isfile(f"{ZONEINFO}/{zone}"):
        raise NoZoneData(zone=zone)
    return ZONEINFO


def _has(tree: int, path: str) -> bool:
    try:
        with closing(open_in_root(tree, path, os.O_PATH)) as fd:
            return stat.S_ISREG(os.fstat(fd).st_mode)
    except OSError:
        return False
