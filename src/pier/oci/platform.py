"""Platforms: `os/architecture[/variant]`, spelled as Go does (image-spec, image-index.md, "platform")."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from functools import cache
from typing import Final, Self

import msgspec

from pier.errors import InvalidParameter

_COMPONENT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_KNOWN_OS: Final = frozenset({"linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "wasip1"})
_ARCHITECTURES: Final = {
    # spelling -> (architecture, variant)
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv5l": ("arm", "v5"),
    "armv6l": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv8l": ("arm", "v8"),
    "loongarch64": ("loong64", ""),
}
_ARM_VARIANTS: Final = ("v8", "v7", "v6", "v5")
_AMD64_VARIANTS: Final = ("v4", "v3", "v2", "")


class InvalidPlatform(InvalidParameter):
    """ "{text}": {reason}: invalid argument"""

    remedy = "a platform is written os/architecture[/variant], e.g. linux/arm64"


class Platform(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where an image's programs run. Values that came from an image are not normalised until `normalised()`."""

    architecture: str = ""
    os: str = ""
    os_version: str = msgspec.field(default="", name="os.version")
    os_features: tuple[str, ...] = msgspec.field(default=(), name="os.features")
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `os/arch[/variant]`, or an os or an architecture alone, which the host completes; normalised.

        Raises InvalidPlatform.
        """
        parts = text.split("/")
        for part in parts:
            if not _COMPONENT.fullmatch(part):
                raise InvalidPlatform(text=text, reason=f"{part!r} is an invalid component")
        match parts:
            case [alone] if alone.lower() in _KNOWN_OS:
                host = host_platform()
                return cls(os=alone, architecture=host.architecture, variant=host.variant).normalised()
            case [alone]:
                return cls(os="linux", architecture=alone).normalised()
            case [os_name, architecture]:
                return cls(os=os_name, architecture=architecture).normalised()
            case [os_name, architecture, variant]:
                return cls(os=os_name, architecture=architecture, variant=variant).normalised()
            case _:
                raise InvalidPlatform(text=text, reason="cannot parse platform specifier")

    def normalised(self) -> Self:
        """One spelling for one platform: `linux/aarch64/v8` and `linux/arm64` become the same value."""
        architecture, variant = self.architecture.lower(), self.variant.lower()
        architecture, implied = _ARCHITECTURES.get(architecture, (architecture, ""))
        variant = variant or implied
        if variant.isdigit():
            variant = f"v{variant}"
        match architecture, variant:
            case ("arm64", "v8") | ("amd64", "v1"):
                variant = ""
            case ("arm", ""):
                variant = "v7"
        return msgspec.structs.replace(self, os=self.os.lower(), architecture=architecture, variant=variant)

    def matches(self, other: Platform) -> bool:
        """The same os, architecture and variant after normalisation."""
        return self.key() == other.key()

    def key(self) -> tuple[str, str, str]:
        """(os, architecture, variant), normalised: what is compared."""
        same = self.normalised()
        return same.os, same.architecture, same.variant

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def runnable_on(host: Platform) -> list[Platform]:
    """The platforms whose programs `host` runs without emulation, the best first (`host` itself)."""
    os_name, architecture, variant = host.key()

    def of(pairs: Iterable[tuple[str, str]]) -> list[Platform]:
        return [Platform(os=os_name, architecture=a, variant=v) for a, v in pairs]

    if architecture == "amd64" and variant in _AMD64_VARIANTS:
        lower = _AMD64_VARIANTS[_AMD64_VARIANTS.index(variant) :]
        return of([*(("amd64", v) for v in lower), ("386", "")])
    if architecture == "arm" and variant in _ARM_VARIANTS:
        return of(("arm", v) for v in _ARM_VARIANTS[_ARM_VARIANTS.index(variant) :])
    if architecture == "arm64":
        return of([("arm64", variant), *([("arm64", "")] if variant else []), *(("arm", v) for v in _ARM_VARIANTS)])
    return of([(architecture, variant)])


def rank(candidate: Platform, wanted: Platform) -> int | None:
    """How well `candidate` serves one who asked for `wanted`: 0 is exact, larger is worse, None is not at all."""
    keys = [platform.key() for platform in runnable_on(wanted)]
    key = candidate.key()
    return keys.index(key) if key in keys else None


@cache
def host_platform() -> Platform:
    """This machine, as uname(2) tells it."""
    uname = os.uname()
    return Platform(os=uname.sysname, architecture=uname.machine).normalised()
