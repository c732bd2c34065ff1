"""Writes the tables of docs/ that the code decides: the daemon's options, fields of a create request, what answers 501.

Each stands in its page between `<!-- table: NAME -->` and `<!-- end of table -->`. `python tools/doc_tables.py`
rewrites them in place; `--check` fails when a page does not say what the code says.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

import msgspec

from pier.api.unimplemented import ONE_PLUGIN, SWARM, UNIMPLEMENTED
from pier.api.versions import DIFFERENCES, Version, text
from pier.containers.fields import CONFIG, HOST_CONFIG, Acts, Answered, Later, Noted, Refused, Rule, Warned, wire_name
from pier.engine.config import PROXY_KEYS, DaemonConfig, Flag, keys
from pier.engine.options import INERT
from pier.model.container import ContainerConfig
from pier.model.host_config import HostConfig

DOCS = Path(__file__).parent.parent / "docs"
_TABLE = re.compile(r"(<!-- table: ([\w-]+) -->\n)(.*?)(<!-- end of table -->)", re.DOTALL)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


# --- the daemon's options


def acting_options() -> str:
    """Keys of daemon.json that act."""
    hints = get_type_hints(DaemonConfig, include_extras=True)
    defaults = msgspec.to_builtins(DaemonConfig())
    rows = []
    for name, key in keys().items():
        flag = next(extra for extra in get_args(hints[name]) if isinstance(extra, Flag))
        short = f", `-{flag.short}`" if flag.short else ""
        rows.append([f"`{key}`", f"`--{flag.name or key}`{short}", shown(defaults[key]), flag.help])
    rows += [[f"`proxies.{key}`", f"`--{key}`", "none", f"{key} of the daemon's own traffic"] for key in PROXY_KEYS]
    return table(["key", "flag", "default", "meaning"], sorted(rows))


def shown(value: Any) -> str:
    """A default as the table has it."""
    match value:
        case bool():
            return str(value).lower()
        case "" | [] | {}:
            return "none"
        case _:
            return f"`{value}`"


def inert_options(*, refused: bool) -> str:
    """Keys of daemon.json that Docker has and Pier does not act on."""
    rows = []
    for key, option in sorted(INERT.items()):
        if option.refused is refused:
            quiet = ", ".join(f"`{msgspec.json.encode(value).decode()}`" for value in option.harmless)
            rows.append([f"`{key}`", f"`--{option.flag or key}`", option.why, quiet])
    return table(["key", "flag", "why", "values that pass in silence"], rows)


# --- fields of a create request


def create_fields(struct: type[msgspec.Struct], rules: dict[str, Rule]) -> str:
    """What becomes of each field of a create request."""
    example = struct()
    rows = [[f"`{wire_name(example, name)}`", *verdict(rule)] for name, rule in rules.items()]
    return table(["field", "what becomes of it", "detail"], sorted(rows))


def verdict(rule: Rule) -> list[str]:
    match rule:
        case Acts():
            return ["acts", ""]
        case Answered(how=how):
            return ["looked at", how]
        case Noted():
            return ["kept and shown", "nothing for the engine to do"]
        case Later(what=what):
            return ["refused, 501", f"{what} is not implemented by Pier yet"]
        case Refused(why=why):
            return ["refused, 400", why]
        case Warned(text=words):
            return ["warned about", words]


# --- the API


def operations(routes: Iterable[tuple[str, str, str]]) -> str:
    """Operations as the contract names them."""
    return table(["method", "path", "operation"], ([method, f"`{path}`", name] for method, path, name in routes))


def differences() -> str:
    """What differs between the versions of the API."""
    rows = (
        [item.operation, "request" if item.request else "answer", span(item.since, item.until), item.why]
        for item in DIFFERENCES
    )
    return table(["operation", "of the", "clients", "because"], rows)


def span(since: Version | None, until: Version | None) -> str:
    """The clients a difference is for."""
    parts = [f"from {text(since)}"] if since else []
    parts += [f"before {text(until)}"] if until else []
    return ", ".join(parts) or "all"


TABLES: dict[str, Callable[[], str]] = {
    "options-that-act": acting_options,
    "options-warned-about": lambda: inert_options(refused=False),
    "options-refused": lambda: inert_options(refused=True),
    "config-fields": lambda: create_fields(ContainerConfig, CONFIG),
    "host-config-fields": lambda: create_fields(HostConfig, HOST_CONFIG),
    "operations-501": lambda: operations(UNIMPLEMENTED),
    "operations-swarm": lambda: operations(SWARM),
    "operations-plugin": lambda: operations(ONE_PLUGIN),
    "version-differences": differences,
}


def renewed(page: str) -> str:
    """A page's text with its tables as the code has them now. Raises KeyError for a table that nothing makes."""
    return _TABLE.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}{found[4]}", page)


def stale() -> Iterator[tuple[Path, str]]:
    """Pages that are not what the code says, with what they should be."""
    for path in sorted(DOCS.glob("*.md")):
        page = path.read_text()
        if renewed(page) != page:
            yield path, renewed(page)


def unused() -> set[str]:
    """Tables that stand in no page."""
    return set(TABLES) - {name for path in DOCS.glob("*.md") for _, name, _, _ in _TABLE.findall(path.read_text())}


def main() -> int:
    pages = list(stale())
    if "--check" in sys.argv[1:]:
        for path, _ in pages:
            sys.stderr.write(f"{path} is not what the code says: run python tools/doc_tables.py\n")
        for name in sorted(unused()):
            sys.stderr.write(f"the table {name} stands in no page\n")
        return 1 if pages or unused() else 0
    for path, page in pages:
        path.write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
