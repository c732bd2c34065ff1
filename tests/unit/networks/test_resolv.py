"""/etc/resolv.conf and /etc/hosts of a container."""

from __future__ import annotations

import pytest

from pier.networks.resolv import (
    BadExtraHost,
    Upstream,
    hosts,
    named_resolv_conf,
    parse_resolv_conf,
    resolv_conf,
    upstream_path,
    upstreams,
)

HOST = """\
# made by hand
nameserver 192.0.2.53
nameserver 127.0.0.1
nameserver fe80::1%eth0
nameserver nonsense
; old
domain first.example
search example.com  corp.example.com
options ndots:2 timeout:1
sortlist 10.0.0.0
"""


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_parse() -> None:
    found = parse_resolv_conf(HOST)
    assert found.nameservers == ["192.0.2.53", "127.0.0.1", "fe80::1%eth0"]
    assert found.search == ["example.com", "corp.example.com"]
    assert (found.options, found.other) == (["ndots:2", "timeout:1"], ["sortlist 10.0.0.0"])


@pytest.mark.parametrize(
    ("host", "options", "expected"),
    [
        ("nameserver 10.255.255.53\n", {}, ["nameserver 10.255.255.53"]),
        ("nameserver 127.0.0.1\n", {}, ["nameserver 8.8.8.8", "nameserver 8.8.4.4"]),
        ("", {}, ["nameserver 8.8.8.8", "nameserver 8.8.4.4"]),
        ("nameserver ::1\nnameserver 2001:db8::1\nnameserver 10.0.0.1\n", {}, ["nameserver 10.0.0.1"]),
        ("nameserver 127.0.0.1\n", {"own_network": False}, ["nameserver 127.0.0.1"]),
        ("nameserver 10.0.0.1\n", {"dns": ["127.0.0.1"]}, ["nameserver 127.0.0.1"]),
        ("search a b\nnameserver 10.0.0.1\n", {"search": ["c"]}, ["nameserver 10.0.0.1", "search c"]),
        ("search a b\nnameserver 10.0.0.1\n", {"search": ["."]}, ["nameserver 10.0.0.1"]),
        ("options a\nnameserver 10.0.0.1\n", {"options": ["ndots:3"]}, ["nameserver 10.0.0.1", "options ndots:3"]),
        (
            HOST,
            {},
            [
                "nameserver 192.0.2.53",
                "search example.com corp.example.com",
                "options ndots:2 timeout:1",
                "sortlist 10.0.0.0",
            ],
        ),
    ],
)
def test_resolv_conf(host: str, options: dict[str, object], expected: list[str]) -> None:
    assert lines(resolv_conf(host, **options)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "systemd"),
    [
        ("nameserver 127.0.0.53\noptions edns0\n", True),
        ("nameserver 127.0.0.53\nnameserver 10.0.0.1\n", False),
        ("nameserver 127.0.0.1\n", False),
    ],
)
def test_behind_systemds_stub_are_the_real_servers(text: str, systemd: bool) -> None:
    assert (upstream_path(text) == "/run/systemd/resolve/resolv.conf") == systemd


def test_hosts_as_docker_writes_it() -> None:
    text = hosts(
        hostname="hn",
        addresses=["172.17.0.5"],
        extra_hosts=["foo:1.2.3.4", "h:host-gateway", "six:::1", "bracket:[::1]"],
        gateways=["172.17.0.1"],
    )
    assert text.splitlines() == [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::\tip6-localnet",
        "ff00::\tip6-mcastprefix",
        "ff02::1\tip6-allnodes",
        "ff02::2\tip6-allrouters",
        "1.2.3.4\tfoo",
        "172.17.0.1\th",
        "::1\tsix",
        "::1\tbracket",
        "172.17.0.1\thost.docker.internal gateway.docker.internal host.containers.internal",
        "172.17.0.5\thn",
    ]


def test_host_gateway_without_a_way_to_the_host() -> None:
    text = hosts(extra_hosts=["h:host-gateway"], host_gateway=["172.17.0.1"])
    assert text.splitlines()[6:] == ["172.17.0.1\th"]
    assert "\th\n" not in hosts(extra_hosts=["h:host-gateway"])


