"""Blobs arrive whole, whatever happens on the way."""

import asyncio
import gzip
import os
from pathlib import Path

import pytest
from aiohttp import web

from fixtures.registry import FakeRegistry, always, cut_after, endless, failing
from pier.distribution import Backoff, Registries, RegistryConfig, RegistryError
from pier.distribution.download import bytes_to_skip
from pier.distribution.errors import ContentRefused, RegistryUnreachable, RequestRefused, ServerFailed
from pier.oci import Descriptor, Digest, Reference
from pier.oci.manifest import DOCKER_LAYER
from pier.storage.content import ContentStore
from pier.storage.errors import ContentMismatch

DATA = os.urandom(300_000)
QUICK = Backoff(retries=3, first_s=0.0)


class Log:
    """Remembers what a watcher is told."""

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.delays: list[float] = []
        self.verified = False

    def received(self, offset: int) -> None:
        self.offsets.append(offset)

    def retrying(self, delay_s: float) -> None:
        self.delays.append(delay_s)

    def verifying(self) -> None:
        self.verified = True


@pytest.fixture
def content(tmp_path: Path) -> ContentStore:
    return ContentStore(str(tmp_path / "content"))


def left_behind(content: ContentStore) -> list[str]:
    """Files of the store that are no part of the layout itself."""
    return [
        str(path) for folder in ("blobs", "ingest") for path in Path(content.root, folder).rglob("*") if path.is_file()
    ]


async def fetch(registry: FakeRegistry, content: ContentStore, descriptor: Descriptor, log: Log | None = None) -> None:
    registries = Registries(RegistryConfig(), backoff=QUICK)
    try:
        repository = registries.repository(Reference.parse(f"{registry.host}/app"))
        await repository.download(descriptor, content, log or Log())
    finally:
        await registries.close()


def describe(registry: FakeRegistry, data: bytes = DATA) -> Descriptor:
    registry.add_blob(data)
    return Descriptor(DOCKER_LAYER, Digest.of(data), len(data))


async def test_download(content: ContentStore) -> None:
    async with FakeRegistry().serving() as registry:
        log = Log()
        await fetch(registry, content, describe(registry), log)
    assert content.read(Digest.of(DATA), limit_bytes=len(DATA)) == DATA
    assert log.offsets[-1] == len(DATA)
    assert log.offsets == sorted(log.offsets)
    assert log.verified
    assert log.delays == []


async def test_an_empty_blob(content: ContentStore) -> None:
    async with FakeRegistry().serving() as registry:
        await fetch(registry, content, describe(registry, b""))
    assert content.has(Digest.of(b""))


@pytest.mark.parametrize("cuts", [[0], [1], [299_999], [300_000], [100_000, 0, 100_000]])
async def test_a_download_cut_at_any_byte_goes_on_there(content: ContentStore, cuts: list[int]) -> None:
    async with FakeRegistry().serving() as registry:
        descriptor = describe(registry)
        registry.blob_hook[descriptor.digest] = cut_after(cuts)
        log = Log()
        await fetch(registry, content, descriptor, log)
    assert content.read(Digest.of(DATA), limit_bytes=len(DATA)) == DATA
    ranges = [request.headers["Range"] for request in registry.asked("/blobs/") if "Range" in request.headers]
    starts = [int(text.removeprefix("bytes=").rstrip("-")) for text in ranges]
    # Bytes may be lost between their sending and the cut, so where it goes on is for the client to say.
    assert starts == sorted(starts)
    assert all(0 < start <= sum(cuts) for start in starts)
    assert len(log.delays) <= len(cuts)


async def test_a_server_without_ranges_sends_the_whole_again(content: ContentStore) -> None:
    async with FakeRegistry().serving() as registry:
        descriptor = describe(registry)
        cut, whole = cut_after([150_000]), always(DATA)
        calls: list[str] = []

        async def answer(request, data):  # type: ignore[no-untyped-def]
            calls.append(request.headers.get("Range", ""))
            return await (cut if len(calls) <= 2 and not calls[-1] else whole)(request, data)

        registry.blob_hook[descriptor.digest] = answer
        await fetch(registry, content, descriptor)
    assert calls[-1].startswith("bytes=")
    assert content.read(Digest.of(DATA), limit_bytes=len(DATA)) == DATA


async def test_errors_of_the_server_are_tried_again_and_then_told(content: ContentStore) -> None:
    async with FakeRegistry().serving() as registry:
        descriptor = describe(registry)
        registry.blob_hook[descriptor.digest] = failing(503, times=3)
        log = Log()
        await fetch(registry, content, descriptor, log)
        assert len(log.delays) == 3
        other = describe(registry, b"other")
        registry.blob_hook[other.digest] = failing(500, times=99)
        with pytest.raises(ServerFailed, match="received unexpected HTTP status: 500"):
            await fetch(registry, content, other)
        registry.blob_hook[other.digest] = failing(400, times=99)
        asked = len(registry.seen)
        with pytest.raises(RequestRefused):
            await fetch(registry, content, other)
        # https is tried first at this loopback registry and never reaches the handler
        assert len(registry.seen) == asked + 1
    assert [name for name in left_behind(content) if descriptor.digest.hex not in name] == []


async def test_a_blob_is_the_bytes_that_were_sent(content: ContentStore) -> None:
    """Some servers name a layer's compression as the transfer's: undoing it would change the digest."""
    data = gzip.compress(DATA)

    async def labelled(request: web.Request, data: bytes) -> web.StreamResponse:
        assert request.headers["Accept-Encoding"] == "identity"
        return web.Response(body=data, headers={"Content-Encoding": "gzip"})

    async with FakeRegistry().serving() as registry:
        descriptor = describe(registry, data)
        registry.blob_hook[descriptor.digest] = labelled
        await fetch(registry, content, descriptor)
    assert content.read(descriptor.digest, limit_bytes=len(data)) == data


