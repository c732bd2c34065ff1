"""`type=image` and `moby`: an image in the store, at a registry, or both (BuildKit's exporter/containerimage)."""

from __future__ import annotations

import base64
import contextlib
from typing import Final

from pier.builder.exports.job import Job
from pier.builder.exports.making import Made, facts_of, make, names_of, tell
from pier.builder.exports.options import ImageExport
from pier.builder.exports.telling import Telling
from pier.errors import InvalidParameter, PierError
from pier.oci import Reference, encode

__all__ = ["DESCRIPTOR_KEY", "NAME_KEY", "export_image"]

DESCRIPTOR_KEY: Final = "containerimage.descriptor"
NAME_KEY: Final = "image.name"
MOBY: Final = "moby"
TAG: Final = "latest"


class TaggedByDigest(InvalidParameter):
    """can't push tagged ref {name} by digest"""

    remedy = "with push-by-digest a name has no tag"


class PushFailed(PierError):
    """failed to push {name}: {reason}"""


async def export_image(job: Job, wish: ImageExport) -> dict[str, str]:
    """Returns digests, descriptor and names. Raises NoIndex, TaggedByDigest, PushFailed, PierError, OSError."""
    async with contextlib.AsyncExitStack() as stack:
        telling = stack.enter_context(job.telling("exporting to image"))
        names = names_of(wish.form, job.results)
        if wish.push and wish.push_by_digest and (tagged := [name for name in names if name.suffix]):
            raise TaggedByDigest(name=tagged[0])
        if not wish.store:  # nothing will name what is made
            await stack.enter_async_context(job.ground.images.transfer(sweep=True))
        made = await make(job, wish.form, telling)
        if wish.kind == MOBY and made.single:
            telling.count(f"writing image {made.images[0].id}", done=True)
        else:
            tell(made, telling)
        full = [name if name.suffix else name.with_tag(TAG) for name in names]
        if not names and wish.dangling_prefix:
            full = [Reference.parse(wish.dangling_prefix, default_tag=None).with_digest(made.root.digest)]
        if wish.store:
            await _keep(job, wish, made, full)
            for name in full:
                telling.count(f"naming to {name}", done=True)
        for name in full if wish.push else ():
            with telling.part(f"pushing {name.name if wish.push_by_digest else name}"):
                await _push(job, wish, made, name, telling)
    facts = {DESCRIPTOR_KEY: base64.b64encode(encode(made.root)).decode()}
    if full:
        facts[NAME_KEY] = ",".join(map(str, names if wish.push_by_digest else full))
    return facts_of(made) | facts


async def _keep(job: Job, wish: ImageExport, made: Made, names: list[Reference]) -> None:
    canonical = [name.with_digest(made.root.digest) for name in names]
    chosen = canonical if wish.push_by_digest else [*names, *(canonical if wish.name_canonical else ())]
    await job.service.keep_image(made.bare, made.images[0].id, list(dict.fromkeys(chosen)))


async def _push(job: Job, wish: ImageExport, made: Made, name: Reference, telling: Telling) -> None:
    auth = await job.build.session.auth(name.domain)
    messages = job.ground.images.pusher.push_root(
        name, made.bare, by_digest=wish.push_by_digest, insecure=wish.insecure, auth=dict(auth) if auth else None
    )
    totals = {}
    try:
        async for message in messages:
            detail = message.get("progressDetail") or {}
            if message.get("id") and detail:
                totals[message["id"]] = detail.get("total", 0)
                telling.count(f"pushing {message['id']}", detail.get("current", 0), totals[message["id"]])
    except PierError as error:
        raise PushFailed(name=name, reason=error.wire) from error
    for id, total in totals.items():
        telling.count(f"pushing {id}", total, total, done=True)
    if wish.store:  # it is known there by its digest now
        await job.ground.images.name(made.images[0].id, made.bare, [str(name.with_digest(made.root.digest))])
