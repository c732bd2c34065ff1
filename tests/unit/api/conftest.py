"""A fake engine behind the real application, on a real unix socket, under both event loops; clients speak raw HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvloop

from pier.api.app import make_app
from pier.api.server import Server
from pier.builder.usage import FILTERS
from pier.containers.attach import Attachment
from pier.errors import NotFound
from pier.events import EventBus
from pier.model.container import (
    ContainerConfig,
    ContainerCreateRequest,
    ContainerCreateResponse,
    ContainerInspectResponse,
    ContainerState,
    ContainerSummary,
    ContainerWaitResponse,
)
from pier.model.disk_usage import (
    BuildCachePruneResponse,
    DiskUsage,
    ImagesUsage,
    LogFileUsage,
    LogsUsage,
    NetworksPruneResponse,
    VolumesUsage,
)
from pier.model.event import EventActor, EventMessage
from pier.model.exec import ExecConfig, ExecInspectResponse
from pier.model.filters import Filters
from pier.model.image import ImageDeleteResponseItem, ImageInspect, ImageSummary
from pier.model.networks import (
    NetworkConnectRequest,
    NetworkCreateRequest,
    NetworkCreateResponse,
    NetworkDisconnectRequest,
    NetworkInspect,
    NetworkStatus,
    NetworkSummary,
)
from pier.model.system import SystemInfo, SystemVersion
from pier.networks.registry import NetworkNotFound
from pier.oci import Digest
from pier.state import MemoryStore
from pier.volumes import VolumeService


class NoSuchContainer(NotFound):
    """No such container: {name}"""


@dataclass
class FakeContainers:
    """One container, `web`; every call is written down."""

    calls: list[tuple[str, Any]] = field(default_factory=list)
    tty: bool = False
    container_end: socket.socket | None = None
    """The other end of the last attachment: what the container reads and writes."""
    prefix: AsyncIterator[bytes] | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    log: list[bytes] = field(default_factory=list)
    log_goes_on: bool = False
    log_closed: bool = False
    start_error: Exception | None = None
    slow: asyncio.Event | None = None
    finished_slow: bool = False

    def _known(self, ref: str) -> None:
        if ref != "web":
            raise NoSuchContainer(name=ref)

    async def create(self, body: ContainerCreateRequest, *, name: str, platform: str) -> ContainerCreateResponse:
        self.calls.append(("create", body))
        return ContainerCreateResponse(id="f" * 64)

    async def join_network(self, network: str, asked: NetworkConnectRequest) -> None:
        self._known(asked.container)
        self.calls.append(("join", (network, asked)))

    async def leave_network(self, network: str, asked: NetworkDisconnectRequest) -> None:
        self._known(asked.container)
        self.calls.append(("leave", (network, asked)))

    async def list(self, *, all: bool, limit: int, size: bool, filters: Filters) -> list[ContainerSummary]:
        filters.validate(("label", "status"))
        self.calls.append(("list", (all, limit, size)))
        return []

    async def inspect(self, ref: str, *, size: bool) -> ContainerInspectResponse:
        self._known(ref)
        return ContainerInspectResponse(
            id="f" * 64,
            created="2026-01-01T00:00:00Z",
            path="sh",
            args=[],
            state=ContainerState(),
            image="sha256:0",
            config=ContainerConfig(tty=self.tty),
        )

    async def start_container(self, ref: str, *, detach_keys: str) -> bool:
        self._known(ref)
        if self.slow is not None:
            await self.slow.wait()
            self.finished_slow = True
        if self.start_error:
            raise self.start_error
        return False

    async def stop(self, ref: str, *, signal: str, timeout_s: int | None) -> bool:
        self.calls.append(("stop", (signal, timeout_s)))
        return True

    async def kill(self, ref: str, signal: str) -> None:
        self.calls.append(("kill", signal))

    async def pause(self, ref: str) -> None:
        self._known(ref)
        self.calls.append(("pause", ref))

    async def unpause(self, ref: str) -> None:
        self._known(ref)
        self.calls.append(("unpause", ref))

    def wait(self, ref: str, condition: str) -> Awaitable[ContainerWaitResponse]:
        self._known(ref)
        self.calls.append(("wait", condition))

        async def end() -> ContainerWaitResponse:
            await self.ended.wait()
            return ContainerWaitResponse(status_code=7)

        return end()

    async def attach(self, ref: str, **streams: bool) -> Attachment:
        self._known(ref)
        self.calls.append(("attach", streams))
        return self._attachment()

    async def commit(self, ref: str, **options: Any) -> Digest:
        self._known(ref)
        self.calls.append(("commit", options))
        return Digest("sha256:" + "7" * 64)

    def _attachment(self) -> Attachment:
        client, self.container_end = socket.socketpair()
        client.setblocking(False)
        self.container_end.setblocking(False)
        return Attachment(sock=client, tty=self.tty, prefix=self.prefix)

    def detached(self, ref: str) -> None:
        self.calls.append(("detached", ref))

    async def logs(self, ref: str, **_: Any) -> AsyncIterator[bytes]:
        try:
            for chunk in self.log:
                yield chunk
            if self.log_goes_on:
                await asyncio.Event().wait()
        finally:
            self.log_closed = True

    async def exec_create(self, ref: str, config: ExecConfig) -> str:
        self.calls.append(("exec_create", config))
        return "e" * 64

    def exec_prepare(self, id: str) -> None:
        self.calls.append(("exec_prepare", id))

    async def exec_inspect(self, id: str) -> ExecInspectResponse:
        if set(id) != {"e"}:
            raise NotFound(message=f"No such exec instance: {id}")
        return ExecInspectResponse(id=id)

    async def exec_start(self, id: str, **_: Any) -> Attachment | None:
        if self.start_error:
            raise self.start_error
        return self._attachment()


@dataclass
class FakeArchives:
    loaded: bytes = b""
    failure: Exception | None = None
    asked: dict[str, Any] = field(default_factory=dict)

    async def load(
        self, source: AsyncIterator[bytes], *, quiet: bool, platform: str, tags: list[str]
    ) -> AsyncIterator[dict[str, Any]]:
        self.asked = {"quiet": quiet, "platform": platform, "tags": tags}
        async for chunk in source:
            self.loaded += chunk
        yield {"stream": "Loaded image: a:latest\n"}
        if self.failure:
            raise self.failure

    async def save(self, refs: list[str], *, platform: str) -> AsyncIterator[bytes]:
        self.asked = {"refs": refs, "platform": platform}
        if self.failure:
            raise self.failure
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[bytes]:
        yield b"of the "
        yield b"archive"

    async def import_(
        self, source: AsyncIterator[bytes], *, origin: str, **options: Any
    ) -> AsyncIterator[dict[str, Any]]:
        self.asked = {"origin": origin, **options}
        async for chunk in source:
            self.loaded += chunk
        yield {"status": "sha256:1"}


@dataclass
class FakeImages:
    failure: Exception | None = None
    archives: FakeArchives = field(default_factory=FakeArchives)

    async def list(self, *, all: bool, filters: Filters, manifests: bool) -> list[ImageSummary]:
        return [ImageSummary(id="sha256:1", size=5)]

    async def inspect(self, ref: str, *, platform: str, manifests: bool) -> ImageInspect:
        return ImageInspect(id=ref)

    async def delete(
        self, ref: str, *, force: bool, noprune: bool, platforms: Sequence[str]
    ) -> list[ImageDeleteResponseItem]:
        return [ImageDeleteResponseItem(untagged=ref)]

    async def pull(self, reference: str, **_: Any) -> AsyncIterator[dict[str, Any]]:
        if self.failure:
            raise self.failure
        yield {"status": f"Pulling {reference}"}

    async def push(
        self, reference: str, *, platform: str, auth: dict[str, str] | None
    ) -> AsyncIterator[dict[str, Any]]:
        if self.failure:
            raise self.failure
        yield {"status": f"Pushing {reference} {platform} as {(auth or {}).get('username')}"}


@dataclass
class FakeEvents:
    image_too: bool = False

    @asynccontextmanager
    async def subscribe(self, **_: Any) -> AsyncIterator[AsyncIterator[EventMessage]]:
        async def one() -> AsyncIterator[EventMessage]:
            actor = EventActor(id="abc", attributes={"image": "busybox", "name": "web"})
            if self.image_too:
                yield EventMessage(
                    type="image", action="create", actor=EventActor(id="sha256:1", attributes={}), time=1
                )
            yield EventMessage(type="container", action="start", actor=actor, time=1, time_nano=1_000_000_000)

        yield one()


class FakeSystem:
    async def info(self) -> SystemInfo:
        raise RuntimeError("secret of the daemon")

    async def version(self) -> SystemVersion:
        return SystemVersion(version="1")

    async def disk_usage(self, kinds: Collection[str]) -> DiskUsage:
        image = ImageSummary(id="sha256:1", size=5, shared_size=2, containers=1)
        found = DiskUsage()
        if "image" in kinds:
            found.image_usage = ImagesUsage(1, 1, 3, 9, [image])
        if "volume" in kinds:
            found.volume_usage = VolumesUsage(items=[])
        if "log" in kinds:
            found.log_usage = LogsUsage(1, 1, 0, 7, [LogFileUsage("f" * 64, "web", "json-file", 1, 7)])
        return found


@dataclass
class FakeNetworks:
    """The network `web_net`; every call is written down."""

    calls: list[tuple[str, Any]] = field(default_factory=list)

    def list(self, filters: Filters) -> list[NetworkSummary]:
        filters.validate(("name",))
        return [NetworkSummary(name="web_net", id="a" * 64, created="2026-01-01T00:00:00Z")]

    def inspect(self, ref: str, *, scope: str) -> NetworkInspect:
        if ref != "web_net":
            raise NetworkNotFound(name=ref)
        return NetworkInspect(name=ref, id="a" * 64, created="2026-01-01T00:00:00Z", status=NetworkStatus())

    async def create(self, asked: NetworkCreateRequest) -> NetworkCreateResponse:
        self.calls.append(("create", asked))
        return NetworkCreateResponse(id="a" * 64)

    async def remove(self, ref: str) -> None:
        self.inspect(ref, scope="")

    async def prune(self, filters: Filters) -> NetworksPruneResponse:
        filters.validate(("label", "label!", "until"))
        return NetworksPruneResponse()


class FakeBuilder:
    def __init__(self) -> None:
        self.pruned: list[tuple[Filters, bool, int]] = []
        self.running = {"known"}

    async def prune(self, filters: Filters, *, everything: bool, keep_bytes: int) -> BuildCachePruneResponse:
        filters.validate(FILTERS)
        self.pruned.append((filters, everything, keep_bytes))
        return BuildCachePruneResponse()

    def cancel(self, id: str) -> bool:
        return id in self.running


@dataclass
class FakeEngine:
    builder: FakeBuilder = field(default_factory=FakeBuilder)
    networks: FakeNetworks = field(default_factory=FakeNetworks)
    containers: FakeContainers = field(default_factory=FakeContainers)
    images: FakeImages = field(default_factory=FakeImages)
    events: FakeEvents = field(default_factory=FakeEvents)
    system: FakeSystem = field(default_factory=FakeSystem)
    volumes: VolumeService | None = None
    """The real one, which needs no privileges for what is a folder."""


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """One client's connection, at the level of bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def send_request(self, method: str, path: str, *, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: d"]
        if body:
            lines += [f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def head(self) -> tuple[int, dict[str, str]]:
        """Status and headers (names in lower case) of an answer."""
        raw = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)
        first, *lines = raw.decode().split("\r\n")[:-2]
        return int(first.split()[1]), {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }

    async def read(self, size: int) -> bytes:
        return await asyncio.wait_for(self.reader.readexactly(size), 5)

    async def read_all(self) -> bytes:
        return await asyncio.wait_for(self.reader.read(), 5)

    async def answer(self, method: str = "GET") -> Answer:
        status, headers = await self.head()
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int((await asyncio.wait_for(self.reader.readline(), 5)).strip(), 16):
                body += await self.read(size)
                await self.read(2)
            await self.read(2)
        elif method == "HEAD" or status in (101, 204, 304):
            body = b""
        else:
            body = await self.read(int(headers.get("content-length", "0")))
        return Answer(status, headers, body)

    def close(self) -> None:
        self.writer.close()


