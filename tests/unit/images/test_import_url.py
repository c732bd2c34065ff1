"""`import` of a URL: fetched by the daemon, told about, refused in sentences."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from pier.distribution.errors import RegistryUnreachable
from pier.distribution.remote_file import BadSource, NotThere, parse_source, printable
from pier.images.archive import ImageArchive

from .lab import Lab, docker_archive, tar

pytestmark = pytest.mark.root

ROOT_FS = tar({"bin/sh": b"x" * 3_000_000})


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    lab = Lab(str(tmp_path))
    await lab.images.start()
    yield lab
    await lab.close()


@pytest.fixture
async def place() -> AsyncIterator[str]:
    """`host:port` of a server with `/root.tar`, `/images.tar`, and `/moved` to the first."""

    async def answer(request: web.Request) -> web.StreamResponse:
        match request.path:
            case "/root.tar":
                return web.Response(body=ROOT_FS)
            case "/images.tar":
                return web.Response(body=docker_archive("a:1"))
            case "/moved":
                raise web.HTTPFound("/root.tar?signed=secret")
            case "/cut":
                response = web.StreamResponse(headers={"Content-Length": str(len(ROOT_FS))})
                await response.prepare(request)
                await response.write(ROOT_FS[:100_000])
                assert request.transport is not None
                request.transport.close()
                return response
        raise web.HTTPNotFound

    server = web.Server(answer)
    runner = web.ServerRunner(server)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield "{}:{}".format(*runner.addresses[0][:2])
    await runner.cleanup()


@pytest.mark.parametrize("path", ["root.tar", "moved"])
async def test_it_is_fetched_and_told_of(lab: Lab, place: str, path: str) -> None:
    url = f"http://{place}/{path}?token=secret"
    messages = [m async for m in lab.images.archives.import_(none(), origin=url, repo="a", tag="1")]
    assert messages[0] == {"status": f"Downloading from http://{place}/{path}"}
    assert messages[-2]["progressDetail"] == {"current": len(ROOT_FS), "total": len(ROOT_FS)}
    assert messages[-2]["status"] == "Importing"
    image = await lab.images.get("a:1")
    assert messages[-1] == {"status": image.id}
    assert image.config.history[0].comment == f"Imported from http://{place}/{path}"


async def test_a_url_without_a_scheme_is_http(lab: Lab, place: str) -> None:
    await lab.import_(b"", origin=f"{place}/root.tar", repo="a", tag="1")
    assert (await lab.images.get("a:1")).config.history[0].comment == f"Imported from http://{place}/root.tar"


async def test_what_goes_wrong_leaves_nothing(lab: Lab, place: str) -> None:
    with pytest.raises(NotThere, match=f"failed to GET http://{place}/x with status 404"):
        await lab.import_(b"", origin=f"http://{place}/x")
    with pytest.raises(ImageArchive):
        await lab.import_(b"", origin=f"http://{place}/images.tar")
    with pytest.raises(RegistryUnreachable, match="unexpected EOF"):
        await lab.import_(b"", origin=f"http://{place}/cut")
    with pytest.raises(RegistryUnreachable, match="connection refused"):
        await lab.import_(b"", origin="http://127.0.0.1:1/x")
    assert lab.content.blobs() == set()


@pytest.mark.parametrize("text", ["ftp://h/x", "file:///etc/passwd", "http://", "http://[", "/etc/passwd"])
def test_attack_17_what_is_no_url(text: str) -> None:
    with pytest.raises(BadSource):
        parse_source(text)


def test_what_is_kept_of_a_url() -> None:
    assert printable("https://user:password@h.example/x.tar?signature=1#f") == "https://h.example/x.tar"


async def none() -> AsyncIterator[bytes]:
    return
    yield b""
