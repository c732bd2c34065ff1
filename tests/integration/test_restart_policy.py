"""Who starts a container again, who does not, and in which order: restart policies, signals, ends of the daemon."""

from __future__ import annotations

import json

import pytest

from .client import Client
from .conftest import Daemon, poll

pytestmark = pytest.mark.root

WAITING = (
    "rm -f /go; trap 'touch /heard' USR1; trap '' QUIT; touch /ready; while [ ! -e /go ]; do sleep 0.05; done; exit 3"
)
"""Heeds USR1 and lives on; ends with 3 when it is told to by a file."""


@pytest.mark.parametrize(
    ("policy", "own_signal", "again"),
    [
        ("always", False, False),
        ("always", True, True),
        ("unless-stopped", False, False),
        ("unless-stopped", True, False),
        ("on-failure", False, False),
        ("on-failure", True, True),
    ],
)
def test_a_signal_and_the_policy(docker: Client, policy: str, own_signal: bool, again: bool) -> None:
    """Any signal calls a container without a stop signal of its own off, as dockerd has it."""
    flags = ["--stop-signal", "QUIT"] if own_signal else []
    docker.run("--restart", policy, *flags, docker.image, "sh", "-c", WAITING, name="told")
    poll(lambda: docker("exec", "told", "test", "-e", "/ready").status == 0, "the program")
    docker.ok("kill", "-s", "USR1", "told")
    poll(lambda: docker("exec", "told", "test", "-e", "/heard").status == 0, "the signal")
    docker("exec", "told", "touch", "/go")  # the program may be at its end before this is
    if again:
        poll(lambda: docker.field("told", "{{.RestartCount}}") == "1", "a restart")
    else:
        poll(lambda: docker.state("told") == "exited", "the end")
        assert docker.field("told", "{{.RestartCount}} {{.State.ExitCode}}") == "0 3"
    docker.ok("rm", "-f", "told")


def test_a_daemon_that_takes_its_containers_with_it_and_starts_first_who_is_needed(
    own_daemon: Daemon, own_docker: Client
) -> None:
    """`"live-restore": false`, as dockerd without it. The older container needs the younger: its network, its name."""
    (own_daemon.root / "daemon.json").write_text(json.dumps({"live-restore": False}))
    own_daemon.stop()
    own_daemon.start()
    docker, again = own_docker, ("--restart", "always", "--stop-timeout", "0")
    docker.ok("create", *again, "--name", "oldest", "--network", "container:net", docker.image, "sleep", "100")
    docker.run(*again, docker.image, "sleep", "100", name="net")
    docker.ok("create", *again, "--name", "web", docker.image, "sleep", "100")
    docker.run(*again, docker.image, "sleep", "100", name="db")
    docker.run(*again, "--link", "db:data", docker.image, "sleep", "100", name="linked")
    docker.run("--restart", "on-failure", "--stop-timeout", "0", docker.image, "sleep", "100", name="fails")
    docker.run("--restart", "unless-stopped", docker.image, "sleep", "100", name="stopped")
    docker.run("--stop-timeout", "0", docker.image, "sleep", "100", name="once")
    docker.run("--rm", "--stop-timeout", "0", docker.image, "sleep", "100", name="gone")
    docker.ok("start", "oldest")
    docker.ok("stop", "-t", "0", "stopped")

    assert own_daemon.stop() == 0
    assert not list((own_daemon.exec_root / "containers").glob("*/monitor.sock"))
    own_daemon.start()

    up = ("oldest", "net", "db", "linked", "fails")
    poll(lambda: {docker.state(name) for name in up} == {"running"}, "all to run")
    assert [docker.state(name) for name in ("web", "stopped", "once")] == ["created", "exited", "exited"]
    assert docker.field("once", "{{.State.ExitCode}}") == "137"
    assert docker("inspect", "gone").status != 0
    assert "data" in docker.ok("exec", "linked", "cat", "/etc/hosts")
    started = [line.rpartition("name=")[2].rstrip(")") for line in docker.events("--filter", "event=start")]
    assert started.index("net") < started.index("oldest")
    assert started.index("db") < started.index("linked")


def test_a_link_through_docker(docker: Client) -> None:
    docker.run("--expose", "77", "-e", "SECRET=no", docker.image, "sleep", "100", name="db")
    docker.run("--link", "db:data", docker.image, "sleep", "100", name="web")
    assert "data" in docker.ok("exec", "web", "cat", "/etc/hosts")
    env = docker.ok("exec", "web", "env").splitlines()
    assert {"DATA_NAME=/web/data", "DATA_PORT_77_TCP_PORT=77", "DATA_ENV_SECRET=no"} <= set(env)
    assert docker.field("web", "{{.HostConfig.Links}}") == "[/db:/web/data]"
    assert docker.ok("ps", "--filter", "name=db", "--format", "{{.Names}}", "--no-trunc") == "db,web/data"
    docker.ok("stop", "-t", "0", "db", "web")
    assert "Cannot link to a non running container: /db AS /web/data" in docker("start", "web").err
    docker.ok("rm", "--link", "web/data")
    docker.ok("start", "web")
    docker.ok("rm", "-f", "db", "web")
