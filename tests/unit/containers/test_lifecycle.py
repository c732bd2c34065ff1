from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from pier.containers import removal
from pier.containers.lifecycle import end_now, start
from pier.containers.world import Container, World
from pier.errors import Conflict, InvalidParameter, NotFound, PierError
from pier.kernel.cgroups import Cgroup
from pier.model.container import ContainerCreateRequest
from pier.model.host_config import RestartPolicy
from pier.runtime.client import StartFailed


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0.002)


async def test_a_run_is_told_from_create_to_die(house: Any) -> None:
    monitor = await house.run()
    assert await house.status() == "running"
    waiting = house.service.wait("web", "")
    monitor.end(5)
    assert (await waiting).status_code == 5
    await settle()
    state = (await house.service.inspect("web", size=False)).state
    assert (state.status, state.exit_code, state.running, state.pid) == ("exited", 5, False, 0)
    assert house.actions() == ["create", "start", "die"]
    assert house.networks.sandboxes == {}


async def test_start_twice_is_no_change(house: Any) -> None:
    await house.run()
    assert await house.service.start_container("web") is False
    assert len(house.runtime.requests) == 1


async def test_a_failed_start_leaves_it_created_with_the_reason(house: Any) -> None:
    await house.create()
    house.runtime.fail = StartFailed('exec: "web": executable file not found in $PATH', 127)
    with pytest.raises(StartFailed):
        await house.service.start_container("web")
    state = (await house.service.inspect("web", size=False)).state
    assert (state.status, state.exit_code, state.running) == ("created", 127, False)
    assert "executable file not found in $PATH" in state.error
    assert house.networks.sandboxes == {}
    house.runtime.fail = None
    assert await house.service.start_container("web")


async def test_a_failed_start_removes_what_removes_itself(house: Any) -> None:
    await house.create(auto_remove=True)
    removed = asyncio.ensure_future(house.service.wait("web", "removed"))
    await asyncio.sleep(0)
    house.runtime.fail = StartFailed("no", 126)
    with pytest.raises(StartFailed):
        await house.service.start_container("web")
    assert (await removed).status_code == 126
    assert house.store.records == {}
    assert house.snapshots.made == set()


async def test_auto_remove_wakes_with_the_exit_code(house: Any) -> None:
    monitor = await house.run(auto_remove=True)
    removed = house.service.wait("web", "removed")
    monitor.end(3)
    assert (await removed).status_code == 3
    assert house.actions()[-2:] == ["die", "destroy"]
    with pytest.raises(NotFound, match="No such container: web"):
        await house.service.inspect("web", size=False)


async def test_stop_is_gentle_then_not(house: Any) -> None:
    monitor = await house.run()
    monitor.deaf.add(15)
    assert await house.service.stop("web", timeout_s=0)
    assert monitor.signals == [15, 9]
    assert (await house.service.inspect("web", size=False)).state.exit_code == 137
    assert await house.service.stop("web") is False


async def test_stop_signal_and_kill_signal(house: Any) -> None:
    monitor = await house.run()
    await house.service.kill("web", "SIGUSR1")
    await house.service.stop("web", signal="KILL")
    assert monitor.signals == [10, 9]


@pytest.mark.parametrize(
    ("ref", "signal", "status", "text"),
    [
        ("nosuch", "", 404, "cannot kill container: nosuch: No such container: nosuch"),
        ("web", "FOO", 400, "cannot kill container: web: invalid signal: FOO"),
        ("web", "", 409, "cannot kill container: web: container {id} is not running"),
    ],
)
async def test_kill_in_dockers_words(house: Any, ref: str, signal: str, status: int, text: str) -> None:
    id = await house.create()
    with pytest.raises(PierError) as caught:
        await house.service.kill(ref, signal)
    assert (caught.value.status, caught.value.message) == (status, text.format(id=id))


