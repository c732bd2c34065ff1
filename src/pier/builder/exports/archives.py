"""`type=oci` and `docker`: an image as an archive for the client, or as an OCI layout (BuildKit's exporter/oci)."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec

from pier.builder.exports.images import DESCRIPTOR_KEY, NAME_KEY
from pier.builder.exports.job import Job
from pier.builder.exports.making import Made, facts_of, make, names_of, tell
from pier.builder.exports.options import ArchiveExport, OnlyIndexes
from pier.builder.exports.telling import Telling
from pier.model.time import parse_rfc3339
from pier.oci import Descriptor, Reference, encode

__all__ = ["export_archive"]

DOCKER: Final = "docker"
CREATED: Final = "org.opencontainers.image.created"


async def export_archive(job: Job, wish: ArchiveExport) -> dict[str, str]:
    """Returns digests, descriptor and names. Raises OnlyIndexes, NoIndex, NothingToReceiveIt, PierError, OSError."""
    client = job.require_client()
    with job.telling(f"exporting to {wish.kind} image format") as telling:
        if wish.kind == DOCKER and job.results.several:
            raise OnlyIndexes
        names = [Reference.parse(str(name)) for name in names_of(wish.form, job.results)]
        async with job.ground.images.transfer(sweep=True):  # nothing names what is made
            made = await make(job, wish.form, telling)
            tell(made, telling)
            root = dated(made)
            facts = facts_of(made) | {DESCRIPTOR_KEY: base64.b64encode(encode(root)).decode()}
            if names:
                facts[NAME_KEY] = ",".join(map(str, names))
            archives = job.ground.images.archives
            if wish.as_folder:
                await client.take_blobs(wish.number, await archives.layout_blobs(root), _counting(telling))
            else:
                with telling.part("sending tarball"):
                    pieces = await archives.save_layout(root, names, docker_table=wish.kind == DOCKER)
                    await client.take_archive(wish.number, pieces, facts)
    return facts


def _counting(telling: Telling) -> Callable[[Descriptor], None]:
    return lambda blob: telling.count(f"writing {blob.digest}", done=True)


def dated(made: Made) -> Descriptor:
    """The root with the time of its images: whoever builds of a cache gets the same archive again."""
    latest = max(parse_rfc3339(image.config.created) for image in made.images)
    text = datetime.fromtimestamp(latest // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return msgspec.structs.replace(made.root, annotations={CREATED: text, **made.root.annotations})
