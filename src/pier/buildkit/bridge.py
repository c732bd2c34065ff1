"""moby.buildkit.v1.frontend.LLBBridge: what a client's own frontend asks while its build runs.

Which build is meant is said in each call's metadata.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pier.builder.progress import Broadcast, Step, Warned
from pier.builder.service import BuildService
from pier.buildkit import capabilities, looking
from pier.buildkit.control import worker
from pier.buildkit.failing import failed
from pier.buildkit.frontends import run_frontend
from pier.buildkit.grpc import Call, Code, Failed, Method, unary
from pier.buildkit.llb import location_of, output_of, platform_of
from pier.buildkit.pb import gateway_pb2 as gateway
from pier.buildkit.results import Outcome, Part
from pier.buildkit.runs import Run, Runs
from pier.errors import InvalidParameter, PierError
from pier.oci import Digest, ImageConfig, encode
from pier.oci.digest import InvalidDigest

__all__ = ["Bridge"]

SERVICE: Final = "/moby.buildkit.v1.frontend.LLBBridge/"
BUILD_ID: Final = "buildkit-controlapi-buildid"
IMAGE: Final = "docker-image://"


class NoBuildNamed(InvalidParameter):
    """the call does not say which build it is about ({header} is missing)"""


@dataclass(eq=False, slots=True)
class Bridge:
    """The service."""

    service: BuildService
    runs: Runs
    worker_id: str

    @property
    def methods(self) -> dict[str, Method]:
        return {
            f"{SERVICE}Ping": unary(gateway.PingRequest, self.ping),
            f"{SERVICE}Solve": unary(gateway.SolveRequest, self.solve),
            f"{SERVICE}Evaluate": unary(gateway.EvaluateRequest, self.evaluate),
            f"{SERVICE}Return": unary(gateway.ReturnRequest, self.return_),
            f"{SERVICE}Inputs": unary(gateway.InputsRequest, self.inputs),
            f"{SERVICE}ReadFile": unary(gateway.ReadFileRequest, self.read_file),
            f"{SERVICE}ReadDir": unary(gateway.ReadDirRequest, self.read_dir),
            f"{SERVICE}StatFile": unary(gateway.StatFileRequest, self.stat_file),
            f"{SERVICE}Warn": unary(gateway.WarnRequest, self.warn),
            f"{SERVICE}ResolveImageConfig": unary(gateway.ResolveImageConfigRequest, self.resolve_image_config),
            f"{SERVICE}ResolveSourceMeta": unary(gateway.ResolveSourceMetaRequest, self.resolve_source_meta),
        }

    async def _run(self, call: Call) -> Run:
        ids = call.metadata.get(BUILD_ID, [])
        if len(ids) != 1:
            raise NoBuildNamed(header=BUILD_ID)
        return await self.runs.get(ids[0])

    async def ping(self, _: gateway.PingRequest, call: Call) -> gateway.PongResponse:
        await self._run(call)
        return gateway.PongResponse(
            frontend_api_caps=capabilities.enabled(capabilities.FRONTEND),
            llb_caps=capabilities.enabled(capabilities.LLB),
            workers=[await worker(self.worker_id, self.service.ground.snapshots.name)],
        )

    # --- solving

    async def solve(self, request: gateway.SolveRequest, call: Call) -> gateway.SolveResponse:
        """Raises Failed."""
        run = await self._run(call)
        try:
            outcome = await self._outcome(run, request)
            if request.evaluate:
                await run.trees(outcome)
        except PierError as error:
            raise failed(error, run.files) from None
        result = run.parts.show(outcome)
        if request.allow_result_return:
            return gateway.SolveResponse(result=result)
        return gateway.SolveResponse(ref=result.ref.id)

    async def _outcome(self, run: Run, request: gateway.SolveRequest) -> Outcome:
        if not request.frontend:
            return Outcome({"": Part(output_of(request.definition))})
        inputs = {name: output_of(each) for name, each in request.frontend_inputs.items()}
        return await run_frontend(run, request.frontend, dict(request.frontend_opt), inputs)

    async def evaluate(self, request: gateway.EvaluateRequest, call: Call) -> gateway.EvaluateResponse:
        """Raises Failed."""
        run = await self._run(call)
        try:
            await run.tree(run.parts.get(request.ref))
        except PierError as error:
            raise failed(error, run.files) from None
        return gateway.EvaluateResponse()

    async def return_(self, request: gateway.ReturnRequest, call: Call) -> gateway.ReturnResponse:
        """The client's frontend has done its part."""
        run = await self._run(call)
        if run.returned.done():
            raise Failed(Code.FAILED_PRECONDITION, "the result of this build was returned before")
        if request.HasField("error"):
            run.returned.set_exception(Failed(request.error.code, request.error.message, request.error.details))
        else:
            run.returned.set_result(run.parts.read(request.result))
        return gateway.ReturnResponse()

    async def inputs(self, _: gateway.InputsRequest, call: Call) -> gateway.InputsResponse:
        await self._run(call)
        return gateway.InputsResponse()

    # --- looking into results

    async def read_file(self, request: gateway.ReadFileRequest, call: Call) -> gateway.ReadFileResponse:
        run = await self._run(call)
        tree = await run.tree(run.parts.get(request.ref))
        data = await self.service.ground.in_thread(
            looking.read_file,
            self.service.ground,
            tree,
            request.file_path,
            request.range.offset,
            request.range.length,
        )
        return gateway.ReadFileResponse(data=data)

    async def read_dir(self, request: gateway.ReadDirRequest, call: Call) -> gateway.ReadDirResponse:
        run = await self._run(call)
        tree = await run.tree(run.parts.get(request.ref))
        ground = self.service.ground
        entries = await ground.in_thread(looking.read_dir, ground, tree, request.dir_path, request.include_pattern)
        return gateway.ReadDirResponse(entries=entries)

    async def stat_file(self, request: gateway.StatFileRequest, call: Call) -> gateway.StatFileResponse:
        run = await self._run(call)
        tree = await run.tree(run.parts.get(request.ref))
        ground = self.service.ground
        return gateway.StatFileResponse(stat=await ground.in_thread(looking.stat_file, ground, tree, request.path))

    # --- images

    async def resolve_image_config(
        self, request: gateway.ResolveImageConfigRequest, call: Call
    ) -> gateway.ResolveImageConfigResponse:
        run = await self._run(call)
        digest, config = await self._image(run, request.ref, request)
        return gateway.ResolveImageConfigResponse(digest=str(digest), config=encode(config), ref=request.ref)

    async def resolve_source_meta(
        self, request: gateway.ResolveSourceMetaRequest, call: Call
    ) -> gateway.ResolveSourceMetaResponse:
        run = await self._run(call)
        response = gateway.ResolveSourceMetaResponse(source=request.source)
        if request.source.identifier.startswith(IMAGE):
            digest, config = await self._image(run, request.source.identifier.removeprefix(IMAGE), request)
            response.image.CopyFrom(gateway.ResolveSourceImageResponse(digest=str(digest), config=encode(config)))
        return response

    async def _image(
        self,
        run: Run,
        reference: str,
        request: gateway.ResolveImageConfigRequest | gateway.ResolveSourceMetaRequest,
    ) -> tuple[Digest, ImageConfig]:
        platform = platform_of(request.platform) if request.HasField("platform") else None
        step = Step(Digest.of(reference.encode()), request.log_name or f"resolve {reference}", ())
        mode = request.resolve_mode
        image = await self.service.images.image(reference, platform, run.build, Broadcast(step), mode=mode)
        return image.manifest.digest, image.config

    # --- warnings

    async def warn(self, request: gateway.WarnRequest, call: Call) -> gateway.WarnResponse:
        run = await self._run(call)
        try:
            digest = Digest(request.digest) if request.digest else None
        except InvalidDigest:
            digest = None
        location = None
        if request.HasField("info") and request.ranges:
            name = request.info.filename
            run.files.setdefault(name, request.info.data)
            location = location_of(name, request.ranges)
        detail = tuple(line.decode(errors="replace") for line in request.detail)
        run.build.say(Warned(digest, request.short.decode(errors="replace"), detail, request.url, location))
        return gateway.WarnResponse()
