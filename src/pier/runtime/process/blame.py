"""Which field of a configuration an error comes from: its path, as `schema.BadField` writes it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class FieldError(OSError):
    """What a field asks for cannot be done; the words are `strerror`, without the path.

    Who calls the command line wrote the configuration and is told the path; who calls the daemon did not, and is not.
    """

    def __init__(self, number: int | None, words: str, field: str) -> None:
        super().__init__(number, words)
        self.field = field
        """`mounts[3].source`"""

    @property
    def wire(self) -> str:
        """The path, then the words."""
        return f"{self.field}: {self.strerror}"


@contextlib.contextmanager
def asked_by(field: str) -> Iterator[None]:
    """Have an OSError say that it comes from `field`, or from the one below it that it names already."""
    try:
        yield
    except FieldError as error:
        dot = "" if error.field.startswith("[") else "."
        raise FieldError(error.errno, error.strerror or "", f"{field}{dot}{error.field}") from error
    except OSError as error:
        words = error.strerror or str(error)
        raise FieldError(error.errno, f"{error.filename}: {words}" if error.filename else words, field) from error
