"""Blobs that are dropped and made again: the same bytes, or not dropped."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import random
import shutil
import struct
import subprocess
import tarfile
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pier.kernel.paths import closing
from pier.oci import Digest
from pier.storage import ContentStore, Setup, choose_driver
from pier.storage.compression import decompressed
from pier.storage.errors import BadArchive, ContentMismatch, ContentNotFound
from pier.storage.rebuild import Stopped
from pier.storage.recompress import gzip_header
from pier.storage.snapshots import Snapshotter
from pier.storage.tar_writer import Sink, TarWriter
from pier.storage.tree_tar import write_tree
from pier.storage.verify import verify

from .archives import archive, directory, hard_link, member, symlink

pytestmark = pytest.mark.root

RANDOM = random.Random(7)
WORDS = [RANDOM.randbytes(RANDOM.randrange(2, 9)).hex().encode() for _ in range(500)]


def text(size: int) -> bytes:
    return b" ".join(RANDOM.choices(WORDS, k=size // 8))[:size]


LAYER = archive(
    [
        directory("etc"),
        *(member(f"etc/file-{number}", data=text(20_000)) for number in range(16)),
        member("etc/small", data=b"small"),
        member("etc/twice", data=text(5000)),
        member("etc/twice", data=text(6000)),
        hard_link("etc/hard", "etc/file-1"),
        symlink("etc/link", "file-2"),
        member("etc/.wh.gone"),
        member("n" * 150, data=text(3000), xattrs={"user.x": "y"}),
        member("big", data=text(400_000)),
    ],
    tarfile.PAX_FORMAT,
)


def member_with_name(data: bytes) -> bytes:
    out = io.BytesIO()
    with gzip.GzipFile("layer.tar", "wb", 9, out, mtime=1234) as file:
        file.write(data)
    return out.getvalue()


def deflated(level: int, mem_level: int) -> Callable[[bytes], bytes]:
    def compress(data: bytes) -> bytes:
        run = zlib.compressobj(level, zlib.DEFLATED, 31, mem_level)
        return run.compress(data) + run.flush()

    return compress


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip by Python": lambda data: gzip.compress(data, 6, mtime=0),
    "gzip with a name": member_with_name,
    "zlib level 1": deflated(1, 8),
    "zlib level 9": deflated(9, 9),
    "zstd 3": zstandard.ZstdCompressor(level=3).compress,
    "zstd 19 with a checksum": zstandard.ZstdCompressor(level=19, write_checksum=True).compress,
    "zstd 3 streamed": lambda data: (
        (run := zstandard.ZstdCompressor(level=3).compressobj()).compress(data) + run.flush()
    ),
}


@pytest.fixture(params=["overlay2", "vfs"])
def rooms(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[ContentStore, Snapshotter]]:
    content, snapshots = opened(tmp_path, request.param)
    yield content, snapshots
    snapshots.close()


def opened(root: Path, driver: str) -> tuple[ContentStore, Snapshotter]:
    content = ContentStore(str(root / "content"))
    snapshots = choose_driver(str(root), driver, setup=Setup(leases=content.leases))
    content.recipes.open_layer = snapshots.open_layer
    return content, snapshots


def admitted(content: ContentStore, snapshots: Snapshotter, blob: bytes, plain: bytes = LAYER) -> Digest:
    digest = content.put(blob, "layer").digest
    with content.open(digest) as reader:
        assert snapshots.unpack(Digest.of(plain), None, reader) == Digest.of(plain)
    return digest


FOREIGN = sorted((Path(__file__).parents[2] / "fixtures/layers").iterdir())
"""Layers as others write them: Docker (Go's gzip), skopeo (klauspost's zstd, and zstd:chunked)."""


def by_program(*command: str) -> Callable[[bytes], bytes]:
    def compress(data: bytes) -> bytes:
        if shutil.which(command[0]) is None:
            pytest.skip(f"no {command[0]} here")
        return subprocess.run(command, input=data, capture_output=True, check=True).stdout

    return compress


def in_blocks(data: bytes) -> bytes:
    """As pigz: blocks compressed on their own, each with the end of the one before as its dictionary."""
    out = b"\x1f\x8b\x08\0\0\0\0\0\0\x03"
    for start in range(0, len(data), 1 << 17):
        run = zlib.compressobj(6, zlib.DEFLATED, -15, 8, zdict=data[max(0, start - 32768) : start])
        out += run.compress(data[start : start + (1 << 17)])
        out += run.flush(zlib.Z_FINISH if start + (1 << 17) >= len(data) else zlib.Z_SYNC_FLUSH)
    return out + struct.pack("<II", zlib.crc32(data), len(data))


PROGRAMS = {
    **{f"gzip -{level}": by_program("gzip", f"-{level}") for level in range(1, 10)},
    **{f"zstd -{level}": by_program("zstd", "-q", f"-{level}") for level in (1, 3, 9, 19)},
    "zstd -T2": by_program("zstd", "-q", "-T2"),
    "bzip2": by_program("bzip2"),
    "xz": by_program("xz"),
    "pigz": in_blocks,
}


@pytest.mark.parametrize("how", PROGRAMS)
def test_whatever_made_a_blob_it_is_the_same_after_an_attempt_to_drop_it(tmp_path: Path, how: str) -> None:
    content, snapshots = opened(tmp_path, "overlay2")
    blob = PROGRAMS[how](LAYER)
    digest = admitted(content, snapshots, blob)
    freed = content.drop(digest, Digest.of(LAYER))
    assert os.path.exists(content.path(digest)) == (freed == 0)
    assert content.read(digest, limit_bytes=1 << 24) == blob
    assert verify(content, snapshots) == []
    snapshots.close()


@pytest.mark.parametrize("path", FOREIGN, ids=lambda path: path.name)
def test_layers_of_other_tools_are_read_and_kept(rooms: tuple[ContentStore, Snapshotter], path: Path) -> None:
    content, snapshots = rooms
    blob = path.read_bytes()
    with contextlib.closing(io.BytesIO(blob)) as stream:
        _, reader = decompressed(stream)
        plain = b"".join(iter(lambda: reader.read(1 << 16), b""))
    assert Digest.of(plain) == "sha256:fc430dfbeb39fb343cb61fb12e4ea68c358b835210c7029e4def478ed387b902"
    digest = admitted(content, snapshots, blob, plain)
    assert content.drop(digest, Digest.of(plain)) == 0
    assert content.read(digest, limit_bytes=1 << 24) == blob


FORMATS = [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT]
contents = st.one_of(st.binary(max_size=700), st.sampled_from([random.Random(n).randbytes(70_000) for n in range(9)]))
entries = st.lists(
    st.tuples(st.sampled_from(["a", "b", "d/a", "d/b", "d/" + "e" * 95, "ä/x"]), contents, st.integers(0, 0o7777)),
    max_size=8,
)


@settings(max_examples=40, deadline=None, database=None)
@given(
    files=entries,
    form=st.sampled_from(FORMATS),
    how=st.sampled_from(["plain", "gzip", "zstd"]),
    behind=st.binary(max_size=600),
)
def test_any_archive_comes_back(
    files: list[tuple[str, bytes, int]], form: int, how: str, behind: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Names that come twice, contents short and long, and bytes behind the archive's end."""
    members = [member(name, data=data, mode=mode) for name, data, mode in files]
    plain = archive([directory("d"), *members], form) + behind
    blob = {
        "plain": bytes,
        "gzip": lambda data: gzip.compress(data, mtime=0),
        "zstd": zstandard.ZstdCompressor().compress,
    }[how](plain)
    root = tmp_path_factory.mktemp("any")
    content, snapshots = opened(root, "overlay2")
    digest = admitted(content, snapshots, blob, plain)
    freed = content.drop(digest, Digest.of(plain))
    assert os.path.exists(content.path(digest)) == (freed == 0)
    in_tree = sum(map(len, {name: data for name, data, _ in files}.values()))
    assert freed or how != "plain" or 3 * in_tree < 2 * len(plain)
    assert content.read(digest, limit_bytes=1 << 24) == blob
    snapshots.close()
    shutil.rmtree(root)


