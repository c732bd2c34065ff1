"""What is known of a volume: a record in the state database, and a copy of it in the volume's own folder.

The copy is what a volume is found again by when the database was lost (trap 20): data is never thrown away because a
record is missing.
"""

from __future__ import annotations

import secrets
from typing import Final

import msgspec

from pier.errors import InvalidParameter, NotFound
from pier.model.time import SECOND_NS, rfc3339_nano
from pier.model.volume import Volume
from pier.state import Delete, Put

KIND: Final = "volume"
DRIVER: Final = "local"
ANONYMOUS: Final = "com.docker.volume.anonymous"
"""The label, without a value, of a volume that was made without a name: Docker's."""
NAME_MAX: Final = 255
_FIRST: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_REST: Final = _FIRST | frozenset("_.-")


class NoSuchVolume(NotFound):
    """get {name}: no such volume"""


class NameTooShort(InvalidParameter):
    """create {name}: volume name is too short, names should be at least two alphanumeric characters"""


class InvalidName(InvalidParameter):
    """create {name}: "{name}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path"""  # noqa: E501


class NameTooLong(InvalidParameter):
    """create {name}…: volume name is too long, names should be at most 255 characters"""


class Record(msgspec.Struct, kw_only=True):
    """One volume."""

    name: str
    created_ns: int
    driver: str = DRIVER
    labels: dict[str, str] | None = None
    options: dict[str, str] | None = None
    """`type`, `o`, `device`, `size`, as they were given."""

    @property
    def anonymous(self) -> bool:
        return ANONYMOUS in (self.labels or {})

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    def put(self) -> Put:
        """The change that writes this record."""
        return Put(KIND, self.name, self.encode())

    def delete(self) -> Delete:
        """The change that takes it away."""
        return Delete(KIND, self.name)

    def shown(self, mountpoint: str) -> Volume:
        """As the API shows it."""
        return Volume(
            name=self.name,
            driver=self.driver,
            mountpoint=mountpoint,
            created_at=rfc3339_nano(self.created_ns // SECOND_NS * SECOND_NS),
            labels=self.labels,
            options=self.options,
        )


_decoder = msgspec.json.Decoder(Record)


def decode(data: bytes, name: str) -> Record:
    """Raises msgspec.MsgspecError for a record that is not one, or not that of `name` (attack 17)."""
    record = _decoder.decode(data)
    if record.name != name or not is_name(name):
        raise msgspec.ValidationError(f"{record.name[:80]!r} is not the name of this volume")
    return record


def make_name() -> str:
    """Of an anonymous volume: 64 hexadecimal digits."""
    return secrets.token_hex(32)


def is_name(name: str) -> bool:
    """Whether a volume can be called that: it is also the name of a folder."""
    return 1 < len(name) <= NAME_MAX and name[0] in _FIRST and _REST.issuperset(name)


def check_name(name: str) -> str:
    """Raises NameTooShort, InvalidName, NameTooLong."""
    if len(name) == 1 and name.isascii():
        raise NameTooShort(name=name)
    if len(name) > NAME_MAX and _REST.issuperset(name):
        raise NameTooLong(name=name[:80])
    if not is_name(name):
        raise InvalidName(name=name[:NAME_MAX])
    return name
