"""Containers: the whole life of one, from the request that makes it to the removal of what it leaves."""

from pier.containers.attach import Attachment
from pier.containers.service import ContainerService
from pier.containers.world import ContainersConfig

__all__ = ["Attachment", "ContainerService", "ContainersConfig"]
