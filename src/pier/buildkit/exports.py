"""What becomes of a build that has gone well: an image here, at a registry, or an archive or files at the client's.

Each kind of export (BuildKit's exporters by name) is a step that the build tells of.
"""

from __future__ import annotations

import base64
import contextlib
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pier.builder import layers
from pier.builder.cache import Record
from pier.builder.dockerfile.state import empty_image
from pier.builder.epoch import parse_epoch
from pier.builder.exporting import ImageWish
from pier.builder.ground import Ground
from pier.builder.progress import Counted, Finished, Started, Step
from pier.builder.tree import Result
from pier.buildkit import sending
from pier.buildkit.results import EPOCH_KEY, Outcome, Part
from pier.buildkit.runs import Run
from pier.buildkit.session import View
from pier.errors import InvalidParameter, PierError
from pier.oci import Descriptor, Digest, ImageConfig, Reference, encode
from pier.oci.platform import host_platform
from pier.storage.outflow import outflow
from pier.storage.tar_header import DIRECTORY, Entry
from pier.storage.tar_writer import Sink, TarWriter
from pier.storage.tree_tar import TreeTar, walk

__all__ = ["Export", "Telling", "export"]

IMAGE_KINDS: Final = ("moby", "image")
ARCHIVE_KINDS: Final = ("docker", "oci")
EPOCH_ATTR: Final = "source-date-epoch"


class UnknownExport(InvalidParameter):
    """exporter {kind!r} could not be found"""

    remedy = "there are: cacheonly, docker, image, local, moby, oci, tar"


class BadAttribute(InvalidParameter):
    """non-bool value {value!r} specified for {name}"""


@dataclass(frozen=True, slots=True)
class Export:
    """One wish of a client's."""

    kind: str
    attrs: Mapping[str, str]
    number: int = 0
    """Among the build's exports: which of the client's places is meant."""

    def flag(self, name: str, default: bool = False) -> bool:
        """Raises BadAttribute."""
        value = self.attrs.get(name, "")
        if not value:
            return name in self.attrs or default
        if value.lower() not in ("true", "false", "1", "0", "t", "f"):
            raise BadAttribute(value=value, name=name)
        return value.lower() in ("true", "1", "t")

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Which of the client's places it is for."""
        return [("buildkit-attachable-exporter-id", str(self.number))]


class Telling:
    """An export as a step of the build."""

    def __init__(self, run: Run, name: str) -> None:
        self._run = run
        self._step = Step(Digest.of(secrets.token_bytes(16)), name, ())

    def __enter__(self) -> Telling:
        self._run.build.say(Started(self._step, time.time_ns()))
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        words = "" if error is None else str(error) if isinstance(error, PierError) else "canceled"
        self._run.build.say(Finished(self._step, time.time_ns(), error=words))

    def count(self, what: str, current: int = 0, total: int = 0, *, done: bool = False) -> None:
        self._run.build.say(Counted(self._step.digest, what, "", current, total, time.time_ns(), done))

    @contextlib.contextmanager
    def part(self, what: str) -> Iterator[None]:
        self.count(what)
        yield
        self.count(what, done=True)


async def export(
    run: Run, view: View | None, wish: Export, outcome: Outcome, trees: Mapping[str, Result]
) -> dict[str, str]:
    """Do it; returns what the client is told of it (`SolveResponse.exporter_response`).

    Raises PierError, OSError. `view` is the client's session, where it has one.
    """
    if wish.kind in IMAGE_KINDS:
        return await _image(run, wish, outcome, trees)
    if wish.kind == "cacheonly":
        return {}
    if view is None:
        raise sending.NothingToReceiveIt
    if wish.kind in ARCHIVE_KINDS:
        return await _archive(run, view, wish, outcome, trees)
    if wish.kind == "tar":
        return await _tar(run, view, wish, trees)
    if wish.kind == "local":
        return await _local(run, view, wish, trees)
    raise UnknownExport(kind=wish.kind)


# --- images


async def _image(run: Run, wish: Export, outcome: Outcome, trees: Mapping[str, Result]) -> dict[str, str]:
    with Telling(run, "exporting to image") as telling:
        names = [Reference.parse(name) for name in wish.attrs.get("name", "").split(",") if name]
        root, ids = await _made(run, wish, telling, outcome, trees, names=names)
        for name in names:
            telling.count(f"naming to {name}", done=True)
        if wish.flag("push"):
            for name in names:
                await _push(run, telling, name)
    return {
        **_digests(root, ids),
        "containerimage.descriptor": base64.b64encode(encode(root)).decode(),
        "image.name": ",".join(map(str, names)),
    }


def _digests(root: Descriptor, ids: Sequence[Digest]) -> dict[str, str]:
    found = {"containerimage.digest": str(root.digest)}
    return found | {"containerimage.config.digest": str(ids[0])} if len(ids) == 1 else found


