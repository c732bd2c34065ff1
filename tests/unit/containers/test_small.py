"""Names, merging, restart policies, the list's texts, statistics: pure functions by tables."""

from __future__ import annotations

import itertools

import pytest

from pier.containers import listing, merge, names, restart, stats
from pier.containers.record import State
from pier.errors import InvalidParameter, NotFound, PierError
from pier.kernel.cgroup_stats import CgroupStats, IOEntry
from pier.model.container import ContainerConfig, HealthConfig
from pier.model.host_config import RestartPolicy
from pier.model.network import PortBinding
from pier.oci.image_config import HealthConfig as ImageHealth
from pier.oci.image_config import RunConfig

NS = 1_000_000_000
IDS = {"aabb" + "0" * 60: "web", "aacc" + "0" * 60: "aabb"}


@pytest.mark.parametrize(
    ("ref", "expected"),
    [("web", "aabb" + "0" * 60), ("/web", "aabb" + "0" * 60), ("aabb", "aacc" + "0" * 60), ("aab", "aabb" + "0" * 60)],
)
def test_find(ref: str, expected: str) -> None:
    assert names.find(ref, IDS, {name: id for id, name in IDS.items()}) == expected


@pytest.mark.parametrize(
    ("ref", "text"),
    [
        ("nosuch", "No such container: nosuch"),
        ("", "No such container: "),
        ("aa", "multiple IDs found with provided prefix: aa"),
    ],
)
def test_find_nothing(ref: str, text: str) -> None:
    with pytest.raises(PierError) as caught:
        names.find(ref, IDS, {})
    assert caught.value.message == text
    assert isinstance(caught.value, NotFound if "No such" in text else InvalidParameter)


def test_random_names_avoid_those_taken() -> None:
    always_first = lambda words: words[0]  # noqa: E731
    first = names.random_name(set(), always_first)
    assert names.random_name({first}, always_first) == f"{first}0"
    assert names.random_name({first, f"{first}0"}, always_first) == f"{first}1"
    assert all(names.check_name(f"{a}_{b}") for a, b in itertools.product(names.MOODS[:3], names.HARBOUR))


def test_ids_are_no_numbers() -> None:
    assert len({names.make_id() for _ in range(100)}) == 100
    assert all(not names.make_id()[:12].isdigit() for _ in range(100))


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "expected"),
    [
        (None, None, (["/e"], ["c"])),
        (None, ["x"], (["/e"], ["x"])),
        (["/n"], None, (["/n"], None)),
        (["/n"], ["x"], (["/n"], ["x"])),
        ([""], ["x"], (None, ["x"])),
        ([""], None, (None, None)),
        ([], None, ([], ["c"])),
    ],
)
def test_merge_command(entrypoint: list[str] | None, cmd: list[str] | None, expected: object) -> None:
    given = ContainerConfig(entrypoint=entrypoint, cmd=cmd)
    assert merge.merge_command(given, RunConfig(entrypoint=["/e"], cmd=["c"])) == expected


def test_merge_config() -> None:
    image = RunConfig(
        user="u",
        env=["A=1", "B=2"],
        labels={"l": "image", "m": "image"},
        exposed_ports={"80/tcp": {}},
        working_dir="/w",
        stop_signal="SIGINT",
        healthcheck=ImageHealth(test=["CMD", "x"], retries=3),
    )
    given = ContainerConfig(
        env=["B=9"], labels={"l": "mine"}, exposed_ports={"90/udp": {}}, healthcheck=HealthConfig(interval=10**9)
    )
    merged = merge.merge_config(given, image)
    assert merged.env == ["B=9", "A=1"]
    assert merged.labels == {"l": "mine", "m": "image"}
    assert set(merged.exposed_ports or {}) == {"80/tcp", "90/udp"}
    assert (merged.user, merged.working_dir, merged.stop_signal) == ("u", "/w", "SIGINT")
    assert merged.healthcheck == HealthConfig(test=["CMD", "x"], retries=3, interval=10**9)


@pytest.mark.parametrize(
    ("policy", "code", "restarts", "stopped", "again"),
    [
        (RestartPolicy(name="no"), 1, 0, False, False),
        (RestartPolicy(name="always"), 0, 99, False, True),
        (RestartPolicy(name="always"), 0, 0, True, True),
        (RestartPolicy(name="unless-stopped"), 0, 0, True, False),
        (RestartPolicy(name="unless-stopped"), 0, 0, False, True),
        (RestartPolicy(name="on-failure"), 0, 0, False, False),
        (RestartPolicy(name="on-failure"), 1, 99, False, True),
        (RestartPolicy(name="on-failure", maximum_retry_count=3), 1, 2, False, True),
        (RestartPolicy(name="on-failure", maximum_retry_count=3), 1, 3, False, False),
    ],
)
def test_should_restart(policy: RestartPolicy, code: int, restarts: int, stopped: bool, again: bool) -> None:
    assert restart.should_restart(policy, exit_code=code, restarts=restarts, stopped_by_user=stopped) is again


