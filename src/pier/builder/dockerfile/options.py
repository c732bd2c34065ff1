"""What a build request says beside the Dockerfile, and what the compiler needs to ask the world."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from pier.builder.graph import HostIP, Limits, NetMode, Output, Ulimit
from pier.oci import Platform
from pier.oci.image_config import ImageConfig
from pier.oci.platform import host_platform


class Options(msgspec.Struct, frozen=True, kw_only=True):
    target: str = ""
    build_args: Mapping[str, str] = msgspec.field(default_factory=dict)
    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Added to the image at the end."""
    target_platform: Platform | None = None
    """None: the builder's own, and a base image of another one is taken as it is."""
    build_platform: Platform = msgspec.field(default_factory=host_platform)
    several_platforms: bool = False
    """Steps say in their names which platform they are for."""
    no_cache: bool = False
    no_cache_stages: frozenset[str] = frozenset()
    """Only these stages, by name in lower case, are run anew."""
    contexts: Mapping[str, str] = msgspec.field(default_factory=dict)
    """`--build-context`: name -> `docker-image://…`, `local:NAME`, an address of git or a web server, `oci-layout://…`."""
    main_context: Output | None = None
    """Where COPY takes its files from; None: the client's, by the name `context`."""
    ignore_patterns: tuple[str, ...] = ()
    """Of `.dockerignore`."""
    network: NetMode = NetMode.UNSET
    extra_hosts: tuple[HostIP, ...] = ()
    hostname: str = ""
    ulimits: tuple[Ulimit, ...] = ()
    cgroup_parent: str = ""
    limits: Limits | None = None
    image_resolve_mode: str = ""
    """`pull` (--pull), `local`, or empty: as the builder likes."""
    cache_namespace: str = ""
    """Before the id of each cache mount."""
    all_stages: bool = False
    """Also those that the target does not need are compiled, for checks."""


def with_build_args(options: Options) -> Options:
    """Build arguments that are settings of the builder take their places (Dockerfile reference, "BuildKit built-in
    build args").
    """
    given = options.build_args
    return msgspec.structs.replace(
        options,
        hostname=given.get("BUILDKIT_SANDBOX_HOSTNAME") or options.hostname,
        cache_namespace=given.get("BUILDKIT_CACHE_MOUNT_NS", options.cache_namespace),
    )


def check_text(options: Options, written: str) -> str:
    """What counts as the file's `# check=`: a build argument goes before what is written there."""
    return options.build_args.get("BUILDKIT_DOCKERFILE_CHECK", written)


class ResolvedImage(msgspec.Struct, frozen=True):
    """A base image as it is now."""

    reference: str
    """With its digest where there is one."""
    config: ImageConfig


class Resolver(Protocol):
    """Asks for images' configurations."""

    async def resolve(self, reference: str, platform: Platform, mode: str) -> ResolvedImage:
        """`mode` is that of Options. Raises PierError."""
        ...
