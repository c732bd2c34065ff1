"""What becomes of a build that has gone well: an image here or at a registry, archives and files for the client."""

from pier.builder.exports.clients import Client, NothingToReceiveIt
from pier.builder.exports.doing import export
from pier.builder.exports.job import Job
from pier.builder.exports.options import Export, read
from pier.builder.exports.results import PlatformResult, Results
from pier.builder.exports.telling import Telling

__all__ = ["Client", "Export", "Job", "NothingToReceiveIt", "PlatformResult", "Results", "Telling", "export", "read"]
