"""daemon.json and pierd's flags, by what they do to containers."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from .client import Client
from .conftest import BIN, Daemon, poll

pytestmark = pytest.mark.root


@pytest.fixture
def configured(own_daemon: Daemon, starter_images: list[Path]) -> Client:
    """A daemon with settings that show, and Docker's command line against it."""
    settings = {
        "labels": ["place=here"],
        "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 111, "Hard": 222}},
        "log-opts": {"max-size": "4k", "max-file": "2"},
        "default-shm-size": "32M",
        "dns": ["192.0.2.53"],
        "dns-search": ["example.test"],
        "no-new-privileges": True,
        "init": True,
    }
    (own_daemon.root / "daemon.json").write_text(json.dumps(settings))
    own_daemon.start()
    assert own_daemon.pier("import", str(starter_images[0]), "busybox:latest").status == 0
    return Client(own_daemon.environment, "busybox")


def test_defaults_reach_containers(configured: Client) -> None:
    script = (
        "ulimit -Sn; ulimit -Hn; grep '^nameserver\\|^search' /etc/resolv.conf; grep NoNewPrivs /proc/self/status; "
        "df -m /dev/shm | tail -n 1 | awk '{print $2}'"
    )
    assert configured.ok("run", "--rm", "busybox", "sh", "-c", script).splitlines() == [
        "111",
        "222",
        "nameserver 192.0.2.53",
        "search example.test",
        "NoNewPrivs:\t1",
        "32",
    ]


def test_the_command_line_goes_before_the_defaults(configured: Client) -> None:
    words = ["--ulimit", "nofile=99", "--shm-size", "8m", "--dns", "192.0.2.54", "--init=false"]
    script = "ulimit -n; grep nameserver /etc/resolv.conf; df -m /dev/shm | tail -n 1 | awk '{print $2}'; echo $$"
    lines = configured.ok("run", "--rm", *words, "busybox", "sh", "-c", script).splitlines()
    assert lines[:3] == ["99", "nameserver 192.0.2.54", "8"]
    assert lines[3] == "1", "no init before the program"


def test_logs_are_bounded(configured: Client) -> None:
    configured.ok("run", "--name", "log", "busybox", "sh", "-c", "yes | head -n 5000")
    assert 0 < len(configured("logs", "log").out) < 10_000
    assert configured.field("log", "{{.HostConfig.LogConfig.Config}}") == "map[max-file:2 max-size:4k]"


def test_info_shows_it(configured: Client) -> None:
    assert configured.ok("info", "--format", "{{.Labels}}") == "[place=here]"


def test_sighup_reads_what_may_change(configured: Client, own_daemon: Daemon) -> None:
    path = own_daemon.root / "daemon.json"
    settings = json.loads(path.read_text())
    path.write_text(
        json.dumps({**settings, "insecure-registries": ["reg.test:5000"], "registry-mirrors": ["https://m.test"]})
    )
    assert own_daemon.process is not None
    own_daemon.process.send_signal(signal.SIGHUP)
    poll(lambda: "m.test" in configured.ok("info", "--format", "{{.RegistryConfig.Mirrors}}"), "the reload")
    assert "reg.test:5000" in configured.ok("info", "--format", "{{json .RegistryConfig.IndexConfigs}}")
    events = ["events", "--since", "1", "--until", "0s", "--filter", "type=daemon"]
    poll(lambda: "daemon reload" in configured.ok(*events), "the event, in whole seconds")
    path.write_text("{nonsense")
    own_daemon.process.send_signal(signal.SIGHUP)
    configured.ok("ps")
    assert "m.test" in configured.ok("info", "--format", "{{.RegistryConfig.Mirrors}}")


def test_validate() -> None:
    def validate(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(BIN / "pierd"), "--validate", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)

    good = validate("--config-file", "/dev/null")
    assert (good.stdout, good.returncode) == ("configuration OK\n", 0)
    bad = validate("--config-file", "/nowhere/daemon.json")
    assert bad.returncode == 1
    assert "/nowhere/daemon.json" in bad.stderr
    unknown = validate("--bogus")
    assert unknown.returncode in (1, 125)
    assert "--bogus" in unknown.stderr


def test_two_daemons_side_by_side(daemon: Daemon, docker: Client, configured: Client) -> None:
    """Each has its own images, containers, bridge and ports."""
    docker.run(docker.image, "sleep", "1000", name="t-mine")
    assert configured("inspect", "t-mine").status == 1
    configured.run("busybox", "sleep", "1000", name="t-mine")
    ours, theirs = (one.field("t-mine", "{{.NetworkSettings.IPAddress}}") for one in (docker, configured))
    assert ours.rpartition(".")[0] != theirs.rpartition(".")[0]
