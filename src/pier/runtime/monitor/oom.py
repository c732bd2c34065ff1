"""A container's out-of-memory kills, noticed while it runs: by an event of the kernel's, not by looking again."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from pier.kernel import cgroup_oom
from pier.kernel.cgroups import Cgroup
from pier.runtime.monitor.poll import Poller

SETTLE_S = 0.1
"""After an event the kernel is left to finish its kill; a container at its limit has v2's file change all the time."""


class OomWatch:
    """Calls `on_oom` once for what the kernel killed in a burst, or was not allowed to kill."""

    def __init__(self, poller: Poller, cgroup: Cgroup, on_oom: Callable[[], None]) -> None:
        self._poller = poller
        self._cgroup = cgroup
        self._on_oom = on_oom
        self._fd, self._events = -1, 0
        self._kills, self._told = 0, 0
        self._above = cgroup.oom_kills_above() if cgroup.made_around_a_process else 0

    def open(self) -> None:
        """Watch from now on; what was before counts too. A machine that tells nothing leaves it to `count`."""
        with contextlib.suppress(OSError):
            if (found := cgroup_oom.open_watch(self._cgroup)) is not None:
                self._fd, self._events = found
                self._watch()
        if self.count():
            self._on_oom()

    def _watch(self) -> None:
        self._poller.watch(self._fd, self._events, lambda events: self._ready())

    def _ready(self) -> None:
        self._poller.forget(self._fd)
        self._look()  # at once: an empty scope is removed by systemd
        self._poller.after(self, SETTLE_S, self._again)

    def _again(self) -> None:
        cgroup_oom.acknowledge(self._fd, self._events)
        self._watch()
        # With `--oom-kill-disable` nobody is killed, and everybody waits.
        if self.count() or self._cgroup.under_oom():
            self._on_oom()

    def count(self) -> bool:
        """Whether there were kills since it was last asked."""
        self._look()
        before, self._told = self._told, self._kills
        return self._kills > before

    def _look(self) -> None:
        if not self._cgroup.made_around_a_process:
            self._kills = max(self._kills, self._cgroup.oom_kills())
            return
        above = self._read_both()
        if above < self._above:
            self._above = 0  # the slice is a new one
        if not self._cgroup.is_gone():
            self._above = above
        elif above > self._above:
            self._kills, self._above = self._kills + 1, above

    def _read_both(self) -> int:
        """Read the count of a scope, and that of the slice above, which is returned.

        What systemd makes it also removes, as soon as it is empty, so the last kill may be in the slice's count alone;
        another container's since the last look would be, too. A kill is counted below first: with the same number
        above before and after, there is none that is in one of the two only.
        """
        above = self._cgroup.oom_kills_above()
        while True:
            self._kills = max(self._kills, self._cgroup.oom_kills())
            before, above = above, self._cgroup.oom_kills_above()
            if above == before:
                return above

    def close(self) -> None:
        """Before the cgroup is removed: that is an event, too. What it counted stays."""
        if self._fd >= 0:
            self._poller.cancel(self)
            self._poller.forget(self._fd)
            os.close(self._fd)
            self._fd = -1
