"""State: what the daemon must still know after it was killed."""

from pier.state.database import Database, DatabaseTooNew, DatabaseUnusable, Repair, StateNotWritten
from pier.state.memory import MemoryStore
from pier.state.store import Delete, Put, Store

__all__ = [
    "Database",
    "DatabaseTooNew",
    "DatabaseUnusable",
    "Delete",
    "MemoryStore",
    "Put",
    "Repair",
    "StateNotWritten",
    "Store",
]
