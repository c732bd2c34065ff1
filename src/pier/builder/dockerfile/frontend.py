"""The frontend `dockerfile.v0` as its clients ask it: a map of strings (BuildKit's frontend/dockerui) -> a request.

Unknown keys mean nothing, as there; those of attestations are for a builder that makes them.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, Final

import msgspec

from pier.builder.dockerfile.options import Options
from pier.builder.graph import HostIP, Limits, NetMode, Ulimit
from pier.errors import InvalidParameter
from pier.model.booleans import parse_bool
from pier.oci import Platform
from pier.oci.platform import InvalidPlatform

DEFAULT_FILE: Final = "Dockerfile"
_NETWORKS: Final = {"": NetMode.UNSET, "sandbox": NetMode.UNSET, "none": NetMode.NONE, "host": NetMode.HOST}
_RESOLVE_MODES: Final = {"": "", "default": "", "pull": "pull", "local": "local"}
_ULIMIT: Final = re.compile(r"([a-z]+)=(-?[0-9]{1,19})(?::(-?[0-9]{1,19}))?")


class BadAttribute(InvalidParameter):
    """{message}"""


class CacheImport(msgspec.Struct, frozen=True, rename="pascal"):
    type: str
    attrs: Mapping[str, str] = msgspec.field(default_factory=dict)


class FrontendRequest(msgspec.Struct, frozen=True, kw_only=True):
    options: Options
    """Without a target platform: each of `platforms` is one compilation."""
    platforms: tuple[Platform, ...] = ()
    """Empty: the builder's own."""
    as_map: bool = False
    """The result names its platforms, also where there is but one."""
    filename: str = DEFAULT_FILE
    context_name: str = "context"
    """The local source that the context is."""
    dockerfile_name: str = "dockerfile"
    """The local source that the Dockerfile is in."""
    local_dockerfile: bool = False
    """It is there even if the context comes from elsewhere."""
    context: str = ""
    """Address of a context from elsewhere."""
    context_subdir: str = ""
    keep_git_dir: bool = False
    subrequest: str = ""
    """What is asked instead of a build: `frontend.outline`, …"""
    cache_imports: tuple[CacheImport, ...] = ()
    local_sessions: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Local source -> the session that has it, where it is not the build's own."""


