"""create, start, stop, kill, rm, wait, restart, rename, ps, inspect: a container's life as the command line sees it."""

import re

import pytest

from .client import Client
from .conftest import poll

pytestmark = pytest.mark.root

STUBBORN = 'trap "" TERM; echo ready; while :; do sleep 0.1; done'
POLITE = 'trap "echo bye; exit 0" TERM; echo ready; while :; do sleep 0.1; done'


def ready(docker: Client, name: str) -> None:
    poll(lambda: "ready" in docker.ok("logs", name), f"{name} to be ready")


def test_created_started_ended(docker: Client) -> None:
    id = docker.ok("create", "--name", "t-life", docker.image, "sh", "-c", "exit 3")
    assert docker.field(id, "{{.State.Status}} {{.State.StartedAt}}") == "created 0001-01-01T00:00:00Z"
    assert docker.ok("start", "t-life") == "t-life"
    assert docker.ok("wait", "t-life") == "3"
    assert docker.field(id, "{{.State.Status}} {{.State.ExitCode}} {{.State.Pid}}") == "exited 3 0"
    assert docker.ok("rm", "t-life") == "t-life"
    assert docker("inspect", "t-life").err == "Error: No such object: t-life\n"


def test_stop_asks_first(docker: Client) -> None:
    docker.run(docker.image, "sh", "-c", POLITE, name="t-polite")
    ready(docker, "t-polite")
    assert docker.ok("stop", "t-polite") == "t-polite"
    assert docker.field("t-polite", "{{.State.ExitCode}}") == "0"
    assert docker.ok("logs", "t-polite") == "ready\nbye"


@pytest.mark.parametrize("words", [["-t", "1"], ["-t", "0"]])
def test_stop_insists(docker: Client, words: list[str]) -> None:
    docker.run(docker.image, "sh", "-c", STUBBORN, name="t-stubborn")
    ready(docker, "t-stubborn")
    docker.ok("stop", *words, "t-stubborn")
    assert docker.field("t-stubborn", "{{.State.Status}} {{.State.ExitCode}}") == "exited 137"


def test_stop_by_another_signal(docker: Client) -> None:
    script = 'trap "exit 12" USR1; echo ready; while :; do sleep 0.1; done'
    docker.run("--stop-signal", "USR1", docker.image, "sh", "-c", script, name="t-usr1")
    ready(docker, "t-usr1")
    docker.ok("stop", "t-usr1")
    assert docker.field("t-usr1", "{{.State.ExitCode}}") == "12"


def test_kill_sends_what_is_asked(docker: Client) -> None:
    script = 'trap "echo usr2" USR2; echo ready; while :; do sleep 0.1; done'
    docker.run(docker.image, "sh", "-c", script, name="t-usr2")
    ready(docker, "t-usr2")
    assert docker.ok("kill", "-s", "USR2", "t-usr2") == "t-usr2"
    poll(lambda: "usr2" in docker.ok("logs", "t-usr2"), "the signal")
    assert docker.state("t-usr2") == "running"
    docker.ok("kill", "t-usr2")
    assert docker.field("t-usr2", "{{.State.Status}} {{.State.ExitCode}}") == "exited 137"


def test_wait_waits_and_takes_several(docker: Client) -> None:
    script = "while ! [ -e /go ]; do sleep 0.02; done; exit "
    for number in (5, 6):
        docker.run(docker.image, "sh", "-c", script + str(number), name=f"t-wait{number}")
    session = docker.start("wait", "t-wait5", "t-wait6")
    docker.ok("exec", "t-wait6", "touch", "/go")
    docker.ok("exec", "t-wait5", "touch", "/go")
    assert session.wait().out == "5\n6\n"


def test_restart_is_another_run(docker: Client) -> None:
    docker.run(docker.image, "sh", "-c", f"date +%N; {POLITE}", name="t-restart")
    ready(docker, "t-restart")
    before = docker.field("t-restart", "{{.State.Pid}} {{.State.StartedAt}}")
    docker.ok("exec", "t-restart", "touch", "/kept")
    assert docker.ok("restart", "t-restart") == "t-restart"
    assert docker.field("t-restart", "{{.State.Pid}} {{.State.StartedAt}}") != before
    docker.ok("exec", "t-restart", "ls", "/kept")
    assert docker.field("t-restart", "{{.RestartCount}}") == "0"


