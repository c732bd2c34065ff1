"""Leases: what a pull, a load or a build has met is not swept while it runs, though no name points at it yet.

A sweep need not wait. While any lease is held, every blob or layer that is written, opened or found to be there is
remembered with a running number; one met since the oldest lease began is spared. Whoever holds a lease therefore keeps
all it has seen, without saying what.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


class Leases:
    """Of one store; safe from all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clock = 0
        self._held: dict[int, int] = {}
        """Lease -> the clock when it began; dicts keep their order, so the oldest comes first."""
        self._met: dict[str, int] = {}
        """Blob or layer -> the clock when it was met last, the oldest first."""
        self._spared = False

    @property
    def held(self) -> int:
        """How many leases there are."""
        return len(self._held)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """A lease for as long as the block runs."""
        with self._lock:
            self._clock += 1
            lease = self._clock
            self._held[lease] = lease
        try:
            yield
        finally:
            with self._lock:
                del self._held[lease]
                self._forget()

    def _forget(self) -> None:
        """Drop what no lease protects any more."""
        oldest = next(iter(self._held.values()), self._clock + 1)
        while self._met and (key := next(iter(self._met))) and self._met[key] < oldest:
            del self._met[key]

    def meet(self, key: str) -> None:
        """Remember that someone uses a blob or layer; call it before looking whether that is there."""
        if not self._held:  # nobody to protect it for
            return
        with self._lock:
            self._clock += 1
            self._met.pop(key, None)
            self._met[key] = self._clock

    def sweep(self, key: str, remove: Callable[[], None]) -> bool:
        """Call `remove` unless a lease protects `key`; nobody can meet it in between."""
        with self._lock:
            if key in self._met:
                self._spared = True
                return False
            remove()
            return True

    def take_spared(self) -> bool:
        """Whether a sweep has left something to leases since this was asked last: another is due when they end."""
        with self._lock:
            spared, self._spared = self._spared, False
            return spared
