"""Readings shared by all who watch: one after the other, from files held open as long as someone watches."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from pier.containers import sampler
from pier.kernel.cgroup_files import flat, read_again
from pier.kernel.cgroups import Cgroup

CPU_STAT = "usage_usec {}\nuser_usec 1\nsystem_usec 2\n"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "PERIOD_S", 0.02)


async def running(house: Any, name: str = "web") -> Path:
    """A container that runs; the folder of its cgroup's files, with one of them."""
    monitor = await house.run(name)
    container = house.service._world.containers[monitor.id]
    cgroup: Cgroup = sampler.cgroup_of(house.service._world, container)
    folder = Path(str(cgroup.layout.unified) + cgroup.path)
    folder.mkdir(parents=True)
    (folder / "cpu.stat").write_text(CPU_STAT.format(5))
    return folder


def held(folder: Path) -> list[str]:
    """The files of a cgroup that this process has open."""
    links = [Path(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    return [str(link.readlink()) for link in links if link.is_symlink() and str(folder) in str(link.readlink())]


async def until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def test_each_reading_has_the_one_before(house: Any) -> None:
    folder = await running(house)
    async with aclosing(house.service.stats("web", stream=True, one_shot=False)) as readings:
        first, second = await anext(readings), await anext(readings)
        (folder / "cpu.stat").write_text(CPU_STAT.format(9))
        third = await anext(readings)
        while third["cpu_stats"]["cpu_usage"]["total_usage"] != 9000:
            second, third = third, await anext(readings)
    assert first["preread"] == "0001-01-01T00:00:00Z"
    assert first["precpu_stats"]["cpu_usage"]["total_usage"] == 0
    assert first["cpu_stats"]["cpu_usage"]["total_usage"] == 5000
    assert (third["preread"], third["precpu_stats"]) == (second["read"], second["cpu_stats"])


async def test_all_who_watch_see_the_same_and_files_are_closed_after_them(house: Any) -> None:
    folder = await running(house)
    async with (
        aclosing(house.service.stats("web", stream=True, one_shot=False)) as one,
        aclosing(house.service.stats("web", stream=True, one_shot=False)) as other,
    ):
        assert await anext(one) == await anext(other)
        for _ in range(3):
            mine, yours = await asyncio.gather(anext(one), anext(other))
            assert mine == yours
        assert held(folder) == [str(folder / "cpu.stat")]
    await until(lambda: not held(folder))
    async with aclosing(house.service.stats("web", stream=True, one_shot=False)) as again:
        assert (await anext(again))["preread"] == "0001-01-01T00:00:00Z"


async def test_a_container_that_ends_and_goes(house: Any) -> None:
    folder = await running(house)
    async with aclosing(house.service.stats("web", stream=True, one_shot=False)) as readings:
        reading = await anext(readings)
        await house.service.kill("web", "KILL")
        while reading["cpu_stats"]["cpu_usage"]["total_usage"]:
            reading = await anext(readings)
        assert reading["name"] == "/web"
        assert not held(folder)
        await house.service.remove("web", force=False, volumes=False, link=False)
        async with asyncio.timeout(5):
            assert len([_ async for _ in readings]) <= 1


async def test_a_service_that_closes_leaves_nothing_open(house: Any) -> None:
    folder = await running(house)
    async with aclosing(house.service.stats("web", stream=True, one_shot=False)) as readings:
        await anext(readings)
        await anext(readings)
        await house.service.close()
        assert not held(folder)
        with pytest.raises(StopAsyncIteration):
            await anext(readings)


async def test_one_alone_has_another_before_it_only_where_the_rate_is_asked(house: Any) -> None:
    await running(house)
    [with_rate] = [one async for one in house.service.stats("web", stream=False, one_shot=False)]
    [without] = [one async for one in house.service.stats("web", stream=False, one_shot=True)]
    assert with_rate["precpu_stats"]["cpu_usage"]["total_usage"] == 5000
    assert without["precpu_stats"]["cpu_usage"]["total_usage"] == 0


def test_a_long_file_is_read_whole_each_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x" * 16384)
    fd = os.open(path, os.O_RDONLY)
    assert read_again(fd) == "x" * 16384
    path.write_text("y" * 40_000)
    assert read_again(fd) == "y" * 40_000
    os.close(fd)


@pytest.mark.parametrize(
    ("text", "found"),
    [("", {}), ("a 1\nb -2\n", {"a": 1, "b": -2}), ("a 1\nb max\nc 3\n", {"a": 1, "c": 3}), ("a\nb 2\n", {"b": 2})],
)
def test_flat_keyed_files(text: str, found: dict[str, int]) -> None:
    assert flat(text) == found
