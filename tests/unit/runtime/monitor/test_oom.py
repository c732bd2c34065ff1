"""The count of out-of-memory kills, as the end of a container finds it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pier.kernel.cgroup_layout import Layout
from pier.kernel.cgroups import Cgroup
from pier.runtime.monitor.oom import OomWatch
from pier.runtime.monitor.poll import Poller


class Scope(Cgroup):
    """Removed by systemd as soon as it is empty."""

    made_around_a_process = True


def events(folder: Path, kills: int) -> None:
    (folder / "memory.events").write_text(f"oom 0\noom_kill {kills}\n")


def watched(root: Path, kind: type[Cgroup]) -> tuple[Path, OomWatch]:
    leaf = root / "a.slice/one"
    leaf.mkdir(parents=True)
    events(leaf, 0)
    events(leaf.parent, 5)
    layout = Layout("v2", {"memory": str(root)}, (str(root),), str(root))
    watch = OomWatch(Poller(), kind(layout, "/a.slice/one"), lambda: None)
    assert not watch.count()
    return leaf, watch


def remove(leaf: Path) -> None:
    (leaf / "memory.events").unlink()
    leaf.rmdir()


def test_the_last_kill_of_a_scope_that_is_gone_is_in_the_slices_count(tmp_path: Path) -> None:
    leaf, watch = watched(tmp_path, Scope)
    remove(leaf)
    events(leaf.parent, 6)
    assert watch.count()
    assert not watch.count()


def test_a_scope_that_is_killed_and_gone_before_the_first_look(tmp_path: Path) -> None:
    (tmp_path / "a.slice").mkdir()
    events(tmp_path / "a.slice", 5)
    layout = Layout("v2", {"memory": str(tmp_path)}, (str(tmp_path),), str(tmp_path))
    told: list[int] = []
    watch = OomWatch(Poller(), Scope(layout, "/a.slice/one"), lambda: told.append(1))
    events(tmp_path / "a.slice", 6)
    watch.open()
    assert told == [1]


def test_a_kill_while_the_counts_are_read_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaf, watch = watched(tmp_path, Scope)
    real, looks = Scope.oom_kills, []

    def killed_meanwhile(scope: Scope) -> int:
        found = real(scope)
        if not looks:
            looks.append(found)
            events(leaf, 1)
            events(leaf.parent, 6)
        return found

    monkeypatch.setattr(Scope, "oom_kills", killed_meanwhile)
    assert watch.count()
    remove(leaf)
    assert not watch.count()


def test_the_count_of_a_slice_that_was_made_anew_begins_at_0(tmp_path: Path) -> None:
    leaf, watch = watched(tmp_path, Scope)
    remove(leaf)
    events(leaf.parent, 1)
    assert watch.count()
    assert not watch.count()


def test_a_scope_that_is_gone_without_a_kill(tmp_path: Path) -> None:
    leaf, watch = watched(tmp_path, Scope)
    remove(leaf)
    assert not watch.count()


def test_a_kill_in_another_scope_is_not_ours(tmp_path: Path) -> None:
    leaf, watch = watched(tmp_path, Scope)
    events(leaf.parent, 6)
    assert not watch.count()
    remove(leaf)
    assert not watch.count()


def test_what_was_counted_stays_when_the_cgroup_goes(tmp_path: Path) -> None:
    leaf, watch = watched(tmp_path, Cgroup)
    events(leaf, 2)
    watch._look()
    remove(leaf)
    events(leaf.parent, 6)
    assert watch.count()
    assert not watch.count()
