"""Health checks through a daemon: Docker's command line sets them, real programs answer them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .client import Client
from .conftest import Daemon, poll

pytestmark = pytest.mark.root

FAST = ("--health-interval", "50ms", "--health-timeout", "2s", "--health-retries", "2")


def health(docker: Client, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker.field(name, "{{json .State.Health}}"))
    return found


def until(docker: Client, name: str, status: str) -> dict[str, Any]:
    poll(lambda: health(docker, name)["Status"] == status, f"{name} to be {status}")
    return health(docker, name)


def test_a_check_follows_what_the_container_says(docker: Client) -> None:
    docker.run(*FAST, "--health-cmd", "echo out; echo err >&2; [ -e /ok ]", docker.image, "sleep", "100", name="asked")
    found = until(docker, "asked", "unhealthy")
    assert found["FailingStreak"] >= 2
    assert (found["Log"][-1]["ExitCode"], sorted(found["Log"][-1]["Output"].split())) == (1, ["err", "out"])
    assert docker.ok("ps", "--filter", "name=asked", "--format", "{{.Status}}").endswith("(unhealthy)")
    docker.ok("exec", "asked", "touch", "/ok")
    assert until(docker, "asked", "healthy")["FailingStreak"] == 0
    assert docker.ok("ps", "-q", "--filter", "name=asked", "--filter", "health=healthy")
    poll(lambda: len(health(docker, "asked")["Log"]) == 5, "five results")
    docker.ok("rm", "-f", "asked")
    told = [line.split(" container ")[1] for line in docker.events("--filter", "event=health_status")]
    assert [line.split()[1] for line in told[-2:]] == ["unhealthy", "healthy"]


def test_a_probe_that_hangs_is_ended_and_one_that_floods_is_cut(docker: Client) -> None:
    docker.run(
        *("--health-interval", "50ms", "--health-timeout", "300ms", "--health-retries", "1"),
        *("--health-cmd", "echo before; exec sleep 77", docker.image, "sleep", "100"),
        name="hangs",
    )
    last = until(docker, "hangs", "unhealthy")["Log"][0]
    assert last["ExitCode"] == -1
    assert last["Output"].startswith("Health check exceeded timeout (300ms)")
    docker.run(
        *FAST, "--health-cmd", "head -c 200000 /dev/zero | tr '\\0' x", docker.image, "sleep", "9", name="floods"
    )
    assert until(docker, "floods", "healthy")["Log"][0]["Output"] == 4096 * "x" + "..."
    docker.ok("pause", "hangs")  # no probe is started any more, and the last is ended
    docker.ok("unpause", "hangs")
    docker.ok("rm", "-f", "hangs", "floods")


def test_a_command_that_is_not_there(docker: Client) -> None:
    docker.run(*FAST, "--health-cmd", "nosuch", docker.image, "sleep", "100", name="wrong")
    assert "not found" in until(docker, "wrong", "unhealthy")["Log"][-1]["Output"]
    docker.ok("rm", "-f", "wrong")


def test_the_images_check_is_inherited_and_switched_off(daemon: Daemon, starter_images: list[Path]) -> None:
    pier = Client(daemon.environment, "busybox", program="pier")
    change = ("--change", "HEALTHCHECK --interval=60ms --retries=1 CMD [ -e /etc ]", "--change", 'CMD ["sh"]')
    pier.ok("import", *change, str(starter_images[0]), "checked")
    try:
        pier.run("checked", "sleep", "100", name="inherits")
        until(pier, "inherits", "healthy")
        pier.run("--health-cmd", "false", "checked", "sleep", "100", name="differs")
        until(pier, "differs", "unhealthy")
        pier.run("--no-healthcheck", "checked", "sleep", "100", name="silent")
        assert pier.field("silent", "{{json .State.Health}}") == "null"
    finally:
        pier("rm", "-f", "inherits", "differs", "silent")
        pier("rmi", "checked")


def test_a_killed_daemon_asks_on_where_it_was(own_daemon: Daemon, own_docker: Client) -> None:
    own_docker.run(*FAST, "--health-cmd", "[ ! -e /ill ] && sleep 0.2", own_docker.image, "sleep", "100", name="lasts")
    until(own_docker, "lasts", "healthy")
    own_daemon.kill()
    own_daemon.start()
    assert health(own_docker, "lasts")["Status"] == "healthy"
    own_docker.ok("exec", "lasts", "touch", "/ill")
    until(own_docker, "lasts", "unhealthy")


@pytest.mark.parametrize(("action", "ends"), [("restart", "running"), ("stop", "exited"), ("kill", "exited")])
def test_health_on_failure(daemon: Daemon, action: str, ends: str) -> None:
    """What podman has, and Docker has not."""
    pier = Client(daemon.environment, "busybox", program="pier")
    # Ill in its first life, well in the next.
    script = "[ -e /second ] && touch /well; touch /second; exec sleep 100"
    pier.run(
        *("--health-on-failure", action, "--health-cmd", "[ -e /well ]", "--health-interval", "50ms"),
        *("--health-retries", "1", "--stop-timeout", "0", pier.image, "sh", "-c", script),
        name="ill",
    )
    try:
        if action == "restart":
            until(pier, "ill", "healthy")
        poll(lambda: pier.state("ill") == ends, f"the container to be {ends}")
    finally:
        pier.ok("rm", "-f", "ill")


def test_a_kill_for_bad_health_leaves_the_restart_policy_to_act(docker: Client) -> None:
    docker.run(
        *("--annotation", "pier.health-on-failure=kill", "--restart", "on-failure:1", *FAST),
        *("--health-cmd", "false", docker.image, "sleep", "100"),
        name="again",
    )
    poll(lambda: docker.field("again", "{{.RestartCount}}") == "1", "a restart by policy")
    poll(lambda: docker.state("again") == "exited", "the end of tries")
    assert docker.field("again", "{{.State.ExitCode}}") == "137"
    docker.ok("rm", "-f", "again")


def test_an_unknown_kind_of_check_is_warned_about(daemon: Daemon) -> None:
    refused = daemon.docker("run", "--annotation", "pier.health-on-failure=shout", "busybox", "true")
    assert refused.status == 125
    assert "must be one of none, restart, stop, kill" in refused.err
    warned = daemon.docker("run", "--rm", "--annotation", "pier.health-on-failure=kill", "busybox", "true")
    assert warned.status == 0
    assert "WARNING: The container has no health check" in warned.err