def test_rm_of_what_runs(docker: Client) -> None:
    docker.run(docker.image, "sleep", "1000", name="t-runs")
    done = docker("rm", "t-runs")
    message = (
        'cannot remove container "t-runs": container is running: stop the container before removing or force remove'
    )
    assert (done.out, done.err, done.status) == ("", f"Error response from daemon: {message}\n", 1)
    assert docker.ok("rm", "-f", "t-runs") == "t-runs"
    assert docker("rm", "-f", "t-runs").status == 0, "with -f what is not there is no failure"


def test_several_some_of_which_are_not_there(docker: Client) -> None:
    docker.ok("create", "--name", "t-there", docker.image)
    done = docker("rm", "t-not", "t-there")
    assert (done.out, done.err, done.status) == (
        "t-there\n",
        "Error response from daemon: No such container: t-not\n",
        1,
    )


def test_a_name_is_given_once(docker: Client) -> None:
    id = docker.ok("create", "--name", "t-name", docker.image)
    done = docker("run", "--name", "t-name", docker.image)
    assert done.status == 125
    assert done.err.startswith(
        f'docker: Error response from daemon: Conflict. The container name "/t-name" is already in use by container '
        f'"{id}". You have to remove (or rename) that container to be able to reuse that name.\n'
    )
    docker.ok("rename", "t-name", "t-other")
    assert docker.ok("create", "--name", "t-name", docker.image) != id


def test_references(docker: Client) -> None:
    id = docker.ok("create", "--name", "t-ref", docker.image)
    for reference in (id, id[:12], id[:6], "t-ref", "/t-ref"):
        assert docker.field(reference, "{{.Id}}") == id


def test_ps(docker: Client) -> None:
    docker.run("-p", "127.0.0.1:18123:80", "--label", "a=b", docker.image, "sleep", "1000", name="t-ps")
    docker("run", "--name", "t-ps-ended", docker.image, "sh", "-c", "exit 3")
    head, row = docker.ok("ps", "-f", "name=t-ps").splitlines()
    assert head.split("  ")[0] == "CONTAINER ID"
    columns = re.split(r"\s{2,}", row)
    assert columns[1:3] == [docker.image, '"sleep 1000"']
    assert columns[4].startswith("Up ")
    assert columns[5:] == ["127.0.0.1:18123->80/tcp", "t-ps"]
    lines = docker.ok("ps", "-a", "-f", "name=t-ps", "--format", "{{.Names}}|{{.State}}|{{.Labels}}").splitlines()
    assert lines == ["t-ps-ended|exited|", "t-ps|running|a=b"]
    assert docker.ok("ps", "-aq", "-f", "exited=3", "-f", "name=t-ps").count("\n") == 0
    assert docker.ok("ps", "-a", "-f", "status=exited", "-f", "name=t-ps", "--format", "{{.Status}}").startswith(
        "Exited (3) "
    )


def test_inspect_formats(docker: Client) -> None:
    docker.run("-e", "A=1", "-m", "64m", "-p", "18124:80", docker.image, "sleep", "1000", name="t-format")
    assert docker.field("t-format", "{{json .Config.Cmd}} {{.HostConfig.Memory}}") == '["sleep","1000"] 67108864'
    assert docker.field("t-format", '{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}') == "18124"
    done = docker("inspect", "-f", "{{.Nosuch}}", "t-format")
    assert done.status == 1
    assert 'map has no entry for key "Nosuch"' in done.err


def test_stop_and_rm_at_once(docker: Client) -> None:
    """Whoever comes first, the container is gone afterwards and nobody hangs."""
    for number in range(5):
        name = f"t-race{number}"
        docker.run(docker.image, "sleep", "1000", name=name)
        sessions = [docker.start("stop", "-t", "0", name), docker.start("rm", "-f", name), docker.start("kill", name)]
        assert sessions[1].wait().status == 0
        for session in sessions:
            session.wait()
        assert docker.ok("ps", "-aq", "-f", f"name={name}") == ""


def test_start_of_what_runs_is_no_failure(docker: Client) -> None:
    docker.run(docker.image, "sleep", "1000", name="t-on")
    pid = docker.field("t-on", "{{.State.Pid}}")
    assert docker.ok("start", "t-on") == "t-on"
    assert docker.field("t-on", "{{.State.Pid}}") == pid
    docker.ok("kill", "t-on")
    assert docker.ok("stop", "t-on") == "t-on"
