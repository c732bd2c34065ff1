"""Write tests/fixtures/engine_api.json: the Engine API's contract as the tests need it, names and types without prose.

    contract.py engine-api-v1.55.yaml        needs PyYAML, which nothing else here does

Operations with their parameters, body and answers; schemas of JSON Schema's subset that OpenAPI 2 has, references kept.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

TARGET = Path(__file__).resolve().parents[1] / "tests/fixtures/engine_api.json"
KEPT = (
    "$ref",
    "additionalProperties",
    "allOf",
    "enum",
    "format",
    "items",
    "maximum",
    "minimum",
    "properties",
    "required",
    "type",
    "x-nullable",
)
METHODS = ("get", "head", "post", "put", "delete")


def schema(found: dict[str, Any]) -> dict[str, Any]:
    """A schema without what only people read."""
    kept: dict[str, Any] = {}
    for key in KEPT:
        if key not in found:
            continue
        value = found[key]
        if key == "properties":
            value = {name: schema(item) for name, item in value.items()}
        elif key == "allOf":
            value = [schema(item) for item in value]
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            value = schema(value)
        elif key == "$ref":
            value = value.rpartition("/")[2]
        kept[key] = value
    return kept


def operation(method: str, path: str, found: dict[str, Any]) -> dict[str, Any]:
    """One operation: parameters by place, body, answers by status."""
    parameters = found.get("parameters", [])
    places: dict[str, dict[str, Any]] = {"path": {}, "query": {}, "header": {}}
    body = None
    for parameter in parameters:
        if parameter["in"] == "body":
            body = schema(parameter["schema"])
        elif parameter["in"] in places:
            places[parameter["in"]][parameter["name"]] = schema(parameter)
    answers = {str(status): schema(answer.get("schema", {})) for status, answer in found["responses"].items()}
    return {"method": method.upper(), "template": path, **places, "body": body, "answers": answers}


def main() -> None:
    try:
        import yaml  # noqa: PLC0415
    except ImportError:
        sys.exit("contract.py: PyYAML is needed: pip install --target /tmp/yaml pyyaml, and PYTHONPATH=/tmp/yaml")
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    contract = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))
    operations = {
        found["operationId"]: operation(method, path, found)
        for path, item in contract["paths"].items()
        for method, found in item.items()
        if method in METHODS
    }
    definitions = {name: schema(found) for name, found in contract["definitions"].items()}
    text = json.dumps({"operations": operations, "definitions": definitions}, sort_keys=True, separators=(",", ":"))
    TARGET.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
