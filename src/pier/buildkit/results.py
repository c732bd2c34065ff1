"""What a frontend, or a definition, has come to: the parts of a build, before anything is done with them."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from pier.builder.graph import Output
from pier.buildkit.pb import gateway_pb2 as gateway
from pier.errors import InvalidParameter, NotFound
from pier.oci import ImageConfig, Platform, encode
from pier.oci.image_config import decode_image_config

__all__ = ["Outcome", "Part", "Parts"]

CONFIG_KEY = "containerimage.config"
PLATFORMS_KEY = "refs.platforms"
EPOCH_KEY = "source.date.epoch"
"""SOURCE_DATE_EPOCH, in the metadata of an outcome."""


class NoSuchResult(NotFound):
    """no such result of this build: {id}"""


class BadPlatforms(InvalidParameter):
    """invalid metadata {key}: {reason}"""


@dataclass(frozen=True, slots=True)
class Part:
    """One tree of files and, where it is to be an image, its configuration."""

    output: Output | None
    """None: nothing, an empty tree."""
    image: ImageConfig | None = None
    platform: Platform | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """One part, under the name "", or one for each platform, under the platform's."""

    parts: Mapping[str, Part]
    metadata: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class Parts:
    """The parts that a build's client has been told of, by the ids it knows them by."""

    _known: dict[str, Part] = field(default_factory=dict)

    def keep(self, part: Part) -> str:
        id = secrets.token_hex(16)
        self._known[id] = part
        return id

    def get(self, id: str) -> Part:
        """Raises NoSuchResult."""
        if id not in self._known:
            raise NoSuchResult(id=id)
        return self._known[id]

    def show(self, outcome: Outcome) -> gateway.Result:
        """An outcome as a client gets it."""
        result = gateway.Result(metadata=dict(outcome.metadata))
        if list(outcome.parts) == [""]:
            part = outcome.parts[""]
            result.ref.CopyFrom(self._ref(part))
            if part.image is not None:
                result.metadata[CONFIG_KEY] = encode(part.image)
            return result
        result.refs.SetInParent()
        for name, part in outcome.parts.items():
            result.refs.refs[name].CopyFrom(self._ref(part))
            if part.image is not None:
                result.metadata[f"{CONFIG_KEY}/{name}"] = encode(part.image)
        platforms = [
            {"ID": name, "Platform": part.platform} for name, part in outcome.parts.items() if part.platform is not None
        ]
        result.metadata[PLATFORMS_KEY] = msgspec.json.encode({"Platforms": platforms})
        return result

    def _ref(self, part: Part) -> gateway.Ref:
        return gateway.Ref(id=self.keep(part)) if part.output is not None else gateway.Ref()

    def read(self, result: gateway.Result) -> Outcome:
        """What a client gives back. Raises NoSuchResult, BadPlatforms, and for a configuration PierError."""
        metadata = dict(result.metadata)
        match result.WhichOneof("result"):
            case "ref":
                refs = {"": result.ref.id}
            case "refs":
                refs = {name: ref.id for name, ref in result.refs.refs.items()}
            case "ref_deprecated":
                refs = {"": result.ref_deprecated}
            case "refs_deprecated":
                refs = dict(result.refs_deprecated.refs)
            case _:
                refs = {"": ""}
        platforms = _platforms(metadata.pop(PLATFORMS_KEY, b""))
        parts = {}
        for name in (*(name for name in platforms if name in refs), *(name for name in refs if name not in platforms)):
            id = refs[name]  # the message keeps no order, the list of platforms does: that of the index
            output = self.get(id).output if id else None
            config = metadata.pop(f"{CONFIG_KEY}/{name}" if name else CONFIG_KEY, b"")
            image = decode_image_config(config, what=f"configuration of {name or 'the result'}") if config else None
            parts[name] = Part(output, image, platforms.get(name))
        return Outcome(parts, metadata)


class _PlatformEntry(msgspec.Struct):
    ID: str
    Platform: Platform


class _PlatformList(msgspec.Struct):
    Platforms: list[_PlatformEntry] = msgspec.field(default_factory=list)


def _platforms(raw: bytes) -> dict[str, Platform]:
    if not raw:
        return {}
    try:
        found = msgspec.json.decode(raw, type=_PlatformList)
    except msgspec.DecodeError as error:
        raise BadPlatforms(key=PLATFORMS_KEY, reason=str(error)) from None
    return {entry.ID: entry.Platform for entry in found.Platforms}
