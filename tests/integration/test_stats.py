"""`docker stats`, `version` and `info`."""

import json
import re

import pytest

from .client import Client
from .conftest import poll

pytestmark = pytest.mark.root


def test_one_reading(docker: Client) -> None:
    docker.run("-m", "64m", "--pids-limit", "50", docker.image, "sleep", "1000", name="t-stats")
    shown = {}

    def read() -> bool:  # the client gives up after two seconds, which a busy machine may take
        shown.update(json.loads(docker.ok("stats", "--no-stream", "--format", "json", "t-stats")))
        return bool(shown["PIDs"] == "1")

    poll(read, "a reading")
    assert shown["Name"] == "t-stats"
    assert re.fullmatch(r"[\d.]+%", shown["CPUPerc"])
    assert shown["MemUsage"].endswith(" / 64MiB")


def test_a_busy_program_shows(docker: Client) -> None:
    docker.run(docker.image, "sh", "-c", "while :; do :; done", name="t-busy")
    shown = ("stats", "--no-stream", "--format", "{{.CPUPerc}}", "t-busy")
    poll(lambda: float(docker.ok(*shown).rstrip("%")) > 10, "its share")


def test_a_stopped_container_has_none(docker: Client) -> None:
    docker.ok("create", "--name", "t-off", docker.image)
    shown = json.loads(docker.ok("stats", "--no-stream", "--format", "json", "t-off"))
    assert (shown["CPUPerc"], shown["PIDs"]) == ("0.00%", "0")


def test_the_stream_goes_on(docker: Client) -> None:
    docker.run(docker.image, "sleep", "1000", name="t-stream")
    session = docker.start("stats", "--format", "{{.Name}} {{.PIDs}}", "t-stream")
    session.read_until("t-stream 1")
    session.read_until("t-stream 1")


def test_version_names_both_sides(docker: Client) -> None:
    text = docker.ok("version")
    client, _, server = text.partition("\nServer:")
    assert client.startswith("Client:")
    assert "API version:" in server
    shown = json.loads(docker.ok("version", "--format", "json"))
    assert shown["Server"]["Os"] == "linux"
    assert shown["Server"]["ApiVersion"] >= "1.51"


def test_info_counts(docker: Client) -> None:
    before = json.loads(docker.ok("info", "--format", "json"))
    docker.run(docker.image, "sleep", "1000", name="t-count")
    docker.ok("create", docker.image)
    after = json.loads(docker.ok("info", "--format", "json"))
    for key, more in (("Containers", 2), ("ContainersRunning", 1), ("ContainersStopped", 1), ("Images", 0)):
        assert after[key] - before[key] == more
    assert after["Driver"] == "overlay2"
    assert "Error" not in docker("info").err


def test_all_that_run_and_all_there_are(docker: Client) -> None:
    names = ("stats", "--no-stream", "--format", "{{.Name}}")
    before = set(docker.ok(*names, "-a").splitlines())
    docker.run(docker.image, "sleep", "1000", name="t-on")
    docker.run("--network", "container:t-on", docker.image, "sleep", "1000", name="t-joined")
    docker.run("--network", "host", docker.image, "sleep", "1000", name="t-host")
    docker.ok("create", "--name", "t-off", docker.image)
    shown = {"t-on", "t-joined", "t-host"}
    poll(lambda: set(docker.ok(*names).splitlines()) - before == shown, "a reading of each")
    assert set(docker.ok(*names, "-a").splitlines()) - before == shown | {"t-off"}
    docker.ok("exec", "t-on", "ping", "-c1", "-W1", docker.field("t-on", "{{.NetworkSettings.Gateway}}"))
    traffic = ("stats", "--no-stream", "--format", "{{.NetIO}}", "t-on", "t-joined", "t-host")

    def as_it_should() -> bool:
        of_one, of_its_guest, of_the_host = docker.ok(*traffic).splitlines()
        return "0B / 0B" == of_the_host != of_one == of_its_guest

    poll(as_it_should, "the same devices for both in a namespace, and none of the host's")
