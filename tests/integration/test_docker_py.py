"""docker-py, the SDK that most other tools are built on, against the daemon."""

from __future__ import annotations

import io
import os
import socket
import tarfile
import threading
from collections.abc import Iterator

import docker
import pytest
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound

from .archives import docker_archive, tar_of
from .conftest import Daemon, poll

pytestmark = pytest.mark.root

IMAGE = os.environ.get("PIER_SCENARIO_IMAGE", "busybox")


@pytest.fixture
def sdk(request: pytest.FixtureRequest) -> Iterator[docker.DockerClient]:
    """A client, whose containers are removed afterwards. PIER_SCENARIO_HOST: see `conftest.docker`."""
    host = os.environ.get("PIER_SCENARIO_HOST")
    if host is None:
        daemon: Daemon = request.getfixturevalue("daemon")
        host = f"unix://{daemon.socket}"
    client = docker.DockerClient(host)
    before = {container.id for container in client.containers.list(all=True)}
    try:
        yield client
    finally:
        for container in client.containers.list(all=True):
            if container.id not in before:
                container.remove(force=True)
        client.close()


def test_version_and_info(sdk: docker.DockerClient) -> None:
    assert sdk.ping()
    assert sdk.version()["Os"] == "linux"
    assert sdk.info()["OSType"] == "linux"


def test_run(sdk: docker.DockerClient) -> None:
    assert sdk.containers.run(IMAGE, ["echo", "hello"], remove=True) == b"hello\n"
    with pytest.raises(ContainerError) as caught:
        sdk.containers.run(IMAGE, ["sh", "-c", "echo out; echo bad >&2; exit 3"], remove=True)
    assert (caught.value.exit_status, caught.value.stderr) == (3, b"bad\n")


def test_a_detached_container(sdk: docker.DockerClient) -> None:
    container = sdk.containers.run(IMAGE, ["sh", "-c", "echo one; echo two >&2; exit 4"], detach=True)
    assert container.wait() == {"StatusCode": 4}
    assert container.logs(stdout=True, stderr=False) == b"one\n"
    assert container.logs(stdout=False, stderr=True) == b"two\n"
    container.reload()
    assert container.status == "exited"
    container.remove()
    with pytest.raises(NotFound):
        sdk.containers.get(container.id)


def test_logs_follow(sdk: docker.DockerClient) -> None:
    script = "for n in 1 2 3; do echo $n; sleep 0.05; done"
    container = sdk.containers.run(IMAGE, ["sh", "-c", script], detach=True)
    assert b"".join(container.logs(stream=True, follow=True)) == b"1\n2\n3\n"


def test_exec(sdk: docker.DockerClient) -> None:
    container = sdk.containers.run(IMAGE, ["sleep", "1000"], detach=True)
    code, (out, err) = container.exec_run(["sh", "-c", "echo out; echo err >&2; exit 5"], demux=True)
    assert (code, out, err) == (5, b"out\n", b"err\n")
    code, output = container.exec_run(["sh", "-c", "echo $A; pwd"], environment={"A": "b"}, workdir="/tmp")
    assert (code, output) == (0, b"b\n/tmp\n")


