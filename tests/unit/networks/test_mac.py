"""MAC addresses."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from pier.networks.mac import BadMac, mac_of, parse_mac


def test_mac_of_an_address() -> None:
    assert mac_of(IPv4Address("172.17.0.2")) == "02:42:ac:11:00:02"


@pytest.mark.parametrize("text", ["02:42:AC:11:00:02", "02-42-ac-11-00-02", "2:42:ac:11:0:2"])
def test_normal_form(text: str) -> None:
    assert parse_mac(text) == "02:42:ac:11:00:02"


@pytest.mark.parametrize(
    "text",
    ["", "02:42", "02:42:ac:11:00:02:03", "01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "g0:0:0:0:0:0",
     "02:42:ac:11:00:102", "02:42:ac:11::02"],
)  # fmt: skip
def test_refused(text: str) -> None:
    with pytest.raises(BadMac, match="invalid MAC address"):
        parse_mac(text)
