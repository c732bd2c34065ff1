"""Which names a container sees."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from pier.networks.dns import NameTable

WEB1, WEB2, DB, OTHER = "172.20.0.2", "172.20.0.3", "172.20.0.4", "172.21.0.2"


@pytest.fixture
def table() -> NameTable:
    """`web1` and `web2` share the alias `web` on `front`; `db` is on `front` and `back`; `other` on `back` alone."""
    table = NameTable()
    table.put("n1", "e1", "c1", ["web1", "web", "3dc04b71416b", "Host.One"], [WEB1], network_name="front")
    table.put("n1", "e2", "c2", ["web2", "web"], [WEB2, "fd00::3"], network_name="front", links={"the.db": "db"})
    table.put("n1", "e3", "c3", ["db"], [DB], network_name="front")
    table.put("n2", "e4", "c3", ["db"], ["172.21.0.9"], network_name="back.example")
    table.put("n2", "e5", "c4", ["other"], [OTHER], network_name="back.example")
    return table


def found(table: NameTable, container: str, name: str, size: int = 4) -> list[str] | None:
    addresses = table.resolve(container, name.encode(), size)
    return None if addresses is None else [str(ip_address(address)) for address in addresses]


@pytest.mark.parametrize(
    ("container", "name", "expected"),
    [
        ("c1", "web1", [WEB1]),
        ("c1", "web", [WEB1, WEB2]),
        ("c2", "3dc04b71416b", [WEB1]),
        ("c2", "host.one", [WEB1]),
        ("c1", "web2.front", [WEB2]),
        ("c1", "host.one.front", [WEB1]),
        ("c1", "web2.back.example", None),
        ("c1", "other", None),
        ("c1", "other.back.example", None),
        ("c3", "other", [OTHER]),
        ("c3", "other.back.example", [OTHER]),
        ("c3", "db", [DB]),
        ("c3", "db.back.example", ["172.21.0.9"]),
        ("c2", "the.db", [DB]),
        ("c2", "the.db.front", [DB]),
        ("c1", "the.db", None),
        ("c1", "front", None),
        ("c1", "nobody", None),
        ("c1", "", None),
        ("stranger", "web1", None),
    ],
)
def test_who_sees_what(table: NameTable, container: str, name: str, expected: list[str] | None) -> None:
    assert found(table, container, name) == expected


def test_a_name_without_an_address_of_the_family_is_known(table: NameTable) -> None:
    assert found(table, "c1", "web1", 16) == []
    assert found(table, "c1", "web", 16) == ["fd00::3"]
    assert found(table, "c1", "nobody", 16) is None


def test_the_second_network_may_have_the_other_family(table: NameTable) -> None:
    table.put("n2", "e5", "c4", ["db"], ["fd01::9"])
    assert found(table, "c3", "db") == [DB]
    assert found(table, "c3", "db", 16) == ["fd01::9"]


@pytest.mark.parametrize(
    ("container", "address", "expected"),
    [
        ("c1", WEB2, b"web2.front"),
        ("c1", "fd00::3", b"web2.front"),
        ("c3", OTHER, b"other.back.example"),
        ("c1", OTHER, None),
        ("c1", "192.0.2.1", None),
    ],
)
def test_reverse(table: NameTable, container: str, address: str, expected: bytes | None) -> None:
    assert table.reverse(container, ip_address(address).packed) == expected


def test_put_again_replaces(table: NameTable) -> None:
    table.put("n1", "e1", "c1", ["renamed"], ["172.20.0.7"], network_name="front")
    assert found(table, "c2", "web1") is None
    assert found(table, "c2", "web") == [WEB2]
    assert found(table, "c2", "renamed") == ["172.20.0.7"]
    assert table.reverse("c2", ip_address(WEB1).packed) is None


def test_remove(table: NameTable) -> None:
    table.remove("n1", "e3")
    assert found(table, "c3", "web") is None  # c3 is on `back` alone now
    assert found(table, "c1", "db") is None
    assert found(table, "c3", "db") == ["172.21.0.9"]
    table.remove("n1", "e3")
    table.remove("never", "was")


def test_nothing_stays_of_what_was_removed(table: NameTable) -> None:
    for network, endpoint in (("n1", "e1"), ("n1", "e2"), ("n1", "e3"), ("n2", "e4"), ("n2", "e5")):
        table.remove(network, endpoint)
    assert (table._networks, table._scopes) == ({}, {})
