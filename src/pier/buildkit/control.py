"""moby.buildkit.v1.Control: builds begun and watched, the cache shown and pruned, the worker described."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import pier
from pier.builder.cache import CACHE_MOUNT, LOCAL
from pier.builder.cache_options import INLINE, wants_inline
from pier.builder.caching import export_caches, import_caches
from pier.builder.contexts import Contexts
from pier.builder.emulation import runnable
from pier.builder.epoch import SOURCE_DATE_EPOCH
from pier.builder.exports import read
from pier.builder.progress import Warned
from pier.builder.service import BuildService
from pier.builder.session import Given
from pier.builder.session import Session as ClientSession
from pier.buildkit import caching
from pier.buildkit.exports import export, results_of
from pier.buildkit.failing import failed
from pier.buildkit.frontends import run_frontend
from pier.buildkit.grpc import Call, Code, Failed, Method, stream, unary
from pier.buildkit.history import History, Past
from pier.buildkit.http2 import Connection
from pier.buildkit.llb import output_of
from pier.buildkit.pb import control_pb2 as control
from pier.buildkit.pb import ops_pb2 as ops
from pier.buildkit.results import EPOCH_KEY, Outcome, Part
from pier.buildkit.runs import Run, Runs
from pier.buildkit.session import Session, Sessions, View
from pier.buildkit.statuses import Statuses, plan_of, stamp
from pier.buildkit.tunnel import Tunnel
from pier.errors import InvalidParameter, PierError
from pier.model.build import BuildCache
from pier.model.filters import Filters
from pier.model.time import parse_rfc3339

__all__ = ["Control"]

EXPOSED: Final = "x-docker-expose-session-"
SERVICE: Final = "/moby.buildkit.v1.Control/"
PACKAGE: Final = "pier"
LABELS: Final = "org.mobyproject.buildkit.worker."
TERM: Final = re.compile(r"([\w-]+)(?:(?:==|~=|=)(.*))?")


class BothWays(InvalidParameter):
    """a build is either a definition or a frontend's, not both"""


class BadTerm(InvalidParameter):
    """invalid filter {term!r}"""


