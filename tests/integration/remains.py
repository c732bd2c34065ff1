"""What one daemon keeps of its containers and images, so that a test can say that nothing is too much."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from .client import Client
from .conftest import Daemon

CGROUPS = Path("/sys/fs/cgroup")


def folders(daemon: Daemon) -> dict[str, set[str]]:
    """Where there is one entry a container, and which there are."""
    places = {
        "record": daemon.data_root / "containers",
        "writable layer": daemon.data_root / "snapshots/overlay2/containers",
        "runtime": daemon.exec_root / "containers",
    }
    return {kind: {path.name for path in place.glob("*")} for kind, place in places.items()}  # not there: empty


def unfinished(daemon: Daemon) -> list[str]:
    """What comes in, is unpacked, or goes away: nothing of it outlives an operation."""
    places = ("content/ingest", "snapshots/overlay2/partial", "snapshots/overlay2/trash")
    found = [f"{place}/{path.name}" for place in places for path in (daemon.data_root / place).glob("*")]
    return found + [f"volumes/{path.name}" for path in (daemon.data_root / "volumes").glob(".*")]


def cgroups(number: int) -> set[str]:
    """The containers that have a cgroup in any hierarchy."""
    parent = f"pier-test-{number}"
    hierarchies = [CGROUPS, *(path for path in CGROUPS.iterdir() if path.is_dir())]
    found = [path for hierarchy in hierarchies for path in hierarchy.glob(f"{parent}/*") if path.is_dir()]
    return {path.name for path in found}


def ports_of_bridge(bridge: str) -> list[str]:
    """The host's ends of the containers' veth pairs."""
    return [path.name for path in Path(f"/sys/class/net/{bridge}/brif").iterdir()]


def published(bridge: str) -> list[str]:
    """The elements of the maps of published ports; those that lead to chains are of networks."""
    command = ["nft", "-j", "list", "table", "inet", f"pier-{bridge}"]
    listed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["nftables"]
    maps = [item["map"] for item in listed if "map" in item and item["map"]["map"] != "verdict"]
    return [str(element) for found in maps for element in found.get("elem", [])]


def too_much(daemon: Daemon, docker: Client) -> list[str]:
    """Everything that belongs to no container, or to one that does not run, as sentences."""
    every = docker.ids()
    running = set(docker.ok("ps", "-q", "--no-trunc").split())
    found = [f"{kind} of {id[:12]}" for kind, ids in folders(daemon).items() for id in ids - every]
    found += [f"cgroup of {id[:12]}" for id in cgroups(daemon.number) - running]
    found += unfinished(daemon)
    if len(ports_of_bridge(daemon.bridge)) > len(running):
        found.append(f"devices on the bridge: {ports_of_bridge(daemon.bridge)}")
    if not running and (elements := published(daemon.bridge)):
        found.append(f"published ports: {elements}")
    return found
