"""Processes started in a running container (Engine API: Exec)."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import field

from .wire import OMIT, StrSlice, Struct


class ExecConfig(Struct):
    """The body of POST /containers/{id}/exec."""

    user: str = ""
    privileged: bool = False
    tty: bool = False
    console_size: list[int] | None = None
    """Height, width."""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    detach_keys: str = ""
    env: list[str] | None = None
    working_dir: str = ""
    cmd: StrSlice | None = None


class ExecStartConfig(Struct):
    """The body of POST /exec/{id}/start."""

    detach: bool = False
    tty: bool = False
    console_size: list[int] | None = None
    """Height, width."""


class ExecCreateResponse(Struct):
    id: str


class ProcessConfig(msgspec.Struct, kw_only=True):
    """The process of an exec; `user` and `privileged` are left out where the request did not speak of them."""

    tty: bool = False
    entrypoint: str = ""
    arguments: list[str] = field(default_factory=list)
    privileged: Annotated[bool | None, OMIT] = None
    user: Annotated[str, OMIT] = ""


class ExecInspectResponse(Struct):
    """The answer of GET /exec/{id}/json; `exit_code` is None while it runs."""

    id: str = field(name="ID")
    running: bool = False
    exit_code: int | None = None
    process_config: ProcessConfig = field(default_factory=ProcessConfig)
    open_stdin: bool = False
    open_stderr: bool = False
    open_stdout: bool = False
    can_remove: bool = False
    container_id: str = field(name="ContainerID", default="")
    detach_keys: str = ""
    pid: int = 0
