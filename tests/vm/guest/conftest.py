"""The runtime's own laboratory, in the test machine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.runtime.conftest import CGROUP_PARENT, Container, Lab, busybox_root, lab, no_cgroup_left, unframe

from pier.kernel import cgroups
from pier.kernel.cgroups import Cgroup
from pier.runtime.client import Runtime

from .benches import bench

__all__ = ["CGROUP_PARENT", "UNIFIED", "Container", "Lab", "bench", "busybox_root", "group_of", "lab", "no_cgroup_left"]

UNIFIED = Path("/sys/fs/cgroup")


def group_of(container: Container) -> Cgroup:
    return Cgroup(cgroups.detect(), container.request.spec["linux"]["cgroupsPath"])


def folder_of(container: Container) -> Path:
    return Path(f"{UNIFIED}{group_of(container).path}")


async def text_of(container: Container) -> str:
    return unframe(await container.read())


@pytest.fixture(scope="session")
def runtime() -> Iterator[Runtime]:
    """One zygote for all: this machine is slow."""
    started = Runtime()
    asyncio.run(started.start())
    yield started
    asyncio.run(started.close())


@pytest.fixture
def group() -> Iterator[Cgroup]:
    """A cgroup of the test's own, `/pier-vm/leaf`."""
    made = Cgroup(cgroups.detect(), "/pier-vm/leaf")
    made.create()
    yield made
    parent = Cgroup(made.layout, "/pier-vm")
    parent.kill()
    parent.remove()
