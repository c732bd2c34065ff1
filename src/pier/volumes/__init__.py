"""Volumes: data that outlives containers, in folders of their own or on file systems that options describe."""

from pier.volumes.files import VolumeFiles
from pier.volumes.record import ANONYMOUS, DRIVER, NoSuchVolume, Record
from pier.volumes.service import Claim, VolumeService, Wanted

__all__ = ["ANONYMOUS", "DRIVER", "Claim", "NoSuchVolume", "Record", "VolumeFiles", "VolumeService", "Wanted"]
