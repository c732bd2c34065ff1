"""What a client asks for that attaches to a container, over whatever its connection becomes."""

from __future__ import annotations

from pier.containers.attach import Attachment

from .call import Call


async def attachment_of(call: Call) -> Attachment:
    """The streams that the query names. Raises as `ContainerService.attach`."""
    query = call.query
    return await call.engine.containers.attach(
        call.id,
        stdin=query.flag("stdin"),
        stdout=query.flag("stdout"),
        stderr=query.flag("stderr"),
        stream=query.flag("stream"),
        logs=query.flag("logs"),
    )
