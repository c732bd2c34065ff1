"""Networks of the user's: made, shown, filtered, removed; containers on several, and moved while they run."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import docker as sdk_of_docker
import pytest
from docker.errors import APIError, NotFound
from docker.types import IPAMConfig, IPAMPool, NetworkingConfig

from .client import Client
from .conftest import Daemon, poll
from .test_leaks import Api

pytestmark = pytest.mark.root

SLEEP = ("sleep", "1000")


@pytest.fixture
def net(docker: Client) -> Iterator[Client]:
    """Docker's command line; the networks that a test makes are removed with the containers on them."""
    before = networks(docker)
    yield docker
    left = networks(docker) - before
    for name in left:
        if ids := docker.ok("ps", "-aq", "--filter", f"network={name}").split():
            docker("rm", "--force", *ids)
    if left:
        docker.ok("network", "rm", *left)


def networks(docker: Client) -> set[str]:
    return set(docker.ok("network", "ls", "--format", "{{.Name}}").split())


def shown(docker: Client, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker.ok("network", "inspect", name))[0]
    return found


def settings(docker: Client, name: str) -> dict[str, Any]:
    """`NetworkSettings.Networks` of a container."""
    found: dict[str, Any] = json.loads(docker.field(name, "{{json .NetworkSettings.Networks}}"))
    return found


def inside(docker: Client, name: str, *words: str) -> list[str]:
    return docker.ok("exec", name, *words).splitlines()


def default_route(docker: Client, name: str, family: str = "-4") -> str:
    """`via ADDRESS dev DEVICE` of the default route."""
    lines = [line for line in inside(docker, name, "ip", family, "route") if line.startswith("default")]
    return " ".join(lines[0].split()[1:5]) if lines else ""


