"""`type=local` and `tar`: the files of a result for the client (BuildKit's exporter/local, exporter/tar)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from pier.builder import layers
from pier.builder.exports.job import Job
from pier.builder.exports.options import FilesExport
from pier.builder.exports.results import Results
from pier.builder.exports.telling import Telling
from pier.builder.ground import Ground
from pier.errors import InvalidParameter
from pier.storage.outflow import outflow
from pier.storage.tar_header import DIRECTORY, NS, Entry
from pier.storage.tar_writer import Sink, TarWriter
from pier.storage.tree_tar import TreeTar, walk

__all__ = ["archive_of", "export_files"]

TAR: Final = "tar"


class CannotOverwrite(InvalidParameter):
    """cannot overwrite {path} from {first} with {second} when split option is disabled"""


async def export_files(job: Job, wish: FilesExport) -> None:
    """Raises CannotOverwrite, NothingToReceiveIt, TreeTooDeep, PierError, OSError."""
    client = job.require_client()
    as_archive = wish.kind == TAR
    with contextlib.ExitStack() as stack:
        telling = stack.enter_context(job.telling(f"exporting to client {'tarball' if as_archive else 'directory'}"))
        roots = await job.ground.in_thread(stack.enter_context, _roots(job.ground, job.results))
        folders, time_ns = folders_of(wish, job.results), time_of(wish, job.results)
        await job.ground.in_thread(require_apart, roots, folders)
        if as_archive:
            with telling.part("sending tarball"):
                places = [(folders[key], fd) for key, fd in roots.items()]
                async with contextlib.aclosing(archive_of(places, time_ns)) as pieces:
                    await client.take_archive(wish.number, pieces, {})
            return
        for key, fd in roots.items():
            label = f"copying files {job.results.parts[key].target}" if folders[key] else "copying files"
            sending = _Sending(telling, label)
            await client.take_files(wish.number, folders[key], fd, sending.told, time_ns=time_ns)
            telling.count(label, sending.sent, done=True)


class _Sending:
    """How much of one tree has gone."""

    def __init__(self, telling: Telling, label: str) -> None:
        self.sent = 0
        self._telling = telling
        self._label = label
        telling.count(label)

    def told(self, size: int) -> None:
        self.sent += size
        self._telling.count(self._label, self.sent)


def archive_of(places: Sequence[tuple[str, int]], time_ns: int | None) -> AsyncGenerator[bytes, None]:
    """Trees as one archive, each in its folder; `time_ns`: of every file. Raises TreeTooDeep, OSError."""

    def work(sink: Sink) -> None:
        tar = TreeTar(TarWriter(sink) if time_ns is None else _AtOneTime(sink, time_ns))
        for folder, fd in places:
            prefix = f"{folder}/".encode() if folder else b""
            if folder:
                made_ns = time.time_ns() if time_ns is None else time_ns
                tar.out.add(Entry(prefix, DIRECTORY, 0o755, 0, 0, 0, made_ns))
            for node in walk(fd, prefix=prefix):
                tar.add(node)
        tar.out.finish()

    return outflow(work, name="tar of a build")


class _AtOneTime(TarWriter):
    def __init__(self, sink: Sink, time_ns: int) -> None:
        super().__init__(sink)
        self._time_ns = time_ns

    def add(self, entry: Entry) -> None:
        super().add(replace(entry, mtime_ns=self._time_ns))


def folders_of(wish: FilesExport, results: Results) -> dict[str, str]:
    """The folder that each result is put into; empty: the place itself."""
    split = results.several if wish.split is None else wish.split
    return {key: str(part.target).replace("/", "_") if split else "" for key, part in results.parts.items()}


def time_of(wish: FilesExport, results: Results) -> int | None:
    """Of every file, in nanoseconds; None: its own."""
    epoch_s = wish.epoch_s if wish.epoch_s is not None else results.epoch_s
    return None if epoch_s is None else epoch_s * NS


def require_apart(roots: Mapping[str, int], folders: Mapping[str, str]) -> None:
    """Results that are put into one place have no file in common. Blocks. Raises CannotOverwrite, TreeTooDeep."""
    if len(roots) < 2 or any(folders.values()):
        return
    met: dict[bytes, str] = {}
    for key, fd in roots.items():
        for node in walk(fd):
            if not node.is_dir:
                first = met.setdefault(node.path, key)
                if first != key:
                    raise CannotOverwrite(path=node.path.decode(errors="replace"), first=first, second=key)


@contextlib.contextmanager
def _roots(ground: Ground, results: Results) -> Iterator[dict[str, int]]:
    """Descriptors of the trees."""
    with contextlib.ExitStack() as stack:
        yield {key: stack.enter_context(layers.shown(ground, part.tree)) for key, part in sorted(results.parts.items())}