def test_a_tree_of_ours_is_not_kept_twice(rooms: tuple[ContentStore, Snapshotter], tmp_path: Path) -> None:
    """Tree to archive to recipe to archive: what commit and import keep, which is plain."""
    content, snapshots = rooms
    (tmp_path / "tree/inner").mkdir(parents=True)
    for number in range(20):
        (tmp_path / f"tree/inner/{number}").write_bytes(text(30_000))
    out = io.BytesIO()
    with closing(os.open(tmp_path / "tree", os.O_RDONLY)) as fd:
        write_tree(fd, TarWriter(out))
    plain = out.getvalue()
    digest = admitted(content, snapshots, plain, plain)
    assert content.drop(digest, Digest.of(plain)) > 500_000
    assert content.read(digest, limit_bytes=1 << 24) == plain


def test_after_an_update_of_a_compressor_recipes_are_tried_again(
    rooms: tuple[ContentStore, Snapshotter], monkeypatch: pytest.MonkeyPatch
) -> None:
    content, snapshots = rooms
    kept, lost = deflated(6, 8)(LAYER), deflated(9, 8)(LAYER)
    digests = [admitted(content, snapshots, blob) for blob in (kept, lost)]
    assert all(content.drop(digest, Digest.of(LAYER)) for digest in digests)
    assert [content.recipes.recheck(digest) for digest in digests] == [True, True]
    real = zlib.compressobj
    monkeypatch.setattr(zlib, "ZLIB_RUNTIME_VERSION", "9.9")
    monkeypatch.setattr(zlib, "compressobj", lambda level, *more: real(8 if level == 9 else level, *more))
    assert [content.recipes.recheck(digest) for digest in digests] == [True, False]
    assert [content.has(digest) for digest in digests] == [True, False]
    header = content.recipes.header(digests[0])
    assert getattr(header, "library", "") == "zlib 9.9"
    content.put(lost, "layer")
    assert content.read(digests[1], limit_bytes=1 << 24) == lost


