"""Logs: what containers printed, read back."""

from pier.logs.disk import truncate, usage
from pier.logs.query import Query
from pier.logs.reader import Follower, read, read_all
from pier.logs.watch import Watcher

__all__ = ["Follower", "Query", "Watcher", "read", "read_all", "truncate", "usage"]