async def _made(
    run: Run,
    wish: Export,
    telling: Telling,
    outcome: Outcome,
    trees: Mapping[str, Result],
    *,
    names: Sequence[Reference] = (),
) -> tuple[Descriptor, list[Digest]]:
    """(manifest, or index of several platforms', ids of the images)."""
    ground = run.service.ground
    cached: Sequence[Record] = ()
    with telling.part("exporting layers"):
        wanted = {}
        for key, part in outcome.parts.items():
            tree = await ground.in_thread(layers.as_tree, ground, trees[key])
            if run.carries_cache:
                cached = await run.service.caches.records_of(run.build, [tree], everything=False)
            wanted[part.platform or host_platform()] = ImageWish(
                tree,
                _config(part),
                annotations=_annotations(wish.attrs),
                epoch_s=_epoch(wish, outcome),
                rewrite_timestamps=wish.flag("rewrite-timestamp", default=True),
                cached=cached,
            )
        if len(wanted) == 1:
            made = await run.service.export_image(next(iter(wanted.values())), names)
            root, ids = made.manifest, [made.id]
        else:
            root, several = await run.service.export_index(wanted, names)
            ids = [each.id for each in several]
    if run.carries_cache:
        telling.count("preparing layers for inline cache", done=True)
    for id in ids:
        telling.count(f"writing image {id}", done=True)
    return root, ids


def _config(part: Part) -> ImageConfig:
    if part.image is not None:
        return part.image
    return empty_image(part.platform or host_platform())


def _annotations(attrs: Mapping[str, str]) -> dict[str, str]:
    """Those of the manifest: `annotation.KEY`, `annotation-manifest.KEY`, with a platform in brackets or without."""
    found = {}
    for name, value in attrs.items():
        head, _, key = name.partition(".")
        if key and head.partition("[")[0] in ("annotation", "annotation-manifest"):
            found[key] = value
    return found


def _epoch(wish: Export, outcome: Outcome) -> int | None:
    """SOURCE_DATE_EPOCH, the export's own or the build's. Raises BadEpoch."""
    if own := wish.attrs.get(EPOCH_ATTR):
        return parse_epoch(own, EPOCH_ATTR)
    return parse_epoch(outcome.metadata.get(EPOCH_KEY, b"").decode(errors="replace"))


async def _push(run: Run, telling: Telling, name: Reference) -> None:
    auth = await run.session.auth(name.domain)
    with telling.part(f"pushing {name}"):
        async for message in run.service.ground.images.push(str(name), auth=dict(auth) if auth else None):
            if error := message.get("error"):
                raise PierError(str(error))
            detail = message.get("progressDetail") or {}
            if message.get("id") and detail:
                telling.count(f"pushing {message['id']}", detail.get("current", 0), detail.get("total", 0))


# --- archives and files for the client


async def _archive(run: Run, view: View, wish: Export, outcome: Outcome, trees: Mapping[str, Result]) -> dict[str, str]:
    """`docker save`'s archive, which is an OCI layout too."""
    images = run.service.ground.images
    with Telling(run, f"exporting to {wish.kind} image format") as telling:
        names = [Reference.parse(name) for name in wish.attrs.get("name", "").split(",") if name]
        root, ids = await _made(run, wish, telling, outcome, trees)
        with telling.part("sending tarball"):
            plan = await images.archives.save_as(root, names)
            await sending.send_bytes(view.session, wish.headers, plan)
    return _digests(root, ids)


async def _tar(run: Run, view: View, wish: Export, trees: Mapping[str, Result]) -> dict[str, str]:
    ground = run.service.ground

    def work(sink: Sink) -> None:
        with _roots(ground, trees) as roots:
            tar = TreeTar(TarWriter(sink))
            for prefix, fd in roots.items():
                if prefix:
                    tar.out.add(Entry(prefix.encode(), DIRECTORY, 0o755, 0, 0, 0, time.time_ns()))
                for node in walk(fd, prefix=prefix.encode()):
                    tar.add(node)
            tar.out.finish()

    with Telling(run, "exporting to client tarball") as telling, telling.part("sending tarball"):
        async with contextlib.aclosing(outflow(work, name="tar of a build")) as pieces:
            await sending.send_bytes(view.session, wish.headers, pieces)
    return {}


async def _local(run: Run, view: View, wish: Export, trees: Mapping[str, Result]) -> dict[str, str]:
    ground = run.service.ground
    sent = 0
    with Telling(run, "exporting to client directory") as telling:

        def told(size: int) -> None:
            nonlocal sent
            sent += size
            telling.count("copying files", sent)

        with contextlib.ExitStack() as stack:
            roots = await ground.in_thread(stack.enter_context, _roots(ground, trees))
            await sending.send_trees(view.session, wish.headers, roots, told)
        telling.count("copying files", sent, done=True)
    return {}


@contextlib.contextmanager
def _roots(ground: Ground, trees: Mapping[str, Result]) -> Iterator[dict[str, int]]:
    """Descriptors of the trees, by the folder each is put into: a platform's own where there are several."""
    with contextlib.ExitStack() as stack:
        yield {
            f"{name.replace('/', '_')}/" if len(trees) > 1 else "": stack.enter_context(layers.shown(ground, tree))
            for name, tree in sorted(trees.items())  # clients take files in no other order
        }