def fetched(port: int) -> bytes:
    """What a web server on this host says; empty where there is none."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with connection.makefile("rb") as file:
            return file.read().rpartition(b"\r\n\r\n")[2]
    return b""


# --- networks alone


def test_a_network_is_shown_as_docker_shows_it(net: Client) -> None:
    options = ["--label", "k=v", "--subnet", "10.83.0.0/24", "--ip-range", "10.83.0.64/26", "--gateway", "10.83.0.9"]
    made = net.ok("network", "create", *options, "--aux-address", "nas=10.83.0.70", "t-net")
    found = shown(net, "t-net")
    assert found.pop("Created").startswith("20")
    assert found == {
        "Name": "t-net",
        "Id": made,
        "Scope": "local",
        "Driver": "bridge",
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {
            "Driver": "default",
            "Options": {},
            "Config": [
                {
                    "Subnet": "10.83.0.0/24",
                    "IPRange": "10.83.0.64/26",
                    "Gateway": "10.83.0.9",
                    "AuxiliaryAddresses": {"nas": "10.83.0.70"},
                }
            ],
        },
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": {},
        "Labels": {"k": "v"},
    }
    assert net.ok("network", "inspect", "-f", "{{.Name}}", made[:12]) == "t-net"
    assert net.ok("network", "rm", "t-net") == "t-net"
    assert "t-net" not in networks(net)


def test_containers_of_an_isolated_network_have_each_other_and_no_host(net: Client) -> None:
    options = [f"-ocom.docker.network.bridge.gateway_mode_ipv{version}=isolated" for version in (4, 6)]
    refused = net("network", "create", options[0], "t-iso")
    assert "gateway mode 'isolated' can only be used for an internal network" in refused.err
    net.ok("network", "create", "--internal", "--ipv6", "--subnet", "10.83.0.0/24", *options, "t-iso")
    assert [set(config) for config in shown(net, "t-iso")["IPAM"]["Config"]] == [{"Subnet"}, {"Subnet"}]
    for name in ("t-one", "t-two"):
        net.ok("run", "-d", "--name", name, "--network", "t-iso", "busybox", *SLEEP)
    got = settings(net, "t-one")["t-iso"]
    assert (got["IPAddress"], got["Gateway"], got["IPv6Gateway"]) == ("10.83.0.1", "", "")
    for family in ("-4", "-6"):
        assert net("exec", "t-one", "ping", family, "-c1", "-W5", "t-two").status == 0
        assert default_route(net, "t-one", family) == ""
    assert "host.docker.internal" not in net.ok("exec", "t-one", "cat", "/etc/hosts")


def test_what_is_refused_and_how(net: Client) -> None:
    net.ok("network", "create", "--subnet", "10.83.0.0/24", "t-net")
    refusals = {
        ("create", "t-net"): "network with name t-net already exists",
        ("create", "bridge"): "operation is not permitted on predefined bridge network",
        ("create", "-d", "nope", "t-x"): 'plugin "nope" not found',
        ("create", "-d", "host", "t-x"): 'only one instance of "host" network is allowed',
        ("create", "--subnet", "10.83.0.128/25", "t-x"): "Pool overlaps with other one on this address space",
        ("create", "--subnet", "10.84.0.1/24", "t-x"): "invalid subnet 10.84.0.1/24: it should be 10.84.0.0/24",
        ("create", "--ipv4=false", "t-x"): "IPv4 or IPv6 must be enabled",
        ("create", "-o", "com.docker.network.driver.mtu=x", "t-x"): "failed to parse com.docker.network.driver.mtu",
        ("rm", "bridge"): "bridge is a pre-defined network and cannot be removed",
        ("rm", "t-nowhere"): "network t-nowhere not found",
        ("connect", "t-net", "t-nobody"): "No such container: t-nobody",
        ("disconnect", "-f", "t-net", "t-nobody"): "endpoint t-nobody not found",
    }
    for words, reason in refusals.items():
        done = net("network", *words)
        assert done.status != 0, words
        assert reason in done.err, (words, done.err)
    assert networks(net) & {"t-x", "t-net"} == {"t-net"}


def test_attack_17_a_networks_name_is_a_name(request: pytest.FixtureRequest, net: Client) -> None:
    if os.environ.get("PIER_SCENARIO_HOST"):
        pytest.skip("Docker takes any name")
    for name in ("../x", "/a", "a//b", "x\n", "\x1b[31mx", "container:x", "a" * 256):
        done = net("network", "create", "--", name)
        assert "invalid name" in done.err, (name, done)
    assert networks(net) == {"bridge", "host", "none"}


@pytest.mark.parametrize("command", ["docker", "pier"])
def test_a_network_is_found_by_whatever_name_it_has(net: Client, command: str) -> None:
    client = replace(net, program=command, sessions=[])
    container = net.run("--network", "none", net.image, *SLEEP)
    net.ok("network", "disconnect", "none", container)
    for name in ("t a/b connect", "t-%2F?x=1&y#z", "t-ümlaut", "t-/connect"):
        made = client.ok("network", "create", "--", name)
        assert json.loads(client.ok("network", "inspect", "--", name))[0]["Id"] == made
        client.ok("network", "connect", "--", name, container)
        assert list(settings(net, container)) == [name]
        client.ok("network", "disconnect", "--", name, container)
        client.ok("network", "rm", "--", name)


def test_filters(net: Client) -> None:
    first = net.ok("network", "create", "--label", "com.x=1", "t-one")
    net.ok("network", "create", "--internal", "t-two")
    net.run("--network", "t-two", net.image, *SLEEP, name="t-c")
    for filters, expected in {
        ("label=com.x",): {"t-one"},
        ("label=com.x=2",): set(),
        (f"id={first[:8]}",): {"t-one"},
        ("name=t-o",): {"t-one"},
        ("name=^t-",): {"t-one", "t-two"},
        ("driver=null",): {"none"},
        ("type=builtin",): {"bridge", "host", "none"},
        ("type=custom", "name=t-"): {"t-one", "t-two"},
        ("dangling=true", "name=t-o"): {"t-one"},
        ("dangling=true", "type=builtin"): set(),
        ("scope=swarm",): set(),
    }.items():
        words = [word for text in filters for word in ("--filter", text)]
        assert set(net.ok("network", "ls", *words, "--format", "{{.Name}}").split()) == expected, filters
    if not os.environ.get("PIER_SCENARIO_HOST"):  # Docker counts no containers there, and lists every network
        assert net.ok("network", "ls", "-q", "--filter", "dangling=true", "--filter", "name=t-two") == ""
    assert net.ok("ps", "--filter", "network=t-two", "--format", "{{.Names}} {{.Networks}}") == "t-c t-two"
    assert "invalid filter 'colour'" in net("network", "ls", "--filter", "colour=red").err
    assert "Deleted Networks:\nt-one" in net.ok("network", "prune", "-f", "--filter", "label=com.x")


def test_settings_of_a_config_only_network(net: Client) -> None:
    net.ok("network", "create", "--config-only", "--subnet", "10.83.0.0/24", "--label", "a=b", "t-conf")
    net.ok("network", "create", "--config-from", "t-conf", "t-net")
    found = shown(net, "t-net")
    assert (found["ConfigFrom"], found["Labels"]) == ({"Network": "t-conf"}, {"a": "b"})
    assert found["IPAM"]["Config"] == [{"Subnet": "10.83.0.0/24"}]
    assert 'configuration network "t-conf" is in use' in net("network", "rm", "t-conf").err
    refused = net("run", "--rm", "--network", "t-conf", net.image, "true")
    assert "cannot create endpoint on configuration-only network" in refused.err
    net.ok("network", "rm", "t-net")


# --- containers


def test_a_container_on_two_networks(net: Client) -> None:
    net.ok("network", "create", "t-one")
    net.ok("network", "create", "--subnet", "10.83.0.0/24", "t-two")
    second = "name=t-two,alias=db,ip=10.83.0.33,gw-priority=1,mac-address=02:42:0a:53:00:21"
    net.run("--network", "t-one", "--network", second, "-h", "box", net.image, *SLEEP, name="t-c")
    found = settings(net, "t-c")
    id = net.field("t-c", "{{.Id}}")
    assert (found["t-two"]["IPAddress"], found["t-two"]["MacAddress"]) == ("10.83.0.33", "02:42:0a:53:00:21")
    assert found["t-two"]["DNSNames"] == ["t-c", "db", id[:12], "box"]
    assert found["t-one"]["DNSNames"] == ["t-c", id[:12], "box"]
    assert found["t-two"]["NetworkID"] == shown(net, "t-two")["Id"]
    assert shown(net, "t-two")["Containers"][id]["IPv4Address"] == "10.83.0.33/24"
    assert default_route(net, "t-c").startswith("via 10.83.0.1 ")
    hosts = inside(net, "t-c", "cat", "/etc/hosts")
    assert f"{found['t-one']['IPAddress']}\tbox" in hosts
    assert "10.83.0.33\tbox" in hosts
    assert 'has active endpoints (name:"t-c"' in net("network", "rm", "t-two").err


def test_a_running_container_is_connected_and_disconnected(net: Client) -> None:
    net.ok("network", "create", "t-one")
    net.ok("network", "create", "--subnet", "10.83.0.0/24", "t-two")
    net.run("--network", "t-one", net.image, *SLEEP, name="t-c")
    home = default_route(net, "t-c")
    net.ok("network", "connect", "--alias", "db", "--ip", "10.83.0.7", "--gw-priority", "2", "t-two", "t-c")
    assert default_route(net, "t-c") == "via 10.83.0.1 dev eth1"
    assert "10.83.0.7" in net.ok("exec", "t-c", "cat", "/etc/hosts")
    again = net("network", "connect", "t-two", "t-c")
    assert "endpoint with name t-c already exists in network t-two" in again.err
    net.ok("network", "disconnect", "t-two", "t-c")
    assert default_route(net, "t-c") == home
    assert "10.83.0." not in net.ok("exec", "t-c", "cat", "/etc/hosts")
    assert "is not connected to" in net("network", "disconnect", "t-two", "t-c").err
    net.ok("network", "disconnect", "t-one", "t-c")
    assert (settings(net, "t-c"), default_route(net, "t-c")) == ({}, "")
    net.ok("network", "connect", "t-two", "t-c")
    assert default_route(net, "t-c") == "via 10.83.0.1 dev eth0"
    net.ok("network", "connect", "bridge", "t-c")
    assert set(settings(net, "t-c")) == {"bridge", "t-two"}
    id, form = net.field("t-c", "{{.Id}}"), "{{.Actor.Attributes.container}} {{.Action}} {{.Actor.Attributes.name}}"
    happened = [line.split(" ", 1) for line in net.events("--filter", "type=network", "--format", form)]
    assert [what for container, what in happened if container == id] == [
        "connect t-one",
        "connect t-two",
        "disconnect t-two",
        "disconnect t-one",
        "connect t-two",
        "connect bridge",
    ]


def test_what_a_stopped_container_is_configured_for(net: Client) -> None:
    net.ok("network", "create", "--subnet", "10.83.0.0/24", "t-one")
    net.ok("network", "create", "t-two")
    net.ok("create", "--name", "t-c", "--network", "t-one", "--ip", "10.83.0.9", net.image, *SLEEP)
    net.ok("network", "connect", "--alias", "x", "t-two", "t-c")
    net.ok("start", "t-c")
    net.ok("restart", "-t", "0", "t-c")
    found = settings(net, "t-c")
    assert found["t-one"]["IPAddress"] == "10.83.0.9"
    assert "x" in found["t-two"]["DNSNames"]
    net.ok("stop", "-t", "0", "t-c")
    stopped = settings(net, "t-c")
    assert (stopped["t-one"]["IPAddress"], stopped["t-one"]["IPAMConfig"]) == ("", {"IPv4Address": "10.83.0.9"})
    assert shown(net, "t-one")["Containers"] == {}
    net.ok("network", "rm", "t-one")
    failed = net("start", "t-c")
    assert "failed to set up container networking: " in failed.err
    assert f"network {found['t-one']['NetworkID']} not found" in failed.err or "network t-one not found" in failed.err
    net.ok("network", "create", "--subnet", "10.83.0.0/24", "t-one")
    assert net("start", "t-c").status == 1  # it is another one, by the same name
    net.ok("network", "disconnect", "-f", "t-one", "t-c")
    net.ok("start", "t-c")
    assert set(settings(net, "t-c")) == {"t-two"}


def test_addresses_that_cannot_be_had(net: Client) -> None:
    net.ok("network", "create", "t-own")
    net.ok("network", "create", "--subnet", "10.83.0.0/30", "t-small")
    net.run("--network", "t-small", net.image, *SLEEP, name="t-c")
    for words, reason in {
        ("t-own", "--ip", "10.83.0.2"): "only when connecting to networks with user configured subnets",
        ("t-small", "--ip", "10.84.0.2"): "no configured subnet or ip-range contain the IP address 10.84.0.2",
        ("t-small", "--ip", "10.83.0.2"): "Address already in use",
        ("t-small", "--ip", "x"): "invalid IPv4 address: x",
        ("t-small",): "no available IPv4 addresses on this network's address pools: t-small",
        ("bridge", "--ip", "172.17.0.9"): "user specified IP address is supported on user defined networks only",
        ("t-nowhere",): "failed to set up container networking: network t-nowhere not found",
    }.items():
        done = net("run", "--rm", "--network", *words, net.image, "true")
        assert (done.status, reason in done.err) == (125, True), (words, done.err)
    assert len(shown(net, "t-small")["Containers"]) == 1


def test_networks_that_do_not_go_together(net: Client) -> None:
    net.ok("network", "create", "t-net")
    net.run("--network", "host", net.image, *SLEEP, name="t-host")
    net.run("--network", "none", net.image, *SLEEP, name="t-none")
    net.run("--network", "container:t-none", net.image, *SLEEP, name="t-shared")
    shared = "container sharing network namespace with another container or host cannot be connected"
    for words, reason in {
        ("connect", "t-net", "t-host"): shared,
        ("connect", "t-net", "t-shared"): shared,
        ("connect", "t-net", "t-none"): "with one of the networks in private (none) mode",
        ("connect", "host", "t-none"): "container must be created in host network mode",
        ("disconnect", "host", "t-host"): "container was created in host network mode",
    }.items():
        assert reason in net("network", *words).err, words
    net.ok("network", "disconnect", "none", "t-none")
    net.ok("network", "connect", "t-net", "t-none")
    assert list(settings(net, "t-none")) == ["t-net"]


def test_published_ports_follow_the_default_route(net: Client) -> None:
    net.ok("network", "create", "t-one")
    net.ok("network", "create", "t-two")
    net.ok("network", "create", "--internal", "t-in")
    serve = "echo served >/var/www/index.html; exec httpd -f -p 80 -h /var/www"
    net.run("--network", "t-one", "-p", "18271:80", net.image, "sh", "-c", serve, name="t-web")
    poll(lambda: fetched(18271) == b"served\n", "the page")
    net.ok("network", "connect", "--gw-priority", "1", "t-two", "t-web")
    net.ok("network", "disconnect", "t-one", "t-web")
    assert fetched(18271) == b"served\n"
    net.ok("network", "disconnect", "t-two", "t-web")
    net.ok("network", "connect", "t-in", "t-web")
    assert net("port", "t-web").out == ""
    assert fetched(18271) == b""
    net.ok("network", "connect", "t-one", "t-web")
    assert net.ok("port", "t-web", "80").splitlines()[0] == "0.0.0.0:18271"
    assert fetched(18271) == b"served\n"


def test_ipv6(net: Client) -> None:
    net.ok("network", "create", "--ipv6", "--subnet", "10.83.0.0/24", "--subnet", "fd00:83::/64", "t-six")
    net.ok("network", "create", "--ipv6", "--ipv4=false", "t-only")
    words = ["--network", "t-six", "--ip6", "fd00:83::9", "--link-local-ip", "169.254.8.3"]
    net.run(*words, net.image, *SLEEP, name="t-c")
    found = settings(net, "t-c")["t-six"]
    assert (found["GlobalIPv6Address"], found["GlobalIPv6PrefixLen"]) == ("fd00:83::9", 64)
    assert (found["IPAddress"], found["IPv6Gateway"]) == ("10.83.0.2", "fd00:83::1")
    assert default_route(net, "t-c", "-6") == "via fd00:83::1 dev eth0"
    assert "169.254.8.3/16" in net.ok("exec", "t-c", "ip", "-4", "addr")
    net.ok("network", "connect", "t-only", "t-c")
    other = settings(net, "t-c")["t-only"]
    assert (other["IPAddress"], other["GlobalIPv6Address"][:2]) == ("", "fd")
    net.ok("run", "--rm", "--network", "t-six", net.image, "ping", "-c1", "-W2", "fd00:83::9")


def test_attack_21_networks_are_apart(net: Client) -> None:
    net.ok("network", "create", "t-one")
    net.ok("network", "create", "t-two")
    net.ok("network", "create", "--internal", "t-in")
    net.run("--network", "t-one", net.image, *SLEEP, name="t-c")
    net.run("--network", "t-in", net.image, *SLEEP, name="t-hidden")
    one = settings(net, "t-c")["t-one"]["IPAddress"]
    ping = ("ping", "-c1", "-W1")
    net.ok("run", "--rm", "--network", "t-one", net.image, *ping, one)
    assert net("run", "--rm", "--network", "t-two", net.image, *ping, one).status == 1
    assert default_route(net, "t-hidden") == ""
    assert net("exec", "t-hidden", *ping, one).status != 0


# --- docker-py, and what Compose asks for


@pytest.fixture
def sdk(request: pytest.FixtureRequest, net: Client) -> Iterator[sdk_of_docker.DockerClient]:
    host = os.environ.get("PIER_SCENARIO_HOST")
    if host is None:
        daemon: Daemon = request.getfixturevalue("daemon")
        host = f"unix://{daemon.socket}"
    client = sdk_of_docker.DockerClient(host)
    yield client
    client.close()


def test_docker_py(sdk: sdk_of_docker.DockerClient, net: Client) -> None:
    pool = IPAMPool(subnet="10.83.0.0/24", gateway="10.83.0.254")
    labels = {"com.docker.compose.project": "t", "com.docker.compose.network": "default"}
    made = sdk.networks.create(
        "t_default", driver="bridge", check_duplicate=True, labels=labels, ipam=IPAMConfig(pool_configs=[pool])
    )
    (found,) = sdk.networks.list(names=["t_default"], filters={"label": ["com.docker.compose.project=t"]})
    assert (found.id, found.attrs["Labels"]) == (made.id, labels)
    asked: NetworkingConfig = sdk.api.create_networking_config(
        {"t_default": sdk.api.create_endpoint_config(aliases=["web", "t-web-1"], ipv4_address="10.83.0.7")}
    )
    config = sdk.api.create_host_config(network_mode="t_default")
    id = sdk.api.create_container(
        net.image, ["sleep", "1000"], name="t-web-1", networking_config=asked, host_config=config
    )["Id"]
    container = sdk.containers.get(id)
    container.start()
    made.reload()
    assert [one.name for one in made.containers] == ["t-web-1"]
    container.reload()
    assert container.attrs["NetworkSettings"]["Networks"]["t_default"]["Aliases"] == ["web", "t-web-1"]
    with pytest.raises(APIError, match="already exists"):
        sdk.networks.create("t_default", check_duplicate=True)
    made.disconnect(container)
    made.connect(container, aliases=["again"], ipv4_address="10.83.0.8")
    container.reload()
    assert container.attrs["NetworkSettings"]["Networks"]["t_default"]["IPAddress"] == "10.83.0.8"
    container.remove(force=True)
    made.remove()
    with pytest.raises(NotFound, match="network t_default not found"):
        sdk.networks.get("t_default")


# --- the daemon is killed


def test_attack_26_networks_outlive_the_daemon(own_daemon: Daemon, own_docker: Client) -> None:
    net = own_docker
    net.ok("network", "create", "--subnet", "10.83.0.0/24", "t-one")
    net.ok("network", "create", "--internal", "t-two")
    net.run("--network", "t-one", "-p", "18272:80", net.image, *SLEEP, name="t-c")
    net.ok("network", "connect", "--alias", "x", "t-two", "t-c")
    before = settings(net, "t-c"), net.ok("port", "t-c"), shown(net, "t-one")
    own_daemon.kill()
    own_daemon.start()
    assert (settings(net, "t-c"), net.ok("port", "t-c"), shown(net, "t-one")) == before
    net.ok("run", "--rm", "--network", "t-one", net.image, "ping", "-c1", "-W2", before[0]["t-one"]["IPAddress"])
    net.ok("network", "disconnect", "t-two", "t-c")
    net.ok("rm", "-f", "t-c")
    net.ok("network", "rm", "t-one", "t-two")
    assert networks(net) == {"bridge", "host", "none"}


CYCLES = int(os.environ.get("PIER_TEST_CYCLES", "2"))
SEED = int(os.environ.get("PIER_TEST_SEED", str(time.time_ns() % 10**9)))


def test_attack_26_whenever_the_daemon_is_killed(own_daemon: Daemon, own_docker: Client) -> None:
    """What the records name is there, and nothing else: bridges, rules, interfaces, addresses."""
    choose, seen = random.Random(SEED), set[str]()
    for name in ("t-one", "t-two"):
        own_docker.run("-p", f"1828{name[2:] == 'one':d}:80", own_docker.image, *SLEEP, name=name)
    for _ in range(CYCLES):
        changing = threading.Thread(target=change_networks, args=(own_daemon, random.Random(choose.random())))
        changing.start()
        time.sleep(choose.uniform(0.05, 0.4))
        own_daemon.kill()
        changing.join()
        own_daemon.start()
        seen |= check_networks(own_daemon, own_docker)
    own_docker.ok("rm", "-f", "t-one", "t-two")
    if left := networks(own_docker) - {"bridge", "host", "none"}:
        own_docker.ok("network", "rm", *left)
    assert not [id for id in seen if os.path.exists(f"/sys/class/net/br-{id[:12]}")], f"seed {SEED}"
    assert "Traceback" not in own_daemon.log.read_text(), f"seed {SEED}"


def change_networks(daemon: Daemon, choose: random.Random) -> None:
    """Make, remove, join and leave networks until the daemon answers no more."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        while True:
            network, container = choose.choice(("n1", "n2", "n3")), choose.choice(("t-one", "t-two"))
            path, body = choose.choice(
                (
                    ("/networks/create", {"Name": network, "EnableIPv6": choose.random() < 0.3}),
                    (f"/networks/{network}/connect", {"Container": container, "EndpointConfig": {"GwPriority": 1}}),
                    (f"/networks/{network}/connect", {"Container": container}),
                    (f"/networks/{network}/disconnect", {"Container": container}),
                    ("/networks/bridge/disconnect", {"Container": container}),
                    ("/networks/bridge/connect", {"Container": container}),
                    (f"/networks/{network}", None),
                )
            )
            api = Api(daemon.socket)
            with contextlib.closing(api):
                headers = {"Content-Type": "application/json"}
                api.request("DELETE" if body is None else "POST", path, json.dumps(body), headers)
                assert api.getresponse().status < 501


