"""What happened, told to everyone who listens: `docker events`, and Pier's own rooms.

All of it runs on the event loop's thread. Publishing never waits: a subscriber that falls `BACKLOG` events behind is
dropped, and its iterator ends with SubscriberTooSlow once it has read what was kept for it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from pier.errors import PierError
from pier.events.filter import matches
from pier.model.event import EventActor, EventMessage
from pier.model.filters import Filters

HISTORY = 256
"""Events remembered for `since`, as Docker does."""
BACKLOG = 1024
"""Events that wait for one subscriber, at most."""

NS = 1_000_000_000
NO_FILTERS = Filters()


class SubscriberTooSlow(PierError):
    """the events stream fell {backlog} events behind and was dropped"""

    remedy = "read faster, filter more narrowly, or subscribe again with since="


class EventBus:
    """One per daemon."""

    def __init__(self, *, clock_ns: Callable[[], int] = time.time_ns, history: int = HISTORY, backlog: int = BACKLOG):
        self._clock_ns = clock_ns
        self._history: deque[EventMessage] = deque(maxlen=history)
        self._backlog = backlog
        self._subscribers: set[_Subscriber] = set()
        self._closed = False

    @property
    def listeners(self) -> int:
        """Subscribers at this moment (`NEventsListener` of `docker info`)."""
        return len(self._subscribers)

    def publish(self, type: str, action: str, id: str, attributes: dict[str, str]) -> None:
        """Tell every subscriber whose filters let it pass; the attributes are copied."""
        now_ns = self._clock_ns()
        event = EventMessage(
            type=type,
            action=action,
            actor=EventActor(id=id, attributes=dict(attributes)),
            scope="local",
            time=now_ns // NS,
            time_nano=now_ns,
        )
        self._history.append(event)
        for subscriber in tuple(self._subscribers):
            if not subscriber.offer(event):
                self._subscribers.discard(subscriber)

    @asynccontextmanager
    async def subscribe(
        self, *, filters: Filters | None = None, since_ns: int = 0, until_ns: int = 0
    ) -> AsyncIterator[AsyncIterator[EventMessage]]:
        """Listen from now on, after the remembered events between `since_ns` and `until_ns` (0: not given).

        The iterator ends at `until_ns` and when the bus closes; it raises SubscriberTooSlow.
        """
        filters = filters or NO_FILTERS
        subscriber = _Subscriber(filters, self._backlog)
        past = self._remembered(filters, since_ns, until_ns)
        self._subscribers.add(subscriber)
        if self._closed:
            subscriber.end()
        try:
            yield self._read(subscriber, past, until_ns)
        finally:
            self._subscribers.discard(subscriber)

    def close(self) -> None:
        """End every subscription, so that open event streams finish when the daemon shuts down."""
        self._closed = True
        for subscriber in self._subscribers:
            subscriber.end()

    def _remembered(self, filters: Filters, since_ns: int, until_ns: int) -> list[EventMessage]:
        if not since_ns and not until_ns:
            return []
        return [
            event
            for event in self._history
            if event.time_nano >= since_ns and (not until_ns or event.time_nano <= until_ns) and matches(event, filters)
        ]

    async def _read(
        self, subscriber: _Subscriber, past: list[EventMessage], until_ns: int
    ) -> AsyncIterator[EventMessage]:
        for event in past:
            yield event
        while True:
            left_s = (until_ns - self._clock_ns()) / NS if until_ns else None
            try:
                async with asyncio.timeout(left_s):
                    event_or_end = await subscriber.next()
            except TimeoutError:
                return
            if event_or_end is None or (until_ns and event_or_end.time_nano > until_ns):
                return
            yield event_or_end


class _Subscriber:
    """A bounded queue of events behind a filter; None in it is the end."""

    def __init__(self, filters: Filters, backlog: int) -> None:
        self._filters = filters
        self._backlog = backlog
        self._waiting: asyncio.Queue[EventMessage | None] = asyncio.Queue()
        self._dropped = False

    def offer(self, event: EventMessage) -> bool:
        """Queue the event if it passes the filter; False: too far behind, offer no more."""
        if not matches(event, self._filters):
            return True
        if self._waiting.qsize() >= self._backlog:
            self._dropped = True
            self.end()
            return False
        self._waiting.put_nowait(event)
        return True

    def end(self) -> None:
        self._waiting.put_nowait(None)

    async def next(self) -> EventMessage | None:
        event = await self._waiting.get()
        if event is None and self._dropped:
            raise SubscriberTooSlow(backlog=self._backlog)
        return event
