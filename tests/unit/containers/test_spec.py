"""HostConfig and config as OCI runtime configuration; what Docker's own engine writes is the measure."""

from __future__ import annotations

from typing import Any

import pytest

from pier.containers import spec
from pier.containers.record import Record
from pier.containers.spec import Facts, runtime_spec
from pier.containers.spec_security import DEFAULT_CAPABILITIES
from pier.kernel.capabilities import NAMES
from pier.model.container import ContainerConfig
from pier.model.host_config import DeviceMapping, HostConfig, Ulimit

ID = "ab" * 32
ETC = {name: f"/etc-of/{name}" for name in ("hosts", "hostname", "resolv.conf")}


def build(config: ContainerConfig | None = None, facts: dict[str, Any] | None = None, **host: Any) -> dict[str, Any]:
    settings = {"network_mode": "bridge", "ipc_mode": "private", "cgroupns_mode": "host", "shm_size": 64 << 20, **host}
    record = Record(
        id=ID,
        name="n",
        created_ns=1,
        image_id="sha256:" + "1" * 64,
        layers=[],
        path="sleep",
        args=["1000"],
        driver="overlay2",
        config=config or ContainerConfig(hostname="224d501f4752"),
        host_config=HostConfig(**settings),
    )
    base = Facts(capabilities=NAMES, host_name="vm", cgroups_path=f"/pier/{ID}", etc=ETC, **(facts or {}))
    return runtime_spec(record, base)


def at(found: dict[str, Any], destination: str) -> list[dict[str, Any]]:
    return [mount for mount in found["mounts"] if mount["destination"] == destination]


def test_the_default_container_is_dockers() -> None:
    found = build()
    process, linux = found["process"], found["linux"]
    assert process["args"] == ["sleep", "1000"]
    assert process["env"] == [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOSTNAME=224d501f4752",
    ]
    assert (process["cwd"], process["terminal"], process["oomScoreAdj"]) == ("/", False, 0)
    assert [(mount["destination"], mount["type"]) for mount in found["mounts"]] == [
        ("/proc", "proc"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/sys", "sysfs"),
        ("/sys/fs/cgroup", "cgroup"),
        ("/dev/mqueue", "mqueue"),
        ("/dev/shm", "tmpfs"),
        ("/etc/resolv.conf", "bind"),
        ("/etc/hostname", "bind"),
        ("/etc/hosts", "bind"),
    ]
    assert at(found, "/dev/pts")[0]["options"] == [
        "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5",
    ]  # fmt: skip
    assert at(found, "/dev/shm")[0]["options"][-2:] == ["mode=1777", "size=67108864"]
    assert "ro" in at(found, "/sys")[0]["options"]
    assert linux["sysctl"] == {
        "net.ipv4.ip_unprivileged_port_start": "0",
        "net.ipv4.ping_group_range": "0 2147483647",
    }
    assert [item["type"] for item in linux["namespaces"]] == ["mount", "network", "uts", "pid", "ipc"]
    assert "/proc/kcore" in linux["maskedPaths"]
    assert "/proc/sys" in linux["readonlyPaths"]
    assert linux["resources"]["devices"][0] == {"allow": False, "access": "rwm"}
    assert set(linux["resources"]) == {"devices"}


def test_attack_14_default_capabilities_are_dockers_fourteen_and_none_inheritable() -> None:
    sets = build()["process"]["capabilities"]
    assert len(DEFAULT_CAPABILITIES) == 14
    assert set(sets) == {"bounding", "effective", "permitted"}
    assert all(tuple(names) == DEFAULT_CAPABILITIES for names in sets.values())


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ({"cap_drop": ["ALL"]}, set()),
        ({"cap_drop": ["ALL"], "cap_add": ["net_admin"]}, {"CAP_NET_ADMIN"}),
        ({"cap_drop": ["CAP_MKNOD"]}, set(DEFAULT_CAPABILITIES) - {"CAP_MKNOD"}),
        ({"cap_add": ["ALL"], "cap_drop": ["MKNOD"]}, set(NAMES) - {"CAP_MKNOD"}),
        ({"cap_add": ["SYS_TIME"]}, {*DEFAULT_CAPABILITIES, "CAP_SYS_TIME"}),
        ({"privileged": True}, set(NAMES)),
    ],
)
def test_capabilities(host: dict[str, Any], expected: set[str]) -> None:
    assert set(build(**host)["process"]["capabilities"]["bounding"]) == expected


