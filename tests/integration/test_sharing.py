"""What a container takes from others: mounts, trees of images, the IPC namespace with its /dev/shm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .client import Client
from .conftest import Daemon, poll

pytestmark = pytest.mark.root


def refusal(docker: Client, *words: str) -> str:
    done = docker("run", "--rm", *words, docker.image, "true")
    assert done.status in (125, 127)
    return done.err


def test_the_tree_of_an_image(docker: Client) -> None:
    def shown(*words: str, option: str = "") -> str:
        mount = f"type=image,source={docker.image},target=/img{option}"
        return docker.ok("run", "--rm", "--mount", mount, docker.image, *words)

    assert "bin" in shown("ls", "/img").split()
    assert "busybox" in shown("ls", "/img", option=",image-subpath=bin").split()
    assert shown("sh", "-c", "[ -f /img ] && echo a file", option=",image-subpath=bin/busybox") == "a file"
    assert shown("sh", "-c", "touch /img/x 2>&1 || echo refused").endswith("refused")
    assert "nosuch" in refusal(docker, "--mount", f"type=image,src={docker.image},dst=/img,image-subpath=nosuch")


def test_an_image_that_is_shown_is_in_use(docker: Client) -> None:
    docker.ok("import", "-", "shown", stdin=b"\0" * 1024)
    docker.ok("create", "--name", "shows", "--mount", "type=image,src=shown,dst=/img", docker.image, "true")
    assert docker("rmi", "shown").status != 0
    docker.ok("rm", "shows")
    docker.ok("rmi", "shown")


def test_volumes_from(docker: Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("shared")
    docker.run("-v", f"{tmp_path}:/ro:ro", "-v", f"{tmp_path}:/rw", docker.image, "sleep", "100", name="donor")
    script = "cat /ro/file; touch /ro/x 2>/dev/null || echo no; touch /rw/x && echo yes"
    assert docker.ok("run", "--rm", "--volumes-from", "donor", docker.image, "sh", "-c", script) == "sharedno\nyes"
    script = "touch /rw/y 2>/dev/null || echo no"
    assert docker.ok("run", "--rm", "--volumes-from", "donor:ro", docker.image, "sh", "-c", script) == "no"
    assert "No such container: nosuch" in refusal(docker, "--volumes-from", "nosuch")
    docker.ok("rm", "-f", "donor")


def test_ipc_of_another_container(docker: Client) -> None:
    program = "echo hi >/dev/shm/f; sleep 100"
    docker.run("--ipc", "shareable", "--shm-size", "1m", docker.image, "sh", "-c", program, name="gives")
    poll(lambda: docker("exec", "gives", "cat", "/dev/shm/f").out, "the file")
    script = (
        "cat /dev/shm/f; echo back >/dev/shm/g; df -k /dev/shm | awk '/shm/ {print $2}'; readlink /proc/self/ns/ipc"
    )
    text, size, inode = docker.ok("run", "--rm", "--ipc", "container:gives", docker.image, "sh", "-c", script).split()
    assert (text, size) == ("hi", "1024")
    assert docker.ok("exec", "gives", "cat", "/dev/shm/g") == "back"
    assert docker.ok("exec", "gives", "readlink", "/proc/self/ns/ipc") == inode
    docker.run(docker.image, "sleep", "100", name="keeps")
    assert "non-shareable IPC" in refusal(docker, "--ipc", "container:keeps")
    docker.ok("stop", "-t", "0", "gives")
    assert "is not running" in refusal(docker, "--ipc", "container:gives")
    docker.ok("rm", "-f", "gives", "keeps")


@pytest.mark.parametrize("mount", ["/etc/passwd:/etc", "/var/tmp:/etc/passwd"])
def test_a_file_for_a_directory_and_the_other_way_round(docker: Client, mount: str) -> None:
    assert "Are you trying to mount a directory onto a file (or vice-versa)?" in refusal(docker, "-v", mount)


def test_files_of_a_stopped_container_that_shows_an_image(docker: Client) -> None:
    mount = f"type=image,src={docker.image},dst=/img"
    docker.ok("create", "--name", "shows", "--mount", mount, docker.image, "true")
    assert docker.ok("cp", "shows:/img/etc/passwd", "-") == docker.ok("cp", "shows:/etc/passwd", "-")
    docker.ok("rm", "shows")


def test_a_device_that_its_vendor_describes(own_daemon: Daemon, starter_images: list[Path]) -> None:
    folder = own_daemon.root / "cdi"
    folder.mkdir()
    (own_daemon.root / "daemon.json").write_text(json.dumps({"cdi-spec-dirs": [str(folder)]}))
    node = {"path": "/dev/described", "hostPath": "/dev/zero"}
    edits = {"deviceNodes": [node], "env": ["DESCRIBED=1"], "additionalGids": [77]}
    device = {"name": "one", "containerEdits": edits}
    (folder / "test.json").write_text(json.dumps({"cdiVersion": "0.6.0", "kind": "a.test/dev", "devices": [device]}))
    own_daemon.start()
    assert own_daemon.pier("import", str(starter_images[0]), "busybox").status == 0
    script = "head -c 3 /dev/described | wc -c; echo $DESCRIBED; id -G"
    for run in (own_daemon.docker, own_daemon.pier):
        done = run("run", "--rm", "--device", "a.test/dev=one", "busybox", "sh", "-c", script)
        assert done.out.split() == ["3", "1", "0", "77"], done
        done = run("run", "--rm", "--device", "a.test/dev=two", "busybox", "true")
        assert done.status == 125
        assert "CDI device injection failed: unresolvable CDI devices a.test/dev=two" in done.err
    assert str(folder) in own_daemon.docker("info").out


def test_the_daemons_own_socket(daemon: Daemon) -> None:
    done = daemon.pier(
        "run", "--rm", "--use-api-socket", "busybox", "sh", "-c", "[ -S /var/run/docker.sock ] && echo yes"
    )
    assert done.out == "yes\n", done
    refused = daemon.pier("-H", "tcp://127.0.0.1:9", "create", "--use-api-socket", "busybox")
    assert "is no unix socket" in refused.err