class Client:
    """Opens connections to the application."""

    def __init__(self, path: str, engine: FakeEngine) -> None:
        self.path, self.engine = path, engine
        self.server: Server
        self._open: list[Connection] = []

    async def connect(self) -> Connection:
        reader, writer = await asyncio.open_unix_connection(self.path, limit=1 << 24)
        connection = Connection(reader, writer)
        self._open.append(connection)
        return connection

    async def request(
        self, method: str, path: str, *, json_body: Any = None, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        connection = await self.connect()
        headers = dict(headers or {})
        if json_body is not None:
            body = json.dumps(json_body).encode()
            headers.setdefault("Content-Type", "application/json")
        connection.send_request(method, path, headers=headers, body=body)
        answer = await connection.answer(method)
        connection.close()
        return answer

    def close(self) -> None:
        for connection in self._open:
            connection.close()


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    engine = FakeEngine()
    top, notes = str(tmp_path / "volumes"), str(tmp_path / "notes")
    engine.volumes = VolumeService(top=top, notes=notes, store=MemoryStore(), events=EventBus())
    await engine.volumes.start()
    path = str(tmp_path / "s")
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    server = Server(make_app(engine), shutdown_timeout_s=1.0)  # type: ignore[arg-type]
    await server.start([sock])
    made = Client(path, engine)
    made.server = server
    yield made
    made.close()
    await server.close()
    await engine.volumes.close()
