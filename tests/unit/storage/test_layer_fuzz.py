"""Attack 10 by chance: archives put together from hostile parts, and archives with broken bytes, beside a canary."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pier.kernel import paths
from pier.storage import layer
from pier.storage.errors import BadArchive
from pier.storage.trees import remove_tree

from .archives import archive, member
from .test_layer import picture

pytestmark = pytest.mark.root

KINDS = [
    tarfile.REGTYPE,
    tarfile.DIRTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.FIFOTYPE,
    tarfile.CONTTYPE,
]
PARTS = ["a", "b", "s", "..", ".", "", "canary", "file", ".wh.a", ".wh.s", ".wh..", ".wh..wh..opq", ".wh..wh.plnk"]
PLACES = ["", "/", "./", "../", "../../", "{canary}/", "/proc/self/root{canary}/", "/proc/self/cwd/"]
XATTRS = ["user.x", "trusted.overlay.redirect", "trusted.overlay.opaque", "security.capability", "nonsense"]

names = st.builds(
    lambda place, parts: place + "/".join(parts), st.sampled_from(PLACES), st.lists(st.sampled_from(PARTS), max_size=4)
)
members = st.builds(
    lambda name, kind, link, mode, xattrs: (name, kind, link, mode, xattrs),
    names,
    st.sampled_from(KINDS),
    names,
    st.sampled_from([0, 0o644, 0o4755, 0o7777]),
    st.dictionaries(st.sampled_from(XATTRS), st.sampled_from(["", "y", "{canary}"]), max_size=2),
)
BOUNDED = settings(max_examples=200, deadline=None, database=None)


@contextlib.contextmanager
def beside_a_canary() -> Iterator[tuple[Path, Path]]:
    """An empty root and a canary tree next to it, checked at the end."""
    folder = Path(tempfile.mkdtemp(prefix="pier-fuzz-", dir="/var/tmp"))
    try:
        root, canary = folder / "root", folder / "canary"
        root.mkdir()
        canary.mkdir()
        (canary / "file").write_bytes(b"untouched")
        (canary / "a").mkdir()
        before = picture(canary)
        yield root, canary
        assert picture(canary) == before
        assert sorted(os.listdir(folder)) == ["canary", "root"]
    finally:
        with paths.closing(os.open("/var/tmp", os.O_RDONLY)) as parent:
            remove_tree(parent, os.fsencode(folder.name))


def unpack(data: bytes, root: Path) -> None:
    """Only BadArchive may come out: any other exception is a surprise, and fails the test."""
    with paths.closing(os.open(root, os.O_RDONLY | os.O_DIRECTORY)) as fd, contextlib.suppress(BadArchive):
        layer.unpack(io.BytesIO(data), fd)


@BOUNDED
@given(entries=st.lists(members, max_size=12), with_openat2=st.booleans())
def test_attack_10_no_mixture_of_entries_leaves_the_root(
    entries: list[tuple[str, bytes, str, int, dict[str, str]]], with_openat2: bool
) -> None:
    with beside_a_canary() as (root, canary), pytest.MonkeyPatch.context() as patch:
        if not with_openat2:
            patch.setattr(paths, "openat2", missing)
        made = [
            member(
                name.replace("{canary}", str(canary)),
                kind=kind,
                link=link.replace("{canary}", str(canary)),
                mode=mode,
                data=b"owned" if kind == tarfile.REGTYPE else b"",
                device=(1, 3),
                xattrs={key: value.replace("{canary}", str(canary)) for key, value in xattrs.items()},
            )
            for name, kind, link, mode, xattrs in entries
        ]
        unpack(archive(made), root)


def missing(*_: object) -> int:
    raise OSError(38, "openat2")


SOUND = [
    member("a/b", data=b"x" * 700),
    member("s", kind=tarfile.SYMTYPE, link="a"),
    member("s/c", data=b"y", xattrs={"user.x": "1"}),
    member("h", kind=tarfile.LNKTYPE, link="a/b"),
    member("n" * 150, data=b"z"),
]


@BOUNDED
@given(
    changes=st.lists(st.tuples(st.integers(0, 8191), st.integers(0, 255)), min_size=1, max_size=30),
    cut=st.none() | st.integers(0, 8191),
    form=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_attack_10_no_broken_bytes_leave_the_root(changes: list[tuple[int, int]], cut: int | None, form: int) -> None:
    data = bytearray(archive([(_copy(info), content) for info, content in SOUND], form))
    for place, value in changes:
        data[place % len(data)] = value
    with beside_a_canary() as (root, _):
        unpack(checksummed(data)[:cut], root)


def _copy(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Writing an archive changes its headers."""
    return member(info.name, kind=info.type, link=info.linkname, data=bytes(info.size))[0]


def checksummed(data: bytearray) -> bytes:
    """Every block that looks like a header with its checksum put right: the parser is to see what is behind it."""
    for start in range(0, len(data) - 511, 512):
        block = data[start : start + 512]
        if block[257:262] == b"ustar":
            block[148:156] = b" " * 8
            data[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    return bytes(data)
