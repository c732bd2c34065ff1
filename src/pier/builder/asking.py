"""Questions about a Dockerfile, asked with the request of a classic build (`pier build --check`, `--call`)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from typing import Final

import msgspec

from pier.builder.classic_build import ClassicRequest, receive
from pier.builder.dockerfile.frontend import DEFAULT_FILE, FrontendRequest
from pier.builder.dockerfile.subrequests import LINT, OUTLINE, TARGETS, UnsupportedSubrequest
from pier.builder.frontend import Frontend
from pier.builder.service import BuildService
from pier.builder.session import Given
from pier.builder.sources import context

QUESTIONS: Final = {"check": LINT, "lint": LINT, "outline": OUTLINE, "targets": TARGETS}


async def ask(
    service: BuildService, request: ClassicRequest, question: str, body: AsyncIterator[bytes]
) -> Mapping[str, str]:
    """`result.json`, `result.txt`, `version`, and of a check `result.statuscode`.

    Of the context only the Dockerfile and its ignore file are read. Raises UnsupportedSubrequest, DockerfileError,
    PierError.
    """
    name = QUESTIONS.get(question)
    if name is None:
        raise UnsupportedSubrequest(name=question)
    ground = service.ground
    place = await ground.in_thread(context.make, ground)
    try:
        if not request.remote:
            await receive(ground, place, body)
        folder = await ground.in_thread(context.as_folder, place)
        session = Given(locals={"context": folder, "dockerfile": folder}, auths=request.auths)
        async with service.build(os.urandom(16).hex(), session) as build:
            platform = request.options.target_platform
            wanted = FrontendRequest(
                options=msgspec.structs.replace(request.options, target_platform=None),
                platforms=(platform,) if platform else (),
                filename=request.dockerfile or DEFAULT_FILE,
                context=request.remote,
                subrequest=name,
            )
            found = await Frontend(service, build, wanted).answer()
    finally:
        await ground.in_thread(context.remove, place)
    return {key: value.decode("utf-8", "replace") for key, value in found.items()}
