"""The tar reader: what other writers make is read right, what nobody should make is refused."""

from __future__ import annotations

import contextlib
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.storage.errors import BadArchive, TooLarge, TruncatedArchive
from pier.storage.tar import TarLimits, TarReader
from pier.storage.tar_header import BLOCK, Entry, parse_header, parse_pax

from .archives import archive, directory, member, symlink

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def entries(data: bytes, limits: TarLimits | None = None) -> list[tuple[Entry, bytes]]:
    reader = TarReader(io.BytesIO(data), limits or TarLimits())
    return [(entry, b"".join(iter(lambda: reader.read(100), b""))) for entry in reader]


def header(**fields: bytes) -> bytes:
    """One header block with a right check sum; fields by name, at their POSIX places."""
    places = {
        "name": 0, "mode": 100, "uid": 108, "gid": 116, "size": 124, "mtime": 136, "type": 156, "link": 157,
        "magic": 257, "devmajor": 329, "devminor": 337, "prefix": 345,
    }  # fmt: skip
    block = bytearray(BLOCK)
    block[156:157] = b"0"
    block[257:265] = b"ustar\x0000"
    for name, value in fields.items():
        block[places[name] : places[name] + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


END = bytes(2 * BLOCK)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_of_another_writer(format: int) -> None:
    long = "d" * 90 + "/" + "f" * 90
    members = [directory("d"), member(long, data=b"x" * 1000, uid=1000, mode=0o4755), symlink("s", "t" * 99)]
    found = entries(archive(members, format))
    assert [(entry.name, entry.type, len(data)) for entry, data in found] == [
        (b"d/", b"5", 0),
        (long.encode(), b"0", 1000),
        (b"s", b"2", 0),
    ]
    assert (found[1][0].uid, found[1][0].mode, found[2][0].linkname) == (1000, 0o4755, b"t" * 99)


@pytest.mark.parametrize("format", FORMATS[1:])
def test_names_beyond_the_header(format: int) -> None:
    name, target = "n/" * 200 + "é", "t" * 3000
    [(entry, _)] = entries(archive([symlink(name, target)], format))
    assert (entry.name, entry.linkname) == (name.encode(), target.encode())


@pytest.mark.parametrize("format", FORMATS[1:])
def test_numbers_beyond_octal(format: int) -> None:
    [(entry, _)] = entries(archive([member("f", uid=2**32 - 2, gid=2**31, mtime=-5)], format))
    assert (entry.uid, entry.gid, entry.mtime_ns) == (2**32 - 2, 2**31, -5_000_000_000)


names = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=120)


@given(
    name=names,
    data=st.binary(max_size=1500),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 2),
    mtime=st.integers(-(2**31), 2**34),
    format=st.sampled_from(FORMATS[1:]),
)
def test_whatever_is_written_is_read(name: str, data: bytes, mode: int, uid: int, mtime: int, format: int) -> None:
    [(entry, content)] = entries(archive([member(name, data=data, mode=mode, uid=uid, mtime=mtime)], format))
    assert (entry.name, content) == (name.encode(), data)
    assert (entry.mode, entry.uid, entry.mtime_ns) == (mode, uid, mtime * 10**9)


@given(st.binary(min_size=BLOCK, max_size=BLOCK))
def test_any_block_is_a_header_or_is_refused(block: bytes) -> None:
    with pytest.raises(BadArchive):
        parse_header(block)


@given(st.data())
def test_any_header_with_a_right_check_sum_is_bounded_or_refused(data: st.DataObject) -> None:
    widths = {"name": 100, "mode": 8, "uid": 8, "gid": 8, "size": 12, "mtime": 12, "type": 1, "link": 100, "magic": 8}
    fields = {key: data.draw(st.binary(max_size=width)) for key, width in widths.items()}
    try:
        entry = parse_header(header(**fields))
    except BadArchive:
        return
    assert 0 <= entry.size < 2**63
    assert 0 <= entry.uid < 2**32 - 1
    assert 0 <= entry.mode <= 0o7777
    assert b"\0" not in entry.name + entry.linkname


@given(st.binary(max_size=3 * BLOCK))
def test_any_bytes_end_or_are_refused(data: bytes) -> None:
    with contextlib.suppress(BadArchive):
        entries(data)


@given(st.binary(max_size=200))
def test_any_pax_header_is_records_or_is_refused(data: bytes) -> None:
    try:
        records = parse_pax(data)
    except BadArchive:
        return
    assert all(records)


@pytest.mark.parametrize(
    ("data", "records"),
    [
        (b"11 path=ab\n", {b"path": b"ab"}),
        (b"11 path=ab\n11 path=cd\n", {b"path": b"cd"}),
        (b"12 a=b\nc=d\n\n", {b"a": b"b\nc=d\n"}),
        (b"8 path=\n", {b"path": b""}),
        (b"", {}),
    ],
)
def test_pax_records(data: bytes, records: dict[bytes, bytes]) -> None:
    assert parse_pax(data) == records