@dataclass(eq=False, slots=True)
class Control:
    """The service."""

    service: BuildService
    sessions: Sessions
    contexts: Contexts
    runs: Runs
    history: History
    worker_id: str

    @property
    def methods(self) -> dict[str, Method]:
        return {
            f"{SERVICE}Info": unary(control.InfoRequest, self.info),
            f"{SERVICE}ListWorkers": unary(control.ListWorkersRequest, self.list_workers),
            f"{SERVICE}Solve": unary(control.SolveRequest, self.solve),
            f"{SERVICE}Status": stream(control.StatusRequest, self.status),
            f"{SERVICE}DiskUsage": unary(control.DiskUsageRequest, self.disk_usage),
            f"{SERVICE}Prune": stream(control.PruneRequest, self.prune),
            f"{SERVICE}Session": self.session,
            f"{SERVICE}ListenBuildHistory": stream(control.BuildHistoryRequest, self.listen),
            f"{SERVICE}UpdateBuildHistory": unary(control.UpdateBuildHistoryRequest, self.update_history),
        }

    # --- about the builder

    async def info(self, _: control.InfoRequest, call: Call) -> control.InfoResponse:
        return control.InfoResponse(buildkit_version=version())

    async def list_workers(self, _: control.ListWorkersRequest, call: Call) -> control.ListWorkersResponse:
        record = await worker(self.worker_id, self.service.ground.snapshots.name)
        return control.ListWorkersResponse(record=[record])

    # --- builds

    async def solve(self, request: control.SolveRequest, call: Call) -> control.SolveResponse:
        """Raises Failed."""
        asked = self.service.granted(frozenset(request.entitlements))
        view: View | None = None
        session: ClientSession = Given()
        if request.session:
            session = view = View(await self.sessions.get(request.session), self.contexts)
        try:
            async with self.service.build(request.ref, session, entitlements=asked) as build:
                run = Run(build, self.service)
                self.runs.add(run)
                try:
                    return await self._remembered(run, view, request)
                finally:
                    self.runs.end(run)
        finally:
            if view is not None:
                await view.close()

    async def _remembered(self, run: Run, view: View | None, request: control.SolveRequest) -> control.SolveResponse:
        """Build, and write into the history how it went. Raises Failed."""
        past = Past(
            ref=request.ref,
            frontend=request.frontend,
            attrs=dict(request.frontend_attrs),
            exports=exports_of(request),
            created_ns=time.time_ns(),
        )
        if not request.internal:
            await self.history.begin(past)
        past.code, past.message = Code.CANCELLED, "context canceled"
        try:
            try:
                response = await self._build(run, view, request)
            except PierError as error:
                raise failed(error, run.files) from None
            past.code, past.message, past.response = 0, "", dict(response.exporter_response)
            return response
        except Failed as error:
            past.code, past.message = int(error.code), error.message
            raise
        finally:
            past.completed_ns = time.time_ns()
            if not request.internal:
                await self.history.end(past, run.build.journal.told, run.files)

    async def _build(self, run: Run, view: View | None, request: control.SolveRequest) -> control.SolveResponse:
        wishes = [read(kind, attrs, number) for number, (kind, attrs) in enumerate(exports_of(request))]
        caches = caching.exports_of(request)
        for text in [text for each in caches for text in each.warnings]:
            run.build.say(Warned(None, text))
        inline = any(each.kind == INLINE for each in caches)
        run.carries_cache = inline or wants_inline(request.frontend_attrs)
        folders = caching.ClientFolders(view, self.service.ground)
        await import_caches(self.service, run.build, caching.imports_of(request), folders)
        outcome = await self._outcome(run, request)
        trees = await run.trees(outcome)
        results = results_of(outcome, trees, carry_cache=run.carries_cache)
        response: dict[str, str] = {}
        for wish in wishes:
            response |= await export(run, view, wish, results)
        made = [await self.service.as_tree(tree) for tree in trees.values()]
        response |= await export_caches(self.service, run.build, caches, made, folders)
        return control.SolveResponse(exporter_response=response)

    async def _outcome(self, run: Run, request: control.SolveRequest) -> Outcome:
        has_definition = bool(request.definition.ops)
        if has_definition and request.frontend:
            raise BothWays
        if request.frontend:
            inputs = {name: output_of(each) for name, each in request.frontend_inputs.items()}
            outcome = await run_frontend(run, request.frontend, dict(request.frontend_attrs), inputs)
        elif has_definition or request.HasField("definition"):
            outcome = Outcome({"": Part(output_of(request.definition))})
        else:
            outcome = await run.returned
        epoch = request.frontend_attrs.get(f"build-arg:{SOURCE_DATE_EPOCH}", "")
        if epoch and EPOCH_KEY not in outcome.metadata:
            outcome = Outcome(outcome.parts, {**outcome.metadata, EPOCH_KEY: epoch.encode()})
        return outcome

    async def status(self, request: control.StatusRequest, call: Call) -> None:
        """All that a build tells, from its beginning to its end."""
        run = await self._run(request.ref)
        if run is None:
            async for message in self.history.log(request.ref):
                await call.send(message)
            return
        statuses, planned = Statuses(run.files), 0
        async for event in run.build.journal.read():
            if planned < len(run.planned):
                await call.send(plan_of(run.planned[planned:]))
                planned = len(run.planned)
            await call.send(statuses.of(event))

    async def _run(self, ref: str) -> Run | None:
        """A build that runs, or has just run; None: it is one of the past. Raises NoSuchBuild."""
        await self.history.load()
        if ref in self.history:
            return None
        return await self.runs.get(ref)

    # --- the past

    async def listen(self, request: control.BuildHistoryRequest, call: Call) -> None:
        if request.filter:
            raise BadTerm(term=request.filter[0])
        async with contextlib.aclosing(self.history.listen(request)) as events:
            async for event in events:
                await call.send(event)

    async def update_history(
        self, request: control.UpdateBuildHistoryRequest, call: Call
    ) -> control.UpdateBuildHistoryResponse:
        if request.delete:
            await self.history.remove(request.ref)
        elif not request.finalize:
            await self.history.pin(request.ref, pinned=request.pinned)
        return control.UpdateBuildHistoryResponse()

    # --- the cache

    async def disk_usage(self, request: control.DiskUsageRequest, call: Call) -> control.DiskUsageResponse:
        found = await self.service.disk_usage(filters_of(request.filter, unused_for_ns=request.age_limit))
        return control.DiskUsageResponse(record=[usage_record(each) for each in found])

    async def prune(self, request: control.PruneRequest, call: Call) -> None:
        filters = filters_of(request.filter, unused_for_ns=request.keep_duration)
        before = {each.id: each for each in await self.service.disk_usage()}
        keep = request.reserved_space or request.max_used_space
        gone = await self.service.prune(filters, everything=request.all, keep_bytes=keep)
        for id in gone.caches_deleted or ():
            if id in before:
                await call.send(usage_record(before[id]))

    # --- sessions without a connection of their own

    async def session(self, call: Call) -> None:
        """A session carried in this call's messages. Raises SessionTaken."""
        await call.begin()
        connection = Connection()
        session = Session(
            "".join(call.metadata.get(f"{EXPOSED}uuid", [])),
            "".join(call.metadata.get(f"{EXPOSED}sharedkey", [])),
            frozenset(call.metadata.get(f"{EXPOSED}grpc-method", [])),
            connection,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(Tunnel(call, connection).run())
            await self.sessions.serve(session)


# --- messages


def version() -> control.BuildkitVersion:
    return control.BuildkitVersion(package=PACKAGE, version=f"v{pier.__version__}")


async def worker(id: str, snapshotter: str) -> control.WorkerRecord:
    """This machine, as a place where steps are run."""
    platforms = await asyncio.to_thread(runnable)
    return control.WorkerRecord(
        id=id,
        labels={
            f"{LABELS}executor": PACKAGE,
            # By this one buildx knows a store that takes several platforms in one image, and pushes from it.
            f"{LABELS}snapshotter": snapshotter,
        },
        platforms=[
            ops.Platform(os=each.os, architecture=each.architecture, variant=each.variant) for each in platforms
        ],
        buildkit_version=version(),
    )


def exports_of(request: control.SolveRequest) -> list[tuple[str, dict[str, str]]]:
    """(type, attributes) of all that the client wants of the result; nothing: it stays in the cache."""
    if request.exporters:
        return [(each.type, dict(each.attrs)) for each in request.exporters]
    if request.exporter_deprecated:
        return [(request.exporter_deprecated, dict(request.exporter_attrs_deprecated))]
    return []


def usage_record(entry: BuildCache) -> control.UsageRecord:
    record = control.UsageRecord(
        id=entry.id,
        in_use=entry.in_use,
        size=entry.size,
        created_at=stamp(parse_rfc3339(entry.created_at)),
        usage_count=entry.usage_count,
        description=entry.description,
        record_type=entry.type,
        mutable=entry.type in (LOCAL, CACHE_MOUNT),
        shared=entry.shared,
        parents=entry.parents or (),
    )
    if entry.last_used_at:
        record.last_used_at.CopyFrom(stamp(parse_rfc3339(entry.last_used_at)))
    return record


def filters_of(terms: Iterable[str], *, unused_for_ns: int = 0) -> Filters:
    """`type==regular,private`, `description~=x`, and the age, as the Engine API's filters. Raises BadTerm."""
    found: dict[str, tuple[str, ...]] = {}
    if unused_for_ns:
        found["unused-for"] = (f"{unused_for_ns}ns",)
    for term in filter(None, ",".join(terms).split(",")):
        matched = TERM.fullmatch(term)
        if matched is None:
            raise BadTerm(term=term)
        found[matched[1]] = (*found.get(matched[1], ()), matched[2] or "true")
    return Filters(found)