def test_a_run_that_was_called_off_is_the_last() -> None:
    for name in ("always", "unless-stopped", "on-failure"):
        assert not restart.should_restart(RestartPolicy(name=name), exit_code=1, restarts=0, called_off=True)


def test_back_off_doubles_up_to_a_minute_and_starts_over() -> None:
    assert [restart.delay_s(n) for n in (0, 1, 2, 3)] == [0.1, 0.1, 0.2, 0.4]
    assert restart.delay_s(50) == 60
    assert restart.next_failures(7, 10 * NS) == 0
    assert restart.next_failures(7, 10 * NS - 1) == 8


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "Less than a second"),
        (1, "1 second"),
        (59.9, "59 seconds"),
        (60, "About a minute"),
        (120, "2 minutes"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (5399, "About an hour"),
        (5400, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (13 * 86400, "13 days"),
        (14 * 86400, "2 weeks"),
        (60 * 86400, "2 months"),
        (729 * 86400, "24 months"),
        (730 * 86400, "2 years"),
    ],
)
def test_human_duration(seconds: float, text: str) -> None:
    assert listing.human_duration(seconds) == text


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (State(status="created"), "Created"),
        (State(status="running", started_at_ns=100 * NS), "Up 3 minutes"),
        (State(status="paused", started_at_ns=100 * NS), "Up 3 minutes (Paused)"),
        (State(status="exited", exit_code=137, finished_at_ns=297 * NS), "Exited (137) 3 seconds ago"),
        (State(status="restarting", exit_code=1, finished_at_ns=299 * NS), "Restarting (1) 1 second ago"),
        (State(status="removing"), "Removal In Progress"),
    ],
)
def test_status_text(state: State, text: str) -> None:
    assert listing.status_text(state, 300 * NS) == text


def test_command_text() -> None:
    assert listing.command_text("sh", ["-c", "sleep 1; exit 3"]) == "sh -c 'sleep 1; exit 3'"


def test_port_summaries() -> None:
    found = listing.port_summaries({"80/tcp": [PortBinding(host_ip="127.0.0.1", host_port="8089")], "77/tcp": None})
    assert [(port.ip, port.private_port, port.public_port, port.type) for port in found] == [
        ("", 77, 0, "tcp"),
        ("127.0.0.1", 80, 8089, "tcp"),
    ]


def answer(counters: CgroupStats) -> stats.ContainerStatsResponse:
    host = stats.Host("1970-01-01T00:00:01Z", cpu_ns=5, cpus=2, memory=1000)
    return stats.at(host, stats.response(counters, id="i", host=host, networks={}), name="/n")


def test_stats_of_v1_and_v2() -> None:
    one = answer(CgroupStats(1, cpu_percpu_ns=[1, 2], memory_max_usage=7, io_service_bytes=[IOEntry(8, 0, "Read", 4)]))
    assert one.cpu_stats.cpu_usage.percpu_usage == [1, 2]
    assert (one.name, one.read, one.cpu_stats.system_cpu_usage) == ("/n", "1970-01-01T00:00:01Z", 5)
    assert one.memory_stats.max_usage == 7
    assert one.memory_stats.limit == 1000
    assert one.blkio_stats.io_queue_recursive == []
    assert one.blkio_stats.io_service_bytes_recursive is not None
    assert one.blkio_stats.io_service_bytes_recursive[0].op == "read"
    two = answer(CgroupStats(2, memory_limit=10))
    assert two.cpu_stats.cpu_usage.percpu_usage is None
    assert two.memory_stats.limit == 10
    assert two.blkio_stats.io_queue_recursive is None


def test_proc_readers() -> None:
    assert stats.host_cpu_ns("cpu  1 2 3 4 5 6 7 8 100 200\ncpu0 …") == 36 * stats.NS_PER_TICK
    assert stats.total_memory("MemFree: 1 kB\nMemTotal:       24684092 kB\n") == 24684092 * 1024
    line = "  eth0: 486 5 1 2 0 0 0 0 84 2 3 4 0 0 0 0"
    found = stats.parse_net_dev("Inter-| Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n" + line)
    assert list(found) == ["eth0"]
    assert (found["eth0"].rx_bytes, found["eth0"].tx_bytes, found["eth0"].tx_dropped) == (486, 84, 4)
