"""A flush by others is noticed and put right, in a network namespace of the test's own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Any, TypeVar

import pytest

from netlab import WAIT_S, Machine, machines
from pier.kernel.nftables import Nftables, NftablesError
from pier.networks.bridge_options import BridgeNetwork
from pier.networks.firewall import Forward
from pier.networks.guard import FirewallGuard
from pier.networks.host import HostSide, NetworkConfig
from pier.networks.ipam import Subnet

pytestmark = pytest.mark.root

T = TypeVar("T")
FOUR = Subnet(ip_network("10.10.0.0/24"), ip_address("10.10.0.1"))
WEB = Forward("tcp", "0.0.0.0", 8080, "10.10.0.2", 80, "br-web")


@dataclass
class Told:
    """What the guard told of, and a way to wait for it."""

    worker: ThreadPoolExecutor
    words: list[str] = field(default_factory=list)
    event: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, words: str) -> None:
        self.words.append(words)
        self.event.set()

    async def next(self) -> str:
        async with asyncio.timeout(WAIT_S):
            await self.event.wait()
        self.event.clear()
        return self.words[-1]


async def scene(worker: ThreadPoolExecutor, deed: Callable[[HostSide, Told], Any]) -> None:
    """A host side with one network and one published port, guarded."""
    loop = asyncio.get_running_loop()

    async def work(blocking: Callable[[], T]) -> T:
        return await loop.run_in_executor(worker, blocking)

    side, told = HostSide(NetworkConfig()), Told(worker)
    network = BridgeNetwork("1" * 64, "br-web", (FOUR,))
    assert await work(lambda: side.start([network], [WEB])) == []
    guard = FirewallGuard(side, work, told)
    await guard.start()
    try:
        await deed(side, told)
    finally:
        await guard.close()
        await work(side.close)


def played(host: Machine, deed: Callable[[HostSide, Told], Any]) -> None:
    """Run a scene with its loop in a thread of the host's, its kernel work in another: threads of a thread's start
    in its network namespace."""

    def run() -> None:
        with ThreadPoolExecutor(1) as worker:
            asyncio.run(scene(worker, deed))

    host.run(run)


async def put_right(commands: str, told: Told) -> None:
    nft = Nftables()
    before = nft.run("list table inet pier")
    nft.run(commands)
    words = await told.next()
    assert re.fullmatch(r"inet pier was changed or removed by others \(.+, pid \d+\): put in place again", words)
    assert nft.run("list table inet pier") == before
    nft.close()


@pytest.mark.parametrize("commands", ["flush ruleset", "delete table inet pier"])
def test_trap_11_a_flush_by_others_is_noticed_and_put_right(commands: str) -> None:
    with machines(1) as (host,):
        played(host, lambda _, told: put_right(commands, told))


@pytest.mark.parametrize("commands", ["flush chain inet pier guard", "flush map inet pier into"])
def test_attack_21_a_hole_in_the_isolation_is_closed(commands: str) -> None:
    with machines(1) as (host,):
        played(host, lambda _, told: put_right(commands, told))


def test_trap_11_a_repair_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pier.networks.guard.AGAIN_S", 0.01)
    failures = [NftablesError(reason="Device or resource busy", text="")]
    repair = HostSide.repair

    def fails_once(side: HostSide, changed: Collection[str], by: str) -> list[str]:
        if failures:
            raise failures.pop()
        return repair(side, changed, by)

    monkeypatch.setattr(HostSide, "repair", fails_once)

    async def deed(side: HostSide, told: Told) -> None:
        nft = Nftables()
        nft.run("flush ruleset")
        while "put in place again" not in (words := await told.next()) or "cannot" in words:
            pass
        assert told.words[0] == "pier was changed by others and cannot be put right: nftables: Device or resource busy"
        assert "publish4_any" in nft.run("list table inet pier")
        nft.close()

    with machines(1) as (host,):
        played(host, deed)


def test_two_daemons_with_one_table_are_told_apart() -> None:
    async def deed(side: HostSide, told: Told) -> None:
        repaired = partial(side.repair, {"pier"}, "pierd, pid 7")
        (words,) = await asyncio.get_running_loop().run_in_executor(told.worker, repaired)
        assert "by others (pierd, pid 7): put in place again; two Pier daemons with one default bridge" in words

    with machines(1) as (host,):
        played(host, deed)


def test_what_pier_does_itself_is_no_alarm() -> None:
    other = BridgeNetwork("2" * 64, "br-two", (Subnet(ip_network("10.11.0.0/24"), ip_address("10.11.0.1")),))
    dns = Forward("udp", "127.0.0.1", 53, "10.11.0.2", 53, "br-two")

    async def deed(side: HostSide, told: Told) -> None:
        nft = Nftables()
        deeds = [
            lambda: side.add(other),
            lambda: side.publish([dns]),
            lambda: side.repair({"pier"}),
            lambda: side.remove(other),
        ]
        for own in deeds:
            await asyncio.get_running_loop().run_in_executor(told.worker, own)
        nft.run("add table inet somebody-else")
        nft.run("flush chain inet pier forward")
        await told.next()
        assert len(told.words) == 1
        nft.close()

    with machines(1) as (host,):
        played(host, deed)


@pytest.mark.parametrize(
    ("commands", "chain"),
    [
        ("add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }",
         "ip filter FORWARD"),
        ("flush ruleset; add table inet fw; add chain inet fw f { type filter hook forward priority 0; policy drop; }",
         "inet fw f"),
    ],
)  # fmt: skip
def test_trap_11_a_firewall_that_comes_later_is_told_of_containers(
    commands: str, chain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pier.networks.guard.AGAIN_S", 0.01)

    async def deed(side: HostSide, told: Told) -> None:
        nft = Nftables()
        nft.run(commands)
        words = f"{chain} drops forwarded packets: those of containers are let pass again"
        while words not in told.words:
            await told.next()
        assert "mark & 0x00200000 == 0x00200000 counter packets 0 bytes 0 accept" in nft.run(f"list chain {chain}")
        nft.run(f"flush chain {chain}")
        while told.words.count(words) < 2:
            await told.next()
        await asyncio.get_running_loop().run_in_executor(told.worker, side.teardown)
        assert "mark" not in nft.run("list ruleset")
        nft.close()

    with machines(1) as (host,):
        played(host, deed)
