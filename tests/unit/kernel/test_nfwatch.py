"""Who changed an nftables table: told by the kernel, in a network namespace of the test's own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from netlab import Machine, machines
from pier.kernel.nfelements import Elements, SetElement
from pier.kernel.nftables import Nftables
from pier.kernel.nfwatch import TableWatch, own_task

pytestmark = pytest.mark.root

TABLE = (
    "add table inet t; add set inet t s { type ipv4_addr; }; add set inet t free { type ipv4_addr; }; add table ip o"
)


@dataclass
class Site:
    host: Machine
    watch: TableWatch
    nft: Nftables


@pytest.fixture
def site() -> Iterator[Site]:
    with machines(1) as (host,):
        nft = host.run(Nftables)
        host.run(lambda: nft.run(TABLE))
        with_own = host.run(lambda: TableWatch("t", {own_task()}, ["free"]))
        yield Site(host, with_own, nft)
        with_own.close()
        nft.close()


def test_what_is_our_own_doing_is_not_told(site: Site) -> None:
    site.host.run(lambda: site.nft.run(f"add table inet t\ndelete table inet t\n{TABLE}"))
    with site.host.run(Elements) as elements:
        site.host.run(lambda: elements.add("t", [SetElement("s", ("10.0.0.1",))]))
    assert site.watch.changed() == set()


@pytest.mark.parametrize(
    ("commands", "told"),
    [
        ("flush ruleset", {"t", "o"}),
        ("delete table inet t", {"t"}),
        ("add chain inet t c", {"t"}),
        ("delete set inet t s", {"t"}),
        ("add element inet t s { 10.0.0.1 }", {"t"}),
        ("add element inet t free { 10.0.0.1 }", set()),
        ("add table ip t2; add set ip t2 s { type ipv4_addr; }", set()),
        ("add chain ip o c", {"o"}),
        ("delete table ip o", {"o"}),
    ],
)
def test_what_others_do_is(site: Site, commands: str, told: set[str]) -> None:
    site.nft.run(commands)  # from this thread, which is not the host's: the context is the host's all the same
    assert site.watch.changed() == told
    assert bool(re.fullmatch(r".+, pid \d+", site.watch.changed_by)) == bool(told)
    assert site.watch.changed() == set()