@pytest.mark.parametrize("how", COMPRESSORS)
def test_a_dropped_blob_comes_back_bit_for_bit(rooms: tuple[ContentStore, Snapshotter], how: str) -> None:
    content, snapshots = rooms
    blob = COMPRESSORS[how](LAYER)
    digest = admitted(content, snapshots, blob)
    assert content.drop(digest, Digest.of(LAYER)) > len(blob) // 2
    assert not os.path.exists(content.path(digest))
    assert (content.has(digest), content.size(digest), digest in content.blobs()) == (True, len(blob), True)
    with content.open(digest, len(blob)) as reader:
        assert b"".join(iter(lambda: reader.read(7777), b"")) == blob
    assert content.read(digest, limit_bytes=1 << 24) == blob
    assert verify(content, snapshots) == []
    assert content.drop(digest, Digest.of(LAYER)) == 0
    again = ContentStore(content.root)
    assert not again.has(digest), "nobody has told this one where the layers are"
    again.recipes.open_layer = snapshots.open_layer
    assert again.read(digest, limit_bytes=1 << 24) == blob


def test_a_blob_that_cannot_be_made_again_is_kept(rooms: tuple[ContentStore, Snapshotter]) -> None:
    content, snapshots = rooms
    half = len(LAYER) // 2
    members = gzip.compress(LAYER[:half], mtime=0) + gzip.compress(LAYER[half:], mtime=0)
    digest = admitted(content, snapshots, members)
    assert content.drop(digest, Digest.of(LAYER)) == 0
    assert content.drop(digest, Digest.of(LAYER)) == 0, "tried once, remembered"
    assert content.read(digest, limit_bytes=1 << 24) == members
    assert verify(content, snapshots) == []
    with content.exclusive():
        content.sweep([])
    assert content.blobs() == set()