def check_networks(daemon: Daemon, docker: Client) -> set[str]:
    """Hold what there is against what the daemon says; returns the ids of its networks."""
    ids = set(docker.ok("network", "ls", "-q", "--no-trunc", "--filter", "type=custom").split())
    wanted = {daemon.bridge, *(f"br-{id[:12]}" for id in ids)}
    assert {name for name in wanted if os.path.exists(f"/sys/class/net/{name}")} == wanted, f"seed {SEED}"
    listed = subprocess.run(
        ["nft", "-j", "list", "set", "inet", f"pier-{daemon.bridge}", "bridges"], capture_output=True, check=True
    )
    (bridges,) = [item["set"]["elem"] for item in json.loads(listed.stdout)["nftables"] if "set" in item]
    assert set(bridges) == wanted, f"seed {SEED}"
    for container in ("t-one", "t-two"):
        found = settings(docker, container).values()
        shown = docker.ok("exec", container, "ip", "-o", "-4", "addr").splitlines()
        inside = {line.split()[3].partition("/")[0] for line in shown} - {"127.0.0.1"}
        assert inside == {one["IPAddress"] for one in found}, f"seed {SEED}: {shown}"
        assert all(one["EndpointID"] for one in found), f"seed {SEED}"
        gateways = {one["Gateway"] for one in found} - {""}
        given = default_route(docker, container).split()[1:2]
        assert set(given) <= gateways, f"seed {SEED}: {given}"
        assert len(given) == bool(gateways), f"seed {SEED}: {gateways}"
        ends = sum(len(os.listdir(f"/sys/class/net/{name}/brif")) for name in wanted)
    assert ends == sum(len(settings(docker, container)) for container in ("t-one", "t-two")), f"seed {SEED}"
    return ids
