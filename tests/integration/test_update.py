"""`docker update` and `docker top`, and what is paused."""

import json
import shutil

import pytest

from .client import Client
from .conftest import Daemon, poll

pytestmark = pytest.mark.root

MIB = 1 << 20
SHOW_LIMITS = "cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null"


def pids_max(docker: Client, name: str) -> str:
    """The limit that the kernel holds, as the container sees it."""
    return docker("exec", name, "sh", "-c", SHOW_LIMITS).out.strip()


def test_limits_change_while_it_runs(docker: Client) -> None:
    docker.run("-m", "64m", docker.image, "sleep", "1000", name="t-up")
    assert docker.ok("update", "--pids-limit", "33", "--memory", "32m", "--cpu-shares", "300", "t-up") == "t-up"
    assert pids_max(docker, "t-up") == "33"
    shown = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.PidsLimit}} {{.HostConfig.CpuShares}}"
    assert docker.field("t-up", shown) == f"{32 * MIB} {128 * MIB} 33 300"
    poll(lambda: "32MiB" in docker.ok("stats", "--no-stream", "t-up"), "the limit")  # the client waits but two seconds
    docker.ok("restart", "-t", "0", "t-up")
    assert pids_max(docker, "t-up") == "33"
    docker.ok("update", "--pids-limit", "-1", "t-up")
    assert pids_max(docker, "t-up") == "max"


def test_memory_and_swap_go_up_and_down_together(docker: Client) -> None:
    docker.run("-m", "64m", docker.image, "sleep", "1000", name="t-mem")
    refused = docker("update", "-m", "256m", "t-mem")
    assert refused.status == 1
    assert refused.err.endswith(
        "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time\n"
    )
    for memory, swap in ((256, 512), (16, 16), (300, -1), (20, 40)):
        docker.ok("update", "-m", f"{memory}m", "--memory-swap", f"{swap}m" if swap > 0 else "-1", "t-mem")
        limit = f"/ {memory}MiB"
        poll(lambda limit=limit: limit in docker.ok("stats", "--no-stream", "t-mem"), "the limit", 30)


def test_what_the_kernel_refuses_changes_nothing(docker: Client) -> None:
    program = "dd if=/dev/zero of=/dev/shm/x bs=1M count=40; echo ready; exec sleep 1000"
    docker.run("-m", "64m", docker.image, "sh", "-c", program, name="t-used")
    poll(lambda: "ready" in docker.ok("logs", "t-used"), "memory to be used")
    if json.loads(docker.ok("info", "--format", "json"))["CgroupVersion"] == "2":
        pytest.skip("cgroup v2 takes the limit and kills")
    refused = docker("update", "--pids-limit", "5", "-m", "20m", "--memory-swap", "20m", "t-used")
    assert refused.status == 1
    assert "unable to set memory limit to 20971520 (current usage: " in refused.err
    assert docker.field("t-used", "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}") == f"{64 * MIB} <nil>"
    assert pids_max(docker, "t-used") == "max"


def test_paused_and_stopped_containers_take_it_too(docker: Client) -> None:
    docker.run(docker.image, "sleep", "1000", name="t-ice")
    docker.ok("pause", "t-ice")
    docker.ok("create", "--name", "t-not-yet", docker.image, "sleep", "1000")
    assert docker.ok("update", "--pids-limit", "44", "t-ice", "t-not-yet") == "t-ice\nt-not-yet"
    docker.ok("unpause", "t-ice")
    docker.ok("start", "t-not-yet")
    assert pids_max(docker, "t-ice") == pids_max(docker, "t-not-yet") == "44"
    assert len(docker.events("--filter", "event=update", "--filter", "container=t-ice")) == 1


def test_the_restart_policy_of_a_running_container(docker: Client) -> None:
    program = "while [ ! -e /end ]; do sleep 0.05; done; rm /end; exit 3"
    docker.run(docker.image, "sh", "-c", program, name="t-policy")
    docker.ok("update", "--restart", "on-failure:5", "t-policy")
    docker.ok("exec", "t-policy", "touch", "/end")
    poll(lambda: docker.field("t-policy", "{{.RestartCount}} {{.State.Status}}") == "1 running", "a restart")
    docker.ok("update", "--restart", "no", "t-policy")
    docker.ok("exec", "t-policy", "touch", "/end")
    assert docker.ok("wait", "t-policy") == "3"
    assert docker.field("t-policy", "{{.RestartCount}} {{.State.Status}}") == "1 exited"


def test_an_update_outlives_the_daemon(own_daemon: Daemon, own_docker: Client) -> None:
    own_docker.run(own_docker.image, "sleep", "1000", name="t-keep")
    own_docker.ok("update", "--pids-limit", "55", "t-keep")
    own_docker.ok("pause", "t-keep")
    own_daemon.kill()
    own_daemon.start()
    assert own_docker.state("t-keep") == "paused"
    assert own_docker.field("t-keep", "{{.HostConfig.PidsLimit}}") == "55"
    own_docker.ok("unpause", "t-keep")
    assert pids_max(own_docker, "t-keep") == "55"


def test_pier_updates(daemon: Daemon, docker: Client) -> None:
    docker.run(docker.image, "sleep", "1000", name="t-pier")
    nothing = daemon.pier("update", "t-pier")
    assert (nothing.status, nothing.err) == (1, "you must provide one or more flags when using this command\n")
    done = daemon.pier("update", "--pids-limit=7", "--restart", "always", "t-pier", "t-nosuch")
    assert (done.status, done.out) == (1, "t-pier\n")
    assert done.err == "Error response from daemon: No such container: t-nosuch\n"
    assert docker.field("t-pier", "{{.HostConfig.PidsLimit}} {{.HostConfig.RestartPolicy.Name}}") == "7 always"


def test_top(docker: Client) -> None:
    docker.run(docker.image, "sh", "-c", "sleep 1000 & exec sleep 999", name="t-top")
    poll(lambda: len(docker.ok("top", "t-top").splitlines()) == 3, "both processes")
    titles, *rows = [line.split(maxsplit=7) for line in docker.ok("top", "t-top").splitlines()]
    assert titles == "UID PID PPID C STIME TTY TIME CMD".split()
    assert sorted(row[7] for row in rows) == ["sleep 1000", "sleep 999"]
    assert docker.field("t-top", "{{.State.Pid}}") in {row[1] for row in rows}
    docker.ok("pause", "t-top")
    assert len(docker.ok("top", "t-top").splitlines()) == 3, "paused"
    if shutil.which("ps"):
        assert len(docker.ok("top", "t-top", "-o", "pid,args").splitlines()) == 3
    docker.ok("kill", "t-top")
    assert "is not running" in docker("top", "t-top").err
