"""testcontainers, by which other projects' tests start the services they need, against the daemon."""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path

import pytest
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import (
    CompositeWaitStrategy,
    ContainerStatusWaitStrategy,
    ExecWaitStrategy,
    HttpWaitStrategy,
    LogMessageWaitStrategy,
    PortWaitStrategy,
)

from .conftest import Daemon

pytestmark = pytest.mark.root

IMAGE = os.environ.get("PIER_SCENARIO_IMAGE", "busybox")
SERVE = "mkdir -p /www; echo begun; exec httpd -f -p 80 -h /www"


@pytest.fixture(autouse=True)
def host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session's daemon, or PIER_SCENARIO_HOST. Its own reaper is an image that no test fetches."""
    address = os.environ.get("PIER_SCENARIO_HOST")
    if address is None:
        daemon: Daemon = request.getfixturevalue("daemon")
        address = f"unix://{daemon.socket}"
    monkeypatch.setenv("DOCKER_HOST", address)
    monkeypatch.setattr(testcontainers_config, "_ryuk_disabled", True)
    monkeypatch.setattr(testcontainers_config, "sleep_time", 0.05)


def test_a_service_with_its_files(tmp_path: Path) -> None:
    """Files are copied in before the start, the service is waited for in several ways, and a file is taken out."""
    (tmp_path / "page").write_text("hello\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more/file").write_text("more\n")
    service = (
        DockerContainer(IMAGE)
        .with_command(["sh", "-c", SERVE])
        .with_env("WHAT", "a service")
        .with_exposed_ports(80)
        .with_tmpfs_mount("/scratch", "size=1m")
        .with_copy_into_container(tmp_path / "page", "/www/index.html")
        .with_copy_into_container(b"bytes\n", "/www/bytes", 0o600)
        .with_copy_into_container(tmp_path / "more", "/www")
        .waiting_for(
            CompositeWaitStrategy(
                ContainerStatusWaitStrategy(),
                LogMessageWaitStrategy("begun"),
                ExecWaitStrategy(["test", "-d", "/www"]),
                PortWaitStrategy(80),
                HttpWaitStrategy(80).for_status_code(200),
            )
        )
    )
    if os.environ.get("PIER_SCENARIO_HOST"):
        service = service.waiting_for(LogMessageWaitStrategy("begun"))  # its ports are on a machine of its own
    with service as box:
        code, text = box.exec(["sh", "-c", "cat /www/more/file; echo $WHAT; stat -c %a /www/bytes"])
        assert (code, text) == (0, b"more\na service\n600\n")
        assert box.get_logs()[0] == b"begun\n"
        box.copy_into_container(b"later\n", "/scratch/later")
        box.copy_from_container("/www/index.html", tmp_path / "back")
        assert (tmp_path / "back").read_text() == "hello\n"
        if not os.environ.get("PIER_SCENARIO_HOST"):
            assert box.exec(["cat", "/scratch/later"]).output == b"later\n"
            url = f"http://{box.get_container_host_ip()}:{box.get_exposed_port(80)}/bytes"
            with urllib.request.urlopen(url.replace("/bytes", "/")) as answer:
                assert answer.read() == b"hello\n"
        info = box.get_container_info()
        assert info is not None
        assert info.State is not None
        assert info.State.Status == "running"
        id = box.get_wrapped_container().id
    with pytest.raises(Exception, match="No such container"):
        box.get_docker_client().client.containers.get(id)


def test_the_end_of_a_task() -> None:
    with DockerContainer(IMAGE).with_command(["sh", "-c", "echo done >&2; exit 3"]) as task:
        assert task.wait() == 3
        assert task.get_logs() == (b"", b"done\n")
