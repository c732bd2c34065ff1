"""Write what `pier-runtime` loads its modules from at once (`pier.runtime.command.packed`).

    PYTHONPATH=FOLDER PYTHON -X no_debug_ranges tools/pack.py

For the interpreter that runs this and the package `pier` that it imports. To be run whenever the sources have changed;
until then the command looks each of its modules up, which takes longer. There is less to load without what only readers
and type checkers want: columns in tracebacks, docstrings and annotations of functions.
"""

from __future__ import annotations
import __future__

import ast
import marshal
import os
import subprocess
import sys
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

from launchers import pack_of, write

import pier
from pier.runtime.command import packed
from pier.runtime.command.flags import VERBS

SOURCE = str(Path(pier.__file__).resolve().parents[1])
COMMAND = "pier.runtime.command.main"
LATER = ("pier.runtime.command.filter_cache", "pier.runtime.command.hooks", "pier.runtime.group")
"""Modules that a verb imports only where it needs them."""

PROBE = """
import sys
sys.path.insert(0, {source!r})
from pier.runtime.command import entry
from pier.runtime import stand_ins
stand_ins.install(late=True)
{imports}
"""
REPORT = """
import sys
specs = [vars(module).get("__spec__") for module in sys.modules.values()]
sys.stdout.write(repr({spec.name: (spec.origin, spec.submodule_search_locations) for spec in specs if spec}))
"""


class Module(NamedTuple):
    """A module as `import` found it."""

    name: str
    origin: str
    """Its file, or `built-in`, `frozen`."""
    folder: str | None
    """Of a package."""


def loaded_by(*roots: str) -> list[Module]:
    """What a command that imports `roots` loads, in the order in which it has run."""
    return loaded_in(PROBE.format(source=SOURCE, imports="\n".join(f"import {root}" for root in roots)))


def loaded_in(text: str) -> list[Module]:
    argv = [sys.executable, "-IS", "-X", "importtime", "-c", text + REPORT]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    specs: dict[str, tuple[str, list[str] | None]] = ast.literal_eval(done.stdout)
    order = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines()]
    found = [(name, *specs[name]) for name in order if name in specs and name != "__future__"]  # `_Lean` drops it
    return [Module(name, origin, folders[0] if folders else None) for name, origin, folders in found]


def member(module: Module) -> packed.Member | None:
    """What the file holds of a module; None for one that the interpreter brings with it in full."""
    if module.origin == "built-in":
        return module.name, packed.BUILT_IN, None
    if module.origin.endswith(".py"):
        return module.name, packed.CODE, (module.folder, compiled(module.origin))
    return None if module.origin == "frozen" else (module.name, packed.EXTENSION, module.origin)


class _Lean(ast.NodeTransformer):
    """Takes out what nothing reads that runs. Classes keep their docstrings: an error's is its message."""

    def visit_Module(self, node: ast.Module) -> ast.Module:
        self.generic_visit(node)
        _drop_docstring(node)
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom | None:
        return None if node.module == "__future__" else node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        node.returns = None
        _drop_docstring(node)
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node


def _drop_docstring(node: ast.Module | ast.FunctionDef) -> None:
    if ast.get_docstring(node, clean=False) is not None:
        node.body[0] = ast.copy_location(ast.Pass(), node.body[0])


def compiled(path: str) -> CodeType:
    tree = _Lean().visit(ast.parse(Path(path).read_bytes()))
    flags = __future__.annotations.compiler_flag
    made: CodeType = compile(tree, path, "exec", flags=flags, dont_inherit=True)
    return made


def bundle(modules: list[Module]) -> tuple[list[packed.Stamp], list[packed.Member]]:
    """Stamps and members of modules."""
    stamps = []
    for module in modules:
        if os.path.isabs(module.origin):
            info = os.stat(module.origin)
            stamps.append((module.origin, info.st_mtime_ns, info.st_size))
    return stamps, [found for found in map(member, modules) if found is not None]


def content(path: str) -> bytes:
    """The whole file, which will lie at `path`."""
    bare = loaded_in("")
    head = without(loaded_by(), bare)
    command = loaded_by(COMMAND)
    parts = {COMMAND: bundle(without(command, [*bare, *head]))}
    for root in sorted({f"pier.runtime.command.{verb.module}" for verb in VERBS.values()}):
        parts[root] = bundle(without(loaded_by(COMMAND, root), [*bare, *command]))
    for root in LATER:
        parts[root] = bundle(without(loaded_by(COMMAND, root), [*bare, *command]))
    body, places = b"", {}
    for root, part in parts.items():
        text = marshal.dumps(part)
        places[root] = (packed.HEAD_MAX + len(body), len(text))
        body += text
    stamps, members = bundle([Module("pier.runtime.command.packed", packed.__file__, None), *head])
    # The launcher runs the first itself.
    first: tuple[Any, ...] = (compiled(packed.__file__), path, stamps, members[1:], places)
    text = sys.version.encode() + b"\0" + marshal.dumps(first)
    if len(text) > packed.HEAD_MAX:
        raise SystemExit(f"the first part of {path} has {len(text)} bytes, more than HEAD_MAX")
    return text.ljust(packed.HEAD_MAX, b"\0") + body


def without(modules: list[Module], others: list[Module]) -> list[Module]:
    names = {module.name for module in others}
    return [module for module in modules if module.name not in names]


def main() -> None:
    path = Path(pack_of(SOURCE, sys.implementation.cache_tag))
    path.parent.mkdir(exist_ok=True)
    write(path, content(str(path)))


if __name__ == "__main__":
    main()
