import asyncio
from collections.abc import AsyncIterator

import pytest

from pier.events import EventBus, SubscriberTooSlow
from pier.model.event import EventMessage
from pier.model.filters import Filters


class Clock:
    """Nanoseconds that pass only when told to."""

    now = 1_000_000_000

    def __call__(self) -> int:
        self.now += 1
        return self.now


async def take(stream: AsyncIterator[EventMessage], count: int) -> list[str]:
    return [(await anext(stream)).action for _ in range(count)]


def publish(bus: EventBus, *actions: str) -> None:
    for action in actions:
        bus.publish("container", action, "c" * 64, {"name": "web"})


async def test_subscribers_see_what_happens_after_they_came() -> None:
    bus = EventBus()
    publish(bus, "create")
    async with bus.subscribe() as one, bus.subscribe(filters=Filters({"event": ("die",)})) as two:
        publish(bus, "start", "die")
        assert await take(one, 2) == ["start", "die"]
        assert await take(two, 1) == ["die"]
        assert bus.listeners == 2
    assert bus.listeners == 0


async def test_time_is_in_seconds_and_nanoseconds() -> None:
    bus = EventBus(clock_ns=lambda: 5_000_000_007)
    attributes = {"name": "web"}
    async with bus.subscribe() as stream:
        bus.publish("container", "start", "id", attributes)
        attributes["name"] = "changed later"
        event = await anext(stream)
    assert (event.time, event.time_nano, event.scope) == (5, 5_000_000_007, "local")
    assert event.actor.attributes == {"name": "web"}


async def test_since_and_until_read_the_history() -> None:
    clock = Clock()
    bus = EventBus(clock_ns=clock)
    publish(bus, "one", "two", "three")
    first = 1_000_000_001
    async with bus.subscribe(since_ns=first + 1, until_ns=first + 1) as stream:
        assert [event.action async for event in stream] == ["two"]
    async with bus.subscribe(since_ns=first + 1) as stream:
        publish(bus, "four")
        assert await take(stream, 3) == ["two", "three", "four"]


async def test_until_in_the_future_ends_the_stream() -> None:
    bus = EventBus()
    async with bus.subscribe(until_ns=bus._clock_ns() + 50_000_000) as stream:
        publish(bus, "start")
        async with asyncio.timeout(5):
            assert [event.action async for event in stream] == ["start"]


async def test_history_is_bounded() -> None:
    bus = EventBus(history=256)
    publish(bus, *map(str, range(300)))
    async with bus.subscribe(since_ns=1, until_ns=bus._clock_ns()) as stream:
        assert [event.action async for event in stream] == [str(n) for n in range(44, 300)]


async def test_a_slow_subscriber_is_dropped_and_told() -> None:
    bus = EventBus(backlog=3)
    async with bus.subscribe() as slow, bus.subscribe() as fast:
        seen = []
        for n in range(6):
            publish(bus, str(n))
            seen += await take(fast, 1)
        assert seen == list("012345")
        assert bus.listeners == 1
        assert await take(slow, 3) == ["0", "1", "2"]
        with pytest.raises(SubscriberTooSlow, match="3 events behind"):
            await anext(slow)


async def test_closing_the_bus_ends_open_and_later_streams() -> None:
    bus = EventBus()
    async with bus.subscribe() as stream:
        publish(bus, "last")
        bus.close()
        assert [event.action async for event in stream] == ["last"]
    async with bus.subscribe() as stream:
        assert [event async for event in stream] == []
