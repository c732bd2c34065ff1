"""What a container asks of a network: judged in Docker's words, made an ask."""

from __future__ import annotations

from typing import Any

import pytest

from pier.errors import PierError
from pier.model.network import EndpointIPAMConfig, EndpointSettings
from pier.networks.asks import SYSCTLS, ask_of, check_borrowed, check_settings, sysctls, unknown_options
from pier.networks.records import NetworkRecord, SubnetRecord

ASKED = NetworkRecord(
    id="a" * 64, name="own", driver="bridge", subnets=[SubnetRecord("10.0.0.0/24", "10.0.0.1", asked=True)]
)
CHOSEN = NetworkRecord(id="b" * 64, name="any", driver="bridge", subnets=[SubnetRecord("10.1.0.0/24", "10.1.0.1")])
BRIDGE = NetworkRecord(id="c" * 64, name="bridge", driver="bridge", subnets=[SubnetRecord("10.2.0.0/24", "10.2.0.1")])


def settings(ipv4: str = "", ipv6: str = "", link_local: list[str] | None = None, **more: Any) -> EndpointSettings:
    return EndpointSettings(ipam_config=EndpointIPAMConfig(ipv4, ipv6, link_local), **more)


@pytest.mark.parametrize(
    ("record", "asked", "words"),
    [
        (ASKED, settings("10.0.1.2"), "no configured subnet or ip-range contain the IP address 10.0.1.2"),
        (CHOSEN, settings("10.1.0.2"), "only when connecting to networks with user configured subnets"),
        (ASKED, settings(ipv6="fd00::1"), "only when connecting to networks with user configured subnets"),
        (
            ASKED,
            settings("x"),
            "* invalid IPv4 address: x\n* no configured subnet or ip-range contain the IP address x",
        ),
        (ASKED, settings(link_local=["169.254.1.1", "y"]), "invalid link-local IP address: y"),
        (ASKED, settings(link_local=["fe80::1", "10.0.0.7"]), "invalid link-local IP address: 10.0.0.7"),
        (BRIDGE, settings("10.2.0.9"), "user specified IP address is supported on user defined networks only"),
        (
            BRIDGE,
            settings(aliases=["x"]),
            "network-scoped alias is supported only for containers in",
        ),
        (ASKED, settings(mac_address="x"), "invalid MAC address x"),
        (ASKED, settings(mac_address="01:00:00:00:00:01"), "invalid MAC address 01:00:00:00:00:01"),
        (ASKED, settings(aliases=["a b"]), "invalid alias: 'a b'"),
        (ASKED, settings(aliases=["a\n10.0.0.9 evil"]), "invalid alias"),
        (ASKED, settings(aliases=[f"n{number}" for number in range(257)]), "more than 256 aliases"),
        (ASKED, settings(driver_opts={"com.docker.network.endpoint.ifname": "../x"}), "invalid interface name"),
        (ASKED, settings(driver_opts={SYSCTLS: "net.ipv4.ip_forward=1"}), "unrecognised network interface sysctl 'net"),
        (ASKED, settings(driver_opts={SYSCTLS: "kernel.panic=1"}), "represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z"),
    ],
)
def test_what_is_refused(record: NetworkRecord, asked: EndpointSettings, words: str) -> None:
    with pytest.raises(PierError) as caught:
        check_settings(record, asked)
    assert words in caught.value.message
    assert caught.value.status == 400


def test_an_ask() -> None:
    options = {SYSCTLS: "net.ipv4.conf.ifname.log_martians=1,net.ipv6.conf.IFNAME.accept_ra=0", "x": "y"}
    asked = settings(
        "10.0.0.9",
        "",
        ["169.254.1.1"],
        mac_address="02-42-AC-11-00-02",
        links=["db:store", "/web"],
        driver_opts=options,
        gw_priority=3,
    )
    check_settings(ASKED, asked)
    ask = ask_of(ASKED.id, asked, names=["c", "alias"])
    assert (ask.ipv4, ask.mac, ask.names, ask.gw_priority) == ("10.0.0.9", "02:42:ac:11:00:02", ("c", "alias"), 3)
    assert ask.links == (("store", "db"), ("web", "web"))
    assert sysctls(ask.options[SYSCTLS]) == {
        "net.ipv4.conf.IFNAME.log_martians": "1",
        "net.ipv6.conf.IFNAME.accept_ra": "0",
    }
    assert unknown_options(asked) == ["x"]


def test_no_address_of_ones_own_in_anothers_network() -> None:
    check_borrowed(settings())
    for asked in (settings("10.0.0.9"), settings(ipv6="fd00::9")):
        with pytest.raises(PierError, match="user defined networks only"):
            check_borrowed(asked)


@pytest.mark.parametrize("link", [":x", "a:b:c", ""])
def test_links_that_are_none(link: str) -> None:
    with pytest.raises(PierError, match="bad format for links"):
        ask_of(ASKED.id, settings(links=[link]))
