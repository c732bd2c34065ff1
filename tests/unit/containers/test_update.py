"""`docker update`: what is stored, what is written to the cgroup, what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from pier.containers import update
from pier.containers.update import CannotUpdate, UpdateRefused, limits_to_write, merge
from pier.errors import Conflict, InvalidParameter
from pier.kernel.cgroups import Cgroup, ResourceRefused
from pier.model.container import ContainerUpdateRequest
from pier.model.host_config import HostConfig, RestartPolicy, Ulimit

MIB = 1 << 20


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, Any]]:
    """What the kernel would have been told."""
    found: list[Mapping[str, Any]] = []
    monkeypatch.setattr(Cgroup, "update", lambda self, resources: found.append(resources) or [])
    return found


@pytest.mark.parametrize(
    ("before", "asked", "resources"),
    [
        ({}, {"cpu_shares": 512}, {"cpu": {"shares": 512}}),
        ({"cpu_period": 50_000}, {"cpu_quota": 20_000}, {"cpu": {"quota": 20_000, "period": 50_000}}),
        ({"cpu_quota": 20_000}, {"cpu_quota": -1}, {"cpu": {"quota": -1}}),
        ({"nano_cpus": 10**9}, {"nano_cpus": 5 * 10**8}, {"cpu": {"quota": 50_000, "period": 100_000}}),
        (
            {"memory": 64 * MIB, "memory_swap": 128 * MIB},
            {"memory": 32 * MIB},
            {"memory": {"limit": 32 * MIB, "swap": 128 * MIB}},
        ),
        (
            {"memory": 64 * MIB, "memory_swap": 128 * MIB},
            {"memory_swap": -1},
            {"memory": {"limit": 64 * MIB, "swap": -1}},
        ),
        ({"memory": 64 * MIB}, {"memory_reservation": 32 * MIB}, {"memory": {"reservation": 32 * MIB}}),
        ({"cpu_shares": 100}, {"cpuset_cpus": "0"}, {"cpu": {"cpus": "0"}}),
        ({}, {"pids_limit": 50}, {"pids": {"limit": 50}}),
        ({"pids_limit": 50}, {"pids_limit": 0}, {"pids": {"limit": -1}}),
        ({"pids_limit": 50}, {"pids_limit": -7}, {"pids": {"limit": -1}}),
        ({}, {"blkio_weight": 500}, {"blockIO": {"weight": 500}}),
        ({"memory": 64 * MIB}, {"restart_policy": RestartPolicy("always")}, {}),
    ],
)
def test_only_what_is_asked_for_is_written(
    before: dict[str, Any], asked: dict[str, Any], resources: dict[str, Any]
) -> None:
    request = ContainerUpdateRequest(**asked)
    assert limits_to_write(merge(HostConfig(**before), request), request) == resources


@pytest.mark.parametrize(
    ("before", "asked", "words"),
    [
        ({"cpu_period": 5000}, {"nano_cpus": 1}, "Nano CPUs cannot be updated as CPU Period has already been set"),
        ({"cpu_quota": 5000}, {"nano_cpus": 1}, "Nano CPUs cannot be updated as CPU Quota has already been set"),
        ({"nano_cpus": 1}, {"cpu_period": 5000}, "CPU Period cannot be updated as NanoCPUs has already been set"),
        ({"nano_cpus": 1}, {"cpu_quota": 5000}, "CPU Quota cannot be updated as NanoCPUs has already been set"),
        ({}, {"memory": MIB}, "update the memoryswap at the same time"),
        ({"memory": MIB, "memory_swap": -1}, {"memory": 2 * MIB}, "update the memoryswap at the same time"),
        ({"auto_remove": True}, {"restart_policy": RestartPolicy("always")}, "AutoRemove is enabled"),
    ],
)
def test_what_does_not_go_with_what_is_there(before: dict[str, Any], asked: dict[str, Any], words: str) -> None:
    with pytest.raises(Conflict, match=words):
        merge(HostConfig(**before), ContainerUpdateRequest(**asked))


async def test_a_running_container_is_changed_now_and_at_its_next_start(house: Any, written: Any) -> None:
    monitor = await house.run(cpu_shares=100)
    answer = await house.service.update("web", ContainerUpdateRequest(cpu_shares=200, pids_limit=9))
    assert answer.warnings is None
    assert written == [{"cpu": {"shares": 200}, "pids": {"limit": 9}}]
    assert house.actions()[-1] == "update"
    monitor.end(0)
    await house.service.wait("web", "")
    await house.again()
    host = (await house.service.inspect("web", size=False)).host_config
    assert (host.cpu_shares, host.pids_limit) == (200, 9)
    await house.service.start_container("web")
    assert house.runtime.requests[-1].spec["linux"]["resources"]["pids"] == {"limit": 9}


async def test_a_stopped_container_is_changed_in_its_record_alone(house: Any, written: Any) -> None:
    await house.create()
    await house.service.update("web", ContainerUpdateRequest(cpu_shares=200))
    assert written == []
    assert (await house.service.inspect("web", size=False)).host_config.cpu_shares == 200


async def test_what_the_kernel_refuses_is_not_kept(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Cgroup, resources: Mapping[str, Any]) -> None:
        raise ResourceRefused(value="1", file="cpuset.cpus", path=self.path, reason="Permission denied")

    monkeypatch.setattr(Cgroup, "update", refuse)
    monitor = await house.run()
    id = monitor.id
    with pytest.raises(UpdateRefused, match=f"^Cannot update container {id}: failed to write '1' to cpuset.cpus"):
        await house.service.update(
            "web", ContainerUpdateRequest(cpu_shares=200, restart_policy=RestartPolicy("always"))
        )
    host = (await house.service.inspect("web", size=False)).host_config
    assert (host.cpu_shares, host.restart_policy.name) == (0, "no")
    assert house.actions()[-1] == "start"
    await house.again()
    assert (await house.service.inspect("web", size=False)).host_config.cpu_shares == 0


async def test_the_new_restart_policy_decides_the_run_that_goes_on(house: Any) -> None:
    monitor = await house.run()
    await house.service.update("web", ContainerUpdateRequest(restart_policy=RestartPolicy("on-failure", 1)))
    monitor.end(1)
    await house.service.wait("web", "next-exit")
    assert await house.status() == "restarting"


async def test_wrong_values_and_wrong_pairs(house: Any) -> None:
    await house.create(memory=64 * MIB)
    with pytest.raises(InvalidParameter, match="Minimum memory limit allowed is 6MB"):
        await house.service.update("web", ContainerUpdateRequest(memory=-1))
    with pytest.raises(InvalidParameter, match="Requested memory nodes are not available"):
        await house.service.update("web", ContainerUpdateRequest(cpuset_mems="63"))
    with pytest.raises(InvalidParameter, match="unknown policy 'bogus'"):
        await house.service.update("web", ContainerUpdateRequest(restart_policy=RestartPolicy("bogus")))
    with pytest.raises(CannotUpdate, match="Minimum memoryswap limit should be larger than memory limit"):
        await house.service.update("web", ContainerUpdateRequest(memory_swap=32 * MIB))
    assert (await house.service.inspect("web", size=False)).host_config.memory_swap == 128 * MIB


async def test_what_an_update_leaves_alone_is_said(house: Any) -> None:
    await house.create()
    asked = ContainerUpdateRequest(ulimits=[Ulimit("nofile", 5, 5)], kernel_memory=MIB, oom_kill_disable=True)
    assert (await house.service.update("web", asked)).warnings == [
        "Kernel memory limits are deprecated and have no effect: the kernel no longer has them.",
        "OomKillDisable cannot be changed by an update and stays as it is.",
        "Ulimits cannot be changed by an update and stays as it is.",
    ]


def test_every_group_names_fields_there_are() -> None:
    assert set(update.ContainerUpdateRequest.__struct_fields__) >= update.CHANGEABLE
