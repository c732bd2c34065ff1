"""What the network verbs send and show."""

from __future__ import annotations

from typing import Any

import pytest

from pier.cli.errors import Failure
from pier.cli.flags import Options, parse
from pier.cli.format import render
from pier.cli.network_options import endpoint, ipam_config
from pier.cli.units import go_time_of
from pier.cli.values import check_mac, parse_network
from pier.cli.verbs import network_connect, network_create
from pier.cli.verbs.network_ls import COLUMNS, natural, view

NETWORK = {
    "Name": "web",
    "Id": "ab" * 32,
    "Created": "2026-11-21T18:28:02.660282624Z",
    "Scope": "local",
    "Driver": "bridge",
    "EnableIPv4": True,
    "EnableIPv6": False,
    "Internal": True,
    "Labels": {"a": "b", "c": ""},
}


def options(module: Any, *words: str) -> Options:
    return parse(module.COMMAND, "network x", [*words, "one", "two"][: len(words) + module.COMMAND.arity[0]])[0]


def test_ranges_gateways_and_auxiliary_addresses_find_their_subnets() -> None:
    found = ipam_config(
        ["10.1.0.0/16", "fd00:1::/64"], ["10.1.4.0/24"], ["fd00:1::9", "10.1.0.9"], {"a": "10.1.0.5", "b": "fd00:1::5"}
    )
    assert found == [
        {
            "Subnet": "10.1.0.0/16",
            "IPRange": "10.1.4.0/24",
            "Gateway": "10.1.0.9",
            "AuxiliaryAddresses": {"a": "10.1.0.5"},
        },
        {"Subnet": "fd00:1::/64", "Gateway": "fd00:1::9", "AuxiliaryAddresses": {"b": "fd00:1::5"}},
    ]


@pytest.mark.parametrize(
    ("subnets", "ranges", "gateways", "auxiliary", "problem"),
    [
        ([], ["10.1.0.0/24"], [], {}, "every ip-range or gateway must have a corresponding subnet"),
        (["10.1.0.0/16", "10.1.9.0/24"], [], [], {}, "multiple overlapping subnet configuration is not supported"),
        (["10.1.0.0/16"], ["10.2.0.0/24"], [], {}, "no matching subnet for range 10.2.0.0/24"),
        (["10.1.0.0/16"], ["zz"], [], {}, "invalid CIDR address: zz"),
        (["10.1.0.0/16"], [], ["10.2.0.1"], {}, "no matching subnet for gateway 10.2.0.1"),
        (["10.1.0.0/16"], [], ["zz"], {}, "no matching subnet for gateway zz"),
        (["10.1.0.0/16"], [], [], {"a": ""}, "no matching subnet for aux-address "),
        (["zz"], [], ["10.2.0.1"], {}, "invalid subnet: invalid CIDR address: zz"),
        (
            ["10.1.0.0/16", "10.2.0.0/16"],
            ["10.1.1.0/24", "10.1.2.0/24"],
            [],
            {},
            "cannot configure multiple ranges (10.1.2.0/24, 10.1.1.0/24) on the same subnet (10.1.0.0/16)",
        ),
    ],
)
def test_addresses_that_do_not_belong_together(
    subnets: list[str], ranges: list[str], gateways: list[str], auxiliary: dict[str, str], problem: str
) -> None:
    with pytest.raises(Failure) as found:
        ipam_config(subnets, ranges, gateways, auxiliary)
    assert found.value.text == problem


def test_a_network_as_it_is_asked_for() -> None:
    words = "--subnet 10.1.0.0/16,fd00::/64 -o a=b --label x --label y=z --ipv6 --ipv4=false --config-from c -d macvlan"
    made = network_create.body(options(network_create, *words.split()), "net")
    assert made["IPAM"]["Config"] == [{"Subnet": "10.1.0.0/16"}, {"Subnet": "fd00::/64"}]
    assert made["Options"] == {"a": "b"}
    assert made["Labels"] == {"x": "", "y": "z"}
    assert (made["EnableIPv4"], made["EnableIPv6"], made["Driver"]) == (False, True, "macvlan")
    assert made["ConfigFrom"] == {"Network": "c"}
    plain = network_create.body(options(network_create), "net")
    assert not {"EnableIPv4", "EnableIPv6", "ConfigFrom"} & set(plain)


def test_an_endpoint_as_it_is_asked_for() -> None:
    words = (
        "--alias a,b --alias c --ip 10.0.0.9 --link db:x --driver-opt k=v=w --gw-priority -3 --link-local-ip fe80::1"
    )
    assert endpoint(options(network_connect, *words.split())) == {
        "Aliases": ["a", "b", "c"],
        "IPAMConfig": {"IPv4Address": "10.0.0.9", "LinkLocalIPs": ["fe80::1"]},
        "Links": ["db:x"],
        "DriverOpts": {"k": "v=w"},
        "GwPriority": -3,
    }
    assert endpoint(options(network_connect)) == {}


def test_the_list() -> None:
    shown = render(view(trunc=True), COLUMNS, "", [NETWORK], "x")
    assert shown == "NETWORK ID     NAME      DRIVER    SCOPE\nabababababab   web       bridge    local\n"
    line = render(view(trunc=True), COLUMNS, '{{.Labels}} {{.Label "a"}} {{.IPv6}} {{.Internal}}', [NETWORK], "x")
    assert line == "a=b,c= b false true\n"


def test_names_with_numbers_are_in_the_order_of_the_numbers() -> None:
    names = ["net10", "net9", "a", "10", "9", "net", "net9b"]
    assert sorted(names, key=natural) == ["9", "10", "a", "net", "net9", "net9b", "net10"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2026-11-21T18:28:02.66Z", "2026-11-21 18:28:02.66 +0000 UTC"),
        ("2026-11-21T18:28:02.66+02:00", "2026-11-21 18:28:02.66 +0200 +0200"),
    ],
)
def test_times_as_go_prints_them(text: str, shown: str) -> None:
    assert go_time_of(text) == shown


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("web", {"Name": "web"}),
        ("name=", {"Name": "name="}),
        ("name=Web,driver-opt=A.b=C,gw-priority=-1", {"Name": "Web", "DriverOpts": {"a.b": "C"}, "GwPriority": -1}),
        (
            "name=a,alias=x,alias=y,link-local-ip=fe80::1",
            {"Name": "a", "Aliases": ["x", "y"], "LinkLocalIPs": ["fe80::1"]},
        ),
    ],
)
def test_networks_to_join(text: str, network: dict[str, Any]) -> None:
    assert parse_network(text) == network


@pytest.mark.parametrize("mac", ["02:42:0a:00:00:07", "02-42-0A-00-00-07", "0242.0a00.0007", "00:00:00:00:fe:80:00:01"])
def test_macs(mac: str) -> None:
    assert check_mac(mac) == mac


@pytest.mark.parametrize("mac", ["x", "02:42:0a:00:00", "02:42:0a:00:00:7", "02:42-0a:00:00:07", "02:42:0a:00:00:0g"])
def test_what_is_no_mac(mac: str) -> None:
    with pytest.raises(ValueError, match=f"^{mac} is not a valid mac address$"):
        check_mac(mac)
