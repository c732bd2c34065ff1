"""`--build-context name=…`: trees that stand in for stages, base images and sources of COPY --from."""

from __future__ import annotations

import msgspec

from pier.builder.dockerfile.git_reference import parse_git_reference
from pier.builder.dockerfile.options import Options
from pier.builder.dockerfile.source import DockerfileError
from pier.builder.graph import Note, Output, Source, Vertex
from pier.oci import Platform
from pier.oci.reference import InvalidReference, Reference


class NamedContext(msgspec.Struct, frozen=True):
    """An image, or a source of files."""

    name: str
    reference: Reference | None = None
    source: Source | None = None

    def output(self, platform: Platform) -> Output:
        """Its files, where it is no image."""
        assert self.source is not None
        note = Note(name=f"[context {self.name}] load from client" if self.source.scheme == "local" else "")
        return Vertex(self.source, platform=platform, note=note).output()


def find_context(options: Options, name: str) -> NamedContext | None:
    """The context that a stage or an image is replaced with. Raises DockerfileError for one that cannot be read."""
    if not options.contexts or name.lower() in ("scratch", "context"):
        return None
    for spelling in _spellings(name):
        if spelling in options.contexts:
            return _read(spelling, options.contexts[spelling])
    return None


def _spellings(name: str) -> list[str]:
    """As written, in lower case, and as an image is called for short and in full."""
    try:
        reference = Reference.parse(name)
    except InvalidReference:
        return [name, name.lower()]
    familiar = reference.familiar
    return [name, name.lower(), familiar, familiar.removesuffix(":latest"), str(reference)]


def _read(name: str, value: str) -> NamedContext:
    kind, colon, rest = value.partition(":")
    if not colon:
        raise DockerfileError(f"invalid context specifier {value} for {name}")
    git = parse_git_reference(value)
    if git is not None:
        return NamedContext(name, source=git.source(keep_git_dir=bool(git.keep_git_dir), checksum=git.checksum))
    match kind:
        case "docker-image":
            try:
                return NamedContext(name, reference=Reference.parse(rest.removeprefix("//")))
            except InvalidReference as error:
                raise DockerfileError(f"invalid context specifier {value} for {name}: {error.message}") from None
        case "local":
            attrs = {"local.sharedkeyhint": f"context:{name}"}
            return NamedContext(name, source=Source(f"local://{rest}", attrs))
        case "http" | "https":
            return NamedContext(name, source=Source(value, {"http.filename": "context"}))
        case "oci-layout":
            return NamedContext(name, source=Source(f"oci-layout://{rest.removeprefix('//')}"))
    raise DockerfileError(f"unsupported context source {kind} for {name}")
