"""Content by digest, layers as trees, snapshots for containers."""

from pier.storage.content import ContentStore, VerifiedReader, Writer
from pier.storage.snapshots import Snapshotter, choose_driver

__all__ = ["ContentStore", "Snapshotter", "VerifiedReader", "Writer", "choose_driver"]
