"""`pier manifest inspect`: a manifest or manifest list, in a registry or in the making."""

from __future__ import annotations

from pier.cli.errors import Failure
from pier.cli.flags import Command, Flag
from pier.cli.jsontext import loads, pretty
from pier.cli.manifests import Lists, as_list, fetch, full, raw
from pier.cli.out import line
from pier.cli.reference import split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] [MANIFEST_LIST] MANIFEST",
    flags=(
        Flag("insecure", "", "bool", "Accepted for compatibility: insecure-registries of the daemon decide"),
        Flag("verbose", "v", "bool", "Show the platform and bytes of every manifest too"),
    ),
    arity=(1, 2),
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    lists, names = Lists(cx.options), [full(name) for name in args]
    if len(names) == 2:
        return _show(_of_list(lists, *names), opts)
    made = lists.entries(names[0])
    if made:
        line(pretty(made, "\t") if opts["verbose"] else pretty(as_list(made), "   "))
        return 0
    return _remote(cx, opts, names[0])


def _remote(cx: Context, opts: Options, name: str) -> int:
    if not opts["verbose"]:
        document = loads(raw(cx, name)[0])
        line(pretty(document, "   " if "manifests" in document else "\t"))
        return 0
    found = fetch(cx, name)
    if "platform" in found["Descriptor"]:
        return _show(found, opts)
    repository = split(name)[0]
    below = loads(raw(cx, name)[0])["manifests"]
    entries = []
    for one in below:
        entry = fetch(cx, f"{repository}@{one['digest']}")
        platform = one.get("platform") or entry["Descriptor"].get("platform")
        reference = f"{name}@{one['digest']}"
        entries.append({**entry, "Ref": reference, "Descriptor": {**entry["Descriptor"], "platform": platform}})
    line(pretty(entries, "\t"))
    return 0


def _of_list(lists: Lists, name: str, reference: str) -> dict[str, Any]:
    for entry in lists.entries(name):
        if entry["Ref"] == reference:
            return entry
    raise Failure(f"no such manifest: {reference}")


def _show(entry: dict[str, Any], opts: Options) -> int:
    document = entry.get("SchemaV2Manifest") or entry.get("OCIManifest")
    line(pretty(entry if opts["verbose"] else document, "\t"))
    return 0
