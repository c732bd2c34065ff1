"""`docker load`, `import`, `images`, `tag`, `rmi`, and archives that are none."""

import gzip
import re
from pathlib import Path

import pytest

from .archives import docker_archive, oci_archive, tar_of
from .client import Client

pytestmark = pytest.mark.root

BUSYBOX = Path("/bin/busybox")
ID = r"sha256:[0-9a-f]{64}"


@pytest.fixture(scope="module")
def layers() -> list[bytes]:
    """A program, and a file above it."""
    return [tar_of({"bin/busybox": BUSYBOX.read_bytes()}), tar_of({"etc/note": b"of the upper layer\n"})]


def kinds(tag: str, layers: list[bytes]) -> dict[str, bytes]:
    config = {"Cmd": ["/bin/busybox", "cat", "/etc/note"], "Env": ["A=of the image"]}
    whole = f"docker.io/library/{tag}"
    return {
        "docker": docker_archive([tag], layers, **config),
        "docker, compressed": gzip.compress(docker_archive([tag], layers, **config), 1),
        "oci": oci_archive(whole, layers, **config),
    }


@pytest.mark.parametrize("kind", ["docker", "docker, compressed", "oci"])
def test_an_archive_is_loaded_and_runs(docker: Client, layers: list[bytes], kind: str) -> None:
    archive = kinds("t-loaded:1", layers)[kind]
    assert docker.ok("load", stdin=archive) == "Loaded image: t-loaded:1"
    assert docker.ok("run", "--rm", "t-loaded:1") == "of the upper layer"
    assert docker.ok("run", "--rm", "t-loaded:1", "/bin/busybox", "sh", "-c", "echo $A") == "of the image"
    assert docker.ok("inspect", "-f", "{{len .RootFS.Layers}} {{.Config.Env}}", "t-loaded:1") == "2 [A=of the image]"


def test_from_a_file_and_quietly(docker: Client, layers: list[bytes], tmp_path: Path) -> None:
    file = tmp_path / "image.tar"
    file.write_bytes(kinds("t-file:2", layers)["docker"])
    assert docker.ok("load", "-q", "-i", str(file)) == "Loaded image: t-file:2"


def test_an_image_without_a_name(docker: Client, layers: list[bytes]) -> None:
    done = docker("load", stdin=docker_archive([], layers))
    assert done.status == 0
    assert re.fullmatch(f"Loaded image ID: {ID}\n", done.out)
    id = done.out.split()[-1]
    assert docker.ok("rmi", id).splitlines()[-1].startswith("Deleted: sha256:")


def test_a_second_load_of_the_same_changes_nothing(docker: Client, layers: list[bytes]) -> None:
    archive = kinds("t-twice:1", layers)["docker"]
    docker.ok("load", stdin=archive)
    id = docker.ok("images", "-q", "--no-trunc", "t-twice:1")
    docker.ok("load", stdin=archive)
    assert docker.ok("images", "-q", "--no-trunc", "t-twice:1") == id


def test_import_with_changes(docker: Client, layers: list[bytes]) -> None:
    changes = ["-c", 'ENTRYPOINT ["/bin/busybox"]', "-c", "CMD echo hello", "-c", "ENV B=2", "-c", "LABEL l=v"]
    id = docker.ok("import", "-m", "by hand", *changes, "-", "t-import:3", stdin=layers[0])
    assert re.fullmatch(ID, id)
    template = (
        "{{.Id}} {{.Comment}} {{json .Config.Entrypoint}} {{json .Config.Cmd}} {{.Config.Env}} {{.Config.Labels}}"
    )
    assert docker.ok("inspect", "-f", template, "t-import:3") == (
        f'{id} by hand ["/bin/busybox"] ["/bin/sh","-c","echo hello"] [B=2] map[l:v]'
    )
    assert docker.ok("run", "--rm", "t-import:3", "sh", "-c", "echo $B") == "2"


def test_the_list(docker: Client, layers: list[bytes]) -> None:
    docker.ok("load", stdin=kinds("t-list:1", layers)["docker"])
    head, row = docker.ok("images", "t-list").splitlines()
    assert head.split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert row.split()[:2] == ["t-list", "1"]
    short = docker.ok("images", "-q", "t-list")
    assert re.fullmatch("[0-9a-f]{12}", short)
    assert docker.ok("inspect", "-f", "{{.Id}}", short).startswith(f"sha256:{short}")
    assert docker.ok("images", "-q", "t-nothing") == ""


def test_tag_and_rmi(docker: Client, layers: list[bytes]) -> None:
    docker.ok("load", stdin=kinds("t-one:1", layers)["docker"])
    docker.ok("tag", "t-one:1", "t-two")
    assert docker.ok("rmi", "t-one:1") == "Untagged: t-one:1"
    lines = docker.ok("rmi", "t-two").splitlines()
    assert lines[0] == "Untagged: t-two:latest"
    assert len(lines) == 4, "the image and its two layers"
    assert all(re.fullmatch(f"Deleted: {ID}", line) for line in lines[1:])


def test_an_image_in_use(docker: Client, layers: list[bytes]) -> None:
    docker.ok("load", stdin=kinds("t-used:1", layers)["docker"])
    id = docker.ok("create", "t-used:1")
    done = docker("rmi", "t-used:1")
    message = f'conflict: unable to remove repository reference "t-used:1" (must force) - container {id[:12]} is using'
    assert done.err.startswith(f"Error response from daemon: {message} its referenced image ")
    assert done.status == 1
    docker.ok("rmi", "-f", "t-used:1")
    assert docker.ok("start", "-a", id) == "of the upper layer"


# --- bad input: one line, exit status 1, nothing is left


def broken(layers: list[bytes]) -> dict[str, bytes]:
    good = kinds("t-broken:1", layers)["docker"]
    return {
        "no archive": b"this is no archive\n" * 100,
        "cut off": good[: len(good) // 2],
        "empty tar": tar_of({}),
        "a layer is another": docker_archive(["t-broken:1"], layers).replace(
            b"of the upper layer", b"of somebody else!!"
        ),
        "a name that is none": docker_archive(["UPPER CASE"], layers),
        "a path that climbs": docker_archive(["t-broken:1"], [tar_of({"../../../../tmp/t-evil": b"x"})]),
    }


@pytest.mark.parametrize(
    "kind", ["no archive", "cut off", "empty tar", "a layer is another", "a name that is none", "a path that climbs"]
)
def test_a_broken_archive(docker: Client, layers: list[bytes], kind: str) -> None:
    before = docker.ok("images", "-aq")
    done = docker("load", stdin=broken(layers)[kind])
    assert done.status == 1
    assert len(done.err.strip().splitlines()) == 1, done.err
    assert "internal error" not in done.err
    assert docker.ok("images", "-aq") == before
    assert not Path("/tmp/t-evil").exists()


def test_trap_03_an_archive_of_the_other_command(docker: Client, layers: list[bytes]) -> None:
    done = docker("load", stdin=layers[0])
    assert done.status == 1
    assert "import" in done.err
    done = docker("import", "-", "t-wrong:1", stdin=docker_archive(["t-wrong:1"], layers))
    assert done.status == 1
    assert "load" in done.err


def test_an_image_that_is_nowhere(docker: Client) -> None:
    done = docker("run", "--pull", "never", "t-nowhere", "true")
    assert done.err.startswith("docker: Error response from daemon: No such image: t-nowhere:latest\n")
    assert done.status == 125
