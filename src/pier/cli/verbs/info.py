"""`pier info`: what the daemon says about itself and its host."""

from __future__ import annotations

from pier.cli.errors import Failure
from pier.cli.flags import Command, Flag
from pier.cli.out import complain, out
from pier.cli.units import binary_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command("[OPTIONS]", flags=(Flag("format", "f", "string", "json, or a Go template"),))


def run(cx: Context, opts: Options, args: list[str]) -> int:
    from pier.cli.verbs.version import client_facts  # noqa: PLC0415 - a neighbour

    layout = opts["format"]
    client = {**client_facts(cx.client.version), "Debug": cx.options["debug"], "Plugins": [], "Warnings": None}
    problem = ""
    info: dict[str, Any] | None = None
    try:
        info = cx.client.get("/info")
    except Failure as failure:
        problem = failure.text
    if layout:
        out(_formatted({**(info or {}), "ClientInfo": client}, layout))
    else:
        out(describe(info, client))
    if problem:
        complain(problem)
    for warning in (info or {}).get("Warnings") or []:
        complain(warning)
    return 1 if problem else 0


def _formatted(info: dict[str, Any], layout: str) -> str:
    if layout == "json":
        from pier.cli.jsontext import dumps  # noqa: PLC0415

        return dumps(info) + "\n"
    from pier.cli.format import compile_template, execute  # noqa: PLC0415 - only with --format
    from pier.cli.template import mark  # noqa: PLC0415

    return execute(compile_template(layout, 64, "template parsing error"), mark(info)) + "\n"


def describe(info: dict[str, Any] | None, client: dict[str, Any]) -> str:
    """Docker's layout: one fact a line, details one blank deeper."""
    lines = [
        "Client: Pier",
        f" Version:    {client['Version']}",
        f" Context:    {client['Context']}",
        f" Debug Mode: {_bool(client['Debug'])}",
        "",
        "Server:",
    ]
    if info:
        lines += [f" {line}" for line in server_lines(info)] + [""]
    return "\n".join(lines) + "\n"


def _bool(value: object) -> str:
    return "true" if value else "false"


def server_lines(info: dict[str, Any]) -> list[str]:
    """The server's facts; those the daemon leaves out are left out."""
    lines = [f"Containers: {info.get('Containers', 0)}"]
    lines += [f" {state}: {info.get(f'Containers{state}', 0)}" for state in ("Running", "Paused", "Stopped")]
    lines += _facts(info, (("Images", "Images"), ("Server Version", "ServerVersion"), ("Storage Driver", "Driver")))
    lines += [f" {name}: {value}" for name, value in info.get("DriverStatus") or []]
    lines += _facts(
        info,
        (("Logging Driver", "LoggingDriver"), ("Cgroup Driver", "CgroupDriver"), ("Cgroup Version", "CgroupVersion")),
    )
    plugins = info.get("Plugins") or {}
    lines.append("Plugins:")
    lines += [
        f" {kind}: {' '.join(plugins[kind])}"
        for kind in ("Volume", "Network", "Authorization", "Log")
        if plugins.get(kind)
    ]
    lines += _listed("CDI spec directories:", info.get("CDISpecDirs"))
    lines.append(f"Swarm: {(info.get('Swarm') or {}).get('LocalNodeState') or 'inactive'}")
    if info.get("Runtimes"):
        lines.append(f"Runtimes: {' '.join(sorted(info['Runtimes']))}")
    lines += _facts(info, (("Default Runtime", "DefaultRuntime"), ("Init Binary", "InitBinary")))
    for name, key in (("containerd", "ContainerdCommit"), ("runc", "RuncCommit"), ("init", "InitCommit")):
        if key in info:
            lines.append(f"{name} version: {info[key].get('ID', '')}")
    lines += _security(info.get("SecurityOptions") or [])
    lines += _facts(
        info,
        (
            ("Kernel Version", "KernelVersion"),
            ("Operating System", "OperatingSystem"),
            ("OSType", "OSType"),
            ("Architecture", "Architecture"),
            ("CPUs", "NCPU"),
        ),
    )
    lines.append(f"Total Memory: {binary_size(info.get('MemTotal', 0))}")
    lines += _facts(info, (("Name", "Name"), ("ID", "ID"), ("Docker Root Dir", "DockerRootDir")))
    lines.append(f"Debug Mode: {_bool(info.get('Debug'))}")
    if info.get("Debug"):
        lines += [f" File Descriptors: {info.get('NFd')}", f" Goroutines: {info.get('NGoroutines')}"]
        lines += [f" System Time: {info.get('SystemTime')}", f" EventsListeners: {info.get('NEventsListener')}"]
    lines += _facts(info, (("HTTP Proxy", "HttpProxy"), ("HTTPS Proxy", "HttpsProxy"), ("No Proxy", "NoProxy")))
    lines += _listed("Labels:", info.get("Labels"))
    lines.append(f"Experimental: {_bool(info.get('ExperimentalBuild'))}")
    registries = info.get("RegistryConfig") or {}
    lines += _listed("Insecure Registries:", registries.get("InsecureRegistryCIDRs"))
    lines += _listed("Registry Mirrors:", registries.get("Mirrors"))
    lines.append(f"Live Restore Enabled: {_bool(info.get('LiveRestoreEnabled'))}")
    return lines


def _facts(info: dict[str, Any], names: tuple[tuple[str, str], ...]) -> list[str]:
    return [f"{title}: {info[key]}" for title, key in names if info.get(key) not in (None, "")]


def _listed(title: str, values: list[str] | None) -> list[str]:
    return [title, *(f" {value}" for value in values)] if values else []


def _security(options: list[str]) -> list[str]:
    """`name=seccomp,profile=builtin` as a name with its details below."""
    lines = ["Security Options:"] if options else []
    for option in options:
        fields = dict(field.partition("=")[::2] for field in option.split(","))
        lines.append(f" {fields.pop('name', '')}")
        lines += [f"  {key.capitalize()}: {value}" for key, value in fields.items()]
    return lines
