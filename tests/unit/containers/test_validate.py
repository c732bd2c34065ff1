from __future__ import annotations

from typing import Any

import pytest

from pier.containers import fields, signals, validate
from pier.containers.fields import CONFIG, HOST_CONFIG, judge
from pier.errors import InvalidParameter, NotImplementedYet, PierError
from pier.model.container import ContainerConfig, HealthConfig
from pier.model.host_config import DeviceRequest, HostConfig, LogConfig, PortBinding, RestartPolicy, Ulimit


def check(config: dict[str, Any] | None = None, **host: Any) -> list[str]:
    host.setdefault("log_config", LogConfig(type="json-file"))
    return validate.check(ContainerConfig(**(config or {})), HostConfig(**host), cpus=2, cpuset="0-1", nodes="0")


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ({"memory": 1 << 20}, "Minimum memory limit allowed is 6MB"),
        (
            {"memory": 100 << 20, "memory_swap": 50 << 20},
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        ({"nano_cpus": 100 * 10**9}, "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"),
        (
            {"nano_cpus": 10**9, "cpu_quota": 5000},
            "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
        ),
        ({"cap_add": ["FOO"]}, 'invalid CapAdd: unknown capability: "CAP_FOO"'),
        ({"cap_drop": ["cap_foo"]}, 'invalid CapDrop: unknown capability: "CAP_FOO"'),
        ({"ipc_mode": "foo"}, "invalid IPC mode: foo"),
        ({"pid_mode": "foo"}, "invalid PID mode: foo"),
        ({"isolation": "hyperv"}, "invalid isolation (hyperv): linux only supports 'default'"),
        ({"oom_score_adj": 2000}, "Invalid value 2000, range for oom score adj is [-1000, 1000]"),
        (
            {"cpu_period": 10},
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ),
        ({"cpuset_cpus": "7"}, "Requested CPUs are not available - requested 7, available: 0-1"),
        ({"cpuset_cpus": "x"}, "Invalid value x for cpuset cpus: invalid format: x"),
        (
            {"device_requests": [DeviceRequest(count=-1, capabilities=[["gpu"]])]},
            'could not select device driver "" with capabilities: [[gpu]]',
        ),
        ({"device_cgroup_rules": ["foo"]}, "invalid device cgroup format 'foo'"),
        (
            {"ulimits": [Ulimit(name="nofile", soft=10, hard=5)]},
            "invalid ulimit nofile: ulimit soft limit must be less than or equal to hard limit: 10 > 5",
        ),
        (
            {"log_config": LogConfig(type="json-file", config={"foo": "b"})},
            "unknown log opt 'foo' for json-file log driver",
        ),
        ({"tmpfs": {"foo": ""}}, "invalid mount path: 'foo' mount path must be absolute"),
        (
            {"auto_remove": True, "restart_policy": RestartPolicy(name="always")},
            "can't create 'AutoRemove' container with restart policy",
        ),
        ({"security_opt": ["foo"]}, 'invalid --security-opt 1: "foo"'),
        ({"port_bindings": {"80/tcp": [PortBinding(host_port="99999")]}}, 'invalid port specification: "99999"'),
        ({"port_bindings": {"80/foo": []}}, 'invalid port specification: "80/foo"'),
        ({"extra_hosts": ["foo"]}, 'bad format for add-host: "foo"'),
        ({"dns": ["nowhere"]}, "invalid IP address: nowhere"),
        ({"cgroup_parent": "../../x"}, None),
    ],
)
def test_refused_in_dockers_words(host: dict[str, Any], message: str | None) -> None:
    with pytest.raises(InvalidParameter) as caught:
        check(**host)
    assert message is None or caught.value.message == message


