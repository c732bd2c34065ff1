"""`docker events`: what happened, in order, while it happens and afterwards."""

import json
import re

import pytest

from .client import Client
from .conftest import poll

pytestmark = pytest.mark.root

ACTION = ("--format", "{{.Type}} {{.Action}}")
ID = re.compile("[0-9a-f]{64}")


def test_the_life_of_a_run(docker: Client) -> None:
    docker.ok("run", "--rm", "--name", "t-ev-life", docker.image, "true")
    told = docker.events("-f", "container=t-ev-life", "-f", "type=container", *ACTION)
    assert told == [f"container {action}" for action in ("create", "attach", "start", "die", "destroy")]


def test_networks_speak_too(docker: Client) -> None:
    docker.ok("run", "--name", "t-ev-net", docker.image, "true")
    id = docker.field("t-ev-net", "{{.Id}}")
    told = docker.events("-f", "type=network", "--format", "{{.Action}} {{.Actor.Attributes.container}}")
    assert [line for line in told if id in line] == [f"connect {id}", f"disconnect {id}"]


def test_stop(docker: Client) -> None:
    docker.run(docker.image, "sleep", "1000", name="t-ev-stop")
    docker.ok("stop", "-t", "0", "t-ev-stop")
    format = "{{.Action}} {{.Actor.Attributes.signal}}{{.Actor.Attributes.exitCode}}"
    told = docker.events("-f", "container=t-ev-stop", "-f", "type=container", "--format", format)
    missing = "<no value>"
    expected = ["create ", "start ", "kill 15", "kill 9", "die 137", "stop "]
    assert [line.replace(missing, "") for line in told] == expected


def test_a_line_and_its_attributes(docker: Client) -> None:
    docker("run", "--name", "t-ev-line", "--label", "a=b", docker.image, "sh", "-c", "exit 3")
    wanted = ["-f", "container=t-ev-line", "-f", "event=die"]
    id = docker.field("t-ev-line", "{{.Id}}")
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"
    attributes = rf"\(a=b, execDuration=0, exitCode=3, image={docker.image}, name=t-ev-line\)"
    (line,) = docker.events(*wanted)
    assert re.fullmatch(rf"{stamp} container die {id} {attributes}", line)
    (text,) = docker.events(*wanted, "--format", "json")
    event = json.loads(text)
    assert (event["Type"], event["Action"], event["status"], event["from"]) == ("container", "die", "die", docker.image)
    assert event["Actor"] == {
        "ID": id,
        "Attributes": {"a": "b", "execDuration": "0", "exitCode": "3", "image": docker.image, "name": "t-ev-line"},
    }
    assert event["timeNano"] // 10**9 == event["time"]


def test_an_oom_kill_while_the_container_runs(docker: Client) -> None:
    script = "tail /dev/zero; echo $?; while ! [ -e /go ]; do sleep 0.05; done; exit 3"
    docker.run("-m", "16m", "--memory-swap", "16m", docker.image, "sh", "-c", script, name="t-ev-oom")
    poll(lambda: docker.field("t-ev-oom", "{{.State.OOMKilled}} {{.State.Status}}") == "true running", "the kill")
    docker.ok("exec", "t-ev-oom", "touch", "/go")
    assert docker.ok("wait", "t-ev-oom") == "3"
    told = docker.events("-f", "container=t-ev-oom", "-f", "type=container", "--format", "{{.Action}}")
    assert [action for action in told if not action.startswith("exec")] == ["create", "start", "oom", "die"]
    assert docker.field("t-ev-oom", "{{.State.OOMKilled}} {{.State.ExitCode}}") == "true 3"


def test_images(docker: Client) -> None:
    id = docker.ok("import", "-", "t-event:1", stdin=b"\0" * 10240)
    docker.ok("tag", "t-event:1", "t-event:2")
    docker.ok("rmi", "t-event:1", "t-event:2")
    told = docker.events("-f", "type=image", "--format", "{{.Actor.ID}} {{.Action}}")
    assert [line.split()[1] for line in told if line.startswith(id)] == [
        "tag",
        "import",
        "tag",
        "untag",
        "untag",
        "delete",
    ]


def test_it_follows(docker: Client) -> None:
    """With `since`, what happens between the start of the client and its request is not missed."""
    session = docker.start("events", "--since", "1s", "-f", "event=rename", "--format", "{{.Actor.Attributes.oldName}}")
    docker.ok("create", "--name", "t-old", docker.image)
    docker.ok("rename", "t-old", "t-new")
    assert session.read_until("\n") == "/t-old\n"
    docker.ok("rename", "t-new", "t-newer")
    assert session.read_until("\n") == "/t-new\n"


def test_exec(docker: Client) -> None:
    docker.run(docker.image, "sleep", "1000", name="t-ev-exec")
    docker("exec", "t-ev-exec", "sh", "-c", "exit 5")
    wanted = ["-f", "container=t-ev-exec", "-f", "type=container"]
    assert docker.events(*wanted, *ACTION)[-3:] == [
        "container exec_create: sh -c exit 5",
        "container exec_start: sh -c exit 5",
        "container exec_die",
    ]
    assert docker.events(*wanted, "--format", "{{.Actor.Attributes.exitCode}}")[-1] == "5"


def test_until_in_the_future_ends_the_stream(docker: Client) -> None:
    session = docker.start("events", "--until", "-1s", "--format", "{{.Action}}")  # a second from now
    poll(session.has_ended, "the stream to end")
    assert session.wait().status == 0
