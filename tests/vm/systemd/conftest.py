"""Containers that are scopes of a real systemd's, which is pid 1 of the test machine."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.unit.runtime.conftest import MOUNTS, busybox_root, lab
from tests.vm.guest.benches import bench

from pier.runtime.client import Runtime

__all__ = ["bench", "busybox_root", "lab"]


@pytest.fixture
async def runtime() -> AsyncIterator[Runtime]:
    started = Runtime(standard_mounts=MOUNTS, systemd=True)
    await started.start()
    yield started
    await started.close()
