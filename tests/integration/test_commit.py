"""`docker commit`, `diff` and `history` by Docker's command line and by `pier`."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from .client import Client
from .conftest import poll

pytestmark = pytest.mark.root


@pytest.fixture
def changed(docker: Client) -> Iterator[str]:
    """A running container that has written and removed files; and no image of it afterwards."""
    script = "mkdir /d; echo hi >/d/f; rm /bin/cat; sleep 1000"
    docker.ok("run", "-d", "--name", "t-changed", "-e", "A=1", "--label", "t=commit", docker.image, "sh", "-c", script)
    poll(lambda: "/bin/cat" in docker.ok("diff", "t-changed"), "the container to remove a file")
    yield "t-changed"
    docker("rm", "-f", "t-changed")
    docker("rmi", "-f", *docker.ok("images", "-aq", "--filter", "label=t=commit").split())


def test_diff_shows_what_the_container_did_and_nothing_else(docker: Client, changed: str) -> None:
    assert docker.ok("diff", changed).splitlines() == ["C /bin", "D /bin/cat", "A /d", "A /d/f"]


def test_nothing_done_is_no_difference(docker: Client) -> None:
    docker.ok("run", "--name", "t-idle", docker.image, "true")
    assert docker.ok("diff", "t-idle") == ""
    docker.ok("rm", "t-idle")


def test_a_commit_runs_and_has_what_was_changed(docker: Client, changed: str) -> None:
    made = docker.ok(
        "commit", "-a", "Me <m@x>", "-m", "why", "-c", "ENV B=2", "-c", 'CMD ["cat", "/d/f"]', changed, "t-made:1"
    )
    assert docker.ok("inspect", "-f", "{{.Id}} {{.Author}} {{.Comment}} {{.Config.Env}}", "t-made:1").startswith(
        f"{made} Me <m@x> why [A=1"
    )
    assert docker.ok(
        "run", "--rm", "t-made:1", "sh", "-c", "echo $A$B; cat /d/f; ls /bin/cat; ls -A /etc"
    ).splitlines()[:1] == ["12"]
    assert docker("run", "--rm", "t-made:1").status == 127  # no cat any more
    assert docker.ok("inspect", "-f", "{{.State.Status}}", changed) == "running"


def test_history_tells_the_step_and_its_size(docker: Client, changed: str) -> None:
    made = docker.ok("commit", "-m", "why", changed, "t-history:1")
    rows = [
        json.loads(line) for line in docker.ok("history", "--no-trunc", "--format", "json", "t-history:1").splitlines()
    ]
    assert (rows[0]["ID"], rows[0]["Comment"], rows[0]["Size"]) == (made, "why", "3B")
    assert rows[0]["CreatedBy"].startswith("sh -c mkdir /d")
    assert rows[1]["ID"] == docker.ok("inspect", "-f", "{{.Id}}", docker.image)
    assert docker.ok("history", "-q", "t-history:1").splitlines()[0] == made[7:19]


def test_events_of_a_commit(docker: Client, changed: str) -> None:
    docker.ok("commit", changed, "t-events:1")
    docker.ok("rmi", "t-events:1")
    told = docker.events("--format", "{{.Type}} {{.Action}}")
    begin = len(told) - 1 - told[::-1].index("container pause")
    expected = (
        "container pause, image create, image tag, container commit, container unpause, image untag, image delete"
    )
    assert ", ".join(told[begin:]) == expected


def test_children_and_parents(docker: Client, changed: str) -> None:
    parent = docker.ok("commit", changed)
    docker.ok("create", "--name", "t-child", parent, "true")
    child = docker.ok("commit", "t-child", "t-child:1")
    docker.ok("rm", "t-child")
    assert docker.ok("inspect", "-f", "{{.Parent}}", child) == parent
    assert parent not in docker.ok("images", "-q", "--no-trunc")
    assert parent in docker.ok("images", "-aq", "--no-trunc")
    refused = docker("rmi", "-f", parent)
    assert "(cannot be forced) - image has dependent child images" in refused.err
    assert f"Deleted: {parent}" in docker.ok("rmi", "t-child:1")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["-c", "RUN x"], "Error response from daemon: RUN is not a valid change command"),
        (["-c", ""], "Error response from daemon: file with no instructions"),
        (["-c", "STOPSIGNAL BOGUS"], "Error response from daemon: invalid signal: BOGUS"),
    ],
)
def test_wrong_instructions(docker: Client, pier: Client, changed: str, words: list[str], error: str) -> None:
    for client in (docker, pier):
        done = client("commit", *words, changed)
        assert (done.status, done.err.strip()) == (1, error)


def test_pier_commits_too(pier: Client, changed: str) -> None:
    made = pier.ok("commit", "--pause=false", "-m", "by pier", changed, "t-pier:2")
    assert pier.ok("image", "inspect", "-f", "{{.Id}} {{.Comment}}", "t-pier:2") == f"{made} by pier"
    done = pier("commit", changed, "UPPER")
    assert done.err == "invalid reference format: repository name (library/UPPER) must be lowercase\n"
