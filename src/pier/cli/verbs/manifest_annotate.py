"""`pier manifest annotate`: say which platform an entry of a manifest list is for."""

from __future__ import annotations

from pier.cli.errors import Failure
from pier.cli.flags import Command, Flag
from pier.cli.manifests import Lists, full

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command(
    "[OPTIONS] MANIFEST_LIST MANIFEST",
    flags=(
        Flag("arch", "", "string", "Architecture"),
        Flag("os", "", "string", "Operating system"),
        Flag("os-features", "", "strings", "Features of the operating system"),
        Flag("os-version", "", "string", "Version of the operating system"),
        Flag("variant", "", "string", "Variant of the architecture"),
    ),
    arity=(2, 2),
)
_KEYS = {
    "arch": "architecture",
    "os": "os",
    "os-features": "os.features",
    "os-version": "os.version",
    "variant": "variant",
}


def run(cx: Context, opts: Options, args: list[str]) -> int:
    name, reference, lists = full(args[0]), full(args[1]), Lists(cx.options)
    entry = next((entry for entry in lists.entries(name) if entry["Ref"] == reference), None)
    if entry is None:
        raise Failure(f"manifest for image {reference} does not exist in {name}")
    given = {key: opts[flag] for flag, key in _KEYS.items() if opts.given(flag)}
    platform = {**(entry["Descriptor"].get("platform") or {}), **given}
    if not (platform.get("os") and platform.get("architecture")):
        raise Failure(
            f"manifest entry for image has unsupported os/arch combination: {platform.get('os', '')}/"
            f"{platform.get('architecture', '')}"
        )
    entry["Descriptor"]["platform"] = platform
    lists.put(name, entry)
    return 0