def test_privileged_opens_everything() -> None:
    device = {"path": "/dev/x", "type": "c", "major": 9, "minor": 9}
    found = build(privileged=True, facts={"devices": [device]})
    assert found["linux"]["devices"] == [device]
    assert found["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert "maskedPaths" not in found["linux"]
    assert "ro" not in at(found, "/sys")[0]["options"]
    assert "ro" not in at(found, "/sys/fs/cgroup")[0]["options"]


def test_privileged_has_devices_by_other_names_too() -> None:
    device = {"path": "/dev/null", "type": "c", "major": 1, "minor": 3}
    asked = [DeviceMapping("/dev/null", "/dev/void"), DeviceMapping("/dev/null", "/dev/null")]
    found = build(privileged=True, devices=asked, facts={"devices": [device]})
    assert [node["path"] for node in found["linux"]["devices"]] == ["/dev/null", "/dev/void"]


def test_host_namespaces() -> None:
    found = build(network_mode="host", pid_mode="host", uts_mode="host", ipc_mode="host")
    assert [item["type"] for item in found["linux"]["namespaces"]] == ["mount"]
    assert found["linux"]["sysctl"] == {}
    assert "hostname" not in found
    assert "HOSTNAME=vm" in found["process"]["env"]
    assert at(found, "/dev/shm")[0]["source"] == "/dev/shm"


def test_joined_namespaces() -> None:
    joined = {"network": "/proc/377/ns/net", "pid": "/proc/377/ns/pid"}
    found = build(
        ContainerConfig(),
        network_mode="container:x",
        pid_mode="container:x",
        facts={"joined": joined, "joined_hostname": "other"},
    )
    assert {"type": "network", "path": "/proc/377/ns/net"} in found["linux"]["namespaces"]
    assert {"type": "pid", "path": "/proc/377/ns/pid"} in found["linux"]["namespaces"]
    assert found["hostname"] == "other"
    assert found["linux"]["sysctl"] == {}


def test_resources() -> None:
    found = build(
        memory=100 << 20,
        memory_swap=200 << 20,
        memory_reservation=50 << 20,
        nano_cpus=1_500_000_000,
        cpu_shares=100,
        cpuset_cpus="0",
        pids_limit=50,
        blkio_weight=100,
    )["linux"]["resources"]
    assert found["cpu"] == {"shares": 100, "quota": 150_000, "period": 100_000, "cpus": "0"}
    assert found["memory"] == {"limit": 100 << 20, "reservation": 50 << 20, "swap": 200 << 20}
    assert found["pids"] == {"limit": 50}
    assert found["blockIO"] == {"weight": 100}


@pytest.mark.parametrize("limit", [None, 0, -1])
def test_no_pids_limit(limit: int | None) -> None:
    assert "pids" not in build(pids_limit=limit)["linux"]["resources"]


def test_ulimits_of_the_container_win_and_are_requested() -> None:
    asked = [Ulimit(name="nofile", soft=100, hard=200), Ulimit(name="core", soft=-1, hard=-1)]
    defaults = [Ulimit(name="nofile", soft=1, hard=1), Ulimit(name="nproc", soft=5, hard=6)]
    found = build(ulimits=asked, facts={"default_ulimits": defaults})["process"]["rlimits"]
    assert found == [
        {"type": "RLIMIT_CORE", "hard": 2**64 - 1, "soft": 2**64 - 1},
        {"type": "RLIMIT_NOFILE", "hard": 200, "soft": 100},
        {"type": "RLIMIT_NPROC", "hard": 6, "soft": 5},
    ]
    assert spec.requested(HostConfig(ulimits=asked, oom_score_adj=5)) == [
        "process.rlimits.RLIMIT_NOFILE",
        "process.rlimits.RLIMIT_CORE",
        "process.oomScoreAdj",
    ]


def test_terminal_and_names() -> None:
    config = ContainerConfig(hostname="hh", domainname="dom.x", tty=True, working_dir="/foo", env=["TERM=vt100", "A=1"])
    found = build(config, console_size=[24, 80])
    process = found["process"]
    assert (found["hostname"], found["domainname"]) == ("hh", "dom.x")
    assert (process["cwd"], process["consoleSize"]) == ("/foo", {"height": 24, "width": 80})
    assert process["env"][1:] == ["HOSTNAME=hh", "TERM=vt100", "A=1"]


@pytest.mark.parametrize(
    ("base", "over", "expected"),
    [
        (["A=1"], ["A=2"], ["A=2"]),
        (["A=1", "B=2"], ["A"], ["B=2"]),
        ([], ["A=", "B=x=y"], ["A=", "B=x=y"]),
    ],
)
def test_merge_env(base: list[str], over: list[str], expected: list[str]) -> None:
    assert spec.merge_env(base, over) == expected


def test_read_only_root() -> None:
    found = build(readonly_rootfs=True, tmpfs={"/run": ""})
    assert found["root"]["readonly"] is True
    assert at(found, "/run")[0]["options"] == ["noexec", "nosuid", "nodev", "rprivate"]
    assert "ro" in at(found, "/etc/hosts")[0]["options"]


def test_a_users_mount_takes_the_place_of_dockers() -> None:
    found = build(binds=["/tmp/h:/etc/hosts", "/dev:/dev"])
    assert at(found, "/etc/hosts")[0]["source"] == "/tmp/h"
    assert not at(found, "/dev/pts")
    assert at(found, "/dev")[0]["type"] == "bind"


def test_the_files_in_etc_come_on_top_of_a_users_etc() -> None:
    found = [mount["destination"] for mount in build(binds=["/tmp/e:/etc", "/tmp/x:/etc/x/y"])["mounts"]]
    assert found.index("/etc") < found.index("/etc/resolv.conf") < found.index("/etc/x/y")


def test_no_new_privileges_by_default_and_by_option() -> None:
    assert build()["process"]["noNewPrivileges"] is False
    assert build(facts={"no_new_privileges": True})["process"]["noNewPrivileges"] is True
    off = build(security_opt=["no-new-privileges=false"], facts={"no_new_privileges": True})
    assert off["process"]["noNewPrivileges"] is False
    assert build(security_opt=["no-new-privileges"])["process"]["noNewPrivileges"] is True
