"""`save`, `load --tag`, `export` and `import` through both command lines; interrupted ones; trap 3, wish 8."""

from __future__ import annotations

import http.server
import io
import json
import os
import socket
import stat
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures.loopback import listen

from .archives import docker_archive, oci_archive, tar_of
from .client import Client, Session
from .conftest import Daemon, client_of, poll

pytestmark = pytest.mark.root


@pytest.fixture(params=["docker", "pier"])
def either(request: pytest.FixtureRequest, daemon: Daemon) -> Iterator[Client]:
    """Both command lines, one after the other."""
    for client in client_of(daemon.environment, "busybox"):
        client.program = request.param
        yield client


def members(path: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(path) as archive:
        return {member.name: member for member in archive}


def document(path: Path, name: str) -> Any:
    with tarfile.open(path) as archive:
        file = archive.extractfile(name)
        assert file is not None
        return json.load(file)


# --- save and load


def test_a_saved_image_comes_back(either: Client, tmp_path: Path) -> None:
    either.ok("tag", either.image, "t-save:1")
    either.ok("tag", either.image, "t-save:2")
    id = either.field("t-save:1", "{{.Id}}")
    file = tmp_path / "saved.tar"
    assert either.ok("save", "-o", str(file), "t-save") == ""
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["saved.tar"]
    [row] = document(file, "manifest.json")
    assert (row["Config"], row["RepoTags"]) == (f"blobs/sha256/{id[7:]}", ["t-save:1", "t-save:2"])
    names = {one["annotations"]["io.containerd.image.name"] for one in document(file, "index.json")["manifests"]}
    assert names == {"docker.io/library/t-save:1", "docker.io/library/t-save:2"}
    either.ok("rmi", "t-save:1", "t-save:2")
    assert either.ok("load", "-i", str(file)).splitlines() == ["Loaded image: t-save:1", "Loaded image: t-save:2"]
    assert either.ok("run", "--rm", "t-save:2", "echo", "works") == "works"
    assert either.field("t-save:2", "{{.Id}}") == id


def test_save_to_stdout_and_events(either: Client, tmp_path: Path) -> None:
    with (tmp_path / "out.tar").open("wb") as out:
        run_to(out, either, "save", either.image)
    assert {"index.json", "manifest.json", "oci-layout"} <= members(tmp_path / "out.tar").keys()
    id = either.field(either.image, "{{.Id}}")
    assert either.events("--filter", "event=save", "--format", "{{.Action}} {{.Actor.ID}}")[-1] == f"save {id}"


def run_to(out: io.BufferedWriter, client: Client, *words: str) -> None:
    subprocess.run([client.program, *words], env=client.environment, stdout=out, check=True, timeout=60)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["save", "nosuch"], "Error response from daemon: No such image: nosuch"),
        (
            ["save", "-o", "{tmp}/none/x", "busybox"],
            "failed to save image: invalid output path: stat {tmp}/none:",
        ),
        (["save", "-o", "{tmp}", "busybox"], "failed to save image: cannot write to a directory"),
        (["save", "--platform", "linux/s390x", "busybox"], "no suitable export target found for platform linux/s390x"),
        (["save"], "requires at least 1 argument"),
        (["export", "nosuch"], "Error response from daemon: No such container: nosuch"),
        (["export", "-o", "{tmp}/x", "nosuch"], "Error response from daemon: No such container: nosuch"),
        (["export", "-o", "{tmp}/none/x", "c"], "failed to export container: invalid output path: stat {tmp}/none:"),
        (["export", "a", "b"], "requires 1 argument"),
        (["import", "http://127.0.0.1:1/x"], "dial tcp 127.0.0.1:1: connect: connection refused"),
    ],
)
def test_what_cannot_be_written(either: Client, tmp_path: Path, words: list[str], error: str) -> None:
    done = either(*(word.format(tmp=tmp_path) for word in words))
    assert done.status == 1
    assert error.format(tmp=tmp_path) in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", [["save", "busybox"], ["export", "nosuch"]])
