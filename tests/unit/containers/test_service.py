"""List, inspect, exec and recovery, seen through the service."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import msgspec
import pytest

from pier.errors import InvalidParameter, NotFound, PierError
from pier.model import wire
from pier.model.exec import ExecConfig
from pier.model.filters import Filters
from pier.model.host_config import HostConfig, LogConfig, RestartPolicy
from pier.runtime.request import ExitRecord
from pier.state import Put

DOCKER_28_INSPECT = frozenset(
    "Id Created Path Args State Image ResolvConfPath HostnamePath HostsPath LogPath Name RestartCount Driver Platform "
    "MountLabel ProcessLabel AppArmorProfile ExecIDs HostConfig GraphDriver Mounts Config NetworkSettings".split()
)
DOCKER_28_STATE = frozenset(
    "Status Running Paused Restarting OOMKilled Dead Pid ExitCode Error StartedAt FinishedAt".split()
)


async def listed(house: Any, all: bool = True, limit: int = 0, **terms: str | list[str]) -> list[str]:
    values = {name.replace("_", "-"): tuple([term] if isinstance(term, str) else term) for name, term in terms.items()}
    found = await house.service.list(all=all, limit=limit, size=False, filters=Filters(values))
    return [item.names[0] for item in found]


async def test_inspect_has_dockers_keys(house: Any) -> None:
    await house.run()
    raw = wire.to_builtins(await house.service.inspect("web", size=False))
    assert set(raw) == DOCKER_28_INSPECT | {"ImageManifestDescriptor"}
    assert raw["ImageManifestDescriptor"]["platform"] == {"architecture": "amd64", "os": "linux"}
    assert set(raw["State"]) == DOCKER_28_STATE
    assert raw["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] == "172.17.0.2"
    assert raw["NetworkSettings"]["IPAddress"] == "172.17.0.2"
    assert raw["GraphDriver"]["Data"]["ID"] == raw["Id"]
    assert raw["State"]["FinishedAt"] == "0001-01-01T00:00:00Z"
    assert raw["HostConfig"]["PortBindings"] == {}
    assert raw["HostConfig"]["Binds"] is None


async def test_filters(house: Any) -> None:
    first = await house.create("one", cmd=["true"])
    second = await house.create("two")
    monitor = await house.run("three")
    assert await listed(house) == ["/three", "/two", "/one"]
    assert await listed(house, all=False) == ["/three"]
    assert await listed(house, all=False, limit=2) == ["/three", "/two"]
    assert await listed(house, name="o") == ["/two", "/one"]
    assert await listed(house, name="^/one$") == ["/one"]
    assert await listed(house, id=first[:6]) == ["/one"]
    assert await listed(house, status=["created", "running"]) == ["/three", "/two", "/one"]
    assert await listed(house, before=second) == ["/one"]
    assert await listed(house, since="two") == ["/three"]
    assert await listed(house, label="a=b") == ["/three", "/two", "/one"]
    assert await listed(house, label="a=c") == []
    assert await listed(house, ancestor="bb", status="running") == ["/three"]
    assert await listed(house, ancestor="nosuch") == []
    assert await listed(house, network="bridge") == ["/three", "/two", "/one"]
    assert await listed(house, is_task="true") == []
    assert await listed(house, health="none") == ["/three", "/two", "/one"]
    monitor.end(7)
    await asyncio.sleep(0.02)
    assert await listed(house, all=False, exited="7") == ["/three"]
    assert await listed(house, exited="0") == []


@pytest.mark.parametrize(
    ("terms", "error"),
    [
        ({"foo": "x"}, InvalidParameter),
        ({"status": "asleep"}, InvalidParameter),
        ({"exited": "many"}, InvalidParameter),
        ({"before": "nosuch"}, NotFound),
        ({"publish": "a-b"}, InvalidParameter),
    ],
)
async def test_bad_filters(house: Any, terms: dict[str, str], error: type[PierError]) -> None:
    with pytest.raises(error):
        await listed(house, **terms)


async def test_exec(house: Any) -> None:
    monitor = await house.run()
    id = await house.service.exec_create(
        "web", ExecConfig(cmd=["id", "-u"], user="5:6", env=["A=1"], attach_stdout=True, tty=True)
    )
    assert (await house.service.inspect("web", size=False)).exec_ids == [id]
    house.service.exec_prepare(id)
    while not monitor.prepared:
        await asyncio.sleep(0)
    attached = await house.service.exec_start(id, detach=False, tty=True, console_size=(24, 80))
    assert attached is not None
    assert attached.tty
    attached.sock.close()
    (prepared,) = monitor.prepared
    assert prepared.exec_id == id
    assert prepared.process["args"] == ["id", "-u"]
    request = monitor.exec_requests[0]
    assert (request.user, request.process["args"], request.process["cwd"]) == ("5:6", ["id", "-u"], "/")
    assert request.process["env"][-2:] == ["TERM=xterm", "A=1"]
    assert request.process["consoleSize"] == {"height": 24, "width": 80}
    assert "inheritable" not in request.process["capabilities"]
    answer = await house.service.exec_inspect(id)
    assert (answer.running, answer.pid, answer.exit_code) == (True, 4300, None)
    with pytest.raises(PierError, match="already running"):
        await house.service.exec_start(id, detach=True, tty=False, console_size=None)
    house.service.exec_detached(id)
    monitor.execs[id].set_result(ExitRecord(3, 1))
    await asyncio.sleep(0.01)
    answer = await house.service.exec_inspect(id)
    assert (answer.running, answer.exit_code) == (False, 3)
    assert (await house.service.inspect("web", size=False)).exec_ids is None
    assert house.actions()[-4:] == ["exec_create: id -u", "exec_start: id -u", "exec_detach", "exec_die"]
    with pytest.raises(PierError, match="already run"):
        await house.service.exec_start(id, detach=True, tty=False, console_size=None)


async def test_exec_needs_a_running_container_and_a_command(house: Any) -> None:
    id = await house.create()
    with pytest.raises(PierError, match=f"container {id} is not running"):
        await house.service.exec_create("web", ExecConfig(cmd=["x"]))
    await house.service.start_container("web")
    with pytest.raises(InvalidParameter, match="No exec command specified"):
        await house.service.exec_create("web", ExecConfig())
    with pytest.raises(InvalidParameter, match="Cwd must be an absolute path"):
        await house.service.exec_create("web", ExecConfig(cmd=["x"], working_dir="foo"))
    with pytest.raises(NotFound, match="No such exec instance: nosuch"):
        await house.service.exec_inspect("nosuch")


async def test_an_exec_runs_as_the_containers_user(house: Any) -> None:
    monitor = await house.run()
    house.service._find("web").record.config.user = "7"
    id = await house.service.exec_create("web", ExecConfig(cmd=["x"]))
    assert await house.service.exec_start(id, detach=True, tty=False, console_size=None) is None
    assert monitor.exec_requests[0].user == "7"


async def test_attack_26_a_new_daemon_finds_what_runs(house: Any) -> None:
    monitor = await house.run()
    repaired = await house.again()
    assert repaired == [f"container web: found running again, pid {monitor.pid}"]
    assert await house.status() == "running"
    monitor.end(4)
    await asyncio.sleep(0.02)
    assert (await house.service.inspect("web", size=False)).state.exit_code == 4


async def test_attack_26_what_ended_meanwhile_tells_by_its_exit_file(house: Any) -> None:
    monitor = await house.run()
    await house.service.close()
    with open(house.config.exit_file(monitor.id), "wb") as file:
        file.write(ExitRecord(9, 1_700_000_005_000_000_000).to_json())
    monitor.end(9)
    assert await house.again() == ["container web: ended while no daemon ran, exit code 9"]
    state = (await house.service.inspect("web", size=False)).state
    assert (state.status, state.exit_code, state.finished_at) == ("exited", 9, "2023-11-14T22:13:25Z")
    assert house.networks.sandboxes == {}


async def test_attack_26_a_killed_monitor_counts_as_killed(house: Any) -> None:
    monitor = await house.run()
    await house.service.close()
    monitor.end(0)
    await house.again()
    assert (await house.service.inspect("web", size=False)).state.exit_code == 137


async def test_attack_26_removal_is_finished(house: Any) -> None:
    monitor = await house.run(auto_remove=True)
    await house.service.close()
    monitor.end(0)
    repaired = await house.again()
    assert repaired[-1] == "container web: its removal is finished"
    assert house.store.records == {}
    assert house.snapshots.made == set()


async def test_attack_26_leftovers_are_freed(house: Any) -> None:
    known, stranger = await house.create(), "cd" * 32
    os.makedirs(house.config.container_dir(stranger))
    os.makedirs(house.config.exec_dir(stranger))
    house.snapshots.made.add(stranger)
    assert len(await house.again()) == 2
    assert os.listdir(f"{house.config.data_root}/containers") == [known]
    assert house.snapshots.made == {known}


async def test_attack_26_a_damaged_record_is_dropped(house: Any) -> None:
    await house.store.write(Put("container", "ef" * 32, b"{not json"))
    assert await house.again() == ["container efefefefefef: its record was damaged and is dropped"]
    assert house.store.records == {}


async def test_policies_start_what_should_run(house: Any) -> None:
    always = await house.run("always", restart_policy=RestartPolicy(name="always"))
    stopped = await house.run("stopped", restart_policy=RestartPolicy(name="unless-stopped"))
    await house.service.stop("stopped")
    await house.service.close()
    always.end(0)
    assert stopped.signals == [15]
    await house.again()
    await asyncio.sleep(0.05)
    assert await house.status("always") == "running"
    assert await house.status("stopped") == "exited"


async def test_records_survive_their_own_encoding(house: Any) -> None:
    await house.create()
    record = house.service._find("web").record
    assert type(record).decode(record.put().value) == record
    assert isinstance(msgspec.json.decode(record.put().value), dict)
    assert isinstance(record.host_config, HostConfig)


async def test_logs_of_none_cannot_be_read(house: Any) -> None:
    await house.create(log_config=LogConfig(type="none"))
    with pytest.raises(PierError, match="does not support reading"):
        house.service.logs(
            "web",
            stdout=True,
            stderr=True,
            follow=False,
            since_ns=0,
            until_ns=0,
            timestamps=False,
            tail=None,
            details=False,
        )
