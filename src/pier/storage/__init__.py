"""Content by digest, layers as trees, snapshots for containers."""

from pier.storage.changes import Change, Diffed
from pier.storage.content import ContentStore, VerifiedReader, Writer
from pier.storage.folder_driver import Setup
from pier.storage.leases import Leases
from pier.storage.snapshots import Snapshotter, choose_driver

__all__ = [
    "Change",
    "ContentStore",
    "Diffed",
    "Leases",
    "Setup",
    "Snapshotter",
    "VerifiedReader",
    "Writer",
    "choose_driver",
]
