"""Files into and out of containers, by Docker's command line: every combination of its rules, and by the API itself."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from .client import Client

pytestmark = pytest.mark.root

SETUP = """
mkdir -p /src/dir/sub /dst/dir
echo one >/src/file; echo two >/src/dir/two; echo three >/src/dir/sub/three; echo old >/dst/file
ln -s file /src/link; ln -s dir /src/dirlink; ln -s nowhere /src/broken; ln -s /src/file /src/absolute
ln -s dir /dst/dirlink; ln -s file /dst/filelink; ln -s ../../../../../../dst/dir /dst/up
chown -R 12:34 /src/dir; chmod 2750 /src/dir/sub; chmod 4755 /src/dir/two; chmod 600 /src/file
"""


@pytest.fixture(params=["docker", "pier"])
def docker(docker: Client, request: pytest.FixtureRequest) -> Client:
    """Both command lines: the rules are half the client's."""
    docker.program = request.param
    return docker


@pytest.fixture(params=["running", "stopped"])
def box(docker: Client, request: pytest.FixtureRequest) -> str:
    """A container with files in it."""
    forever = "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"
    id = docker.run(docker.image, "sh", "-c", f"{SETUP}\necho ready; {forever}")
    follower = docker.start("logs", "-f", id)
    follower.read_until("ready")
    if request.param == "stopped":
        docker.ok("kill", id)
        docker.ok("wait", id)
    return id


def listing(root: Path) -> dict[str, str]:
    """Path -> content, or what else it is."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        else:
            found[name] = "/" if path.is_dir() else path.read_text().strip()
    return found


def inside(docker: Client, box: str, path: str) -> dict[str, str]:
    """The same of a directory in a container."""
    done = docker("cp", f"{box}:{path}/.", "-")
    assert done.status == 0, done
    with tarfile.open(fileobj=io.BytesIO(done.out.encode())) as tar:
        found = {}
        for entry in tar:
            name = entry.name.removeprefix("./")
            if name == ".":
                continue
            if entry.issym():
                found[name] = f"-> {entry.linkname}"
            elif entry.isfile():
                file = tar.extractfile(entry)
                assert file is not None
                found[name] = file.read().decode().strip()
            else:
                found[name] = "/"
        return dict(sorted(found.items()))


TREE = {"sub": "/", "sub/three": "three", "two": "two"}


def below(name: str) -> dict[str, str]:
    return {name: "/", **{f"{name}/{key}": value for key, value in TREE.items()}}


OUT = [
    # source, destination below the folder, what is in the folder afterwards
    ("/src/file", "new", {"new": "one"}),
    ("/src/file", "here/", {"here": "/", "here/file": "one"}),
    ("/src/file", "here", {"here": "/", "here/file": "one"}),
    ("/src/file", "there", {"there": "one"}),
    ("/src/dir", "new", below("new")),
    ("/src/dir/", "new", below("new")),
    ("/src/dir/.", "new", below("new")),
    ("/src/dir", "here", {"here": "/", **{f"here/{k}": v for k, v in below("dir").items()}}),
    ("/src/dir/", "here/", {"here": "/", **{f"here/{k}": v for k, v in below("dir").items()}}),
    ("/src/dir/.", "here", below("here")),
    ("/src/link", "new", {"new": "-> file"}),
    ("/src/absolute", "new", {"new": "-> /src/file"}),
    ("/src/broken", "new", {"new": "-> nowhere"}),
    ("/src/dirlink", "new", {"new": "-> dir"}),
    ("/src/dirlink/", "new", below("new")),
    ("/src/dirlink/.", "new", below("new")),
    ("/dst/up/../file", "new", {"new": "old"}),
]


@pytest.mark.parametrize(("source", "destination", "expected"), OUT)
def test_out(docker: Client, box: str, tmp_path: Path, source: str, destination: str, expected: dict[str, str]) -> None:
    if destination.startswith("here"):
        (tmp_path / "here").mkdir()
    if destination == "there":
        (tmp_path / "there").write_text("before")
    docker.ok("cp", f"{box}:{source}", f"{tmp_path}/{destination}")
    assert listing(tmp_path) == expected


OUT_REFUSED = [
    ("/src/file", "nowhere/", "no such directory"),
    ("/src/file", "a/b", '/a" does not exist'),
    ("/src/dir", "there", "cannot copy directory"),
    ("/src/nothing", "new", "Could not find the file /src/nothing in container"),
    ("/src/broken/x", "new", "Could not find the file /src/broken/x in container"),
]


@pytest.mark.parametrize(("source", "destination", "message"), OUT_REFUSED)
def test_out_refused(docker: Client, box: str, tmp_path: Path, source: str, destination: str, message: str) -> None:
    (tmp_path / "there").write_text("before")
    done = docker("cp", f"{box}:{source}", f"{tmp_path}/{destination}")
    assert done.status == 1
    assert message in done.err
    assert listing(tmp_path) == {"there": "before"}


IN = [
    # source below the folder, destination, options, directory in the container, what is in it afterwards
    ("file", "/dst/new", (), {"new": "one"}),
    ("file", "/dst/file", (), {"file": "one"}),
    ("file", "/dst/dir", (), {"dir/file": "one"}),
    ("file", "/dst/dir/", (), {"dir/file": "one"}),
    ("file", "/dst/dirlink", (), {"dir/file": "one"}),
    ("file", "/dst/dirlink/", (), {"dir/file": "one"}),
    ("file", "/dst/up", (), {"dir/file": "one"}),
    ("file", "/dst/filelink", (), {"file": "one"}),
    ("dir", "/dst/new", (), below("new")),
    ("dir/", "/dst/new", (), below("new")),
    ("dir/.", "/dst/new", (), below("new")),
    ("dir", "/dst/dir", (), {f"dir/{k}": v for k, v in below("dir").items()}),
    ("dir/", "/dst/dirlink", (), {f"dir/{k}": v for k, v in below("dir").items()}),
    ("dir/.", "/dst/dir", (), {f"dir/{k}": v for k, v in TREE.items()}),
    ("dir/.", "/dst/dirlink/", (), {f"dir/{k}": v for k, v in TREE.items()}),
    ("link", "/dst/new", (), {"new": "-> file"}),
    ("link", "/dst/new", ("-L",), {"new": "one"}),
    ("dirlink", "/dst/new", ("-L",), below("new")),
    ("dirlink", "/dst/new", (), {"new": "-> dir"}),
    ("dirlink/", "/dst/new", (), below("new")),
]
BEFORE = {"dir": "/", "dirlink": "-> dir", "file": "old", "filelink": "-> file", "up": "-> ../../../../../../dst/dir"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder like the container's /src."""
    (tmp_path / "dir/sub").mkdir(parents=True)
    (tmp_path / "file").write_text("one\n")
    (tmp_path / "dir/two").write_text("two\n")
    (tmp_path / "dir/sub/three").write_text("three\n")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dirlink").symlink_to("dir")
    (tmp_path / "broken").symlink_to("nowhere")
    return tmp_path


