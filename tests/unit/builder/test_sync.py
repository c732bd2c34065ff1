"""`pier build`'s files: what has changed comes over, and a listing that nobody could have is refused."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pier.builder import sync
from pier.builder.cache import Cache
from pier.builder.contexts import Contexts
from pier.builder.patterns import PatternMatcher
from pier.builder.sync import BadStream, ClientGone, TooManyFiles
from pier.cli.build_sync import Listing, NotUtf8, _send
from pier.errors import InvalidParameter
from pier.state.memory import MemoryStore

pytestmark = pytest.mark.root


@pytest.fixture
async def contexts(tmp_path: Path) -> AsyncIterator[Contexts]:
    cache = Cache(MemoryStore(), cast(Any, None), cast(Any, None))
    yield Contexts(str(tmp_path / "kept"), cache)
    await cache.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "folder"
    (root / "dir/sub").mkdir(parents=True)
    (root / "dir/a").write_text("a")
    (root / "dir/sub/big").write_bytes(bytes(range(256)) * 5000)
    (root / "empty").touch()
    (root / "run").write_text("#!/bin/sh\n")
    (root / "run").chmod(0o4755)
    (root / "link").symlink_to("dir/a")
    os.link(root / "dir/a", root / "z-same")
    os.mkfifo(root / "fifo")
    return root


def seen(root: str) -> dict[str, tuple[int, int, int, bytes | str]]:
    found: dict[str, tuple[int, int, int, bytes | str]] = {}
    for path in sorted(Path(root).rglob("*")):
        info = path.lstat()
        content: bytes | str = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
        time = 0 if stat.S_ISLNK(info.st_mode) else info.st_mtime_ns
        found[str(path.relative_to(root))] = info.st_mode, info.st_uid, time, content
    return found


@contextlib.asynccontextmanager
async def stream() -> AsyncIterator[tuple[asyncio.StreamReader, socket.socket]]:
    here, there = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=here)
    try:
        yield reader, there
    finally:
        there.close()
        writer.close()


async def brought(folder: Path, contexts: Contexts, matcher: PatternMatcher | None = None) -> tuple[list[str], str]:
    """What had to come over, and the key of the whole; the tree is what the folder is then."""
    listing = Listing(str(folder), matcher)
    context = await contexts.take("me")
    asked: list[list[int]] = []
    async with stream() as (reader, client):

        def want(numbers: list[int]) -> None:
            asked.append(numbers)
            told = cast(Any, SimpleNamespace(sent_bytes=0, large=[]))
            sending.append(asyncio.create_task(asyncio.to_thread(_send, client, told, listing, numbers)))

        sending: list[asyncio.Task[None]] = []
        made = await sync.receive(reader, listing.text, context, want)
        await asyncio.gather(*sending)
    names = [os.fsdecode(listing.paths[number]) for number in asked[0]]
    if matcher is None:
        assert seen(made.path) == seen(str(folder))
    await contexts.give_back(context)
    return names, made.key


async def test_only_what_has_changed_comes_over(folder: Path, contexts: Contexts) -> None:
    names, first = await brought(folder, contexts)
    assert names == ["dir/a", "dir/sub/big", "empty", "run"]
    assert await brought(folder, contexts) == ([], first)
    (folder / "empty").write_text("no longer")
    names, second = await brought(folder, contexts)
    assert (names, second != first) == (["empty"], True)
    (folder / "run").unlink()
    (folder / "dir/sub/big").unlink()
    (folder / "dir/sub").rmdir()
    (folder / "dir/sub").write_text("a file now")
    assert (await brought(folder, contexts))[0] == ["dir/sub"]
    os.utime(folder / "dir/sub", ns=(0, 0))
    names, third = await brought(folder, contexts)
    os.utime(folder / "dir/sub", ns=(1, 1))
    assert (await brought(folder, contexts))[1] == third  # times are no part of what a file is


async def test_what_is_ignored_is_not_listed_and_what_is_taken_back_has_its_folders(folder: Path) -> None:
    def listed(*patterns: str) -> list[bytes]:
        return Listing(str(folder), PatternMatcher(patterns)).paths

    assert listed("*") == []
    assert listed("*", "!dir/sub/big") == [b"dir", b"dir/sub", b"dir/sub/big"]
    assert listed("dir", "fifo", "!dir/a") == [b"dir", b"dir/a", b"empty", b"link", b"run", b"z-same"]


async def test_a_build_beside_another_has_files_of_its_own(folder: Path, contexts: Contexts) -> None:
    held = await contexts.take("me")
    assert len((await brought(folder, contexts))[0]) == 4
    await contexts.give_back(held)
    assert len((await brought(folder, contexts))[0]) == 4
    assert (await brought(folder, contexts))[0] == []


async def test_a_transfer_that_was_cut_is_begun_anew(folder: Path, contexts: Contexts) -> None:
    await brought(folder, contexts)
    (folder / "empty").write_text("more")
    context = await contexts.take("me")
    async with stream() as (reader, client):
        client.sendall((4).to_bytes(4) + b"mo")
        client.shutdown(socket.SHUT_WR)
        with pytest.raises(ClientGone):
            await sync.receive(reader, Listing(str(folder), None).text, context, lambda _: None)
    await contexts.give_back(context)
    assert len((await brought(folder, contexts))[0]) == 4


def test_a_name_that_is_not_utf8_goes_another_way(folder: Path) -> None:
    (Path(os.fsdecode(os.fsencode(folder) + b"/\xff"))).touch()
    with pytest.raises(NotUtf8):
        _ = Listing(str(folder), None).text


def row(path: str, facts: str = "100644 0 0", link: str = "") -> bytes:
    return f"{path}\0{facts}\0{link}\0".encode()


@pytest.mark.parametrize(
    ("listing", "words"),
    [
        (b"a\0", "ends within a file"),
        (row("a")[:-1], "ends within a file"),
        (row("/etc/passwd"), "not a plain one below the root"),
        (row("../x"), "leads out of the root"),
        (row("a/../../x"), "leads out of the root"),
        (row("a/b"), "its folder was not sent before it"),
        (row("a") + row("a/b"), "its folder was not sent before it"),
        (row("a", "120777 1 0", "/etc") + row("a/b"), "its folder was not sent before it"),
        (row("a") + row("a"), "it was sent twice"),
        (row("a", link="../../etc/shadow"), "a hard link to a file elsewhere"),
        (row("a", link="b"), "a hard link to a file that was not sent before it"),
        (row("a", "644 0 0"), "what no file is"),
        (row("a", "140644 0 0"), "what no file is"),
        (row("a", "100644 -1 0"), "what no file is"),
        (row("a", "100644 0 99999999999999999999"), "what no file is"),
        (row("a", "100644 0"), "no mode, size and time"),
        (row("a", "100755 0 0 0 0 xx"), "no mode, size and time"),
        (b"\xff\x00" + b"100644 0 0\0\0", "not UTF-8"),
        (row("x" * 5000), "not a plain one"),
    ],
)
async def test_attack_19_a_listing_that_nobody_could_have(contexts: Contexts, listing: bytes, words: str) -> None:
    context = await contexts.take("me")
    async with stream() as (reader, _):
        with pytest.raises(InvalidParameter) as caught:
            await sync.receive(reader, listing, context, lambda _: None)
    await contexts.give_back(context)
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("said", "read", "error"),
    [
        (b"{}\n", sync.read_head, BadStream),
        (b"no json\n", sync.read_head, BadStream),
        (b"{", sync.read_head, ClientGone),
        (b"much\n", sync.read_listing, BadStream),
        (b"999999999999\n", sync.read_listing, TooManyFiles),
        (b"10\nshort", sync.read_listing, ClientGone),
    ],
)
async def test_what_is_no_request(said: bytes, read: Callable[[asyncio.StreamReader], Any], error: type) -> None:
    async with stream() as (reader, client):
        client.sendall(said)
        client.shutdown(socket.SHUT_WR)
        with pytest.raises(error):
            await read(reader)


async def test_attack_10_a_piece_that_is_too_large(folder: Path, contexts: Contexts) -> None:
    context = await contexts.take("me")
    async with stream() as (reader, client):
        client.sendall((0xFFFFFFFF).to_bytes(4))
        with pytest.raises(BadStream, match="a piece of"):
            await sync.receive(reader, Listing(str(folder), None).text, context, lambda _: None)
    await contexts.give_back(context)
