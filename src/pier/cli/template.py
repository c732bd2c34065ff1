"""Runs `--format` templates over JSON values and list rows, printing as Go's fmt prints.

JSON has no types, so what Go's compiler knows is told by the data's owner: an `OpenMap` is a map with free keys (a
missing one is no error, it prints as `map[k:v]`), any other dict is a struct (a missing field is an error). Fields a
struct leaves out of its JSON when they are empty are listed in `OMITTED`.
"""

from __future__ import annotations

from pier.cli.template_functions import FUNCTIONS, FunctionError, arity, show, truth
from pier.cli.template_parser import TemplateError, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pier.cli.template_parser import Node, Pipeline

__all__ = ["OMITTED", "Missing", "OpenMap", "Record", "Template", "TemplateError", "mark"]

OpenMap: type[dict[str, Any]] = type("OpenMap", (dict,), {"__doc__": "A map with free keys.", "__slots__": ()})

NilMap: type[dict[str, Any]] = type("NilMap", (OpenMap,), {"__doc__": "One that Go has as nil.", "__slots__": ()})
NilList: type[list[Any]] = type("NilList", (list,), {"__doc__": "A slice that Go has as nil.", "__slots__": ()})

OPEN_MAPS = frozenset(
    "Labels Annotations Sysctls Tmpfs StorageOpt DriverOpts Ports PortBindings Networks Volumes ExposedPorts Data "
    "Attributes Options Containers Runtimes Details AuxiliaryAddresses LogConfig.Config".split()
)
"""Members of Engine API objects whose keys are free; `Parent.Member` where the name alone is not enough."""

OMITTED: dict[str, Any] = {
    "Health": None,
    "SizeRw": None,
    "SizeRootFs": None,
    "Init": None,
    "Mounts": [],
    "Sysctls": {},
    "Tmpfs": {},
    "StorageOpt": {},
    "Annotations": {},
    "Healthcheck": None,
    "StopSignal": "",
    "StopTimeout": None,
    "Shell": [],
    "ExposedPorts": {},
    "Volumes": {},
    "MacAddress": "",
    "NetworkDisabled": False,
    "ArgsEscaped": False,
    "OnBuild": [],
    "Driver": "",
    "Variant": "",
    "Author": "",
    "Comment": "",
    "Parent": "",
    "Labels": {},
    "Warnings": [],
    "Platform": None,
}
"""Fields that Go's structs have and their JSON leaves out when empty, with that empty value."""

LISTS = frozenset(
    "Args Binds Cmd Env Entrypoint OnBuild CapAdd CapDrop Dns DnsOptions DnsSearch ExtraHosts GroupAdd Links "
    "SecurityOpt Devices DeviceRequests DeviceCgroupRules Ulimits ExecIDs VolumesFrom Mounts MaskedPaths ReadonlyPaths "
    "Aliases DNSNames RepoTags RepoDigests Warnings SecondaryIPAddresses SecondaryIPv6Addresses Shell".split()
)
"""Fields that are lists even when their JSON says null; to the function `json` they are null still."""


class Missing:
    """The value of a key that a map does not have."""


MISSING = Missing()


class Record:
    """A row of a list: named fields computed when asked for. `kind` is how errors call it."""

    __slots__ = ("fields", "kind", "row")

    def __init__(self, fields: dict[str, Callable[..., Any]], row: Any, kind: str) -> None:
        self.fields = fields
        self.row = row
        self.kind = kind

    def as_dict(self) -> dict[str, Any]:
        """All fields that take no argument, by name."""
        return {name: self.fields[name](self.row) for name in sorted(self.fields) if name not in _WITH_ARGUMENT}


_WITH_ARGUMENT = frozenset(("Label", "Attribute"))


def mark(value: Any, key: str = "", parent: str = "") -> Any:
    """A JSON value with its free maps turned into OpenMap and its null lists into lists."""
    if isinstance(value, dict):
        kind = OpenMap if key in OPEN_MAPS or f"{parent}.{key}" in OPEN_MAPS else dict
        inner = "" if kind is OpenMap else key
        return kind({name: mark(member, name, inner) for name, member in value.items()})
    if isinstance(value, list):
        return [mark(member, "", key) for member in value]
    if value is None and key in LISTS:
        return NilList()
    if value is None and key in OPEN_MAPS:
        return NilMap()
    return value


