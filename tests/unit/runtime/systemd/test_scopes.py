"""Scopes of systemd's, against a peer that answers as systemd does. `tests/vm/systemd` has systemd itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pier.kernel import cgroup_files
from pier.kernel.cgroup_layout import Layout
from pier.kernel.cgroups import Cgroup
from pier.runtime.group import group_at
from pier.runtime.systemd import scopes
from pier.runtime.systemd.dbus_wire import Variant
from pier.runtime.systemd.scopes import Manager, NoSystemd, Scope, SystemdRefused
from pier.runtime.systemd.units import ScopeName

from .fake_systemd import JOB, FakeSystemd, fake_systemd, job_removed, refuses, returns

NAME = ScopeName("pier.slice", "pier-one.scope")


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeSystemd]:
    with fake_systemd(tmp_path / "private") as made:
        yield made


@pytest.fixture
def manager(fake: FakeSystemd) -> Iterator[Manager]:
    made = Manager(fake.sockets)
    yield made
    made.close()


@pytest.fixture
def scope(fake: FakeSystemd, tmp_path: Path) -> Scope:
    """In a folder that looks like a cgroup2 mount, with the files that are written."""
    folder = tmp_path / "cgroup"
    inside = folder / NAME.path.lstrip("/")
    inside.mkdir(parents=True)
    for name in ("pids.max", "cpu.max", "memory.max"):
        (inside / name).write_text("")
    for level in (folder, folder / "pier.slice", inside):
        (level / "cgroup.controllers").write_text("cpu memory pids")
        (level / "cgroup.subtree_control").write_text("cpu memory pids")
        (level / "cgroup.procs").write_text("")
    layout = Layout("v2", dict.fromkeys(("cpu", "memory", "pids"), str(folder)), (str(folder),), str(folder))
    return Scope(layout, NAME, connect=lambda: Manager(fake.sockets))


def test_version(manager: Manager) -> None:
    assert manager.version() == 252


def test_a_start_waits_for_its_own_job(fake: FakeSystemd, manager: Manager) -> None:
    manager.start_scope(NAME, [("PIDs", Variant("au", [7]))])
    (call,) = fake.called("StartTransientUnit")
    assert call.signature == "ssa(sv)a(sa(sv))"
    assert call.body == ["pier-one.scope", "replace", [["PIDs", Variant("au", [7])]], []]


def test_a_job_that_fails_is_an_error_and_the_unit_forgotten(fake: FakeSystemd, manager: Manager) -> None:
    fake.answers["StartTransientUnit"] = [lambda fake, call: [returns("o", JOB), job_removed(call.body[0], "failed")]]
    with pytest.raises(SystemdRefused, match=r"start unit pier-one\.scope: systemd says: its job ended with 'failed'"):
        manager.start_scope(NAME, [])
    assert [call.body for call in fake.called("ResetFailedUnit")] == [["pier-one.scope"]]


def test_a_unit_of_that_name_that_goes_is_waited_for(fake: FakeSystemd, manager: Manager) -> None:
    fake.answers["StartTransientUnit"] = [
        lambda fake, call: [refuses("systemd1.UnitExists", "it exists")],
        lambda fake, call: [refuses("systemd1.UnitExists", "it exists")],
        lambda fake, call: [returns("o", JOB), job_removed(call.body[0])],
    ]
    manager.start_scope(NAME, [])
    assert len(fake.called("ResetFailedUnit")) == 2


def test_a_unit_of_that_name_that_stays_is_an_error(
    fake: FakeSystemd, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scopes, "GONE_S", 0.01)
    fake.answers["StartTransientUnit"] = [lambda fake, call: [refuses("systemd1.UnitExists", "it exists")]]
    with pytest.raises(SystemdRefused, match="systemd says: it exists"):
        manager.start_scope(NAME, [])


def test_stopping_what_is_not_there_is_well(fake: FakeSystemd, manager: Manager) -> None:
    for member in ("StopUnit", "ResetFailedUnit"):
        fake.answers[member] = [lambda fake, call: [refuses("systemd1.NoSuchUnit", "not loaded")]]
    manager.stop(NAME)
    fake.answers["StopUnit"] = [lambda fake, call: [refuses("DBus.Error.AccessDenied", "not you")]]
    with pytest.raises(SystemdRefused, match="not you"):
        manager.stop(NAME)


def test_a_change_is_over_when_systemd_looks_up_again(fake: FakeSystemd, manager: Manager) -> None:
    manager.set_properties(NAME, [("TasksMax", Variant("t", 5))])
    assert [call.member for call in fake.calls] == ["SetUnitProperties", "Ping"]
    assert fake.calls[0].body == ["pier-one.scope", True, [["TasksMax", Variant("t", 5)]]]


def test_without_systemd_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(NoSystemd) as caught:
        Manager([(str(tmp_path / "none"), False)])
    assert caught.value.wire.startswith(f"systemd cannot be reached: {tmp_path}/none: No such file or directory (the ")
    assert "native.cgroupdriver=cgroupfs" in caught.value.wire


def test_the_next_socket_is_tried_and_a_bus_asked_for_signals(fake: FakeSystemd, tmp_path: Path) -> None:
    manager = Manager([(str(tmp_path / "none"), False), (str(fake.path), True)])
    assert [call.member for call in fake.calls] == ["Hello", "AddMatch", "Subscribe"]
    manager.close()


# --- the scope as a cgroup -------------------------------------------------------------------------------------------


def test_a_scope_is_made_around_its_process(fake: FakeSystemd, scope: Scope) -> None:
    scope.create_around(os.getpid())
    properties = dict(fake.called("StartTransientUnit")[0].body[2])
    assert properties["Slice"] == Variant("s", "pier.slice")
    assert properties["PIDs"] == Variant("au", [os.getpid()])
    assert properties["Delegate"] == Variant("b", True)
    assert properties["DefaultDependencies"] == Variant("b", False)
    assert properties["IOAccounting"] == Variant("b", True)
    assert (Path(scope.layout.hierarchies[0] + scope.path) / "cgroup.procs").read_text() == str(os.getpid())


def test_a_process_makes_the_scope_around_itself(fake: FakeSystemd, scope: Scope) -> None:
    scope.create_unified()
    assert fake.calls == []
    scope.create()
    assert ["PIDs", Variant("au", [os.getpid()])] in fake.called("StartTransientUnit")[0].body[2]


def test_what_cannot_be_made_beside_it_stops_it(
    fake: FakeSystemd, scope: Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup_files, "make", _fail)
    with pytest.raises(OSError, match="no room"):
        scope.create_around(os.getpid())
    assert [call.body[0] for call in fake.called("StopUnit")] == ["pier-one.scope"]


def _fail(mount: str, directory: str) -> bool:
    raise OSError(28, "no room")


def test_limits_go_to_systemd_and_then_into_the_files(fake: FakeSystemd, scope: Scope) -> None:
    folder = Path(scope.layout.hierarchies[0] + scope.path)
    files: list[str] = []
    fake.answers["Ping"] = [lambda fake, call: [files.append((folder / "pids.max").read_text()), returns()][1:]]
    assert scope.apply({"pids": {"limit": 9}}) == []
    assert files == [""], "what systemd writes must not come after what is exact"
    assert (folder / "pids.max").read_text() == "9"
    assert scope.update({"cpu": {"quota": 1234, "period": 10_000}}) == []
    assert (folder / "cpu.max").read_text() == "1234 10000"
    assert ["CPUQuotaPerSecUSec", Variant("t", 130_000)] in fake.called("SetUnitProperties")[-1].body[2]


def test_nothing_to_say_is_not_said(fake: FakeSystemd, scope: Scope) -> None:
    scope.apply({})
    assert fake.called("SetUnitProperties") == []


def test_the_end_of_the_cgroup_is_the_end_of_the_unit(
    fake: FakeSystemd, scope: Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup_files, "remove", lambda directory: True)
    scope.remove()
    assert [call.member for call in fake.calls] == ["StopUnit", "ResetFailedUnit"]


def test_which_cgroup_a_path_means(scope: Scope) -> None:
    assert type(group_at(scope.layout, "/a:b:c")) is Cgroup
    made = group_at(scope.layout, "a-b.slice:pier:x", {"org.systemd.property.Some": "true", "else": "1"})
    assert isinstance(made, Scope)
    assert (made.path, made._properties) == ("/a.slice/a-b.slice/pier-x.scope", [("Some", Variant("b", True))])
