"""Events: one bus, on which every room says what it did."""

from pier.events.bus import EventBus, SubscriberTooSlow
from pier.events.filter import matches

__all__ = ["EventBus", "SubscriberTooSlow", "matches"]
