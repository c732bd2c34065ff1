"""What steps, sources and exporters of the builder work with: the rooms below, handed in."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Final, ParamSpec, TypeVar

from pier.containers.world import ContainersConfig, Filters, Networks, Runtime
from pier.distribution import Registries
from pier.images import ImageService
from pier.oci import Descriptor, Digest
from pier.storage import ContentStore, Snapshotter

THREADS: Final = 8
"""Copies, layers and checksums at once."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True)
class Ground:
    """One per daemon."""

    snapshots: Snapshotter
    content: ContentStore
    images: ImageService
    runtime: Runtime
    networks: Networks
    seccomp: Filters
    config: ContainersConfig
    host_texts: Callable[[], tuple[str, str]]
    """(resolv.conf, hosts) of the host."""
    registries: Registries
    """Fetches from the web, through the daemon's proxies."""
    fresh: dict[Digest, list[bytes]] = field(default_factory=dict)
    """diff_id -> archive, of small layers that were made a moment ago (`layers`)."""
    compressed: dict[tuple[Digest, str, int | None], Descriptor] = field(default_factory=dict)
    """(diff_id, kind, level) -> what that has come to (`compressing`)."""
    clock_ns: Callable[[], int] = time.time_ns
    threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(THREADS, thread_name_prefix="build"))

    @property
    def data_dir(self) -> str:
        """Contexts while builds run, and cache mounts."""
        return os.path.join(self.config.data_root, "builder")

    @property
    def exec_dir(self) -> str:
        """Monitors of steps that run."""
        return os.path.join(self.config.exec_root, "builds")

    async def in_thread(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Do blocking work; it is waited for even when the waiter is cancelled, for a thread cannot be stopped."""
        return await finish_in(self.threads, partial(work, *args, **kwargs))


async def finish_in(threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    """Await work in a thread to its end, also when cancelled."""
    future = asyncio.get_running_loop().run_in_executor(threads, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise
