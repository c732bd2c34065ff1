"""Logs: what containers printed, read back."""

from pier.logs.jsonfile import Query, read, read_all

__all__ = ["Query", "read", "read_all"]