def test_a_layer_of_gnu_tar_and_gzip(rooms: tuple[ContentStore, Snapshotter], tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    with (tmp_path / "src/sparse").open("wb") as file:
        file.write(text(50_000))
        file.seek(5 << 20)
        file.write(text(50_000))
    (tmp_path / "src/other").write_bytes(text(100_000))
    plain = subprocess.run(
        ["tar", "-C", str(tmp_path / "src"), "--sparse", "--format=pax", "-cf", "-", "."],
        check=True,
        capture_output=True,
    ).stdout
    content, snapshots = rooms
    digest = admitted(content, snapshots, plain, plain)
    assert content.drop(digest, Digest.of(plain)) > 80_000
    assert content.read(digest, limit_bytes=1 << 24) == plain


def test_damage_is_found_and_the_sweep_takes_both(rooms: tuple[ContentStore, Snapshotter]) -> None:
    content, snapshots = rooms
    digest = admitted(content, snapshots, LAYER)
    assert content.drop(digest, Digest.of(LAYER))
    assert content.recipes.layers() == {Digest.of(LAYER)}
    layer = Path(f"/proc/self/fd/{snapshots.open_layer(Digest.of(LAYER))}")
    good = (layer / "etc/file-3").read_bytes()
    (layer / "etc/file-3").write_bytes(b"X" + good[1:])
    with pytest.raises(ContentMismatch):
        content.read(digest, limit_bytes=1 << 24)
    assert [problem.where for problem in verify(content, snapshots)] == [digest]
    (layer / "etc/file-3").unlink()
    assert "cannot be followed" in str(verify(content, snapshots)[0])
    os.close(int(layer.name))
    snapshots.remove_layer(Digest.of(LAYER))
    assert not content.has(digest)
    with pytest.raises(ContentNotFound):
        content.open(digest)
    with content.exclusive():
        assert content.sweep([]) == {digest: 0}
    assert content.recipes.all() == set()


def test_a_blob_that_comes_again_is_a_file_again(rooms: tuple[ContentStore, Snapshotter]) -> None:
    content, snapshots = rooms
    digest = admitted(content, snapshots, LAYER)
    assert content.drop(digest, Digest.of(LAYER))
    content.put(LAYER, "layer")
    assert os.path.exists(content.path(digest))
    recipe = Path(content.recipes.path(digest))
    good = recipe.read_bytes()
    for bad in (good[:-9], good.replace(b'"plain_size"', b'"plain-size"')):
        recipe.write_bytes(bad)  # found before the blob goes again
        assert content.drop(digest, Digest.of(LAYER))
        assert recipe.read_bytes() == good
        content.put(LAYER, "layer")
    assert content.drop(digest, Digest.of(LAYER))
    assert not os.path.exists(content.path(digest))


@pytest.mark.parametrize("asked", [1, 2, 5])
def test_work_that_is_ended_changes_nothing(rooms: tuple[ContentStore, Snapshotter], asked: int) -> None:
    content, snapshots = rooms
    digest = admitted(content, snapshots, LAYER)
    answers = iter([False] * (asked - 1) + [True])
    with pytest.raises(Stopped):
        content.drop(digest, Digest.of(LAYER), lambda: next(answers))
    assert os.path.exists(content.path(digest))
    assert content.recipes.all() == set()
    assert os.listdir(os.path.join(content.root, "recipes")) == ["sha256"]
    assert content.drop(digest, Digest.of(LAYER))


def test_readers_do_not_notice_that_a_blob_goes_and_comes(rooms: tuple[ContentStore, Snapshotter]) -> None:
    content, snapshots = rooms
    plain = archive([member("a", data=text(40_000))])
    digest = admitted(content, snapshots, plain, plain)
    ended = threading.Event()

    def read() -> int:
        count = 0
        while not ended.is_set():
            assert content.has(digest)
            assert content.read(digest, limit_bytes=1 << 20) == plain
            count += 1
        return count

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for _ in range(60):
                with content.keep():
                    assert content.drop(digest, Digest.of(plain))
                with content.exclusive():
                    assert content.sweep([digest]) == {}
                content.put(plain, "layer")
        finally:
            ended.set()
        assert all(reader.result() for reader in readers)


@pytest.mark.parametrize(
    ("head", "length"),
    [
        (b"", 0),
        (b"\x1f\x8b\x08\0" + bytes(20), 10),
        (b"\x1f\x8b\x08\x08" + bytes(6) + b"name\0deflate", 15),
        (b"\x1f\x8b\x08\x08" + bytes(6) + b"name", 0),
        (b"\x1f\x8b\x08\x1e" + bytes(6) + b"\x03\0abcname\0comment\0CRdeflate", 30),
        (b"\x1f\x8b\x08\x04" + bytes(6) + b"\xff\xff", 0),
    ],
)
def test_gzip_headers(head: bytes, length: int) -> None:
    assert len(gzip_header(head)) == length


def test_an_archive_that_nobody_has_stored_is_made_of_its_tree(rooms: tuple[ContentStore, Snapshotter]) -> None:
    content, snapshots = rooms
    chain_id = admitted(content, snapshots, LAYER)
    digest = Digest.of(LAYER)
    os.unlink(content.path(digest))
    assert not content.has(digest)
    size = content.recipes.record(digest, chain_id, lambda sink: sink.write(LAYER))
    assert size == len(LAYER) == content.size(digest)
    assert not os.path.exists(content.path(digest))
    with content.open(digest) as reader:
        assert reader.read() == LAYER


@pytest.mark.parametrize("made", [LAYER + bytes(10240), LAYER[:-1024], b""], ids=["more", "less", "nothing"])
def test_what_is_not_the_archive_gets_no_recipe(rooms: tuple[ContentStore, Snapshotter], made: bytes) -> None:
    content, snapshots = rooms
    chain_id = admitted(content, snapshots, LAYER)
    os.unlink(content.path(Digest.of(LAYER)))
    with contextlib.suppress(BadArchive):
        assert content.recipes.record(Digest.of(LAYER), chain_id, lambda sink: sink.write(made)) == 0
    assert not content.has(Digest.of(LAYER))


def test_a_writer_that_fails_leaves_no_recipe(rooms: tuple[ContentStore, Snapshotter]) -> None:
    content, snapshots = rooms
    chain_id = admitted(content, snapshots, LAYER)

    def write(sink: Sink) -> None:
        sink.write(LAYER[: 1 << 16])
        raise OSError("the disk is on fire")

    with pytest.raises((OSError, BadArchive)):
        content.recipes.record(Digest.of(LAYER), chain_id, write)
    assert os.listdir(os.path.join(content.root, "recipes")) == ["sha256"]
