"""Lists on stdout: the default table, `--format table …`, `--format json` and templates, from one table of fields.

A view is data: `FIELDS` maps a field's name to its column header and the function from an API object to its text.
"""

from __future__ import annotations

from pier.cli.errors import Failure
from pier.cli.table import align, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pier.cli.template import Template

    Fields = dict[str, tuple[str, Callable[..., Any]]]

EXIT_TEMPLATE = 64
NO_TRUNC_ID = 64
SHORT_ID = 12


def render(
    fields: Fields,
    default: tuple[str, ...],
    layout: str,
    rows: list[Any],
    kind: str,
    *,
    problem: str = "template parsing error",
) -> str:
    """All rows as text, each ending in a newline.

    `default` names the columns of the plain table; `layout` is the value of --format; `kind` is how errors call a row,
    `problem` what they begin with.
    """
    if layout in ("", "table"):
        header = [fields[name][0] for name in default]
        return table([header, *([fields[name][1](row) for name in default] for row in rows)])
    if layout == "json":
        return "".join(json_line(fields, row) for row in rows)
    return _templated(fields, layout, rows, kind, problem)


def json_line(fields: Fields, row: Any) -> str:
    """One row as JSON with every field, keys sorted."""
    from pier.cli.jsontext import dumps  # noqa: PLC0415 - tables need none

    values = {name: fields[name][1](row) for name in sorted(fields) if fields[name][0]}
    return dumps(values, escape_html=True) + "\n"


def _templated(fields: Fields, layout: str, rows: list[Any], kind: str, problem: str) -> str:
    from pier.cli.template import Record  # noqa: PLC0415 - only templates need it

    with_header = layout.startswith("table ")
    template = compile_template(layout[len("table ") :] if with_header else layout, Failure.status)
    functions = {name: function for name, (_, function) in fields.items()}
    records = [Record(functions, row, kind) for row in rows]
    if with_header:
        headers = {name: (lambda _row, *_args, _text=text: _text) for name, (text, _) in fields.items()}
        records.insert(0, Record(headers, None, kind))
    text = "".join(execute(template, record, problem) + "\n" for record in records)
    return align(text) if with_header else text


def compile_template(text: str, status: int = EXIT_TEMPLATE, problem: str = "failed to parse template") -> Template:
    """A template from the command line, where `\\t` and `\\n` may be typed as two characters."""
    from pier.cli.template import Template, TemplateError  # noqa: PLC0415

    try:
        return Template(text.replace("\\t", "\t").replace("\\n", "\n"))
    except TemplateError as error:
        raise Failure(f"{problem}: {error}", status) from None


def execute(template: Template, value: Any, problem: str = "failed to execute template") -> str:
    """Render one value; Failure in Docker's words when the template does not fit it."""
    from pier.cli.template import TemplateError  # noqa: PLC0415

    try:
        return template.render(value)
    except TemplateError as error:
        raise Failure(f"{problem}: {error}") from None


def short_id(identifier: str) -> str:
    """An ID as lists show it: without the algorithm, twelve characters."""
    return identifier.rpartition(":")[2][:SHORT_ID]


def ellipsis(text: str, length: int) -> str:
    """At most `length` characters, the last one "…" when something was cut."""
    return text if len(text) <= length else text[: max(length - 1, 0)] + "…"


def filters_query(pairs: list[tuple[str, str]]) -> dict[str, dict[str, bool]] | None:
    """`--filter` values as the API takes them: {name: {value: true}}, sorted as Go does; None when there are none."""
    grouped: dict[str, dict[str, bool]] = {}
    for name, value in sorted(pairs):
        grouped.setdefault(name, {})[value] = True
    return grouped or None
