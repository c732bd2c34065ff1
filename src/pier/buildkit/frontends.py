"""The frontends that clients name: `dockerfile.v0`, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pier.builder.dockerfile.frontend import read_attributes, repeated_platforms
from pier.builder.frontend import Frontend
from pier.builder.graph import Output
from pier.builder.progress import Warned
from pier.buildkit.results import EPOCH_KEY, Outcome, Part
from pier.buildkit.runs import Run
from pier.errors import InvalidParameter, NotImplementedYet
from pier.oci.platform import host_platform

__all__ = ["run_frontend"]

DOCKERFILE: Final = "dockerfile.v0"
GATEWAY: Final = "gateway.v0"


class UnknownFrontend(InvalidParameter):
    """invalid frontend: {name}"""


async def run_frontend(run: Run, name: str, attrs: Mapping[str, str], inputs: Mapping[str, Output | None]) -> Outcome:
    """What a frontend makes of a client's attributes. Raises PierError."""
    if name == GATEWAY:
        raise NotImplementedYet(what=f"a frontend from an image (# syntax={attrs.get('source', '')})")
    if name != DOCKERFILE:
        raise UnknownFrontend(name=name)
    request = read_attributes(attrs, host_platform())
    if request.local_sessions:
        raise NotImplementedYet(what=f"files from another session (local source {min(request.local_sessions)})")
    for platform in repeated_platforms(attrs):
        run.build.say(Warned(None, f'Duplicate platform result requested "{platform}"'))
    frontend = Frontend(run.service, run.build, request, inputs, run.files)
    if request.subrequest:
        return Outcome({"": Part(None)}, await frontend.answer())
    found = await frontend.graphs()
    parts = [Part(each.output, each.image, each.platform) for each in found]
    epoch = found[0].epoch_s
    metadata = {} if epoch is None else {EPOCH_KEY: b"%d" % epoch}
    if not request.as_map:
        return Outcome({"": parts[0]}, metadata)
    return Outcome({str(part.platform): part for part in parts}, metadata)