async def test_force_removes_what_a_restart_brings_back(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The restart's start comes between the removal's kill and its look at what is left."""
    await house.run()
    tries = 0

    async def end_and_restart(world: World, container: Container) -> None:
        nonlocal tries
        tries += 1
        await end_now(world, container)
        if tries == 1:
            await start(world, container)

    monkeypatch.setattr(removal, "end_now", end_and_restart)
    await house.service.remove("web", force=True, volumes=False, link=False)
    assert tries == 2
    assert house.store.records == {}


async def test_remove_of_a_running_one_needs_force(house: Any) -> None:
    await house.run()
    with pytest.raises(Conflict) as caught:
        await house.service.remove("web", force=False, volumes=False, link=False)
    assert caught.value.message == (
        'cannot remove container "web": container is running: stop the container before removing or force remove'
    )
    await house.service.remove("web", force=True, volumes=True, link=False)
    assert house.store.records == {}
    assert house.actions()[-2:] == ["die", "destroy"]


async def test_restart_policy_counts_and_ends(house: Any) -> None:
    monitor = await house.run(restart_policy=RestartPolicy(name="on-failure", maximum_retry_count=1))
    monitor.end(1)
    await asyncio.sleep(0.01)
    assert await house.status() == "restarting"
    await asyncio.sleep(0.15)
    assert await house.status() == "running"
    id = (await house.service.inspect("web", size=False)).id
    house.monitor(id).end(1)
    await settle()
    answer = await house.service.inspect("web", size=False)
    assert (answer.state.status, answer.restart_count) == ("exited", 1)


async def test_stop_ends_the_wait_for_a_restart(house: Any) -> None:
    monitor = await house.run(restart_policy=RestartPolicy(name="always"))
    monitor.end(0)
    await settle()
    assert await house.service.stop("web")
    await asyncio.sleep(0.15)
    assert await house.status() == "exited"
    assert len(house.runtime.requests) == 1


async def test_restart_keeps_what_would_remove_itself(house: Any) -> None:
    await house.run(auto_remove=True)
    await house.service.restart("web", timeout_s=0)
    assert await house.status() == "running"
    assert house.actions()[-1] == "restart"


async def test_rename_moves_the_name(house: Any) -> None:
    await house.create("aa")
    await house.create("bb")
    with pytest.raises(Conflict, match="Error when allocating new name: Conflict"):
        await house.service.rename("aa", "bb")
    with pytest.raises(InvalidParameter, match="same name"):
        await house.service.rename("aa", "aa")
    with pytest.raises(InvalidParameter, match=r"allocating new name: Invalid container name \(/a b\), only"):
        await house.service.rename("aa", "a b")
    await house.service.rename("aa", "cc")
    await house.create("aa")
    assert (await house.service.inspect("cc", size=False)).name == "/cc"


async def test_clients_that_came_before_the_start_are_handed_over(house: Any) -> None:
    await house.create()
    attached = await house.service.attach("web", stdin=True, stdout=True, stderr=True, stream=True, logs=False)
    await house.service.start_container("web")
    assert house.runtime.ends == [1]
    attached.sock.close()
    later = await house.service.attach("web", stdin=False, stdout=True, stderr=False, stream=True, logs=False)
    assert await asyncio.get_running_loop().sock_recv(later.sock, 100) == b"attached"
    later.sock.close()


async def test_a_cancelled_start_is_finished_and_watched(house: Any) -> None:
    id = await house.create()
    house.runtime.pause_s = 0.05
    starting = asyncio.create_task(house.service.start_container("web"))
    await asyncio.sleep(0.01)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert await house.status() == "running"
    house.monitor(id).end(0)
    await settle()
    assert await house.status() == "exited"


async def test_oom_is_told(house: Any) -> None:
    monitor = await house.run()
    monitor.end(137, oom=True)
    await settle()
    assert house.actions()[-2:] == ["oom", "die"]
    assert (await house.service.inspect("web", size=False)).state.oom_killed


async def test_wait_checks_its_condition_at_the_call(house: Any) -> None:
    await house.create()
    with pytest.raises(InvalidParameter, match="invalid condition"):
        house.service.wait("web", "sometime")


async def test_attack_15_labels_do_not_hide_the_engines_attributes(house: Any) -> None:
    await house.create("honest")
    event = house.events._history[-1]
    assert event.actor.attributes == {"a": "b", "image": "bb", "name": "honest"}


async def test_a_client_that_comes_while_it_starts_is_attached_too(house: Any) -> None:
    await house.create()
    house.runtime.pause_s = 0.05
    starting = asyncio.create_task(house.service.start_container("web"))
    while not house.runtime.requests:
        await asyncio.sleep(0.001)
    attached = await house.service.attach("web", stdin=False, stdout=True, stderr=True, stream=True, logs=False)
    await starting
    assert await asyncio.get_running_loop().sock_recv(attached.sock, 100) == b"attached"
    attached.sock.close()


async def test_waiting_clients_are_let_go_when_the_start_fails(house: Any) -> None:
    await house.create()
    attached = await house.service.attach("web", stdin=False, stdout=True, stderr=True, stream=True, logs=False)
    house.runtime.fail = StartFailed("no", 127)
    with pytest.raises(StartFailed):
        await house.service.start_container("web")
    assert await asyncio.get_running_loop().sock_recv(attached.sock, 100) == b""
    attached.sock.close()


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What became of the freezer."""
    done: list[str] = []
    monkeypatch.setattr(Cgroup, "freeze", lambda self: done.append("freeze"))
    monkeypatch.setattr(Cgroup, "thaw", lambda self: done.append("thaw"))
    return done


async def test_pause_and_unpause(house: Any, frozen: list[str]) -> None:
    await house.run()
    with pytest.raises(Conflict, match="is not paused"):
        await house.service.unpause("web")
    await house.service.pause("web")
    with pytest.raises(Conflict, match="is already paused"):
        await house.service.pause("web")
    with pytest.raises(Conflict, match=r"container is paused and must be unpaused first$"):
        await house.service.remove("web", force=False, volumes=False, link=False)
    with pytest.raises(Conflict, match="cannot start a paused container"):
        await house.service.start_container("web")
    await house.again()
    assert await house.status() == "paused"
    await house.service.unpause("web")
    assert frozen == ["freeze", "thaw"]
    assert house.actions()[-2:] == ["pause", "unpause"]


async def test_a_client_that_leaves_does_not_leave_a_container_half_paused(
    house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on, may_end = threading.Event(), threading.Event()

    def freeze(self: Cgroup) -> None:
        going_on.set()
        may_end.wait(5)

    monkeypatch.setattr(Cgroup, "freeze", freeze)
    await house.run()
    pausing = asyncio.ensure_future(house.service.pause("web"))
    await asyncio.to_thread(going_on.wait, 5)
    pausing.cancel()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await pausing
    assert await house.status() == "paused"


@pytest.mark.parametrize(
    ("stop_signal", "sent", "wakes"),
    [("", "HUP", True), ("", "TERM", True), ("HUP", "TERM", False), ("HUP", "HUP", True), ("HUP", "KILL", True)],
)
async def test_which_signal_wakes_a_paused_container(
    house: Any, frozen: list[str], stop_signal: str, sent: str, wakes: bool
) -> None:
    monitor = await house.run()
    house.service._find("web").record.config.stop_signal = stop_signal
    monitor.deaf = {1, 15}
    await house.service.pause("web")
    await house.service.kill("web", sent)
    assert (frozen[-1] == "thaw") is wakes
    assert ("unpause" in house.actions()) is (wakes and sent != "KILL"), "as Docker tells it"


async def test_what_is_paused_gets_its_signal_before_it_goes_on(house: Any, frozen: list[str]) -> None:
    monitor = await house.run()
    await house.service.pause("web")
    monitor.deaf = {15}
    stopping = asyncio.ensure_future(house.service.stop("web", timeout_s=0))
    assert await stopping
    assert monitor.signals == [15, 9]
    assert house.actions()[2:] == ["pause", "kill", "unpause", "kill", "die", "stop"]


async def test_what_waits_for_its_restart_takes_no_pause(house: Any) -> None:
    monitor = await house.run(restart_policy=RestartPolicy(name="always"))
    monitor.end(1)
    await house.service.wait("web", "next-exit")
    assert await house.status() == "restarting"
    with pytest.raises(Conflict, match="is restarting, wait until the container is running"):
        await house.service.pause("web")


async def test_trap_28_declared_data_is_not_removed_unasked(house: Any, tmp_path: Path) -> None:
    """Of a container that an older daemon made: there the data is in the container's own layer."""
    own, image = tmp_path / "own", tmp_path / "image"
    for tree, size in ((own, 3_000_000), (image, 500_000)):
        (tree / "data").mkdir(parents=True)
        (tree / "data/file").write_bytes(b"x" * size)
    house.snapshots.trees = (own, image)
    body = ContainerCreateRequest(image="bb", volumes={"/data/": {}, "/none": {}})
    id = (await house.service.create(body, name="web", platform="")).id
    house.service._find(id).record.mounts = []
    with pytest.raises(Conflict, match=r"2\.5 MB in /data would be lost"):
        await house.service.remove("web", force=False, volumes=False, link=False, keep_data=True)
    assert await house.status() == "created"
    (own / "data/file").write_bytes(b"")
    await house.service.remove("web", force=False, volumes=False, link=False, keep_data=True)
    assert {kind for kind, _ in house.store.records} == {"volume"}
