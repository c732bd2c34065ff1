"""Docker's USER against passwd and group files; attack 13 as a table and as a property."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.runtime.process.passwd import ID_MAX, parse_group, parse_passwd
from pier.runtime.process.users import Identity, UserError, identify, resolve

PASSWD = """root:x:0:0:root:/root:/bin/sh
# a comment
ana:x:1000:1001:Ana:/home/ana:/bin/sh
broken line
0:x:7:7::/tmp:
1000:x:0:0:impostor:/root:/bin/sh
big:x:4294967296:0::/:
twin:x:1000:5::/twin:
"""
GROUP = """root:x:0:
wheel:x:10:ana,root
ana:x:1001:
1000:x:33:
staff:x:50:ana
"""


def as_user(spec: str, *group_add: str) -> Identity:
    return resolve(spec, list(group_add), parse_passwd(PASSWD), parse_group(GROUP))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("", Identity(0, 0, [10], "/root")),
        ("root", Identity(0, 0, [10], "/root")),
        ("0", Identity(0, 0, [10], "/root")),
        ("ana", Identity(1000, 1001, [10, 50], "/home/ana")),
        ("1000", Identity(1000, 1001, [10, 50], "/home/ana")),
        ("ana:wheel", Identity(1000, 10, [], "/home/ana")),
        ("ana:33", Identity(1000, 33, [], "/home/ana")),
        ("1000:1000", Identity(1000, 1000, [], "/home/ana")),
        ("4242", Identity(4242, 0, [], "/")),
        ("4242:4243", Identity(4242, 4243, [], "/")),
        (str(ID_MAX), Identity(ID_MAX, 0, [], "/")),
    ],
)
def test_attack_13_a_number_is_never_a_name(spec: str, expected: Identity) -> None:
    assert as_user(spec) == expected


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("bob", "unable to find user bob: no matching entries in passwd file"),
        ("big", "unable to find user big"),
        ("ana:nobody", "unable to find group nobody: no matching entries in group file"),
        ("4294967296", "uids and gids must be in range 0-2147483647"),
        ("2147483648", "uids and gids must be in range"),
        ("18446744073709551616", "uids and gids must be in range"),
        ("-1", "uids and gids must be in range"),
        ("0:-1", "uids and gids must be in range"),
        ("0:99999999999", "uids and gids must be in range"),
    ],
)
def test_attack_13_what_is_refused(spec: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        as_user(spec)


def test_group_add_by_name_and_number_without_repetition() -> None:
    assert as_user("ana:33", "wheel", "77", "wheel").additional_gids == [10, 77]


@given(st.text(max_size=40), st.text(max_size=200), st.text(max_size=200))
def test_attack_13_no_spec_but_zero_and_roots_names_becomes_root(spec: str, passwd: str, group: str) -> None:
    try:
        identity = resolve(spec, [], parse_passwd(passwd), parse_group(group))
    except UserError:
        return
    user = spec.partition(":")[0]
    roots = {entry.name for entry in parse_passwd(passwd) if entry.uid == 0}
    if identity.uid == 0:
        assert user == "" or user.lstrip("+0") == "" or user in roots
    assert 0 <= identity.uid <= ID_MAX
    assert 0 <= identity.gid <= ID_MAX
    assert "\n" not in identity.home


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    return tmp_path


def identify_in(root: Path, spec: str) -> Identity:
    fd = os.open(root, os.O_PATH)
    try:
        return identify(fd, spec, [])
    finally:
        os.close(fd)


def test_no_files_at_all(root: Path) -> None:
    assert identify_in(root, "5:6") == Identity(5, 6, [], "/")


def test_attack_13_a_fifo_for_passwd_does_not_hang(root: Path) -> None:
    os.mkfifo(root / "etc" / "passwd")
    assert identify_in(root, "0").uid == 0


def test_attack_12_a_huge_passwd_is_refused(root: Path) -> None:
    with open(root / "etc" / "passwd", "wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(UserError, match="over the limit"):
        identify_in(root, "0")


def test_a_link_in_etc_stays_inside(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "passwd"
    outside.write_text("ana:x:0:0::/:\n")
    (root / "etc" / "passwd").symlink_to(outside)
    with pytest.raises(UserError):
        identify_in(root, "ana")