@pytest.mark.parametrize(("what", "destination", "options", "expected"), IN)
def test_in(
    docker: Client,
    box: str,
    source: Path,
    what: str,
    destination: str,
    options: tuple[str, ...],
    expected: dict[str, str],
) -> None:
    docker.ok("cp", *options, f"{source}/{what}", f"{box}:{destination}")
    assert inside(docker, box, "/dst") == dict(sorted({**BEFORE, **expected}.items()))


IN_REFUSED = [
    ("dir", "/dst/file", "cannot copy directory"),
    ("dir", "/dst/filelink", "cannot copy directory"),
    ("file", "/dst/nothing/", "no such directory"),
    ("file", "/nothing/at/all", "Could not find the file /nothing/at in container"),
    ("file", "/dst/file/", "no such directory"),
    ("nothing", "/dst", "no such file or directory"),
]


@pytest.mark.parametrize(("what", "destination", "message"), IN_REFUSED)
def test_in_refused(docker: Client, box: str, source: Path, what: str, destination: str, message: str) -> None:
    done = docker("cp", f"{source}/{what}", f"{box}:{destination}")
    assert done.status == 1
    assert message in done.err
    assert inside(docker, box, "/dst") == BEFORE


def test_modes_owners_and_times_are_kept(docker: Client, box: str, tmp_path: Path) -> None:
    docker.ok("cp", "-a", f"{box}:/src/dir", f"{tmp_path}/dir")
    two, sub = (tmp_path / "dir/two").stat(), (tmp_path / "dir/sub").stat()
    assert stat.S_IMODE(two.st_mode) == 0o4755
    assert stat.S_IMODE(sub.st_mode) == 0o2750
    os.chown(tmp_path / "dir/two", 12, 34)
    os.chmod(tmp_path / "dir/two", 0o4755)
    os.utime(tmp_path / "dir/two", (1_000_000_000, 1_000_000_000))
    docker.ok("cp", "-a", f"{tmp_path}/dir", f"{box}:/dst/new")
    done = docker("cp", f"{box}:/dst/new", "-")
    with tarfile.open(fileobj=io.BytesIO(done.out.encode())) as tar:
        two_again = tar.getmember("new/two")
    assert (two_again.mode, two_again.uid, two_again.gid) == (0o4755, 12, 34)
    assert two_again.mtime == 1_000_000_000


