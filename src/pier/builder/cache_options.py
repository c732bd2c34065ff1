"""Caches elsewhere that a client names (`--cache-from`, `--cache-to`), read and judged in BuildKit's words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pier.builder.cache_form import Form, flag, read_form
from pier.errors import InvalidParameter

REGISTRY, LOCAL, INLINE = "registry", "local", "inline"
ELSEWHERE: Final = ("gha", "s3", "azblob")
"""Kinds of BuildKit's that are not here: whoever names one gets a warning and a build."""
INLINE_ARG: Final = "build-arg:BUILDKIT_INLINE_CACHE"
MODES: Final = ("min", "max")


class UnknownExporter(InvalidParameter):
    """unknown cache exporter: "{kind}\""""


class DuplicateExports(InvalidParameter):
    """duplicate cache exports [{kinds}]"""


class BadCache(InvalidParameter):
    """{reason}"""


@dataclass(frozen=True, slots=True)
class CacheImport:
    kind: str
    attrs: Mapping[str, str]

    @property
    def name(self) -> str:
        """What it is called where it is told of."""
        where = self.attrs.get({REGISTRY: "ref", LOCAL: "src"}.get(self.kind, ""), "")
        return where if self.kind == REGISTRY else f"{self.kind}:{where}".rstrip(":")


@dataclass(frozen=True, slots=True)
class CacheExport:
    kind: str
    where: str = ""
    """The name at a registry, or the client's folder."""
    tag: str = "latest"
    """What the index of a folder calls it; clients of BuildKit write that themselves."""
    everything: bool = False
    """`mode=max`: also of the steps whose layers the result has not."""
    ignore_error: bool = False
    form: Form = field(default_factory=Form)
    warnings: tuple[str, ...] = ()


def read_imports(wishes: Iterable[tuple[str, Mapping[str, str]]]) -> list[CacheImport]:
    """Caches that are to be used, by (kind, attributes), each once."""
    wanted = [CacheImport(kind, {key: str(value) for key, value in attrs.items()}) for kind, attrs in wishes]
    return list({(each.kind, tuple(sorted(each.attrs.items()))): each for each in wanted}.values())


def read_exports(wishes: Iterable[tuple[str, Mapping[str, str]]]) -> list[CacheExport]:
    """Where the cache is to go, by (kind, attributes). Raises DuplicateExports, UnknownExporter, BadCache, BadForm."""
    seen: set[object] = set()
    twice: list[str] = []
    found = []
    for kind, attrs in wishes:
        identity = kind if kind == INLINE else (kind, tuple(sorted(attrs.items())))
        if identity in seen:
            twice.append(kind)
        seen.add(identity)
        found.append(_export(kind, attrs))
    if twice:
        raise DuplicateExports(kinds=" ".join(twice))
    return found


def _export(kind: str, attrs: Mapping[str, str]) -> CacheExport:
    if kind in ELSEWHERE:
        return CacheExport(kind, warnings=(f"the cache is not exported to {kind}",))
    mode = attrs.get("mode", "min")
    if kind == INLINE:
        return CacheExport(kind, warnings=_of_inline(mode))
    where = attrs.get({REGISTRY: "ref", LOCAL: "dest"}.get(kind, ""), "")
    if kind not in (REGISTRY, LOCAL):
        raise UnknownExporter(kind=kind)
    if not where:
        needs = "ref" if kind == REGISTRY else "dest"
        raise BadCache(reason=f"{kind} cache exporter requires {needs}")
    form, warnings = read_form(attrs)
    if mode not in MODES:
        warnings.append(f"mode={mode} is neither min nor max: the cache is exported as mode=min")
    ignore_error = flag(attrs, "ignore-error", False)
    tag = attrs.get("tag") or "latest"
    return CacheExport(kind, where, tag, mode == "max", ignore_error, form, tuple(warnings))


def _of_inline(mode: str) -> tuple[str, ...]:
    if mode == "min":
        return ()
    return (f"mode={mode} has no effect with type=inline: an image carries the cache of its own layers",)


def wants_inline(arguments: Mapping[str, str]) -> bool:
    """Whether build arguments, or attributes of a frontend, ask for the cache in the image."""
    text = arguments.get(INLINE_ARG, arguments.get(INLINE_ARG.partition(":")[2], ""))
    return text in ("1", "t", "T", "true", "TRUE", "True")