async def test_attack_11_blob_of_another_digest(content: ContentStore) -> None:
    async with FakeRegistry().serving() as registry:
        descriptor = describe(registry)
        registry.blob_hook[descriptor.digest] = always(DATA[:-1] + bytes([DATA[-1] ^ 1]))
        with pytest.raises(ContentMismatch, match=f"content {descriptor.digest} failed verification"):
            await fetch(registry, content, descriptor)
    assert left_behind(content) == []


async def test_attack_11_oversized_blob(content: ContentStore) -> None:
    async with FakeRegistry().serving() as registry:
        descriptor = describe(registry)
        registry.blob_hook[descriptor.digest] = always(DATA + b"x")
        with pytest.raises(ContentRefused, match=r"300001 bytes, not 300000"):
            await fetch(registry, content, descriptor)
        registry.blob_hook[descriptor.digest] = endless(b"x" * 65536)
        with pytest.raises(ContentMismatch, match="more than the 300000 bytes"):
            await fetch(registry, content, descriptor)
    assert left_behind(content) == []


async def test_attack_11_truncated_blob(content: ContentStore) -> None:
    async with FakeRegistry().serving() as registry:
        descriptor = describe(registry)
        registry.blob_hook[descriptor.digest] = cut_after([0] * 99)
        with pytest.raises(RegistryUnreachable):
            await fetch(registry, content, descriptor)
        # An answer that ends in good order, but early: what there is is asked for once more, in vain.
        registry.blob_hook[descriptor.digest] = always(DATA[:1000])
        with pytest.raises(RegistryUnreachable, match=r"unexpected EOF after 1000 of 300000 bytes"):
            await fetch(registry, content, descriptor)
    assert not content.has(descriptor.digest)


async def test_attack_11_bytes_of_a_liar_do_not_spoil_the_next_download(content: ContentStore) -> None:
    async with FakeRegistry().serving() as registry:
        descriptor = describe(registry)
        registry.blob_hook[descriptor.digest] = always(b"x" * 1000)
        with pytest.raises(RegistryUnreachable):
            await fetch(registry, content, descriptor)
        del registry.blob_hook[descriptor.digest]
        await fetch(registry, content, descriptor)
    assert content.read(descriptor.digest, limit_bytes=len(DATA)) == DATA


@pytest.mark.parametrize("have", [1, 1000, len(DATA) - 1])
async def test_a_download_goes_on_where_an_earlier_one_ended(content: ContentStore, have: int) -> None:
    """Also after a restart of the daemon: what is here is found by the blob's digest."""
    async with FakeRegistry().serving() as registry:
        descriptor = describe(registry)
        registry.blob_hook[descriptor.digest] = always(DATA[:have])
        with pytest.raises(RegistryUnreachable):
            await fetch(registry, content, descriptor)
        del registry.blob_hook[descriptor.digest]
        registry.seen.clear()
        again = ContentStore(content.root)
        await fetch(registry, again, descriptor)
        assert [seen.headers.get("Range") for seen in registry.seen] == [f"bytes={have}-"]
    assert again.read(descriptor.digest, limit_bytes=len(DATA)) == DATA
    assert len(left_behind(again)) == 1


async def test_attack_11_answer_of_another_range(content: ContentStore) -> None:
    async with FakeRegistry().serving() as registry:
        descriptor = describe(registry)
        registry.blob_hook[descriptor.digest] = failing(206, times=99)
        with pytest.raises(ContentRefused, match="another range"):
            await fetch(registry, content, descriptor)
    assert left_behind(content) == []


async def test_cancellation_leaves_no_blob(content: ContentStore) -> None:
    reached = asyncio.Event()

    async def stall(request, data):  # type: ignore[no-untyped-def]
        response = web.StreamResponse()
        response.content_length = len(data)
        await response.prepare(request)
        await response.write(data[:100_000])
        reached.set()
        await asyncio.sleep(60)
        return response

    async with FakeRegistry().serving() as registry:
        descriptor = describe(registry)
        registry.blob_hook[descriptor.digest] = stall
        task = asyncio.create_task(fetch(registry, content, descriptor))
        await reached.wait()
        await asyncio.sleep(0.05)
        assert len(left_behind(content)) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not content.has(descriptor.digest)
    [part] = left_behind(content)
    assert part.endswith(".part")


async def test_a_full_disk_is_not_taken_for_a_bad_network(
    content: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pier.storage.content.Writer.write", full)
    async with FakeRegistry().serving() as registry:
        with pytest.raises(OSError, match="No space left") as caught:
            await fetch(registry, content, describe(registry))
        assert not isinstance(caught.value, RegistryError)
        assert len(registry.asked("/blobs/")) == 1
    assert left_behind(content) == []


@pytest.mark.parametrize(
    ("status", "content_range", "offset", "skip"),
    [
        (200, "", 0, 0),
        (200, "", 7, 7),
        (206, "bytes 7-9/10", 7, 0),
        (206, "bytes 7-9/*", 7, 0),
        (206, "bytes 6-9/10", 7, None),
        (206, "", 7, None),
        (206, "bytes 7", 7, None),
        (204, "", 0, None),
    ],
)
def test_bytes_to_skip(status: int, content_range: str, offset: int, skip: int | None) -> None:
    assert bytes_to_skip(status, content_range, offset) == skip


def test_backoff_doubles_up_to_a_limit() -> None:
    backoff = Backoff(first_s=1, longest_s=5)
    assert [backoff.delay_s(n) for n in (1, 2, 3, 4, 99)] == [1, 2, 4, 5, 5]
