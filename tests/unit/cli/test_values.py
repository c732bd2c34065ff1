"""What the flags of run and create take."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pier.cli import values
from pier.cli.container_config import build, restart_policy, security, split_volumes
from pier.cli.container_devices import is_qualified, parse_device
from pier.cli.container_flags import CONTAINER_FLAGS
from pier.cli.flags import Command, parse
from pier.cli.ports import expose, publish

CREATE = Command("", flags=CONTAINER_FLAGS, arity=(1, None), interspersed=False)


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("100", 100), ("1k", 1024), ("1.5g", 1610612736), ("64MiB", 67108864), ("2 kb", 2048)]
)
def test_sizes(text: str, size: int) -> None:
    assert values.parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "problem"),
    [("", "invalid size: ''"), ("x", "invalid size: 'x'"), ("1x", "invalid suffix: 'x'"), ("1kx", "invalid suffix: 'kx'"),  # noqa: E501
     ("-1", "invalid size: '-1'"), ("1bb", "invalid suffix: 'bb'")],
)  # fmt: skip
def test_wrong_sizes(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match="^" + problem.replace("(", r"\(") + "$"):
        values.parse_size(text)


@pytest.mark.parametrize(
    ("text", "nano"), [("1.5", 1500000000), ("0.001", 1000000), ("3/2", 1500000000), ("2", 2 * 10**9)]
)
def test_cpus_are_exact(text: str, nano: int) -> None:
    assert values.parse_cpus(text) == nano


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("type=bind,source=/a,target=/b,readonly",
         {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True}),
        ("src=v,dst=/c,volume-nocopy,volume-opt=a=b",
         {"Type": "volume", "Source": "v", "Target": "/c",
          "VolumeOptions": {"NoCopy": True, "DriverConfig": {"Options": {"a": "b"}}}}),
        ("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1777",
         {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1048576, "Mode": 0o1777}}),
        ("type=bind,src=/a,dst=/b,idmap",
         {"Type": "bind", "Source": "/a", "Target": "/b", "BindOptions": {"IdMap": "true"}}),
        ("type=bind,src=/a,dst=/b,idmap=uids=0-1-1;gids=0-1-1",
         {"Type": "bind", "Source": "/a", "Target": "/b", "BindOptions": {"IdMap": "uids=0-1-1;gids=0-1-1"}}),
        ('type=bind,"source=/a,b",target=/c', {"Type": "bind", "Source": "/a,b", "Target": "/c"}),
    ],
)  # fmt: skip
def test_mounts(text: str, mount: dict[str, Any]) -> None:
    assert values.parse_mount(text) == mount


@pytest.mark.parametrize(
    ("texts", "bindings"),
    [
        (["80"], {"80/tcp": [("", "")]}),
        (["8080:80"], {"80/tcp": [("", "8080")]}),
        (["127.0.0.1:8080:80/udp"], {"80/udp": [("127.0.0.1", "8080")]}),
        (["127.0.0.1::80"], {"80/tcp": [("127.0.0.1", "")]}),
        (["[::1]:5:6", "::1:7:8"], {"6/tcp": [("::1", "5")], "8/tcp": [("::1", "7")]}),
        (["10-11:20-21"], {"20/tcp": [("", "10")], "21/tcp": [("", "11")]}),
        (["7000-7005:99"], {"99/tcp": [("", "7000-7005")]}),
        (["1:80", "2:80", "1:80"], {"80/tcp": [("", "1"), ("", "2")]}),
        (["published=8,target=9,protocol=udp"], {"9/udp": [("", "8")]}),
    ],
)
def test_published_ports(texts: list[str], bindings: dict[str, list[tuple[str, str]]]) -> None:
    expected = {port: [{"HostIp": ip, "HostPort": host} for ip, host in pairs] for port, pairs in bindings.items()}
    assert publish(texts) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x", "invalid containerPort: x"),
        ("99999:80", "invalid hostPort: 99999"),
        ("80:80/foo", "invalid proto: foo"),
        ("1-3:1-2", "invalid ranges specified for container and host Ports: 1-2 and 1-3"),
        ("5-1:5-1", "invalid containerPort: 5-1"),
        ("300.1.1.1:80:80", "invalid IP address: 300.1.1.1"),
    ],
)
def test_wrong_ports(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}$"):
        publish([text])


def test_exposed_ranges() -> None:
    assert expose(["80", "90-91/UDP"]) == ["80/tcp", "90/udp", "91/udp"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "empty string specified for ports"),
        ("a-80", 'strconv.ParseUint: parsing "a": invalid syntax'),
        ("80-", 'strconv.ParseUint: parsing "": invalid syntax'),
        ("70000", 'strconv.ParseUint: parsing "70000": value out of range'),
    ],
)
def test_what_cannot_be_exposed(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match="invalid range format for --expose") as caught:
        expose([text])
    assert str(caught.value).endswith(f"error: {problem}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "invalid empty volume spec"),
        (":/x", "invalid spec: :/x: empty section between colons"),
        ("/a:/b:", "invalid spec: /a:/b:: empty section between colons"),
        ("va:/b:ro:z", "invalid spec: va:/b:ro:z: too many colons"),
    ],
)
def test_what_is_no_volume(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}$"):
        split_volumes([text])


@pytest.mark.parametrize("other", ["host", "none", "bridge", "container:b"])
def test_networks_of_two_kinds_do_not_go_together(other: str) -> None:
    for pair in (("a", other), (other, "a")):
        flags = [word for name in pair for word in ("--network", name)]
        with pytest.raises(ValueError, match="cannot attach both user-defined and non-user-defined network-modes"):
            body(*flags, "busybox")


def test_small_forms() -> None:
    assert restart_policy("on-failure:3") == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert parse_device("/dev/a:r") == {"PathOnHost": "/dev/a", "PathInContainer": "/dev/a", "CgroupPermissions": "r"}
    assert security(["systempaths=unconfined", "no-new-privileges"]) == {
        "MaskedPaths": [], "ReadonlyPaths": [], "SecurityOpt": ["no-new-privileges"]}  # fmt: skip
    assert split_volumes(["/a", "/b:/c:ro"]) == (["/a"], ["/b:/c:ro"])
    assert values.parse_gpus("all")[0]["Count"] == -1
    assert values.split_csv('a,"b,""c""",d') == ["a", 'b,"c"', "d"]