def test_no_archive_on_a_terminal(either: Client, verb: list[str]) -> None:
    at_terminal: Session = either.terminal(*verb)
    assert "cowardly refusing to save to a terminal" in at_terminal.wait().out


def test_load_for_another_platform(either: Client) -> None:
    archive = docker_archive(["t-platform:1"], [tar_of({"a": b"1"})])
    done = either("load", "--platform", "linux/s390x", stdin=archive)
    assert done.status == 1
    assert (
        "requested platform (linux/s390x) not found in the archive (it holds t-platform:1 for linux/amd64)" in done.err
    )
    assert either.ok("load", "--platform", "linux/amd64", stdin=archive) == "Loaded image: t-platform:1"


def test_wish_08_load_under_another_name(daemon: Daemon) -> None:
    archive = docker_archive(["t-old:1"], [tar_of({"a": b"1"})])
    done = daemon.pier("load", "--tag", "t-new:2", "-t", "localhost:5000/t-new", stdin=archive)
    assert done.out == "Loaded image: t-new:2\nLoaded image: localhost:5000/t-new:latest\n"
    names = daemon.pier("images", "--format", "{{.Repository}}:{{.Tag}}").out.split()
    assert "t-old:1" not in names
    assert daemon.pier("rmi", "t-new:2", "localhost:5000/t-new").status == 0
    done = daemon.pier("load", "--tag", "Bad", stdin=archive)
    assert (done.status, done.err.splitlines()[0][:24]) == (1, "invalid reference format")


# --- export and import


def test_export_of_a_container_that_runs_and_one_that_does_not(either: Client, tmp_path: Path) -> None:
    either.run(either.image, "sh", "-c", "echo changed >/etc/note; rm /bin/ls; mkfifo /pipe; sleep 600", name="t-ex")
    poll(lambda: either("exec", "t-ex", "test", "-p", "/pipe").status == 0, "its files")
    file = tmp_path / "out.tar"
    either.ok("export", "-o", str(file), "t-ex")
    running = members(file)
    assert {"bin/busybox", "etc/note", "pipe"} <= running.keys()
    assert "bin/ls" not in running
    assert running["pipe"].isfifo()
    either.ok("kill", "t-ex")
    either.ok("export", "-o", str(file), "t-ex")
    assert members(file).keys() == running.keys()
    either.ok("import", str(file), "t-exported:1")
    assert either.ok("run", "--rm", "t-exported:1", "/bin/cat", "/etc/note") == "changed"
    id = either.field("t-ex", "{{.Id}}")
    assert either.events("--filter", "event=export", "--format", "{{.Actor.ID}}")[-2:] == [id, id]
    either.ok("rm", "-f", "t-ex")
    either.ok("rmi", "t-exported:1")


def test_import_from_a_url_and_stdin(either: Client, tmp_path: Path) -> None:
    layer = tar_of({"bin/busybox": Path("/bin/busybox").read_bytes()})
    (tmp_path / "root.tar").write_bytes(layer)

    def handler(*arguments: Any) -> http.server.SimpleHTTPRequestHandler:
        return http.server.SimpleHTTPRequestHandler(*arguments, directory=str(tmp_path))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler, bind_and_activate=False) as server:
        server.socket.close()
        server.socket = listen()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.socket.getsockname()[1]}/root.tar"
            lines = either.ok("import", "-c", 'CMD ["/bin/busybox", "true"]', url, "t-url:1").splitlines()
        finally:
            server.shutdown()
            thread.join()
    assert lines[0] == f"Downloading from {url}"
    assert lines[-1] == either.field("t-url:1", "{{.Id}}")
    assert either.field("t-url:1", "{{.Comment}}") == f"Imported from {url}"
    assert either.ok("run", "--rm", "t-url:1") == ""
    id = either.ok("import", "-m", "mine", "--platform", "linux/arm64", "-", "t-std:1", stdin=layer)
    assert either.field("t-std:1", "{{.Id}} {{.Architecture}} {{.Comment}}") == f"{id} arm64 mine"