def test_a_hijacked_socket_and_its_half_close(sdk: docker.DockerClient) -> None:
    api = sdk.api
    made = api.create_container(IMAGE, ["sh", "-c", "cat; echo end"], stdin_open=True)
    stream = api.attach_socket(made["Id"], params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    raw: socket.socket = stream._sock
    raw.settimeout(10)
    api.start(made["Id"])
    raw.sendall(b"some input\n")
    raw.shutdown(socket.SHUT_WR)
    received = b""
    while chunk := raw.recv(4096):
        received += chunk
    stream.close()
    assert unframed(received) == b"some input\nend\n"


def unframed(data: bytes) -> bytes:
    """The content of `docker attach` frames: stream, three zeros, the length."""
    found = b""
    while data:
        size = int.from_bytes(data[4:8], "big")
        found, data = found + data[8 : 8 + size], data[8 + size :]
    return found


def test_stats(sdk: docker.DockerClient) -> None:
    container = sdk.containers.run(IMAGE, ["sleep", "1000"], detach=True, mem_limit="32m")
    assert container.stats(stream=False)["memory_stats"]["limit"] == 32 << 20
    readings = container.stats(decode=True)
    first, second = next(readings), next(readings)
    assert second["cpu_stats"]["system_cpu_usage"] > first["cpu_stats"]["system_cpu_usage"]
    assert second["precpu_stats"]["cpu_usage"] == first["cpu_stats"]["cpu_usage"]


def test_images(sdk: docker.DockerClient) -> None:
    archive = docker_archive(["t-sdk:1"], [tar_of({"file": b"content"})], Labels={"a": "b"})
    (image,) = sdk.images.load(archive)
    try:
        assert image.tags == ["t-sdk:1"]
        assert image.labels == {"a": "b"}
        assert image.tag("t-sdk", "2")
        assert sorted(sdk.images.get("t-sdk:2").tags) == ["t-sdk:1", "t-sdk:2"]
        assert "t-sdk:1" in [tag for item in sdk.images.list(name="t-sdk") for tag in item.tags]
    finally:
        sdk.images.remove(image.id, force=True)
    with pytest.raises(ImageNotFound):
        sdk.images.get("t-sdk:1")


def test_events(sdk: docker.DockerClient) -> None:
    seen: list[str] = []
    stream = sdk.events(decode=True, filters={"type": "container"}, since=0)

    def listen() -> None:
        for event in stream:
            if event["Actor"]["Attributes"]["name"] == "t-sdk-events":
                seen.append(event["Action"])

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        sdk.containers.run(IMAGE, ["true"], name="t-sdk-events", remove=True)
        poll(lambda: seen[-1:] == ["destroy"], "the last event")
    finally:
        stream.close()
        listener.join(10)
    assert [action for action in seen if action != "attach"] == ["create", "start", "die", "destroy"]


def test_errors_keep_their_status(sdk: docker.DockerClient) -> None:
    container = sdk.containers.run(IMAGE, ["sleep", "1000"], detach=True, name="t-sdk-name")
    with pytest.raises(APIError) as caught:
        sdk.containers.create(IMAGE, name="t-sdk-name")
    assert caught.value.status_code == 409
    with pytest.raises(APIError) as caught:
        container.remove()
    assert caught.value.status_code == 409
    with pytest.raises(APIError) as caught:
        sdk.containers.create(IMAGE, mem_limit="1k")
    assert caught.value.status_code == 400


@pytest.mark.parametrize("version", ["1.24", "1.30", "1.40", "1.44", "1.50"])
def test_old_versions_of_the_api(sdk: docker.DockerClient, version: str) -> None:
    old = docker.DockerClient(f"unix://{sdk.api._custom_adapter.socket_path}", version=version)
    try:
        assert old.containers.run(IMAGE, ["echo", "hello"], remove=True) == b"hello\n"
        assert old.api.inspect_image(IMAGE)["Os"] == "linux"
        assert isinstance(old.api.images(), list)
    finally:
        old.close()


def test_no_output_of_a_quick_exec_is_lost(sdk: docker.DockerClient) -> None:
    """docker-py loses what comes together with the answer's head, and asks for the exit code when the stream ends."""
    container = sdk.containers.run(IMAGE, ["sleep", "1000"], detach=True)
    ended = [container.exec_run(["sh", "-c", "echo out; exit 5"]) for _ in range(20)]
    assert ended == [(5, b"out\n")] * 20


def test_archives(sdk: docker.DockerClient) -> None:
    container = sdk.containers.run(IMAGE, ["sleep", "1000"], detach=True)
    assert container.put_archive("/tmp", tar_of({"folder/file": b"text"}))
    chunks, stat = container.get_archive("/tmp/folder/file")
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        file = tar.extractfile("file")
        assert file is not None
        assert file.read() == b"text"
    assert (stat["name"], stat["size"], stat["mode"] & 0o777, stat["linkTarget"]) == ("file", 4, 0o755, "")
    with pytest.raises(NotFound):
        container.get_archive("/nothing")
    with pytest.raises(NotFound):
        container.put_archive("/nothing", tar_of({"file": b""}))
    container.stop(timeout=0)
    assert next(iter(container.get_archive("/tmp")[0]))


def test_commit_history_and_changes(sdk: docker.DockerClient) -> None:
    container = sdk.containers.run(IMAGE, ["sh", "-c", "echo hi >/new"], detach=True)
    container.wait()
    assert container.diff() == [{"Path": "/new", "Kind": 1}]
    image = container.commit("t-sdk", "1", message="why", author="Me", changes='CMD ["cat", "/new"]')
    try:
        assert image.tags == ["t-sdk:1"]
        assert (image.attrs["Comment"], image.attrs["Author"]) == ("why", "Me")
        assert image.history()[0]["Id"] == image.id
        assert sdk.containers.run("t-sdk:1", remove=True) == b"hi\n"
    finally:
        sdk.images.remove("t-sdk:1")


def test_prune_and_disk_usage(sdk: docker.DockerClient) -> None:
    container = sdk.containers.create(IMAGE, "true", labels={"t": "sdk-prune"})
    usage = sdk.df()
    assert usage["LayersSize"] > 0
    assert container.id in {one["Id"] for one in usage["Containers"]}
    assert all(image["SharedSize"] >= 0 and image["Containers"] >= 0 for image in usage["Images"])
    only = {"label": "t=sdk-prune"}
    assert sdk.containers.prune(only)["ContainersDeleted"] == [container.id]
    assert sdk.containers.prune(only)["ContainersDeleted"] is None
    assert sdk.images.prune({**only, "dangling": False})["ImagesDeleted"] is None
    assert sdk.volumes.prune({"label": ["t=sdk-prune"]})["SpaceReclaimed"] == 0
    assert sdk.networks.prune({"label": "t=sdk-prune"})["NetworksDeleted"] is None


def test_volumes(sdk: docker.DockerClient) -> None:
    """What the SDK's users do with volumes: made, mounted in its three ways, listed, removed."""
    made = sdk.volumes.create("t-sdk-volume", labels={"t": "sdk"})
    try:
        assert sdk.volumes.get("t-sdk-volume").attrs["Labels"] == {"t": "sdk"}
        assert [one.name for one in sdk.volumes.list(filters={"label": "t=sdk"})] == ["t-sdk-volume"]
        write = ["sh", "-c", "echo kept >/v/file"]
        sdk.containers.run(IMAGE, write, remove=True, volumes={"t-sdk-volume": {"bind": "/v", "mode": "rw"}})
        mount = docker.types.Mount("/w", "t-sdk-volume", type="volume", read_only=True)
        assert sdk.containers.run(IMAGE, ["cat", "/w/file"], remove=True, mounts=[mount]) == b"kept\n"
        options = docker.types.DriverConfig("local", {"type": "tmpfs", "device": "tmpfs"})
        mount = docker.types.Mount("/t", "t-sdk-tmpfs", type="volume", driver_config=options, no_copy=True)
        assert b"tmpfs" in sdk.containers.run(IMAGE, ["df", "/t"], remove=True, mounts=[mount])
        usage = {one["Name"]: one["UsageData"] for one in sdk.df()["Volumes"]}
        assert usage["t-sdk-volume"] == {"RefCount": 0, "Size": 5}
        container = sdk.containers.create(IMAGE, "true", volumes=["/nameless"])
        [point] = container.attrs["Mounts"]
        container.remove(v=True)
        with pytest.raises(docker.errors.NotFound):
            sdk.volumes.get(point["Name"])
    finally:
        made.remove()
        sdk.volumes.get("t-sdk-tmpfs").remove(force=True)
    with pytest.raises(docker.errors.NotFound):
        made.reload()
