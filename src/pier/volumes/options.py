"""Options of the `local` driver: `type`, `o`, `device`, which describe a mount, and `size`, a bound (mount(8)). Pure.

As with Docker they are handed to the kernel as they are; what a helper of mount(8) would have done is not done, but for
looking up the address of a server.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from pier.errors import InvalidParameter
from pier.runtime.process.rootfs import Options, parse_options
from pier.storage.quota_size import parse_size

KNOWN: Final = ("device", "o", "size", "type")
_NEEDS: Final = {"device": ("type",), "o": ("device", "type"), "type": ("device",)}
_SECRET: Final = re.compile(r"(?<![^, ])(pass(?:word|wd)?2?)=[^,]*")
_NETWORK: Final = frozenset({"cifs", "nfs", "nfs4", "smb3"})
_SHARES: Final = frozenset({"cifs", "smb3"})


class InvalidOption(InvalidParameter):
    """create {name}: invalid option: "{option}\""""


class MissingOption(InvalidParameter):
    """create {name}: missing required option: "{option}\""""


class BadSize(InvalidParameter):
    """create {name}: invalid size: '{text}'"""


class BadOption(InvalidParameter):
    """create {name}: option {option} holds a NUL byte"""


class MountPlan(NamedTuple):
    """What is to be mounted as a volume."""

    fstype: str
    device: str
    options: Options
    words: tuple[str, ...]
    """`o`, split."""

    @property
    def bind(self) -> bool:
        """It shows a folder of the host: no file system is made."""
        return self.options.bind

    @property
    def own_instance(self) -> bool:
        """Each mount makes a file system of its own, empty: it has to be one for all containers."""
        return not self.bind and self.fstype in ("tmpfs", "ramfs")

    def describe(self, place: str) -> str:
        """For messages, without secrets."""
        data = masked(",".join(self.words))
        return f"mount {self.device}:{place}" + (f", data: {data}" if data else "")


def masked(text: str) -> str:
    """Without what stands behind `password=`."""
    return _SECRET.sub(r"\1=********", text)


def check(name: str, options: Mapping[str, str] | None) -> None:
    """Raises InvalidOption, MissingOption, BadSize, BadOption."""
    given = options or {}
    for option in sorted(given):
        if option not in KNOWN:
            raise InvalidOption(name=name, option=option[:80])
        if "\0" in given[option]:
            raise BadOption(name=name, option=option)
    size_bytes(name, given)
    for option, needed in _NEEDS.items():
        for other in needed:
            if option in given and other not in given:
                raise MissingOption(name=name, option=other)


def size_bytes(name: str, options: Mapping[str, str] | None) -> int:
    """The bound that `size` asks for, 0: none. Raises BadSize."""
    text = (options or {}).get("size", "0")
    try:
        return parse_size(text)
    except InvalidParameter as error:
        raise BadSize(name=name, text=text[:40]) from error


def plan(options: Mapping[str, str] | None) -> MountPlan | None:
    """The mount that options ask for; None: the volume is a folder."""
    given = options or {}
    if "type" not in given:
        return None
    words = tuple(word for word in given.get("o", "").split(",") if word)
    return MountPlan(given["type"], given["device"], parse_options(list(words)), words)


def resolve(asked: MountPlan, look_up: Callable[[str], str]) -> MountPlan:
    """With the server's address in the place of its name; `look_up` blocks. Raises what that raises."""
    if asked.fstype not in _NETWORK or asked.bind:
        return asked
    for word in asked.words:
        key, _, value = word.partition("=")
        if key == "addr":
            return _with_address(asked, word, value, look_up)
    host = urlsplit(asked.device).hostname if asked.fstype in _SHARES else None
    return _with_address(asked, "", host, look_up) if host else asked


def _with_address(asked: MountPlan, old: str, host: str, look_up: Callable[[str], str]) -> MountPlan:
    address = host if _is_address(host) else look_up(host)
    words = [word for word in asked.words if word != old or not old]
    words.append(f"addr={address}")
    return asked._replace(words=tuple(words), options=parse_options(words))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