def test_hosts_with_a_domain_names_both() -> None:
    for hostname, domain in (("a", "b.c"), ("a.b", "c"), ("a.b.c", "")):
        text = hosts(hostname=hostname, domainname=domain, addresses=["10.0.0.1"])
        assert text.endswith("10.0.0.1\ta.b.c a\n")


def test_a_name_of_the_hosts_that_the_user_gives_is_the_users() -> None:
    text = hosts(extra_hosts=["host.docker.internal:10.9.9.9"], gateways=["172.17.0.1"])
    assert "10.9.9.9\thost.docker.internal\n" in text
    assert "172.17.0.1\tgateway.docker.internal host.containers.internal\n" in text


def test_hosts_of_the_hosts_network_begin_with_the_hosts_own() -> None:
    assert hosts(base="10.1.1.1 me", extra_hosts=["foo:1.2.3.4"]) == "10.1.1.1 me\n1.2.3.4\tfoo\n"


@pytest.mark.parametrize(
    "text", ["x:nonsense", "x", "x:", ":1.2.3.4", "a b:1.2.3.4", "x:1.2.3.4\n6.6.6.6 bank", "a\tb:host-gateway"]
)
def test_extra_hosts_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(BadExtraHost, match="invalid IP address in add-host"):
        hosts(extra_hosts=[text], gateways=["172.17.0.1"])


def test_servers_behind_a_name_server() -> None:
    text = "nameserver 127.0.0.53\nnameserver 192.0.2.53\nnameserver 2001:db8::1\nnameserver fe80::1%eth0\n"
    assert [str(item) for item in upstreams(text)] == [
        "host(127.0.0.53)",
        "192.0.2.53",
        "host(2001:db8::1)",
        "host(fe80::1%eth0)",
    ]
    assert [str(item) for item in upstreams(text, ipv6=True)][2:] == ["2001:db8::1", "host(fe80::1%eth0)"]
    assert str(upstreams("nameserver 192.0.2.53", ipv4=False, ipv6=True)[0]) == "host(192.0.2.53)"
    assert [str(item) for item in upstreams("")] == ["8.8.8.8", "8.8.4.4"]
    own = upstreams(text, dns=["10.1.1.1", "127.0.0.5", "::1", "127.0.0.11"])
    assert [str(item) for item in own] == ["10.1.1.1", "127.0.0.5", "::1"]


def test_resolv_conf_with_a_name_server() -> None:
    assert named_resolv_conf("nameserver 127.0.0.1\n", [Upstream("127.0.0.1", True)]) == (
        "# Generated by Pier.\n"
        "\n"
        "nameserver 127.0.0.11\n"
        "options ndots:0\n"
        "\n"
        "# Based on host file: '/etc/resolv.conf' (internal resolver)\n"
        "# ExtServers: [host(127.0.0.1)]\n"
        "# Overrides: []\n"
        "# Option ndots from: internal\n"
    )


@pytest.mark.parametrize(
    ("search", "options", "expected"),
    [
        ([], [], ["search example.com corp.example.com", "options ndots:2 timeout:1", "sortlist 10.0.0.0"]),
        (["."], ["timeout:1"], ["options timeout:1 ndots:0", "sortlist 10.0.0.0"]),
        (["a.b", "c.d"], ["ndots:5", "edns0"], ["search a.b c.d", "options ndots:5 edns0", "sortlist 10.0.0.0"]),
        (["a.b"], ["ndots:x"], ["search a.b", "options ndots:0", "sortlist 10.0.0.0"]),
    ],
)
def test_settings_with_a_name_server(search: list[str], options: list[str], expected: list[str]) -> None:
    text = named_resolv_conf(HOST, [], search=search, options=options)
    assert [line for line in lines(text) if line] == ["nameserver 127.0.0.11", *expected]
    where = {(): "host", ("ndots:5", "edns0"): "override"}.get(tuple(options), "internal")
    assert text.endswith(f"# Option ndots from: {where}\n")
