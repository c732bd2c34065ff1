"""Arguments before the first FROM: predefined ones, defaults, values from the command line (Dockerfile reference,
"ARG", "Automatic platform ARGs in the global scope").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from pier.builder.dockerfile.instructions import Arg, Definition
from pier.builder.dockerfile.shell import BadWord, Lexer
from pier.builder.dockerfile.source import DockerfileError, SourceRange
from pier.builder.epoch import SOURCE_DATE_EPOCH
from pier.builder.graph import ProxyEnv
from pier.oci import Platform

DEFAULT_TARGET_STAGE: Final = "default"
PROXIES: Final = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
NOT_IN_ENVIRONMENT: Final = frozenset({"BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"})


class ArgInfo(msgspec.Struct, frozen=True):
    """What `--call=outline` says of an argument."""

    definition: Definition
    value: str
    at: SourceRange
    uses: frozenset[str] = frozenset()
    """Arguments that its default is made of."""


class GlobalArgs(msgspec.Struct, frozen=True):
    values: Mapping[str, str]
    info: Mapping[str, ArgInfo]
    """Of those that the file defines."""


def platform_args(build: Platform, target: Platform, stage: str, given: Mapping[str, str]) -> dict[str, str]:
    """The arguments that are there without being defined; the command line may give them other values."""
    values = {}
    for prefix, platform in (("BUILD", build), ("TARGET", target)):
        values[f"{prefix}PLATFORM"] = str(platform)
        values[f"{prefix}OS"] = platform.os
        values[f"{prefix}OSVERSION"] = platform.os_version
        values[f"{prefix}ARCH"] = platform.architecture
        values[f"{prefix}VARIANT"] = platform.variant
    values["TARGETSTAGE"] = stage or DEFAULT_TARGET_STAGE
    return {name: given.get(name, value) for name, value in values.items()}


def global_args(
    predefined: Mapping[str, str], args: Iterable[Arg], given: Mapping[str, str], lexer: Lexer
) -> GlobalArgs:
    """Raises DockerfileError."""
    values = dict(predefined)
    info: dict[str, ArgInfo] = {}
    for arg in args:
        for definition in arg.definitions:
            name, value, uses = definition.name, given.get(definition.name), frozenset[str]()
            if value is None and definition.default is not None:
                try:
                    expansion = lexer.expand(definition.default, values)
                except BadWord as fault:
                    raise DockerfileError(str(fault), at=[arg.source]) from None
                value = expansion.text
                uses = expansion.matched - {name}
                if name in expansion.matched and name in info:
                    uses |= info[name].uses
            if value is not None:
                values[name] = value
            info[name] = ArgInfo(definition, value or "", arg.source, uses)
    return GlobalArgs(values, info)


def proxy_env(given: Mapping[str, str]) -> ProxyEnv | None:
    """The proxies that `--build-arg` names, in capitals or not; steps see them without an ARG."""
    found = {name.lower(): value for name, value in sorted(given.items()) if name.lower() in PROXIES}
    return ProxyEnv(**found) if found else None


def unused(given: Mapping[str, str], used: Iterable[str]) -> list[str]:
    """Names of the command line that no ARG has taken, sorted; predefined ones need none."""
    known = {name.upper() for name in PROXIES} | set(PROXIES) | NOT_IN_ENVIRONMENT | {SOURCE_DATE_EPOCH}
    return sorted(name for name in given if name not in known | set(used) and not name.startswith("BUILDKIT_"))
