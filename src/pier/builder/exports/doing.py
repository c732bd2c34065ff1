"""Each export by its kind."""

from __future__ import annotations

from pier.builder.exports.archives import export_archive
from pier.builder.exports.files import export_files
from pier.builder.exports.images import export_image
from pier.builder.exports.job import Job
from pier.builder.exports.options import ArchiveExport, Export, FilesExport, ImageExport
from pier.builder.progress import Warned

__all__ = ["export"]


async def export(job: Job, wish: Export) -> dict[str, str]:
    """Do it, within the build; returns what the client is told of it (BuildKit's `exporter_response`).

    Raises NothingToReceiveIt, PierError, OSError.
    """
    for name in wish.unknown:
        job.build.say(Warned(None, f"the attribute {name} of the output type={wish.kind} has no effect"))
    if isinstance(wish, ImageExport):
        return await export_image(job, wish)
    if isinstance(wish, ArchiveExport):
        return await export_archive(job, wish)
    if isinstance(wish, FilesExport):
        await export_files(job, wish)
    return {}
