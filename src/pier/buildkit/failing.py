"""Why a build failed, as BuildKit's clients read it: a status with details, from which they show the lines to blame.

Details are JSON under the names of BuildKit's Go types (errdefs.proto).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from google.protobuf.any_pb2 import Any as AnyMessage

from pier.builder.dockerfile.source import DockerfileError
from pier.builder.graph import Location
from pier.builder.solver import StepFailed
from pier.buildkit.grpc import OF_STATUS, Code, Failed
from pier.errors import PierError

__all__ = ["failed"]

ERRDEFS: Final = "github.com/moby/buildkit/errdefs."


def failed(error: PierError, files: Mapping[str, bytes]) -> Failed:
    """A build's error; `files` are those that its places name.

    What is wrong with a Dockerfile has no code, as with BuildKit: clients put a code's name before the words.
    """
    match error:
        case StepFailed():
            details = [_detail("Vertex", {"digest": str(error.vertex.digest)})]
            location = error.vertex.note.location
            if location is not None:
                details.append(_source(location, files))
            return Failed(Code.UNKNOWN, _words(error.cause), details)
        case DockerfileError():
            ranges = [{"start": {"line": at.first_line}, "end": {"line": at.last_line}} for at in error.at]
            details = []
            if error.at:
                details = [_detail("Source", {"info": _info(error.at[0].file, files), "ranges": ranges})]
            return Failed(Code.UNKNOWN, error.wire, details)
    code = OF_STATUS.get(error.status, Code.UNKNOWN)
    return Failed(Code.UNKNOWN if code == Code.INVALID_ARGUMENT else code, error.wire)


def _words(cause: Exception) -> str:
    return cause.wire if isinstance(cause, PierError) else str(cause) or type(cause).__name__


def _source(location: Location, files: Mapping[str, bytes]) -> AnyMessage:
    ranges = [
        {
            "start": {"line": first.line, "character": first.character},
            "end": {"line": last.line, "character": last.character},
        }
        for first, last in location.ranges
    ]
    return _detail("Source", {"info": _info(location.filename, files), "ranges": ranges})


def _info(name: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    data = base64.b64encode(files.get(name, b"")).decode()
    return {"filename": name, "data": data, "language": "Dockerfile"}


def _detail(name: str, value: Any) -> AnyMessage:
    return AnyMessage(type_url=f"{ERRDEFS}{name}+json", value=msgspec.json.encode(value))