class Template:
    """A parsed template; TemplateError from the constructor when it cannot be read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.nodes = parse(text, FUNCTIONS)

    def render(self, dot: Any) -> str:
        """The template over one value. TemplateError with line, column and the expression that failed."""
        out: list[str] = []
        _Run(self.text, dot, out).walk(self.nodes, dot)
        return "".join(out)


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class _Run:
    def __init__(self, text: str, root: Any, out: list[str]) -> None:
        self.text = text
        self.out = out
        self.variables: list[tuple[str, Any]] = [("$", root)]

    def walk(self, nodes: list[Node], dot: Any) -> None:
        for node in nodes:
            kind = node[0]
            if kind == "text":
                self.out.append(node[1])
            elif kind == "action":
                value = self.pipeline(node[1], dot)
                if not node[1][0]:
                    self.out.append(show(value))
            elif kind == "range":
                self.range_over(node, dot)
            elif kind == "break":
                raise _Break
            elif kind == "continue":
                raise _Continue
            else:
                self.branch(node, dot)

    def branch(self, node: Node, dot: Any) -> None:
        """`if` and `with`."""
        kind, pipeline, body, otherwise = node
        scope = len(self.variables)
        value = self.pipeline(pipeline, dot)
        if truth(value):
            self.walk(body, value if kind == "with" else dot)
        else:
            self.walk(otherwise, dot)
        del self.variables[scope:]

    def range_over(self, node: Node, dot: Any) -> None:
        _, pipeline, body, otherwise = node
        declared = pipeline[0]
        value = self.pipeline(((), False, pipeline[2]), dot)
        pairs = self.pairs(value)
        if not pairs:
            return self.walk(otherwise, dot)
        scope = len(self.variables)
        for key, member in pairs:
            if len(declared) == 2:
                self.variables.append((declared[0], key))
            if declared:
                self.variables.append((declared[-1], member))
            try:
                self.walk(body, member)
            except _Continue:
                continue
            except _Break:
                break
            finally:
                del self.variables[scope:]
        return None

    def pairs(self, value: Any) -> list[tuple[Any, Any]]:
        if value is None or value is MISSING:
            return []
        if isinstance(value, dict):
            return sorted(value.items())
        if isinstance(value, list):
            return list(enumerate(value))
        if isinstance(value, int) and not isinstance(value, bool):
            return [(number, number) for number in range(value)]
        raise TemplateError(f"template: :1: range can't iterate over {show(value)}")

    def pipeline(self, pipeline: Pipeline, dot: Any) -> Any:
        declared, assigns, commands = pipeline
        value: Any = None
        for number, command in enumerate(commands):
            value = self.command(command, dot, [value] if number else [])
        for name in declared:
            if assigns:
                index = max(i for i, (known, _) in enumerate(self.variables) if known == name)
                self.variables[index] = (name, value)
            else:
                self.variables.append((name, value))
        return value

    def command(self, command: list[Node], dot: Any, final: list[Any]) -> Any:
        first, *rest = command
        if first[0] == "ident":
            return self.call(first, rest, dot, final)
        if first[0] == "field" and (rest or final):
            arguments = [self.operand(node, dot) for node in rest] + final
            return self.fields(first[1], dot, first[2], arguments)
        if rest or final:
            raise TemplateError(f"template: :1: can't give argument to non-function {_source(first)}")
        return self.operand(first, dot)

    def call(self, node: Node, rest: list[Node], dot: Any, final: list[Any]) -> Any:
        _, name, position = node
        if name in ("and", "or"):
            return self.short_circuit(name, rest, dot, final)
        least, most = arity(name)
        count = len(rest) + len(final)
        if count < least or (most is not None and count > most):
            wanted = f"want {least}" if most is not None else f"want at least {least}"
            raise self.error(f"wrong number of args for {name}: {wanted} got {count}", position, name)
        arguments = [self.operand(argument, dot) for argument in rest] + final
        try:
            return FUNCTIONS[name](*arguments)
        except FunctionError as error:
            problem = f"error calling {name}: {error}"
        except (TypeError, ValueError) as error:
            problem = f"error calling {name}: {error}"
        raise self.error(problem, position, " ".join([name, *map(_source, rest)]))

    def short_circuit(self, name: str, rest: list[Node], dot: Any, final: list[Any]) -> Any:
        value: Any = None
        for node in rest:
            value = self.operand(node, dot)
            if truth(value) == (name == "or"):
                return value
        return final[0] if final else value

    def operand(self, node: Node, dot: Any) -> Any:  # noqa: PLR0911 - one return a kind of node
        kind = node[0]
        if kind == "dot":
            return dot
        if kind == "const":
            return node[1]
        if kind == "nil":
            return None
        if kind == "field":
            return self.fields(node[1], dot, node[2], [])
        if kind == "var":
            value = next(value for name, value in reversed(self.variables) if name == node[1])
            return self.fields(node[2], value, node[3], [], node[1])
        if kind == "pipe":
            return self.pipeline(node[1], dot)
        if kind == "chain":
            return self.fields(node[2], self.operand(node[1], dot), node[3], [])
        return self.call(node, [], dot, [])

    def fields(self, names: tuple[str, ...], value: Any, position: int, arguments: list[Any], start: str = "") -> Any:
        shown = start + "".join(f".{name}" for name in names)
        for name in names:
            last = name is names[-1]
            value = self.field(name, value, position, shown, arguments if last else [])
        return value

    def field(self, name: str, value: Any, position: int, shown: str, arguments: list[Any]) -> Any:
        if isinstance(value, Record):
            function = value.fields.get(name)
            if function is None:
                raise self.error(f"can't evaluate field {name} in type {value.kind}", position, shown)
            return function(value.row, *arguments)
        if isinstance(value, OpenMap):
            return value.get(name, MISSING)
        if isinstance(value, dict):
            return self.member(name, value, position, shown)
        if value is None or value is MISSING:
            raise self.error(f"nil data; no entry for key {name!r}".replace("'", '"'), position, shown)
        raise self.error(f"can't evaluate field {name} in type {_go_type(value)}", position, shown)

    def member(self, name: str, value: dict[str, Any], position: int, shown: str) -> Any:
        """A struct's field by its JSON name, or by Go's spelling of it (`.ID` for "Id")."""
        if name in value:
            return value[name]
        if name[:1].isupper():
            folded = name.lower()
            for key, member in value.items():
                if key.lower() == folded:
                    return member
        if name in OMITTED:
            return OMITTED[name]
        raise self.error(f'map has no entry for key "{name}"', position, shown)

    def error(self, problem: str, position: int, shown: str) -> TemplateError:
        line = self.text.count("\n", 0, position) + 1
        column = position - (self.text.rfind("\n", 0, position) + 1)
        return TemplateError(f'template: :{line}:{column}: executing "" at <{shown}>: {problem}')


def _source(node: Node) -> str:
    """An operand as it was written, for error messages."""
    kind = node[0]
    if kind == "const":
        return _quoted(node[1]) if isinstance(node[1], str) else show(node[1])
    if kind == "field":
        return "".join(f".{name}" for name in node[1])
    if kind == "var":
        return "".join([node[1], *(f".{name}" for name in node[2])])
    if kind == "pipe":
        return "(" + " | ".join(" ".join(map(_source, command)) for command in node[1][2]) + ")"
    if kind == "chain":
        return _source(node[1]) + "".join(f".{name}" for name in node[2])
    return {"dot": ".", "nil": "nil"}.get(kind) or str(node[1])


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _go_type(value: Any) -> str:
    for kind, name in ((bool, "bool"), (int, "int"), (float, "float64"), (str, "string"), (list, "[]interface {}")):
        if isinstance(value, kind):
            return name
    return "interface {}"
