"""Elements by nfnetlink are what nft means by the same words, in a network namespace of the test's own."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from netlab import machines
from pier.kernel.nfelements import PER_MESSAGE, Elements, SetElement, element_requests, pack
from pier.kernel.nftables import Nftables

MAPS = """\
add table inet t
add map inet t m4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
add map inet t a4 { type inet_proto . inet_service : ipv4_addr . inet_service; }
add map inet t m6 { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }
add set inet t o6 { type ipv6_addr . inet_proto . inet_service; }
"""
WEB = SetElement("a4", ("tcp", 8080), ("172.17.0.2", 80))


def test_parts_are_padded() -> None:
    assert pack(("10.0.0.1", "udp", 53)) == bytes([10, 0, 0, 1, 17, 0, 0, 0, 0, 53, 0, 0])
    assert pack(("::1",)) == bytes(15) + b"\1"


def test_elements_of_one_set_share_a_message() -> None:
    many = [SetElement("a4", ("tcp", port), ("10.0.0.1", port)) for port in range(1, PER_MESSAGE + 2)]
    assert len(element_requests("add", "t", [*many, SetElement("o6", ("::1", "tcp", 1))])) == 3


@dataclass
class Site:
    nft: Nftables
    elements: Elements

    def listed(self, name: str) -> str:
        text = self.nft.run(f"list set inet t {name}" if name == "o6" else f"list map inet t {name}")
        return " ".join(text.split())


@pytest.fixture
def site() -> Iterator[Site]:
    with machines(1) as (host,), host.run(Elements) as elements:
        nft = host.run(Nftables)
        nft.run(MAPS)
        yield Site(nft, elements)
        nft.close()


@pytest.mark.root
@pytest.mark.parametrize(
    ("element", "words"),
    [
        (WEB, "tcp . 8080 : 172.17.0.2 . 80"),
        (SetElement("m4", ("127.0.0.1", "udp", 53), ("10.0.0.1", 5353)), "127.0.0.1 . udp . 53 : 10.0.0.1 . 5353"),
        (SetElement("m6", ("fd00::1", "sctp", 9), ("fd01::2", 65535)), "fd00::1 . sctp . 9 : fd01::2 . 65535"),
        (SetElement("o6", ("fd00::1", "tcp", 1)), "fd00::1 . tcp . 1"),
    ],
)
def test_they_mean_the_same_to_nft(site: Site, element: SetElement, words: str) -> None:
    site.elements.add("t", [element])
    assert f"elements = {{ {words} }}" in site.listed(element.owner)
    site.nft.run(f"delete element inet t {element.owner} {{ {words} }}")
    site.elements.add("t", [element])
    site.elements.delete("t", [element])
    assert "elements" not in site.listed(element.owner)


@pytest.mark.root
def test_all_or_none(site: Site) -> None:
    site.elements.add("t", [WEB])
    other = SetElement("m4", ("127.0.0.1", "tcp", 1), ("10.0.0.1", 1))
    with pytest.raises(OSError, match="delete elements of m4 in nftables table inet t") as refused:
        site.elements.delete("t", [WEB, other])
    assert refused.value.errno == errno.ENOENT
    assert "8080" in site.listed("a4")
    with pytest.raises(OSError, match="inet nowhere"):
        site.elements.add("nowhere", [WEB])
    site.elements.delete("t", [WEB])  # what was said of the failures is not taken for an answer to this


@pytest.mark.root
def test_what_is_there_with_the_same_value_is_no_error_and_another_value_is(site: Site) -> None:
    site.elements.add("t", [WEB])
    site.elements.add("t", [WEB])
    with pytest.raises(OSError, match="add elements of a4"):
        site.elements.add("t", [WEB._replace(value=("172.17.0.3", 80))])
    assert "172.17.0.2" in site.listed("a4")


@pytest.mark.root
def test_the_names_of_tables(site: Site) -> None:
    site.nft.run("add table inet u; add table ip v")
    assert site.elements.tables() == ["t", "u"]


@pytest.mark.root
def test_thousands_of_ports_in_one_transaction(site: Site) -> None:
    everything = [SetElement("a4", ("tcp", port), ("172.17.0.2", port)) for port in range(1, 10000)]
    site.elements.add("t", everything)
    site.elements.delete("t", everything)
    assert "elements" not in site.listed("a4")
    site.elements.add("t", [])
