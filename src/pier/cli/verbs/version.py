"""`pier version`: the versions of client and daemon."""

from __future__ import annotations

import os
import sys

from pier.cli.errors import ApiError, Unreachable
from pier.cli.flags import Command, Flag
from pier.cli.out import complain, out
from pier.cli.table import align

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pier.cli.flags import Options
    from pier.cli.main import Context

COMMAND = Command("[OPTIONS]", flags=(Flag("format", "f", "string", "json, or a Go template"),))
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
_DETAILS = ("API version", "Go version", "Python version", "Git commit", "Built", "OS/Arch", "Experimental")


def run(cx: Context, opts: Options, args: list[str]) -> int:
    template = None
    if opts["format"] not in ("", "json"):
        from pier.cli.format import compile_template  # noqa: PLC0415 - only with --format

        template = compile_template(opts["format"], 64, "template parsing error")
    problem = None
    server: dict[str, Any] | None = None
    try:
        server = cx.client.get("/version")
    except (ApiError, Unreachable) as error:
        problem = error.text
    both = {"Client": client_facts(cx.client.version), "Server": server}
    if template is not None:
        from pier.cli.format import execute  # noqa: PLC0415
        from pier.cli.template import mark  # noqa: PLC0415

        out(execute(template, mark(both)) + "\n")
    elif opts["format"] == "json":
        from pier.cli.jsontext import dumps  # noqa: PLC0415

        out(dumps(both) + "\n")
    else:
        out(describe(both))
    if problem:
        complain(problem)
    return 1 if problem else 0


def client_facts(api_version: str) -> dict[str, str]:
    from pier import __version__  # noqa: PLC0415 - only here

    machine = os.uname().machine
    return {
        "Version": __version__,
        "ApiVersion": api_version,
        "DefaultAPIVersion": api_version,
        "PythonVersion": sys.version.split()[0],
        "Os": "linux",
        "Arch": _ARCHITECTURES.get(machine, machine),
        "Context": "default",
    }


def describe(both: dict[str, Any]) -> str:
    """The two blocks as aligned text."""
    client, server = both["Client"], both["Server"]
    lines = [
        "Client: Pier",
        f" Version:\t{client['Version']}",
        f" API version:\t{client['ApiVersion']}",
        f" Python version:\t{client['PythonVersion']}",
        f" OS/Arch:\t{client['Os']}/{client['Arch']}",
        f" Context:\t{client['Context']}",
    ]
    if server:
        platform = (server.get("Platform") or {}).get("Name", "")
        lines += ["", f"Server: {platform}".rstrip()]
        for component in server.get("Components") or [_engine_of(server)]:
            lines += _component(component)
    return align("\n".join(lines) + "\n", min_width=20, padding=1)


def _engine_of(server: dict[str, Any]) -> dict[str, Any]:
    """The engine as a component, for daemons that list none."""
    return {"Name": "Engine", "Version": server.get("Version", ""), "Details": server}


def _component(component: dict[str, Any]) -> list[str]:
    details = component.get("Details") or {}
    lines = [f" {component['Name']}:", f"  Version:\t{component['Version']}"]
    if component["Name"] != "Engine":
        return lines + [f"  {key}:\t{value}" for key, value in sorted(details.items())]
    values = {
        "API version": f"{details.get('ApiVersion', '')} (minimum version {details.get('MinAPIVersion', '')})",
        "Go version": details.get("GoVersion"),
        "Python version": details.get("PythonVersion"),
        "Git commit": details.get("GitCommit"),
        "Built": details.get("BuildTime"),
        "OS/Arch": f"{details.get('Os', '')}/{details.get('Arch', '')}",
        "Experimental": details.get("Experimental"),
    }
    return lines + [f"  {name}:\t{values[name]}" for name in _DETAILS if values[name]]
