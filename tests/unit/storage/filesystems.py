"""File systems for tests: made in a file, mounted in the test's folder, gone afterwards."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MAKE = {
    "btrfs": (["mkfs.btrfs", "-q"], "", 160),
    "xfs": (["mkfs.xfs", "-q", "-m", "reflink=1"], "", 320),
    "xfs with quotas": (["mkfs.xfs", "-q", "-m", "reflink=1"], "prjquota", 320),
    "ext4": (["mkfs.ext4", "-q"], "", 64),
    "ext4 with quotas": (["mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota"], "prjquota", 64),
}
"""Name -> (command that makes it, mount options, MiB)."""


@contextlib.contextmanager
def mounted(name: str) -> Iterator[Path]:
    """A fresh file system of a kind; the test is skipped where the machine cannot make or mount one."""
    command, options, size_mib = MAKE[name]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    folder = Path(tempfile.mkdtemp(prefix="pier-fs-", dir="/var/tmp"))
    image, place = folder / "image", folder / "mnt"
    place.mkdir()
    try:
        with image.open("wb") as file:
            file.truncate(size_mib << 20)
        subprocess.run([*command, str(image)], check=True, capture_output=True)
        mount = ["mount", "-o", ",".join(["loop", options] if options else ["loop"]), str(image), str(place)]
        done = subprocess.run(mount, check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"{name} cannot be mounted here: {done.stderr.strip()}")
        try:
            yield place
        finally:
            subprocess.run(["umount", str(place)], check=True)
    finally:
        shutil.rmtree(folder)