@pytest.mark.parametrize(
    ("config", "host", "message"),
    [
        (
            {"working_dir": "foo"},
            {},
            "the working directory 'foo' is invalid, it needs to be an absolute path",
        ),
        ({"stop_signal": "FOO"}, {}, "invalid signal: FOO"),
        ({"env": ["=x"]}, {}, "invalid environment variable: =x"),
        ({"healthcheck": HealthConfig(interval=1)}, {}, "Interval in Healthcheck cannot be less than 1ms"),
        (
            {"hostname": "foo"},
            {"network_mode": "container:x"},
            "conflicting options: hostname and the network mode",
        ),
        ({}, {"network_mode": "container"}, "invalid network mode: invalid container format container:<name|id>"),
        ({}, {"network_mode": "container:"}, "invalid network mode: invalid container format container:<name|id>"),
        ({"hostname": "foo"}, {"uts_mode": "host"}, "conflicting options: hostname and the UTS mode"),
        ({"exposed_ports": {"0/tcp": {}}}, {}, 'invalid port specification: "0/tcp"'),
    ],
)
def test_refused_configs(config: dict[str, Any], host: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        check(config, **host)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("host", "error"),
    [
        ({"log_config": LogConfig(type="foo")}, InvalidParameter),
        ({"log_config": LogConfig(type="gelf")}, NotImplementedYet),
    ],
)
def test_other_refusals(host: dict[str, Any], error: type[PierError]) -> None:
    with pytest.raises(error):
        check(**host)


def test_warnings() -> None:
    assert check() == []
    assert "OOM killer is disabled" in check(oom_kill_disable=True)[0]
    published = check(network_mode="host", port_bindings={"80/tcp": [PortBinding(host_port="80")]})
    assert published == ["Published ports are discarded when using host network mode"]
    assert "AppArmor" in check(security_opt=["apparmor=foo"])[0]
    assert check(security_opt=["apparmor=unconfined", "label=disable"]) == []


def test_storage_opt() -> None:
    assert validate.root_size_bytes(HostConfig()) == 0
    assert validate.root_size_bytes(HostConfig(storage_opt={"size": "1.5G"})) == 3 << 29
    assert validate.root_size_bytes(HostConfig(storage_opt={"size": "4096"})) == 4096
    with pytest.raises(InvalidParameter, match="Unknown option speed"):
        validate.root_size_bytes(HostConfig(storage_opt={"speed": "1"}))
    with pytest.raises(InvalidParameter, match="invalid size: 'abc'"):
        validate.root_size_bytes(HostConfig(storage_opt={"size": "abc"}))


def test_every_field_has_a_rule() -> None:
    assert set(CONFIG) == set(ContainerConfig.__struct_fields__)
    assert set(HOST_CONFIG) == set(HostConfig.__struct_fields__)


@pytest.mark.parametrize(
    ("host", "error", "named"),
    [
        (HostConfig(cpu_count=2), InvalidParameter, "CpuCount"),
    ],
)
def test_judge_refuses_by_name(host: HostConfig, error: type[PierError], named: str) -> None:
    with pytest.raises(error, match=named):
        judge(ContainerConfig(), host)


def test_judge_warns() -> None:
    assert "deprecated" in judge(ContainerConfig(), HostConfig(kernel_memory=1))[0]
    assert judge(ContainerConfig(), HostConfig()) == []


def test_wire_names() -> None:
    assert fields.wire_name(HostConfig(), "io_maximum_iops") == "IOMaximumIOps"


@pytest.mark.parametrize(
    ("text", "number"),
    [("KILL", 9), ("SIGKILL", 9), ("sigterm", 15), ("9", 9), ("RTMIN", 34), ("SIGRTMIN+3", 37), ("64", 64)],
)
def test_signals(text: str, number: int) -> None:
    assert signals.parse(text) == number


@pytest.mark.parametrize("text", ["FOO", "0", "65", "-9", "SIGSIGKILL", "٩", "9999"])
def test_no_signals(text: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid signal"):
        signals.parse(text)


def test_stop_timeout() -> None:
    assert signals.stop_timeout_s(ContainerConfig()) == 10
    assert signals.stop_timeout_s(ContainerConfig(stop_timeout=3)) == 3
    assert signals.stop_timeout_s(ContainerConfig(stop_timeout=3), 0) == 0
    assert signals.stop_timeout_s(ContainerConfig(), -1) is None
