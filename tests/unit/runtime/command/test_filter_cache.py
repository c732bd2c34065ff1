"""Compiled filters that are kept: used again, and never believed when someone else could have written them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pier.kernel import seccomp_compiler
from pier.runtime.command import filter_cache
from pier.runtime.command.filter_cache import FOLDER, KEPT, filter_of
from pier.runtime.command.state import all_ids

PROFILE = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["kill"], "action": "SCMP_ACT_ERRNO"}]}
FILTER = seccomp_compiler.compile_profile(PROFILE)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The profiles that were compiled, in order."""
    profiles: list[Any] = []
    compile_profile = seccomp_compiler.compile_profile

    def noted(profile: Any) -> bytes:
        profiles.append(profile)
        return compile_profile(profile)

    monkeypatch.setattr(seccomp_compiler, "compile_profile", noted)
    return profiles


def kept(root: Path) -> Path:
    (path,) = (root / FOLDER).iterdir()
    return path


def test_a_filter_is_compiled_once(tmp_path: Path, compiled: list[Any]) -> None:
    assert filter_of(str(tmp_path), PROFILE) == filter_of(str(tmp_path), PROFILE) == FILTER
    assert len(compiled) == 1
    assert (tmp_path / FOLDER).stat().st_mode & 0o777 == 0o700
    assert kept(tmp_path).stat().st_mode & 0o777 == 0o600
    assert filter_of(str(tmp_path), PROFILE | {"defaultAction": "SCMP_ACT_LOG"}) != FILTER


def test_it_is_no_container(tmp_path: Path) -> None:
    filter_of(str(tmp_path), PROFILE)
    assert all_ids(str(tmp_path)) == []


SPOILERS: dict[str, Callable[[Path], None]] = {
    "changed": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x01"),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-8]),
    "empty": lambda path: path.write_bytes(b""),
    "other rights": lambda path: path.chmod(0o620),
    "a link": lambda path: (path.rename(path.parent.parent / "x"), path.symlink_to(path.parent.parent / "x"))[1],
    "a folder": lambda path: (path.unlink(), path.mkdir())[1],
    "a fifo": lambda path: (path.unlink(), os.mkfifo(path))[1],
    "an open folder": lambda path: path.parent.chmod(0o777),
}


@pytest.mark.parametrize("spoil", SPOILERS.values(), ids=SPOILERS)
def test_what_cannot_be_trusted_is_compiled_anew(
    tmp_path: Path, compiled: list[Any], spoil: Callable[[Path], None]
) -> None:
    filter_of(str(tmp_path), PROFILE)
    spoil(kept(tmp_path))
    assert filter_of(str(tmp_path), PROFILE) == FILTER
    assert len(compiled) == 2


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_another_users_file_is_not_believed(tmp_path: Path, compiled: list[Any]) -> None:
    filter_of(str(tmp_path), PROFILE)
    os.chown(kept(tmp_path), 1000, 1000)
    assert filter_of(str(tmp_path), PROFILE) == FILTER
    assert len(compiled) == 2


def test_one_filter_under_the_name_of_another(tmp_path: Path, compiled: list[Any]) -> None:
    open_profile = {"defaultAction": "SCMP_ACT_ALLOW"}
    filter_of(str(tmp_path), PROFILE)
    strict = kept(tmp_path)
    (tmp_path / "other").mkdir()
    filter_of(str(tmp_path / "other"), open_profile)
    strict.write_bytes(kept(tmp_path / "other").read_bytes())
    assert filter_of(str(tmp_path), PROFILE) == FILTER


def test_there_are_not_more_and_more_of_them(tmp_path: Path) -> None:
    for number in range(KEPT + 5):
        filter_of(str(tmp_path), PROFILE | {"defaultErrnoRet": number})
    assert len(list((tmp_path / FOLDER).iterdir())) == KEPT


def test_a_place_that_takes_no_file_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("in the way")
    assert filter_of(str(tmp_path), PROFILE) == FILTER
    assert filter_cache.filter_of("/proc/nosuch", PROFILE) == FILTER