def body(*words: str, detach: bool = False) -> dict[str, Any]:
    opts, args = parse(CREATE, "create", list(words))
    return build(opts, args, detach=detach, console=None)


def test_body_of_the_plain_case() -> None:
    assert body("busybox", "true") == {
        "Image": "busybox",
        "Cmd": ["true"],
        "AttachStdin": False,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": False,
        "OpenStdin": False,
        "StdinOnce": False,
        "HostConfig": {"NetworkMode": "default"},
    }


def test_body_of_interactive_and_detached() -> None:
    interactive = body("-it", "x")
    assert (interactive["StdinOnce"], interactive["AttachStdin"], interactive["OpenStdin"]) == (True, True, True)
    detached = body("-it", "x", detach=True)
    assert (detached["StdinOnce"], detached["AttachStdout"], detached["OpenStdin"]) == (False, False, True)


@pytest.mark.parametrize(
    ("words", "member", "value"),
    [
        ("--cpus 1.5", "NanoCpus", 1500000000),
        ("-m 1g", "Memory", 1 << 30),
        ("--memory-swap -1", "MemorySwap", -1),
        ("--pids-limit 5", "PidsLimit", 5),
        ("--init", "Init", True),
        ("--tmpfs /r:size=1m", "Tmpfs", {"/r": "size=1m"}),
        ("--cap-add A --cap-add B", "CapAdd", ["A", "B"]),
        ("--network host", "NetworkMode", "host"),
        ("--net host", "NetworkMode", "host"),
        ("--ulimit nofile=5 --ulimit core=1 --ulimit nofile=6:7", "Ulimits",
         [{"Name": "core", "Hard": 1, "Soft": 1}, {"Name": "nofile", "Hard": 7, "Soft": 6}]),
        ("--add-host a=::1", "ExtraHosts", ["a:::1"]),
        ("--log-opt a=b", "LogConfig", {"Type": "", "Config": {"a": "b"}}),
        ("--privileged", "Privileged", True),
        ("--sysctl net.x=1", "Sysctls", {"net.x": "1"}),
    ],
)  # fmt: skip
def test_host_config_members(words: str, member: str, value: Any) -> None:
    assert body(*words.split(" "), "image")["HostConfig"][member] == value


def test_addresses_make_an_endpoint() -> None:
    made = body("--network", "foo", "--ip", "1.2.3.4", "--network-alias", "a", "image")
    assert made["NetworkingConfig"] == {
        "EndpointsConfig": {"foo": {"Aliases": ["a"], "IPAMConfig": {"IPv4Address": "1.2.3.4"}}}
    }


def test_environment_files(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "here")
    monkeypatch.delenv("ABSENT", raising=False)
    file = tmp_path / "env"
    file.write_text("# comment\n\nA=1\nKEPT\nABSENT\n  B=2 3\n")
    made = body("--env-file", str(file), "-e", "KEPT", "-e", "ABSENT", "-e", "C=", "image")
    assert made["Env"] == ["A=1", "KEPT=here", "B=2 3", "KEPT=here", "ABSENT", "C="]
    file.write_text("a b=1\n")
    with pytest.raises(ValueError, match="variable 'a b' contains whitespaces"):
        body("--env-file", str(file), "image")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--restart always --rm", "conflicting options: cannot specify both --restart and --rm"),
        ("--memory-swappiness 101", "invalid value: 101. Valid memory swappiness range is 0-100"),
        ("--network-alias a", "network-scoped aliases are only supported for user-defined networks"),
        ("--health-cmd x --no-healthcheck", "--no-healthcheck conflicts with --health-* options"),
        ("--pid x", "--pid: invalid PID mode"),
    ],
)
def test_flags_that_do_not_fit_together(words: str, problem: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared below
        body(*words.split(" "), "image")
    assert str(caught.value) == problem


@pytest.mark.parametrize(
    ("text", "described"),
    [
        ("nvidia.com/gpu=0", True),
        ("vendor/class=all", True),
        ("nvidia.com/gpu=1:0", True),
        ("/dev/null", False),
        ("/dev/a=b/c=d", False),
        ("/dev/sda:/dev/x=y", False),
        ("vendor/class=", False),
        ("vendor=x", False),
        ("vendor/class", False),
    ],
)
def test_names_of_described_devices(text: str, described: bool) -> None:
    assert is_qualified(text) is described


def test_described_devices_are_requested() -> None:
    host = body("--device", "a.b/c=d", "--device", "/dev/null", "--gpus", "all", "bb")["HostConfig"]
    assert [device["PathOnHost"] for device in host["Devices"]] == ["/dev/null"]
    assert host["DeviceRequests"][-1] == {"Driver": "cdi", "DeviceIDs": ["a.b/c=d"]}
    assert len(host["DeviceRequests"]) == 2
