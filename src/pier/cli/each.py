"""One request for each of several objects, as Docker's CLI does it: names that worked on stdout, errors on stderr."""

from __future__ import annotations

from pier.cli.errors import ApiError
from pier.cli.out import complain, line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def each(names: list[str], deed: Callable[[str], object], *, parallel_errors: bool = True) -> int:
    """Do `deed` for every name; exit status 1 when one failed.

    A deed that returns None has its name printed; one that returns text has that printed, "" nothing. Errors come
    after the successes when `parallel_errors` says that Docker collects them (stop, rm, …), else as they happen.
    """
    problems: list[str] = []
    for name in names:
        try:
            result = deed(name)
        except ApiError as error:
            problems.append(error.text)
            if not parallel_errors:
                complain(problems[-1])
            continue
        if result is None:
            line(name)
        elif result:
            line(str(result))
    if problems and parallel_errors:
        complain("\n".join(problems))
    return 1 if problems else 0


def path(kind: str, name: str, action: str = "") -> str:
    """`/containers/NAME/stop` with the name made safe for a URL."""
    from pier.cli.http import quote  # noqa: PLC0415 - loaded with the client

    return f"/{kind}/{quote(name, safe=b':@')}" + (f"/{action}" if action else "")