def test_trap_03_each_command_knows_the_other_s_archive(either: Client, tmp_path: Path) -> None:
    """What each of the four writes, given to the one that does not take it."""
    images, tree = tmp_path / "images.tar", tmp_path / "tree.tar"
    either.ok("save", "-o", str(images), either.image)
    either.ok("create", "--name", "t-trap3", either.image, "true")
    either.ok("export", "-o", str(tree), "t-trap3")
    either.ok("rm", "t-trap3")
    before = either.names()
    done = either("load", "-i", str(tree))
    assert (done.status, "take it in with `import FILE NAME:TAG`" in done.err) == (1, True)
    done = either("import", str(images), "t-trap3:1")
    assert (done.status, "take it in with `load --input FILE`" in done.err) == (1, True)
    assert either.names() == before


# --- interrupted


def request_head(path: str, *, chunked: bool) -> bytes:
    body = "Transfer-Encoding: chunked\r\nContent-Type: application/x-tar\r\n" if chunked else ""
    return f"{'POST' if chunked else 'GET'} {path} HTTP/1.1\r\nHost: d\r\n{body}\r\n".encode()


def connected(daemon: Daemon) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(30)
    client.connect(str(daemon.socket))
    return client


BIG = {f"etc/{number}": os.urandom(1 << 20) for number in range(24)}


def stored(daemon: Daemon) -> set[str]:
    """Blobs, layers, and what is on its way to become one."""
    roots = [daemon.data_root / "content", daemon.data_root / "snapshots"]
    found = {path for root in roots for path in root.glob("*/*") if path.parent.name in ("ingest", "partial")}
    found |= set((daemon.data_root / "content" / "blobs").glob("*/*"))
    found |= {path for root in roots for path in root.glob("*/layers/*")} | set(roots[1].glob("*/partial/*"))
    return {str(path.relative_to(daemon.data_root)) for path in found}


@pytest.mark.parametrize("path", ["/images/load?quiet=1", "/images/create?fromSrc=-&repo=t-cut"])
@pytest.mark.parametrize("way", ["client", "daemon"])
def test_attack_26_taking_in_that_is_interrupted_leaves_nothing(own_daemon: Daemon, path: str, way: str) -> None:
    own_daemon.start()
    before = stored(own_daemon)
    layer = tar_of(BIG)
    data = oci_archive("docker.io/library/t-cut:1", [layer]) if "load" in path else layer
    with connected(own_daemon) as client:
        client.sendall(request_head(path, chunked=True))
        half = data[: len(data) // 2]
        client.sendall(b"%x\r\n" % len(half) + half + b"\r\n")
        poll(lambda: stored(own_daemon) != before, "bytes on the disk")
        if way == "daemon":
            own_daemon.kill()
    if way == "daemon":
        own_daemon.start()
    poll(lambda: stored(own_daemon) == before, "nothing left")
    assert own_daemon.pier("images", "-q").out == ""


def test_attack_26_a_save_that_is_interrupted_lets_go(own_daemon: Daemon) -> None:
    """What is being saved stays until its readers have gone, and no longer."""
    own_daemon.start()
    assert own_daemon.pier("load", stdin=docker_archive(["t-big:1"], [tar_of(BIG)])).status == 0
    clients = [connected(own_daemon) for _ in range(3)]
    for client in clients:
        client.sendall(request_head("/images/t-big:1/get", chunked=False))
        assert client.recv(12) == b"HTTP/1.1 200"
    assert own_daemon.pier("rmi", "t-big:1").status == 0
    assert len(list((own_daemon.data_root / "content" / "blobs" / "sha256").iterdir())) == 3
    for client in clients:
        client.close()
    poll(lambda: len(list((own_daemon.data_root / "content" / "blobs" / "sha256").iterdir())) == 0, "blobs to go")
