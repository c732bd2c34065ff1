"""`pier builder du`: what the build cache has, the largest first."""

from __future__ import annotations

from pier.cli.flags import Command, Flag
from pier.cli.out import line
from pier.cli.table import align
from pier.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS]",
    flags=(Flag("verbose", "", "bool", "Do not cut descriptions"),),
)
WIDTH = 60


def run(cx: Context, opts: Options, args: list[str]) -> int:
    answer = cx.client.get("/system/df", type="build-cache")
    items = sorted(answer.get("BuildCache") or (), key=lambda item: -item["Size"])
    rows = [["ID", "TYPE", "RECLAIMABLE", "SIZE", "USES", "DESCRIPTION"]]
    for item in items:
        text = item["Description"] if opts["verbose"] else item["Description"][:WIDTH]
        free = "false" if item["InUse"] else "true"
        rows.append([item["ID"], item["Type"], free, human_size(item["Size"]), str(item["UsageCount"]), text])
    line(align("\n".join("\t".join(row) for row in rows)))
    line(f"Reclaimable: {human_size(sum(item['Size'] for item in items if not item['InUse'] and not item['Shared']))}")
    line(f"Total: {human_size(sum(item['Size'] for item in items))}")
    return 0
