"""`userns-remap`, read as Docker reads it. Accounts and ranges are the test's own."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from pier.containers import subids
from pier.engine import remap
from pier.engine.config import DaemonConfig
from pier.engine.engine import resolve_id_map
from pier.engine.remap import Account, BadRemap, CannotRemap

USERS = {"root": 0, "ana": 1000, "bob": 1001}
GROUPS = {"root": 0, "ana": 1000, "staff": 50}


def lookup(table: dict[str, int], make: Callable[[str, int], object]) -> tuple[Callable, Callable]:
    def by_name(name: str) -> object:
        return make(name, table[name])

    def by_number(number: int) -> object:
        names = [name for name, own in table.items() if own == number]
        if not names:
            raise KeyError(number)
        return make(names[0], number)

    return by_name, by_number


@pytest.fixture(autouse=True)
def accounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    user = lambda name, number: pwd.struct_passwd((name, "x", number, number, "", "/", "/bin/sh"))  # noqa: E731
    group = lambda name, number: grp.struct_group((name, "x", number, []))  # noqa: E731
    by_name, by_number = lookup(USERS, user)
    monkeypatch.setattr(pwd, "getpwnam", by_name)
    monkeypatch.setattr(pwd, "getpwuid", by_number)
    by_name, by_number = lookup(GROUPS, group)
    monkeypatch.setattr(grp, "getgrnam", by_name)
    monkeypatch.setattr(grp, "getgrgid", by_number)
    for name in ("SUBUID", "SUBGID"):
        monkeypatch.setattr(subids, name, str(tmp_path / name))
        (tmp_path / name).write_text("ana:100000:1000\n1000:300000:500\n")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "account"),
    [
        ("ana", Account("ana", 1000, "ana")),
        ("1000", Account("ana", 1000, "ana")),
        ("ana:staff", Account("ana", 1000, "staff")),
        ("ana:50", Account("ana", 1000, "staff")),
        ("1000:1000", Account("ana", 1000, "ana")),
        ("bob:staff", Account("bob", 1001, "staff")),
    ],
)
def test_accounts(text: str, account: Account) -> None:
    assert remap.find_account(text) == account


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a:b:c", 'Invalid user/group specification in --userns-remap: "a:b:c"'),
        ("ana:", 'Invalid user/group specification in --userns-remap: "ana:"'),
        ("nobody-such", 'Error during uid lookup for "nobody-such"'),
        ("4242", "Uid 4242 has no entry in /etc/passwd"),
        ("99999999999999999999999", "Uid 99999999999999999999999 has no entry"),
        ("bob", 'Error during gid lookup for "bob"'),
        ("1001", "Gid 1001 has no entry"),
        ("ana:nothing", 'Error during groupname lookup for "nothing"'),
        ("ana:4242", "Gid 4242 has no entry"),
        ("bob:staff", 'Can\'t create ID mappings: no subuid ranges found for user "bob"'),
    ],
)
def test_refusals(text: str, words: str) -> None:
    with pytest.raises(BadRemap) as caught:
        remap.resolve(text)
    assert words in str(caught.value)
    assert "userns-remap is default, or USER" in str(caught.value)


def test_ranges_of_name_and_number_follow_each_other() -> None:
    found = remap.resolve("ana")
    assert found is not None
    assert [(item.inside, item.outside, item.size) for item in found.uids] == [(0, 100_000, 1000), (1000, 300_000, 500)]


@pytest.mark.parametrize("text", ["", "root", "0", "root:root"])
def test_none(text: str) -> None:
    assert remap.resolve(text) is None


def test_default_makes_the_account(accounts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    def call(*command: str) -> None:
        called.append(command)
        if command[0] == "useradd":
            monkeypatch.setitem(USERS, "dockremap", 990)
        else:
            first, last = map(int, command[2].split("-"))
            with (accounts / ("SUBUID" if command[1] == "--add-subuids" else "SUBGID")).open("a") as file:
                file.write(f"dockremap:{first}:{last - first + 1}\n")

    monkeypatch.setattr(remap, "_call", call)
    monkeypatch.setitem(GROUPS, "dockremap", 990)
    found = remap.resolve("default")
    assert found is not None
    assert found.root == (101_000, 101_000)  # the first room between the ranges that are given away
    assert [command[0] for command in called] == ["useradd", "usermod", "usermod"]
    assert remap.resolve("default") == found
    assert len(called) == 3


def test_a_tool_that_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BadRemap, match='Error during "dockremap" user creation: useradd: No such file'):
        remap.resolve("default")


@pytest.mark.parametrize(
    ("text", "first"),
    [("", 100_000), ("a:100000:65536", 165_536), ("a:100010:5\nb:170000:5", 100_015), ("a:1:5", 100_000)],
)
def test_free_range(text: str, first: int) -> None:
    found = remap.free_range(text, "/etc/subuid")
    assert found.size == 65_536
    assert found.first == first


def test_no_range_is_left() -> None:
    with pytest.raises(BadRemap, match="no ids are left in /etc/subuid"):
        remap.free_range("a:100000:4294867295", "/etc/subuid")


class Snapshots:
    def __init__(self, fault: str) -> None:
        self.fault = fault

    def idmap_fault(self) -> str:
        return self.fault


def test_a_file_system_that_cannot_is_refused_at_the_start() -> None:
    config = DaemonConfig(userns_remap="ana", data_root="/d")
    with pytest.raises(CannotRemap, match=r"honoured: /d is on tmpfs: no .move the data root /d to ext4"):
        resolve_id_map(config, Snapshots("/d is on tmpfs: no"))
    assert resolve_id_map(config, Snapshots("")) is not None
    assert resolve_id_map(DaemonConfig(), Snapshots("never asked")) is None
