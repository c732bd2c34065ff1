"""What the API needs of the engine, and nothing more: the seam that lets its tests run without one."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from pier.containers.attach import Attachment
from pier.model.container import (
    ContainerCreateRequest,
    ContainerCreateResponse,
    ContainerInspectResponse,
    ContainerSummary,
    ContainerWaitResponse,
)
from pier.model.event import EventMessage
from pier.model.exec import ExecConfig, ExecInspectResponse
from pier.model.filters import Filters
from pier.model.image import ImageDeleteResponseItem, ImageInspect, ImageSummary
from pier.model.system import SystemInfo, SystemVersion


class Containers(Protocol):
    """`containers.service.ContainerService`."""

    async def create(self, body: ContainerCreateRequest, *, name: str, platform: str) -> ContainerCreateResponse: ...
    async def list(self, *, all: bool, limit: int, size: bool, filters: Filters) -> list[ContainerSummary]: ...
    async def inspect(self, ref: str, *, size: bool) -> ContainerInspectResponse: ...
    async def start_container(self, ref: str, *, detach_keys: str) -> bool: ...
    async def stop(self, ref: str, *, signal: str, timeout_s: int | None) -> bool: ...
    async def restart(self, ref: str, *, signal: str, timeout_s: int | None) -> None: ...
    async def kill(self, ref: str, signal: str) -> None: ...
    def wait(self, ref: str, condition: str) -> Awaitable[ContainerWaitResponse]: ...
    async def attach(
        self, ref: str, *, stdin: bool, stdout: bool, stderr: bool, stream: bool, logs: bool
    ) -> Attachment: ...
    def logs(
        self,
        ref: str,
        *,
        stdout: bool,
        stderr: bool,
        follow: bool,
        since_ns: int,
        until_ns: int,
        timestamps: bool,
        tail: int | None,
        details: bool,
    ) -> AsyncIterator[bytes]: ...
    def detached(self, ref: str) -> None: ...
    async def resize(self, ref: str, height: int, width: int) -> None: ...
    async def remove(self, ref: str, *, force: bool, volumes: bool, link: bool) -> None: ...
    async def rename(self, ref: str, name: str) -> None: ...
    def stats(self, ref: str, *, stream: bool, one_shot: bool) -> AsyncIterator[dict[str, Any]]: ...
    async def exec_create(self, ref: str, config: ExecConfig) -> str: ...
    async def exec_start(
        self, id: str, *, detach: bool, tty: bool, console_size: tuple[int, int] | None
    ) -> Attachment | None: ...
    async def exec_inspect(self, id: str) -> ExecInspectResponse: ...
    async def exec_resize(self, id: str, height: int, width: int) -> None: ...


class Images(Protocol):
    """`images.service.ImageService`."""

    async def list(self, *, all: bool, filters: Filters) -> list[ImageSummary]: ...
    async def inspect(self, ref: str) -> ImageInspect: ...
    async def delete(self, ref: str, *, force: bool, noprune: bool) -> builtins.list[ImageDeleteResponseItem]: ...
    async def tag(self, ref: str, name: str) -> None: ...
    def load(self, source: AsyncIterator[bytes], *, quiet: bool) -> AsyncIterator[dict[str, Any]]: ...
    def import_(
        self,
        source: AsyncIterator[bytes],
        *,
        repo: str,
        tag: str,
        message: str,
        changes: builtins.list[str],
        platform: str,
    ) -> AsyncIterator[dict[str, Any]]: ...
    def pull(self, reference: str, *, platform: str, auth: dict[str, str] | None) -> AsyncIterator[dict[str, Any]]: ...


class Events(Protocol):
    """`events.bus.EventBus`."""

    def subscribe(
        self, *, filters: Filters | None, since_ns: int, until_ns: int
    ) -> AbstractAsyncContextManager[AsyncIterator[EventMessage]]: ...


class System(Protocol):
    """`engine.system`: the daemon about itself."""

    async def info(self) -> SystemInfo: ...
    async def version(self) -> SystemVersion: ...


class Engine(Protocol):
    """`engine.engine.Engine`."""

    @property
    def containers(self) -> Containers: ...
    @property
    def images(self) -> Images: ...
    @property
    def events(self) -> Events: ...
    @property
    def system(self) -> System: ...
