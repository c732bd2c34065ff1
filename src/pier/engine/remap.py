"""`userns-remap`: whose subordinate ids the containers' user namespaces have, read as Docker reads it."""

from __future__ import annotations

import grp
import logging
import pwd
import subprocess
from typing import NamedTuple

from pier.containers import subids
from pier.containers.subids import Range
from pier.errors import PierError
from pier.storage.ids import IdMap

log = logging.getLogger("pier.engine")

DEFAULT = "default"
DEFAULT_USER = "dockremap"
FIRST_SUBID = 100_000
"""Where useradd begins, and Docker with it (login.defs(5), SUB_UID_MIN)."""
SUBID_COUNT = 65_536


class BadRemap(PierError):
    """{reason}"""

    exit_code = 1
    remedy = "userns-remap is default, or USER, USER:GROUP, UID, UID:GID of an account with ranges in {files}"

    def __init__(self, reason: str) -> None:
        super().__init__(reason=reason, files=f"{subids.SUBUID} and {subids.SUBGID}")


class CannotRemap(PierError):
    """the daemon option userns-remap cannot be honoured: {fault}"""

    exit_code = 1
    remedy = "move the data root {data_root} to ext4, xfs or btrfs on Linux 5.19 or newer, or remove the option"


class Account(NamedTuple):
    """The user, and the group that was named with it."""

    user: str
    uid: int
    group: str


def resolve(text: str) -> IdMap | None:
    """The map that `userns-remap` asks for; None: none. Blocking. Raises BadRemap, BadSubids.

    With `default` the account and its ranges are made where they are missing.
    """
    if not text:
        return None
    try:
        account = find_account(text)
    except KeyError:
        account = make_account()
    if account.user == "root":
        log.warning("User namespaces: root cannot be remapped with itself; user namespaces are OFF")
        return None
    names = [account.user, str(account.uid)]
    try:
        uids = subids.read(subids.SUBUID, names, kind="subuid")
        gids = subids.read(subids.SUBGID, names, kind="subgid")
    except subids.NoSubids as error:
        raise BadRemap(f"Can't create ID mappings: {error}") from error
    return IdMap(subids.extents(uids), subids.extents(gids))


def find_account(text: str) -> Account:
    """The account that is meant. Raises BadRemap, and KeyError for `default` where its user is missing."""
    user, colon, group = text.partition(":")
    if ":" in group or not user or (colon and not group):
        raise BadRemap(f'Invalid user/group specification in --userns-remap: "{text}"')
    found = _find_user(user)
    if not colon:
        group = str(found.pw_uid) if user.isdecimal() else found.pw_name
    return Account(found.pw_name, found.pw_uid, _find_group(group, named=bool(colon)))


def _find_user(user: str) -> pwd.struct_passwd:
    if user.isdecimal():
        try:
            return pwd.getpwuid(int(user))
        except (KeyError, OverflowError):
            raise BadRemap(f"Uid {user} has no entry in /etc/passwd") from None
    if user == DEFAULT:
        return pwd.getpwnam(DEFAULT_USER)
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise BadRemap(f'Error during uid lookup for "{user}": no entry in the passwd database') from None


def _find_group(group: str, *, named: bool) -> str:
    if group.isdecimal():
        try:
            return grp.getgrgid(int(group)).gr_name
        except (KeyError, OverflowError):
            raise BadRemap(f"Gid {group} has no entry in /etc/group") from None
    try:
        return grp.getgrnam(group).gr_name
    except KeyError:
        what = "groupname" if named else "gid"
        raise BadRemap(f'Error during {what} lookup for "{group}": no entry in the group database') from None


def make_account() -> Account:
    """Make the user of `default`, and its ranges behind all that are given away. Blocking. Raises BadRemap."""
    log.warning("userns-remap: making the user %s and its subordinate ids", DEFAULT_USER)
    _call("useradd", "--system", "--user-group", "--shell", "/bin/false", DEFAULT_USER)
    found = pwd.getpwnam(DEFAULT_USER)
    names = [DEFAULT_USER, str(found.pw_uid)]
    for path, option in ((subids.SUBUID, "--add-subuids"), (subids.SUBGID, "--add-subgids")):
        text = _text(path)
        if not subids.parse(text, names, path=path):
            chosen = free_range(text, path)
            _call("usermod", option, f"{chosen.first}-{chosen.end - 1}", DEFAULT_USER)
    return Account(DEFAULT_USER, found.pw_uid, DEFAULT_USER)


def free_range(text: str, path: str) -> Range:
    """A range that nobody has of those a subuid file gives away. Pure. Raises BadRemap, BadSubids."""
    everyone = {line.partition(":")[0].strip() for line in text.splitlines()}
    found = subids.take(
        SUBID_COUNT, [Range(FIRST_SUBID, subids.ID_END - FIRST_SUBID)], subids.parse(text, everyone, path=path)
    )
    if found is None:
        raise BadRemap(f"Error during {DEFAULT_USER!r} user creation: no ids are left in {path}")
    return found


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read(subids.FILE_MAX_BYTES)
    except FileNotFoundError:
        return ""


def _call(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BadRemap(f'Error during "{DEFAULT_USER}" user creation: {command[0]}: {error.strerror}') from error
    if done.returncode:
        raise BadRemap(f'Error during "{DEFAULT_USER}" user creation: {done.stderr.strip() or command[0]}')
