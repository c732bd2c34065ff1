"""What a log says of its container besides its output: labels, variables and a tag (`--log-opt labels=…,env=…,tag=…`).
Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from pier import __name__ as daemon_name
from pier.containers.record import Record
from pier.errors import InvalidParameter

OPTIONS = ("labels", "labels-regex", "env", "env-regex", "tag")
SHORT_ID = 12
DEFAULT_TAG = "{{.ID}}"

_FIELDS: dict[str, Callable[[Record], str]] = {
    "ID": lambda record: record.id[:SHORT_ID],
    "FullID": lambda record: record.id,
    "Name": lambda record: record.name,
    "ImageID": lambda record: record.image_id.partition(":")[2][:SHORT_ID],
    "ImageFullID": lambda record: record.image_id,
    "ImageName": lambda record: record.config.image,
    "DaemonName": lambda record: daemon_name,
}
"""What a tag may name of its container, as with Docker."""
_FIELD = re.compile(r"\{\{\s*\.?(.*?)\s*\}\}")


class InvalidTag(InvalidParameter):
    """invalid log opt 'tag' {tag!r}: no field {field!r}"""

    remedy = "there are {known}"


class InvalidPattern(InvalidParameter):
    """invalid log opt '{option}': {reason}"""


def check(options: Mapping[str, str]) -> None:
    """Raises InvalidTag, InvalidPattern."""
    for found in _FIELD.finditer(options.get("tag", "")):
        if found[1] not in _FIELDS:
            raise InvalidTag(tag=options["tag"], field=found[1], known=", ".join(f"{{{{.{key}}}}}" for key in _FIELDS))
    for option in ("labels-regex", "env-regex"):
        try:
            re.compile(options.get(option, ""))
        except re.error as error:
            raise InvalidPattern(option=option, reason=str(error)) from error


def tag(record: Record, options: Mapping[str, str], default: str = DEFAULT_TAG) -> str:
    """The tag with its fields filled in."""
    return _FIELD.sub(lambda found: _FIELDS[found[1]](record), options.get("tag") or default)


def attributes(record: Record, options: Mapping[str, str]) -> dict[str, str]:
    """The labels and variables asked for that the container has."""
    variables = dict(entry.split("=", 1) for entry in record.config.env or () if "=" in entry)
    return {
        **_chosen(record.config.labels or {}, options.get("labels", ""), options.get("labels-regex", "")),
        **_chosen(variables, options.get("env", ""), options.get("env-regex", "")),
    }


def _chosen(values: Mapping[str, str], names: str, pattern: str) -> dict[str, str]:
    wanted = {name.strip() for name in names.split(",")}
    return {
        key: value
        for key, value in values.items()
        if key in wanted or (pattern and re.search(pattern, key) is not None)
    }
