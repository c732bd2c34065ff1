"""Logs: what containers printed, read back."""

from pier.logs.query import Query
from pier.logs.reader import read, read_all

__all__ = ["Query", "read", "read_all"]
