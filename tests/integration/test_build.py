"""The classic build: Docker's own client, docker-py and testcontainers; ends of all kinds."""

from __future__ import annotations

import functools
import http.server
import io
import json
import os
import signal
import socket
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import BuildError
from testcontainers.core.config import testcontainers_config
from testcontainers.core.image import DockerImage

from .client import Client
from .conftest import Daemon, poll
from .test_store_faults import armed, check

pytestmark = pytest.mark.root

FILE = """\
ARG NAME=world
FROM busybox AS made
ARG NAME
RUN echo "hello $NAME" > /greeting && \\
    chmod 600 /greeting
FROM busybox
ENV A=b
COPY --from=made /greeting /in/
COPY . /context/
LABEL kind=test
CMD ["cat", "/in/greeting"]
"""


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Any]:
    connected = docker.DockerClient(base_url=f"unix://{daemon.socket}")
    yield connected
    for image in connected.images.list(filters={"label": "kind=test"}):
        connected.images.remove(image.id, force=True)
    connected.close()


def context(folder: Path, **files: str) -> Path:
    for name, text in {"Dockerfile": FILE, "a": "A", "left": "out", ".dockerignore": "left\n", **files}.items():
        (folder / name).write_text(text)
    return folder


def docker_build(daemon: Daemon, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    environment = {**daemon.environment, "DOCKER_BUILDKIT": "0"}
    command = ["docker", "build", *flags, str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Without ids."""
    return [line for line in done.stdout.splitlines() if line and not line.startswith((" --->", "Sending"))]


def test_docker_build(daemon: Daemon, client: Any, tmp_path: Path) -> None:
    done = docker_build(daemon, context(tmp_path), "-t", "built:1", "--build-arg", "NAME=you")
    assert done.returncode == 0, done.stderr
    assert lines(done)[:2] == ["Step 1/10 : ARG NAME=world", "Step 2/10 : FROM busybox AS made"]
    assert lines(done)[-1] == "Successfully tagged built:1"
    assert " ---> Running in " in done.stdout
    assert client.containers.run("built:1", remove=True) == b"hello you\n"
    assert client.containers.run("built:1", "ls /context", remove=True).split() == [b"Dockerfile", b"a"]
    image = client.images.get("built:1")
    assert image.labels == {"kind": "test"}
    again = docker_build(daemon, tmp_path, "-t", "built:1", "--build-arg", "NAME=you")
    assert " ---> Running in " not in again.stdout
    assert client.images.get("built:1").id == image.id


def test_a_stage_on_a_new_one_is_not_said_to_be_cached(daemon: Daemon, client: Any, tmp_path: Path) -> None:
    steps = "FROM busybox AS made\nRUN echo stands on > /it\nFROM made\nLABEL a=b\n"
    first = docker_build(daemon, context(tmp_path, Dockerfile=steps), "-t", "stands:1")
    assert " ---> Using cache" not in first.stdout
    assert docker_build(daemon, tmp_path, "-t", "stands:1").stdout.count(" ---> Using cache") == 2
    client.images.remove("stands:1")


def test_a_step_that_fails(daemon: Daemon, tmp_path: Path) -> None:
    done = docker_build(daemon, context(tmp_path, Dockerfile="FROM busybox\nRUN echo out; exit 3\n"))
    assert done.returncode == 3
    assert done.stderr.endswith("The command '/bin/sh -c echo out; exit 3' returned a non-zero code: 3\n")
    assert "out\n" in done.stdout


def test_a_file_that_cannot_be_read(daemon: Daemon, tmp_path: Path) -> None:
    done = docker_build(daemon, context(tmp_path, Dockerfile="FROM busybox\nRUNN x\n"))
    assert done.returncode == 1
    assert "dockerfile parse error on line 2: unknown instruction: RUNN (did you mean RUN?)" in done.stderr


def test_docker_py(client: Any, tmp_path: Path) -> None:
    image, log = client.images.build(path=str(context(tmp_path)), tag="py:1", buildargs={"NAME": "py"}, rm=True)
    assert image.tags == ["py:1"]
    assert any("Successfully built" in line.get("stream", "") for line in log)
    with pytest.raises(BuildError, match="non-zero code: 1"):
        client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN false\n"))


def test_testcontainers(daemon: Daemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{daemon.socket}")
    monkeypatch.setattr(testcontainers_config, "_ryuk_disabled", True)
    with DockerImage(path=context(tmp_path), tag="tc:1") as image:
        assert str(image) == "tc:1"


@pytest.mark.parametrize("mode", ["", "gz", "bz2", "xz"])
def test_an_archive_however_it_is_compressed(daemon: Daemon, client: Any, mode: str) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode=f"w:{mode}") as archive:
        data = b"FROM busybox\nLABEL kind=test\n"
        info = tarfile.TarInfo("Dockerfile")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    raw.seek(0)
    stream = client.api.build(fileobj=raw, custom_context=True, encoding=mode or None, decode=True, tag="packed")
    assert any("Successfully tagged packed:latest" in line.get("stream", "") for line in stream)


def test_the_cache_is_shown_and_pruned(daemon: Daemon, client: Any, tmp_path: Path) -> None:
    steps = "FROM busybox\nRUN --mount=type=cache,target=/c echo 12345 > /c/f; echo 1234567 > /f\nLABEL kind=test\n"
    client.api.prune_builds(all=True)  # what other tests have left
    assert docker_build(daemon, context(tmp_path, Dockerfile=steps)).returncode == 0
    kinds = {entry["Type"] for entry in client.api.df()["BuildCache"]}
    assert {"regular", "exec.cachemount"} <= kinds, "and folders of other tests' clients"
    pruned = client.api.prune_builds(all=True)
    assert len(pruned["CachesDeleted"]) >= 2
    assert pruned["SpaceReclaimed"] >= 6

    def is_empty() -> bool:  # builds of other tests' clients may only just be ending: what they use is spared
        client.api.prune_builds(all=True)
        return not client.api.df()["BuildCache"]

    poll(is_empty, "an empty cache")


def test_a_client_that_goes_away_ends_its_build(daemon: Daemon, tmp_path: Path) -> None:
    folder = context(tmp_path, Dockerfile="FROM busybox\nRUN echo begun; sleep 1000\n")
    environment = {**daemon.environment, "DOCKER_BUILDKIT": "0"}
    process = subprocess.Popen(["docker", "build", str(folder)], env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    while b"begun" not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    poll(lambda: not os.listdir(daemon.exec_root / "builds"), "the step's end")


def test_a_daemon_that_is_killed_while_a_step_runs(own_docker: Client, own_daemon: Daemon, tmp_path: Path) -> None:
    daemon = own_daemon
    folder = context(tmp_path, Dockerfile="FROM busybox\nRUN echo x > /kept\nRUN echo begun; sleep 1000\n")
    environment = {**daemon.environment, "DOCKER_BUILDKIT": "0"}
    process = subprocess.Popen(["docker", "build", str(folder)], env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    while b"begun" not in process.stdout.readline():
        pass
    daemon.kill()
    process.communicate(timeout=20)
    daemon.start()
    assert not os.listdir(daemon.exec_root / "builds")
    assert not os.listdir(daemon.data_root / "builder/contexts")
    done = docker_build(daemon, context(tmp_path, Dockerfile="FROM busybox\nRUN echo x > /kept\n"))
    assert done.returncode == 0, done.stderr
    daemon.stop()
    check(daemon)


@pytest.mark.parametrize("point", ["layer-adopting", "blob-named:2"])
def test_attack_26_a_daemon_killed_in_a_build(
    own_docker: Client, own_daemon: Daemon, tmp_path: Path, point: str
) -> None:
    folder = context(tmp_path)
    own_daemon.stop()
    armed(own_daemon, point, "kill")
    assert docker_build(own_daemon, folder).returncode != 0
    poll(own_daemon.has_ended, "the point to be passed")
    own_daemon.start()
    done = docker_build(own_daemon, folder)
    assert done.returncode == 0, done.stderr
    own_daemon.stop()
    check(own_daemon)


def test_attack_26_a_disk_that_is_full_in_a_build(own_docker: Client, own_daemon: Daemon, tmp_path: Path) -> None:
    folder = context(tmp_path)
    own_daemon.stop()
    armed(own_daemon, "diff-written", "ENOSPC")
    done = docker_build(own_daemon, folder)
    assert done.returncode == 1
    assert "no space left on device" in done.stderr.lower()
    assert docker_build(own_daemon, folder).returncode == 0
    own_daemon.stop()
    check(own_daemon)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "www"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()
    thread.join()


def test_contexts_at_an_address(client: Any, web: tuple[str, Path], tmp_path: Path) -> None:
    """A Dockerfile alone, an archive, a repository."""
    url, www = web
    (www / "Dockerfile").write_text("FROM busybox\nLABEL kind=test\n")
    image, _ = client.images.build(path=f"{url}/Dockerfile")
    assert image.labels == {"kind": "test"}
    with tarfile.open(www / "context.tar.gz", "w:gz") as archive:
        archive.add(context(tmp_path), ".", filter=lambda each: None if "www" in each.name else each)
    image, _ = client.images.build(path=f"{url}/context.tar.gz")
    assert client.containers.run(image.id, remove=True) == b"hello world\n"
    work = tmp_path / "work"
    work.mkdir()
    context(work)
    for command in ("init -q", "add -A", "-c user.name=t -c user.email=t@t commit -qm x"):
        subprocess.run(["git", *command.split()], cwd=work, check=True)
    subprocess.run(["git", "clone", "-q", "--bare", work, www / "repo.git"], check=True)
    subprocess.run(["git", "update-server-info"], cwd=www / "repo.git", check=True)
    image, _ = client.images.build(path=f"{url}/repo.git#:")
    assert client.containers.run(image.id, "ls /context", remove=True).split() == [b"Dockerfile", b"a", b"left"]


def test_pier_build(daemon: Daemon, client: Any, tmp_path: Path) -> None:
    """Progress on stderr, a secret, its failure with the line marked."""
    folder = context(tmp_path)
    done = daemon.pier("build", "-t", "pier:1", "--iidfile", f"{tmp_path}/id", folder)
    assert done.status == 0, done.err
    assert "steps, " in done.err
    assert (tmp_path / "id").read_text() == client.images.get("pier:1").id
    (tmp_path / "secret").write_text("hidden\n")
    steps = "FROM busybox\nRUN --mount=type=secret,id=s cat /run/secrets/s; exit 4\n"
    failed = daemon.pier("build", "--secret", f"id=s,src={tmp_path}/secret", context(tmp_path, Dockerfile=steps))
    assert failed.status == 1
    assert "hidden\n" in failed.err
    assert "   2 | >>> RUN --mount=type=secret" in failed.err
    assert failed.err.endswith("did not complete successfully: exit code: 4\n")
    wrong = daemon.pier("build", context(tmp_path, Dockerfile="FROM busybox\nRUNN x\n"))
    assert "   2 | >>> RUNN x" in wrong.err
    assert "pier" not in daemon.pier("builder", "du").err
    assert daemon.pier("builder", "prune", "--all", "--force").status == 0


def test_pier_build_sends_what_has_changed(daemon: Daemon, tmp_path: Path) -> None:
    folder = tmp_path / "context"
    folder.mkdir()
    context(folder, a="12345")
    for number in range(30):
        (folder / f"f{number}").write_text(str(number))

    def build(*flags: str) -> str:
        done = daemon.pier("build", "--progress=plain", "-t", "pier:sync", *flags, folder)
        assert done.status == 0, done.err
        return done.err

    assert ", 0B sent" not in build()
    assert ", 0B sent" in build()
    (folder / "a").write_text("123456789")
    assert ", 9B sent" in build()
    (folder / "f7").unlink()
    assert ", 0B sent" in build()
    assert daemon.pier("run", "--rm", "pier:sync", "ls", "/context").out.split() == sorted(
        ["Dockerfile", "a", *(f"f{number}" for number in range(30) if number != 7)]
    )
    (folder / os.fsdecode(b"\xff")).touch()  # an archive can have any name
    assert ", 0B sent" not in build()
    elsewhere = tmp_path / "elsewhere" / "File"
    elsewhere.parent.mkdir()
    elsewhere.write_text("FROM busybox\nRUNN x\n")
    done = daemon.pier("build", "-f", elsewhere, folder)
    assert f"{elsewhere}:2" in done.err
    missing = daemon.pier("build", "-f", f"{folder}/nothing", folder)
    assert missing.err == "Cannot locate specified Dockerfile: nothing\n"
    assert daemon.pier("rmi", "-f", "pier:sync").status == 0
    assert daemon.pier("builder", "prune", "--all", "--force").status == 0


def test_pier_build_makes_several_outputs_for_several_platforms(daemon: Daemon, client: Any, tmp_path: Path) -> None:
    steps = (
        "FROM --platform=$BUILDPLATFORM busybox AS made\nARG TARGETARCH\nRUN echo $TARGETARCH > /made\n"
        "FROM scratch\nCOPY --from=made /made /\nLABEL kind=test\n"
    )
    outputs = ("-o", f"type=oci,dest={tmp_path}/o,compression=zstd", "-o", f"{tmp_path}/out", "--load")
    both = ("--platform", "linux/amd64,linux/arm64", "--annotation", "index:a=b", "-t", "both:1")
    facts = ("--metadata-file", f"{tmp_path}/facts")
    done = daemon.pier("build", *both, *outputs, *facts, context(tmp_path, Dockerfile=steps))
    assert done.status == 0, done.err
    assert (tmp_path / "out/linux_arm64/made").read_text() == "arm64\n"
    with tarfile.open(tmp_path / "o") as archive:
        read = {entry.name: archive.extractfile(entry).read() for entry in archive if entry.isfile()}  # type: ignore[union-attr]
    [entry] = json.loads(read["index.json"])["manifests"]
    index = json.loads(read[entry["digest"].replace("sha256:", "blobs/sha256/")])
    assert [each["platform"]["architecture"] for each in index["manifests"]] == ["amd64", "arm64"]
    assert index["annotations"] == {"a": "b"}
    said = json.loads((tmp_path / "facts").read_text())
    assert said["containerimage.descriptor"]["digest"] == said["containerimage.digest"]
    assert said["image.name"] == "docker.io/library/both:1"
    assert daemon.pier("build", "--check", *both, tmp_path).status == 0, "a question is about the first"
    assert client.images.get("both:1").labels == {"kind": "test"}


def test_pier_build_lends_its_ssh_agent(daemon: Daemon, tmp_path: Path) -> None:
    """What goes over its socket: `tests/unit/builder/test_agents.py`."""
    folder = context(tmp_path, Dockerfile="FROM busybox\nRUN --mount=type=ssh [ -S $SSH_AUTH_SOCK ]\n")
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(tmp_path / "agent"))
        done = daemon.pier("build", "--ssh", f"default={tmp_path}/agent", folder)
    assert done.status == 0, done.err
    (tmp_path / "agent").unlink()
    refused = daemon.pier("build", "--no-cache", folder)
    assert refused.status == 1, "there is no agent"


def test_entitlements(daemon: Daemon, tmp_path: Path) -> None:
    steps = "FROM busybox\nRUN --network=host true\n"
    assert daemon.pier("build", "--allow", "network.host", context(tmp_path, Dockerfile=steps)).status == 0
    refused = daemon.pier("build", "--allow", "security.insecure", str(tmp_path))
    assert "granting entitlement security.insecure is not allowed by build daemon configuration" in refused.err


def test_pier_build_takes_named_contexts(daemon: Daemon, tmp_path: Path) -> None:
    """A folder beside the context without what it ignores, sent as far as it has changed; an image."""
    more = tmp_path / "more"
    more.mkdir()
    for name, text in {"kept": "kept", "left": "out", ".dockerignore": "left\n"}.items():
        (more / name).write_text(text)
    steps = "FROM base AS made\nRUN echo here > /here\nFROM base\nCOPY --from=more . /more\nCOPY --from=made /here /\n"
    main = tmp_path / "main"
    main.mkdir()
    contexts = ("--build-context", f"more={more}", "--build-context", "base=docker-image://busybox")
    done = daemon.pier("build", "-t", "pier:named", *contexts, context(main, Dockerfile=steps))
    assert done.status == 0, done.err
    assert daemon.pier("run", "--rm", "pier:named", "ls", "-A", "/more", "/here").out.split() == [
        *("/here", "/more:", ".dockerignore", "kept")
    ]
    wrong = daemon.pier("build", "--build-context", "more=/none", main)
    assert wrong.err == "failed to get build context more: stat /none: no such file or directory\n"
    assert daemon.pier("build", "--build-context", "more", main).err.startswith("invalid context value: more, expected")
    assert daemon.pier("rmi", "-f", "pier:named").status == 0