def test_stdin_and_stdout(docker: Client, box: str) -> None:
    done = docker("cp", f"{box}:/src/dir", "-")
    assert docker("cp", "-", f"{box}:/dst", stdin=done.out.encode()).status == 0
    assert inside(docker, box, "/dst/dir/sub") == {"three": "three"}
    refused = docker("cp", "-", f"{box}:/dst/file", stdin=done.out.encode())
    assert (refused.status, "must be a directory" in refused.err) == (1, True)


def test_both_ends_or_none_are_refused(docker: Client, box: str) -> None:
    assert "copying between containers is not supported" in docker("cp", f"{box}:/src", f"{box}:/dst").err
    assert "must specify at least one container source" in docker("cp", "/a", "/b").err
    assert "No such container: nothing" in docker("cp", "nothing:/a", "/tmp").err


def test_binds_are_part_of_the_tree(docker: Client, tmp_path: Path) -> None:
    if os.environ.get("PIER_SCENARIO_HOST"):
        pytest.skip("the other engine has a file system of its own")
    (tmp_path / "bound/deep").mkdir(parents=True)
    (tmp_path / "bound/deep/file").write_text("bound\n")
    (tmp_path / "fixed").mkdir()
    mounts = ("-v", f"{tmp_path}/bound:/data/bound", "-v", f"{tmp_path}/fixed:/data/fixed:ro")
    id = docker.ok("create", *mounts, "--tmpfs", "/scratch", docker.image, "sleep", "1000")
    for _ in range(2):  # stopped, then running
        (tmp_path / "new").write_text("new\n")
        docker.ok("cp", f"{tmp_path}/new", f"{id}:/data/bound/new")
        assert (tmp_path / "bound/new").read_text() == "new\n"
        (tmp_path / "bound/new").unlink()
        assert inside(docker, id, "/data") == {
            "bound": "/",
            "bound/deep": "/",
            "bound/deep/file": "bound",
            "fixed": "/",
        }
        refused = docker("cp", f"{tmp_path}/new", f"{id}:/data/fixed/new")
        assert "mounted volume is marked read-only" in refused.err
        docker.ok("start", id)
    docker.ok("cp", f"{tmp_path}/new", f"{id}:/scratch/new")
    assert docker.ok("exec", id, "cat", "/scratch/new") == "new"


def test_a_read_only_root_is_refused(docker: Client, source: Path) -> None:
    id = docker.ok("create", "--read-only", docker.image, "sleep", "1000")
    for _ in range(2):  # stopped, then running
        refused = docker("cp", f"{source}/file", f"{id}:/tmp/new")
        assert (refused.status, "container rootfs is marked read-only" in refused.err) == (1, True)
        assert docker("cp", f"{id}:/bin/sh", "-").status == 0
        docker.ok("start", id)


def test_archive_events(docker: Client, box: str, source: Path) -> None:
    docker.ok("cp", f"{box}:/src/file", f"{source}/back")
    docker.ok("cp", f"{source}/back", f"{box}:/dst/new")
    assert docker.events("--filter", f"container={box}", "--format", "{{.Action}}")[-2:] == [
        "archive-path",
        "extract-to-dir",
    ]


def test_files_of_the_kernel_are_no_files(docker: Client, box: str) -> None:
    assert "Could not find the file /proc/1/cmdline in container" in docker("cp", f"{box}:/proc/1/cmdline", "-").err
    done = docker("cp", f"{box}:/proc", "-")
    with tarfile.open(fileobj=io.BytesIO(done.out.encode())) as tar:
        assert tar.getnames() == ["proc"]
