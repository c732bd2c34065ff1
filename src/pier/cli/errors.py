"""What a command line ends with when it fails: a message for stderr and an exit status.

    Failure
    ├── UsageError     125   a flag is wrong: message, usage line, where to read on
    ├── ArgumentError    1   the number of arguments is wrong
    ├── ApiError         1   the daemon answered with a status of 400 or more
    └── Unreachable      1   no daemon answered

Messages are worded as Docker's CLI words them, because scripts match on them; what Pier knows beyond that follows
on lines of its own.
"""

from __future__ import annotations

PROGRAM = "pier"


class Failure(Exception):
    """A command line that ends with `text` on stderr (nothing when empty) and with `status`."""

    status = 1

    def __init__(self, text: str = "", status: int | None = None) -> None:
        super().__init__(text)
        self.text = text
        if status is not None:
            self.status = status


class UsageError(Failure):
    """A flag that does not exist or whose value cannot be read."""

    status = 125

    def __init__(self, problem: str, path: str, usage: str) -> None:
        super().__init__(
            f"{problem}\n\nUsage:  {with_program(path)} {usage}\n\n"
            f"Run '{with_program(path)} --help' for more information"
        )


class ArgumentError(Failure):
    """Too few or too many arguments."""

    def __init__(self, problem: str, path: str, usage: str, *, see: str) -> None:
        name = with_program(path)
        super().__init__(
            f"{PROGRAM}: '{name}' {problem}\n\nUsage:  {f'{name} {usage}'.strip()}\n\n"
            f"{see} '{name} --help' for more information"
        )


class ApiError(Failure):
    """The daemon refused: `code` is the HTTP status, `message` the daemon's own words."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"Error response from daemon: {message}")
        self.code = code
        self.message = message


class Unreachable(Failure):
    """No daemon answered at the address in use."""


def with_program(path: str) -> str:
    """`"container ls"` -> `"pier container ls"`; `""` -> `"pier"`."""
    return f"{PROGRAM} {path}".rstrip()


def reason(error: OSError) -> str:
    """The kernel's words as Go prints them: in lower case."""
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]
