"""`pier manifest push`: make a manifest list in the registry."""

from __future__ import annotations

from pier.cli.auth import registry_auth_header
from pier.cli.each import path
from pier.cli.errors import Failure
from pier.cli.flags import Command, Flag
from pier.cli.manifests import Lists, as_list, full
from pier.cli.out import line
from pier.cli.reference import split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] MANIFEST_LIST",
    flags=(
        Flag("insecure", "", "bool", "Accepted for compatibility: insecure-registries of the daemon decide"),
        Flag("purge", "p", "bool", "Forget the list here once it is pushed"),
    ),
    arity=(1, 1),
)


def run(cx: Context, opts: Options, args: list[str]) -> int:
    name, lists = full(args[0]), Lists(cx.options)
    entries = lists.entries(name)
    if not entries:
        raise Failure(f"No such manifest: {name}")
    manifests = [
        {
            # By digest: the tag may have moved since.
            "Reference": f"{split(entry['Ref'])[0]}@{entry['Descriptor']['digest']}",
            "Platform": entry["Descriptor"].get("platform") or {},
        }
        for entry in entries
    ]
    body = {"MediaType": as_list(entries)["mediaType"], "Manifests": manifests}
    where = path("distribution", name, "manifest-list")
    answer = cx.client.request("POST", where, body=body, headers=registry_auth_header(cx.options, name)).json()
    repository = split(name)[0]
    for entry in entries:
        digest = entry["Descriptor"]["digest"]
        line(f"Pushed ref {repository}@{digest} with digest: {digest}")
    line(answer["digest"])
    if opts["purge"]:
        lists.remove(name)
    return 0