def read_attributes(attrs: Mapping[str, str], build_platform: Platform) -> FrontendRequest:
    """Raises BadAttribute."""
    platforms = _platforms(attrs.get("platform", ""))
    build_args = _prefixed(attrs, "build-arg:")
    as_map = _multi_platform(build_args.get("BUILDKIT_MULTI_PLATFORM") or attrs.get("multi-platform", ""), platforms)
    no_cache = attrs.get("no-cache")
    context_name = attrs.get("contextkey", "context")
    options = Options(
        target=attrs.get("target", ""),
        build_args=build_args,
        labels=_prefixed(attrs, "label:"),
        build_platform=build_platform,
        several_platforms=as_map,
        no_cache=no_cache == "",
        no_cache_stages=frozenset(name.strip().lower() for name in (no_cache or "").split(",") if name.strip()),
        contexts=_prefixed(attrs, "context:"),
        network=_one_of(_NETWORKS, attrs.get("force-network-mode", ""), "invalid netmode {}"),
        extra_hosts=tuple(map(_host, _fields(attrs.get("add-hosts", "")))),
        hostname=attrs.get("hostname", ""),
        ulimits=tuple(map(_ulimit, _fields(attrs.get("ulimit", "")))),
        cgroup_parent=attrs.get("cgroup-parent", ""),
        limits=_limits(attrs.get("shm-size", "")),
        image_resolve_mode=_one_of(
            _RESOLVE_MODES, attrs.get("image-resolve-mode", ""), "invalid image-resolve-mode: {}"
        ),
    )
    return FrontendRequest(
        options=options,
        platforms=platforms,
        as_map=as_map,
        filename=attrs.get("filename") or DEFAULT_FILE,
        context_name=context_name,
        dockerfile_name=attrs.get("dockerfilekey", "dockerfile"),
        local_dockerfile="dockerfilekey" in attrs,
        context=attrs.get(context_name, ""),
        context_subdir=attrs.get("contextsubdir", ""),
        keep_git_dir=_is_true(build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR", "")),
        subrequest=attrs.get("requestid", ""),
        cache_imports=_cache_imports(attrs),
        local_sessions=_prefixed(attrs, "local-sessionid:"),
    )


def repeated_platforms(attrs: Mapping[str, str]) -> list[str]:
    """What is asked for more than once, which is built once. Raises InvalidPlatform."""
    asked = [str(Platform.parse(each)) for each in attrs.get("platform", "").split(",") if each]
    return [each for number, each in enumerate(asked) if each in asked[:number]]


def for_platform(request: FrontendRequest, platform: Platform | None) -> Options:
    """The options of one of the request's compilations."""
    return msgspec.structs.replace(request.options, target_platform=platform)


def _prefixed(attrs: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {key.removeprefix(prefix): value for key, value in attrs.items() if key.startswith(prefix)}


def _platforms(text: str) -> tuple[Platform, ...]:
    found: dict[tuple[str, str, str], Platform] = {}
    for each in text.split(",") if text else ():
        try:
            platform = Platform.parse(each)
        except InvalidPlatform as error:
            raise BadAttribute(f"failed to parse target platform {each}: {error.message}") from None
        found.setdefault(platform.key(), platform)
    return tuple(found.values())


def _multi_platform(text: str, platforms: tuple[Platform, ...]) -> bool:
    if not text:
        return len(platforms) > 1
    try:
        as_map = parse_bool(text)
    except ValueError:
        raise BadAttribute(f"invalid boolean value for multi-platform: {text}") from None
    if not as_map and len(platforms) > 1:
        raise BadAttribute("conflicting config: returning multiple target platforms is not allowed")
    return as_map


def _is_true(text: str) -> bool:
    """What is no boolean is not true."""
    try:
        return parse_bool(text)
    except ValueError:
        return False


def _one_of(known: Mapping[str, Any], value: str, message: str) -> Any:
    if value not in known:
        raise BadAttribute(message.format(value))
    return known[value]


def _fields(text: str) -> list[str]:
    return next(csv.reader([text]), []) if text else []


def _host(field: str) -> HostIP:
    name, equals, address = field.lower().partition("=")
    if not equals:
        raise BadAttribute(f"failed to parse additional hosts: invalid key-value pair {field}")
    try:
        return HostIP(name, str(ip_address(address)))
    except ValueError:
        raise BadAttribute(f"failed to parse additional hosts: failed to parse IP {address}") from None


def _ulimit(field: str) -> Ulimit:
    match = _ULIMIT.fullmatch(field)
    if not match:
        raise BadAttribute(f"failed to parse ulimit: invalid ulimit argument: {field}")
    soft = int(match[2])
    return Ulimit(match[1], soft, int(match[3]) if match[3] else soft)


def _limits(shm_size: str) -> Limits | None:
    if not shm_size:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", shm_size):
        raise BadAttribute(f"failed to parse shm size: {shm_size}")
    return Limits(shm_size=int(shm_size))


def _cache_imports(attrs: Mapping[str, str]) -> tuple[CacheImport, ...]:
    found: list[CacheImport] = []
    if text := attrs.get("cache-imports"):
        try:
            found = msgspec.json.decode(text, type=list[CacheImport])
        except msgspec.MsgspecError as error:
            raise BadAttribute(f"failed to unmarshal cache-imports ({json.dumps(text)}): {error}") from None
    references = [each for each in attrs.get("cache-from", "").split(",") if each]
    return (*found, *(CacheImport("registry", {"ref": reference}) for reference in references))
