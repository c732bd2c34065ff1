"""`pier manifest create`: make a manifest list of images that a registry has."""

from __future__ import annotations

from pier.cli.errors import Failure
from pier.cli.flags import Command, Flag
from pier.cli.manifests import Lists, fetch, full
from pier.cli.out import line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "MANIFEST_LIST MANIFEST [MANIFEST...]",
    flags=(
        Flag("amend", "a", "bool", "Add to a manifest list that is there"),
        Flag("insecure", "", "bool", "Accepted for compatibility: insecure-registries of the daemon decide"),
    ),
    arity=(2, None),
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    name, lists = full(args[0]), Lists(cx.options)
    if lists.has(name) and not opts["amend"]:
        raise Failure("refusing to amend an existing manifest list with no --amend flag")
    found = [fetch(cx, full(reference)) for reference in args[1:]]
    for entry in found:
        if "platform" not in entry["Descriptor"]:
            raise Failure(f"{entry['Ref']} is a manifest list: a list is made of manifests of one platform each")
    for entry in found:
        lists.put(name, entry)
    line(f"Created manifest list {name}")
    return 0
