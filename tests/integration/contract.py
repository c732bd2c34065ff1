"""The Engine API's contract (tests/fixtures/engine_api.json, by tools/contract.py): judge answers, make requests."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

Schema = dict[str, Any]

TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}
TEXTS = [
    "",
    "a",
    "0",
    "-1",
    "true",
    "a:b",
    "a=b",
    "a b",
    "a\nb",
    "a\0b",
    "..",
    "../../x",
    "é\u2028",
    "x" * 300,
    "%s%n",
    "{}",
]
NUMBERS = [0, 1, -1, 7, 1000, 2**31 - 1, 2**31, 2**63 - 1, -(2**63)]
NONSENSE: list[Any] = [None, True, -1, 2**70, 1.5, "", "nonsense", [], [None], [[[]]], {}, {"a": {"b": []}}]


@cache
def contract() -> dict[str, Any]:
    """`operations` by operationId, `definitions` by name."""
    path = Path(__file__).parents[1] / "fixtures/engine_api.json"
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def resolve(schema: Schema) -> Schema:
    """The schema that a reference stands for, with the parts of `allOf` in one."""
    if "$ref" in schema:
        return resolve(contract()["definitions"][schema["$ref"]])
    if "allOf" not in schema:
        return schema
    whole: Schema = {key: value for key, value in schema.items() if key != "allOf"}
    for part in map(resolve, schema["allOf"]):
        properties = {**whole.get("properties", {}), **part.get("properties", {})}
        whole = {**part, **whole, **({"properties": properties} if properties else {})}
    return whole


def problems(schema: Schema, value: Any, where: str = "$") -> Iterator[str]:
    """What of `value` breaks the contract. Null stands for an empty list, map or text nearly everywhere in Docker."""
    found = resolve(schema)
    if value is None:
        return
    expected = found.get("type") or ("object" if "properties" in found else "")
    python = TYPES.get(expected)
    if python is not None and (not isinstance(value, python) or (isinstance(value, bool) and expected != "boolean")):
        yield f"{where}: {value!r:.60} is no {expected}"
        return
    if value != "" and "enum" in found and value not in found["enum"]:
        yield f"{where}: {value!r:.60} is none of {found['enum']}"
    if isinstance(value, list) and "items" in found:
        for index, item in enumerate(value):
            yield from problems(found["items"], item, f"{where}[{index}]")
    if isinstance(value, dict):
        known = found.get("properties", {})
        for name in found.get("required") or ():
            if name not in value:
                yield f"{where}.{name} is missing"
        for name, item in value.items():
            inner = known.get(name, found.get("additionalProperties"))
            if isinstance(inner, dict):
                yield from problems(inner, item, f"{where}.{name}")


def make(schema: Schema, rng: random.Random, depth: int = 0) -> Any:
    """A value of the schema's shape, as odd as the shape allows; now and then one of another shape."""
    if rng.random() < (0.08 if depth else 0.3):
        return rng.choice(NONSENSE)
    found = resolve(schema)
    if "enum" in found:
        return rng.choice(found["enum"])
    match found.get("type") or ("object" if "properties" in found else "string"):
        case "string":
            return rng.choice(TEXTS)
        case "integer" | "number":
            return rng.choice(NUMBERS)
        case "boolean":
            return rng.random() < 0.5
        case "array":
            return [make(found.get("items", {}), rng, depth + 1) for _ in range(rng.randrange(3))]
        case _:
            return _object(found, rng, depth)


def _object(found: Schema, rng: random.Random, depth: int) -> dict[str, Any]:
    made = {
        name: make(inner, rng, depth + 1)
        for name, inner in found.get("properties", {}).items()
        if depth < 4 and rng.random() < 0.4
    }
    values = found.get("additionalProperties")
    if isinstance(values, dict):
        made |= {rng.choice(TEXTS): make(values, rng, depth + 1) for _ in range(rng.randrange(3))}
    return made


def fields(schema: Schema, depth: int) -> Iterator[tuple[tuple[str, ...], Schema]]:
    """(path, schema) of every field of an object, and of the objects in it down to `depth` levels."""
    for name, inner in resolve(schema).get("properties", {}).items():
        yield (name,), inner
        if depth > 1:
            yield from (((name, *path), found) for path, found in fields(inner, depth - 1))


def put(body: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """`body` with `value` at a path."""
    head, *rest = path
    return {**body, head: put(body.get(head, {}), tuple(rest), value) if rest else value}
