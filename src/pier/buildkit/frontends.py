"""The frontend `dockerfile.v0`: its options as clients send them (BuildKit's dockerui), and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar

from pier.builder.dockerfile.git_reference import parse_git_reference
from pier.builder.dockerfile.options import Options
from pier.builder.frontend import CONTEXT_FILE, DEFAULT_NAME, Frontend, Wanted
from pier.builder.graph import HostIP, Limits, NetMode, Note, Output, Source, Ulimit, Vertex
from pier.buildkit.results import Outcome, Part
from pier.buildkit.runs import Run
from pier.errors import InvalidParameter, NotImplementedYet
from pier.oci import Platform

__all__ = ["DOCKERFILE", "run_frontend", "wanted_of"]

T = TypeVar("T")
DOCKERFILE: Final = "dockerfile.v0"
GATEWAY: Final = "gateway.v0"
NETWORKS: Final = {
    "": NetMode.UNSET,
    "default": NetMode.UNSET,
    "sandbox": NetMode.UNSET,
    "host": NetMode.HOST,
    "none": NetMode.NONE,
}
RESOLVE_MODES: Final = {"": "", "default": "", "pull": "pull", "local": "local"}
CACHE_NAMESPACE: Final = "build-arg:BUILDKIT_CACHE_MOUNT_NS"


class BadOption(InvalidParameter):
    """invalid value {value!r} for {name}: {reason}"""


class UnknownFrontend(InvalidParameter):
    """invalid frontend: {name}"""


async def run_frontend(run: Run, name: str, attrs: Mapping[str, str], inputs: Mapping[str, Output | None]) -> Outcome:
    """What a frontend makes of a client's options. Raises PierError."""
    if name == GATEWAY:
        source = attrs.get("source", "")
        raise NotImplementedYet(what=f"a frontend from an image (# syntax={source})")
    if name != DOCKERFILE:
        raise UnknownFrontend(name=name)
    if request := attrs.get("requestid"):
        raise NotImplementedYet(what=f"the subrequest {request}")
    frontend = Frontend(run.service, run.build, wanted_of(attrs, inputs), run.files)
    compiled = await frontend.graphs()
    if len(compiled) == 1:
        (one,) = compiled
        return Outcome({"": Part(one.output, one.image, one.platform)})
    return Outcome({str(each.platform): Part(each.output, each.image, each.platform) for each in compiled})


def wanted_of(attrs: Mapping[str, str], inputs: Mapping[str, Output | None]) -> Wanted:
    """A client's options. Raises BadOption, InvalidPlatform."""
    platforms = tuple(Platform.parse(text) for text in attrs.get("platform", "").split(",") if text)
    dockerfile_folder = attrs.get("dockerfilekey", "dockerfile")
    context_folder = attrs.get("contextkey", "context")
    return Wanted(
        _options(attrs),
        filename=attrs.get("filename") or DEFAULT_NAME,
        dockerfile_folder=dockerfile_folder,
        context_folder=context_folder,
        context=inputs.get(context_folder) or _repository(attrs.get("context", "")),
        context_file=_file(attrs.get("context", "")),
        platforms=platforms,
    )


def _repository(text: str) -> Output | None:
    """A git repository in the place of the client's folder."""
    git = parse_git_reference(text) if text else None
    if git is None:
        return None
    source = git.source(keep_git_dir=bool(git.keep_git_dir), checksum=git.checksum)
    return Vertex(source, note=Note(f"[internal] load git source {text}")).output()


def _file(text: str) -> Output | None:
    """A file at an address in its place. Raises BadOption."""
    if not text or parse_git_reference(text) is not None:
        return None
    if not text.startswith(("http://", "https://")):
        raise BadOption(name="context", value=text, reason="neither a git repository nor an address")
    source = Source(text, {"http.filename": CONTEXT_FILE})
    return Vertex(source, note=Note("[internal] load remote build context")).output()


def _options(attrs: Mapping[str, str]) -> Options:
    no_cache = attrs.get("no-cache")
    return Options(
        target=attrs.get("target", ""),
        build_args=_below(attrs, "build-arg:"),
        labels=_below(attrs, "label:"),
        no_cache=no_cache is not None and not no_cache,
        no_cache_stages=frozenset(name.lower() for name in (no_cache or "").split(",") if name),
        contexts=_below(attrs, "context:"),
        network=_chosen(NETWORKS, attrs.get("force-network-mode", ""), "force-network-mode"),
        extra_hosts=tuple(_hosts(attrs.get("add-hosts", ""))),
        hostname=attrs.get("hostname", ""),
        ulimits=tuple(_ulimits(attrs.get("ulimit", ""))),
        cgroup_parent=attrs.get("cgroup-parent", ""),
        limits=Limits(shm_size=_number(attrs, "shm-size")) if "shm-size" in attrs else None,
        image_resolve_mode=_chosen(RESOLVE_MODES, attrs.get("image-resolve-mode", ""), "image-resolve-mode"),
        cache_namespace=attrs.get(CACHE_NAMESPACE, ""),
    )


def _below(attrs: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {name.removeprefix(prefix): value for name, value in attrs.items() if name.startswith(prefix)}


def _chosen(table: Mapping[str, T], value: str, name: str) -> T:
    if value not in table:
        raise BadOption(name=name, value=value, reason=f"it is one of {', '.join(filter(None, table))}")
    return table[value]


def _number(attrs: Mapping[str, str], name: str) -> int:
    value = attrs[name]
    if not value.isdecimal():
        raise BadOption(name=name, value=value, reason="it is a number")
    return int(value)


def _hosts(text: str) -> list[HostIP]:
    found = []
    for pair in filter(None, text.split(",")):
        host, equals, ip = pair.partition("=")
        if not equals or not host or not ip:
            raise BadOption(name="add-hosts", value=pair, reason="it is of the form HOST=IP")
        found.append(HostIP(host, ip))
    return found


def _ulimits(text: str) -> list[Ulimit]:
    found = []
    for item in filter(None, text.split(",")):
        name, _, limits = item.partition("=")
        soft, colon, hard = limits.partition(":")
        try:
            found.append(Ulimit(name, int(soft), int(hard if colon else soft)))
        except ValueError:
            raise BadOption(name="ulimit", value=item, reason="it is of the form NAME=SOFT[:HARD]") from None
    return found