@pytest.mark.parametrize(
    "data",
    [b"x path=a\n", b"99 path=a\n", b"0 path=a\n", b"3 a\n", b"9 path=abc", b"7 =abc\n", b"-11 path=a\n", b"5" * 30],
)
def test_malformed_pax_records(data: bytes) -> None:
    with pytest.raises(BadArchive):
        parse_pax(data)


def test_signed_check_sums_of_old_writers() -> None:
    block = bytearray(header(name=b"\xe9t\xe9"))
    signed = sum(b - 256 if b > 127 else b for b in block[:148] + b" " * 8 + block[156:])
    block[148:156] = b"%06o\0 " % signed
    assert parse_header(bytes(block)).name == b"\xe9t\xe9"


def test_prefix_is_of_posix_archives_alone() -> None:
    assert parse_header(header(name=b"n", prefix=b"p")).name == b"p/n"
    assert parse_header(header(name=b"n", prefix=b"p", magic=b"ustar  \0")).name == b"n"


def test_an_old_directory_is_a_file_with_a_slash() -> None:
    [(entry, _)] = entries(header(name=b"d/", type=b"\0", magic=bytes(8)) + END)
    assert entry.type == b"5"


def test_links_have_no_content_whatever_their_size_says() -> None:
    data = header(name=b"l", type=b"1", link=b"t", size=b"00000001000\0") + header(name=b"f") + END
    assert [entry.name for entry, _ in entries(data)] == [b"l", b"f"]


def test_global_pax_headers_hold_until_overridden() -> None:
    def pax(kind: bytes, record: bytes) -> bytes:
        return header(type=kind, size=b"%011o\0" % len(record)) + record.ljust(BLOCK, b"\0")

    data = (
        pax(b"g", b"9 uid=77\n") + header(name=b"a") + pax(b"x", b"8 uid=5\n") + header(name=b"b") + header(name=b"c")
    )
    assert [entry.uid for entry, _ in entries(data + END)] == [77, 5, 77]


@pytest.mark.parametrize(
    "data",
    [
        header(name=b"f", size=b"99999999999\0"),
        header(name=b"f", size=b"\xff" + b"\xff" * 11),
        header(name=b"f", size=b"\x80" + b"\xff" * 11),
        header(name=b"f", uid=b"\xff" * 8),
        header(name=b"f", mtime=b"\xbf" + b"\xff" * 11),
        header(name=b"f", type=b"Z"),
        header(name=b"f", type=b"S", size=b"00000001000\0"),
        header(name=b"f") + bytes(BLOCK) + header(name=b"g"),
        b"not an archive".ljust(BLOCK),
        archive([member("f")]).replace(b"\0ustar", b"\1ustar", 1),
    ],
)
def test_broken_headers(data: bytes) -> None:
    with pytest.raises(BadArchive):
        entries(data + END)


def test_sparse_files_in_pax_form_are_refused_by_name() -> None:
    info, data = member("hole")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    with pytest.raises(BadArchive, match=r"hole.*sparse"):
        entries(archive([(info, data)]))


def test_a_nul_in_a_pax_name() -> None:
    record = b"12 path=a\0b\n"
    with pytest.raises(BadArchive, match="NUL"):
        entries(header(type=b"x", size=b"%011o\0" % len(record)) + record.ljust(BLOCK, b"\0") + header(name=b"f") + END)


@pytest.mark.parametrize("cut", [1, 100, BLOCK + 1, BLOCK + 999, 4 * BLOCK - 1])
def test_cut_archives(cut: int) -> None:
    whole = archive([member("f", data=b"x" * 1000), member("g", data=b"y")])
    with pytest.raises(TruncatedArchive, match="unexpected EOF"):
        entries(whole[:cut])


@pytest.mark.parametrize("padding", [0, 1, 23])
def test_an_archive_that_ends_with_its_last_file(padding: int) -> None:
    """As `umoci insert` writes them: neither padded nor ended by zero blocks."""
    whole = archive([member("f", data=b"x" * 1000), member("g", data=b"y" * 1000)])
    found = entries(whole[: whole.rindex(b"y") + 1 + padding])
    assert [(entry.name, data) for entry, data in found] == [(b"f", b"x" * 1000), (b"g", b"y" * 1000)]


def test_attack_12_headers_are_bounded() -> None:
    giant = archive([symlink("n", "t" * 200_000)])
    assert len(entries(giant)[0][0].linkname) == 200_000
    with pytest.raises(TooLarge):
        entries(giant, TarLimits(header_bytes=100_000))
    lie = header(type=b"x", size=b"77777777777\0")
    with pytest.raises(TooLarge):
        entries(lie + END)
    endless = b"".join(header(type=b"L", size=b"%011o\0" % 1) + b"a".ljust(BLOCK, b"\0") for _ in range(3000))
    with pytest.raises(TooLarge):
        entries(endless + header(name=b"f") + END)
