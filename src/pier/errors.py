"""The root of every error Pier shows: what happened, to which object, what to do.

    PierError
    ├── InvalidParameter   400   the request itself is wrong
    ├── NotFound           404   the object named does not exist
    ├── Conflict           409   the object's state forbids it
    ├── Unavailable        503   something outside Pier must change first
    └── NotImplementedYet  501   an operation or option from the list of what is still to come

A concrete error is declared by the module that raises it, as a subclass whose docstring is the message and whose
`remedy` says what to do. Both are `str.format` templates over the keyword arguments given when it is raised.
"""

from __future__ import annotations


class PierError(Exception):
    """{message}"""

    status: int = 500
    """HTTP status of the Engine API's answer."""
    exit_code: int = 125
    """Exit status of a command line that fails with it."""
    remedy: str = ""
    """What the reader can do about it; empty where the message says it already."""

    def __init__(self, message: str | None = None, **fields: object) -> None:
        self.fields = fields if message is None else {"message": message, **fields}
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """What happened and to which object, worded as Docker words it where tools match on it."""
        if "message" in self.fields:
            return str(self.fields["message"])
        return (type(self).__doc__ or "").strip().format_map(self.fields)

    @property
    def wire(self) -> str:
        """One line for people and for the Engine API's `message`: the message, then the remedy in parentheses."""
        remedy = self.remedy.format_map(self.fields)
        return f"{self.message} ({remedy})" if remedy else self.message

    def __str__(self) -> str:
        return self.wire


class InvalidParameter(PierError):
    """{message}"""

    status = 400


class NotFound(PierError):
    """{message}"""

    status = 404


class Conflict(PierError):
    """{message}"""

    status = 409


class Unavailable(PierError):
    """{message}"""

    status = 503


class NotImplementedYet(PierError):
    """{what} is not implemented by Pier yet"""

    status = 501


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended the others of a task group."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
