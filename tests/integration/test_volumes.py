"""Volumes with a real daemon: Docker's command and `pier`, containers that share, daemons that are killed."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .archives import tar_of
from .client import Client
from .conftest import Daemon, poll

pytestmark = pytest.mark.root

TMPFS = ("--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=1m,mode=0755")


@pytest.fixture(autouse=True)
def _nothing_left(docker: Client) -> Iterator[None]:
    """Nor is there anything of other tests to begin with."""
    docker.ok("volume", "prune", "-af")
    yield
    docker("rm", "-fv", *docker.ids())
    docker("volume", "rm", "-f", *docker.ok("volume", "ls", "-q").split())
    assert docker.ok("volume", "ls", "-q") == ""


@pytest.fixture(scope="module")
def declares(daemon: Daemon) -> Iterator[str]:
    """An image that has files in a place that it declares as data."""
    made = daemon.docker(
        *("run", "--name", "t-declares", "busybox", "sh", "-c"),
        "mkdir -p /data/sub; echo image >/data/file; ln /data/file /data/twin; chown -R 7:8 /data; chmod 1770 /data",
    )
    assert made.status == 0, made.err
    change = ("--change", 'VOLUME ["/data", "/empty"]')
    assert daemon.docker("commit", *change, "t-declares", "t-declares:1").status == 0
    daemon.docker("rm", "t-declares")
    yield "t-declares:1"
    daemon.docker("rmi", "-f", "t-declares:1")


def host_mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


def mounts(docker: Client, name: str) -> dict[str, dict[str, object]]:
    found = json.loads(docker.ok("inspect", "--format", "{{json .Mounts}}", name))
    return {mount["Destination"]: mount for mount in found}


def test_a_named_volume_outlives_its_containers(docker: Client) -> None:
    docker.ok("run", "--rm", "-v", "t-data:/v", docker.image, "sh", "-c", "echo kept >/v/file")
    assert docker.ok("run", "--rm", "-v", "t-data:/w:ro", docker.image, "cat", "/w/file") == "kept"
    refused = docker("run", "--rm", "-v", "t-data:/w:ro", docker.image, "touch", "/w/x")
    assert "Read-only file system" in refused.err
    id = docker.ok("create", "-v", "t-data:/v", docker.image, "true")
    in_use = docker("volume", "rm", "t-data")
    assert in_use.err.strip() == f"Error response from daemon: remove t-data: volume is in use - [{id}]"
    assert docker.ok("ps", "-aq", "--no-trunc", "--filter", "volume=t-data") == id
    docker.ok("rm", "-v", id)
    assert docker.ok("volume", "ls", "-q") == "t-data", "one with a name stays"


def test_an_image_with_volumes(docker: Client, declares: str) -> None:
    """What testcontainers and compose rely on: data of its own for each container, gone with `--rm`."""
    script = "stat -c '%u:%g %a' /data; cat /data/file; stat -c %h /data/twin; echo more >>/data/file; ls /empty"
    assert docker.ok("run", "--rm", declares, "sh", "-c", script) == "7:8 1770\nimage\n2"
    assert docker.ok("volume", "ls", "-q") == ""
    docker.run(declares, "sleep", "100", name="t-own")
    shown = mounts(docker, "t-own")
    assert {path: (mount["Type"], mount["Driver"], mount["RW"]) for path, mount in shown.items()} == {
        "/data": ("volume", "local", True),
        "/empty": ("volume", "local", True),
    }
    volume = str(shown["/data"]["Name"])
    assert len(volume) == 64
    assert docker.ok("exec", "t-own", "cat", "/data/file") == "image", "not what another container made of it"
    assert docker.ok("run", "--rm", "--volumes-from", "t-own:ro", docker.image, "cat", "/data/twin") == "image"
    docker.ok("rm", "-f", "t-own")
    assert volume in docker.ok("volume", "ls", "-q", "--filter", "dangling=true")
    assert volume in docker.ok("volume", "prune", "-f").split()
    assert docker.ok("volume", "ls", "-q") == ""


def test_copy_up_is_for_empty_volumes(docker: Client, declares: str) -> None:
    docker.ok("run", "--rm", "-v", "t-mine:/v", docker.image, "sh", "-c", "echo mine >/v/own")
    assert docker.ok("run", "--rm", "-v", "t-mine:/data", declares, "ls", "/data") == "own"
    assert docker.ok("run", "--rm", "-v", "t-none:/data:nocopy", declares, "ls", "/data") == ""
    mount = "type=volume,source=t-label,target=/data,volume-nocopy,volume-label=a=b"
    assert docker.ok("run", "--rm", "--mount", mount, declares, "ls", "/data") == ""
    assert docker.ok("volume", "inspect", "-f", "{{.Labels}}", "t-label") == "map[a:b]"
    assert docker.ok("run", "--rm", "--tmpfs", "/data", declares, "ls", "/data") == ""
    refused = docker("create", "-v", "/bin/busybox", docker.image, "true")
    assert "cannot mount volume over existing file, file exists /bin/busybox" in refused.err


def test_attack_07_17_a_part_of_a_volume_stays_in_it(docker: Client) -> None:
    script = "mkdir -p /v/a/b; echo part >/v/a/b/file; ln -s /etc /v/abs; ln -s ../../.. /v/up; ln -s a/b /v/in"
    docker.ok("run", "--rm", "-v", "t-part:/v", docker.image, "sh", "-c", script)

    def part(subpath: str, *words: str) -> tuple[int, str, str]:
        mount = f"type=volume,source=t-part,target=/p,volume-subpath={subpath}"
        done = docker("run", "--rm", "--mount", mount, docker.image, *words)
        return done.status, done.out.strip(), done.err

    assert part("a/b", "cat", "/p/file")[:2] == (0, "part")
    assert part("in", "cat", "/p/file")[:2] == (0, "part")
    assert part("a/b/file", "cat", "/p")[:2] == (0, "part")
    for subpath in ("abs", "up", "up/etc"):
        assert "path concatenation escapes the base directory" in part(subpath, "ls", "/p")[2]
    assert "cannot access path" in part("nosuch", "ls", "/p")[2]
    for subpath in ("../x", "/etc", "a/../../x"):
        assert "subpath must be a relative path within the volume" in part(subpath, "ls", "/p")[2]


def test_attack_07_a_part_of_a_volume_swapped_by_a_neighbour(pier: Client, tmp_path: Path) -> None:
    """One swaps a directory and a link to the host's canary while others mount what is at its name."""
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "of-the-host").write_text("x")
    link = "../" * 40 + str(canary).lstrip("/")
    swap = f"""
    mkdir place; touch place/inside; ln -s {link} link; echo swapping
    while :; do mv -T place real; mv -T link place; mv -T place link; mv -T real place; done
    """
    words = ("--rm", "--name", "t-swaps", "-v", "t-race:/v", "-w", "/v", "busybox", "sh", "-c", swap)
    swapper = pier.start("run", *words)
    swapper.read_until("swapping")
    mount = "type=volume,source=t-race,target=/p,volume-subpath=place"
    seen = {pier("run", "--rm", "--mount", mount, "busybox", "ls", "/p").out for _ in range(12)}
    assert seen <= {"", "inside\n"}, "a start may fail at the wrong moment; it must not reach the host"
    assert [path.name for path in canary.iterdir()] == ["of-the-host"]
    pier("kill", "t-swaps")


def test_a_tmpfs_is_shared_while_any_container_uses_it(docker: Client) -> None:
    before = host_mounts()
    docker.ok("volume", "create", *TMPFS, "t-tmpfs")
    for name in ("t-one", "t-two"):
        docker.run("-v", "t-tmpfs:/v", docker.image, "sleep", "100", name=name)
    docker.ok("exec", "t-one", "sh", "-c", "echo shared >/v/file")
    assert docker.ok("exec", "t-two", "cat", "/v/file") == "shared"
    assert host_mounts() == before
    docker.ok("rm", "-f", "t-one")
    assert docker.ok("run", "--rm", "-v", "t-tmpfs:/v", docker.image, "cat", "/v/file") == "shared"
    docker.ok("rm", "-f", "t-two")
    assert docker.ok("run", "--rm", "-v", "t-tmpfs:/v", docker.image, "ls", "/v") == "", "gone with the last"


def test_a_tmpfs_has_the_mode_of_what_it_covers(docker: Client) -> None:
    docker.ok(
        "run",
        "--name",
        "t-mode",
        "--tmpfs=/etc",
        "--tmpfs=/new/place",
        "--tmpfs=/told:mode=700",
        docker.image,
        "stat",
        "-c",
        "%a",
        "/etc",
        "/new",
        "/new/place",
        "/told",
    )
    assert docker.ok("start", "-a", "t-mode").split() == ["755", "755", "1777", "700"], "the second start, too"
    docker.ok("rm", "-v", "t-mode")


def test_folders_of_the_host_and_what_cannot_be_mounted(docker: Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("host's")
    bind = ("--opt", "type=none", "--opt", "o=bind", "--opt")
    docker.ok("volume", "create", *bind, f"device={tmp_path}", "t-bind")
    assert docker.ok("run", "--rm", "-v", "t-bind:/v", docker.image, "cat", "/v/file") == "host's"
    docker.ok("volume", "create", *bind, "device=/nonexistent", "t-missing")
    docker.ok("volume", "create", "--opt", "type=nosuch", "--opt", "device=x", "--opt", "o=password=secret,a", "t-bad")
    for name, words in (("t-missing", "no such file or directory"), ("t-bad", "no such device")):
        done = docker("run", "--rm", "-v", f"{name}:/v", docker.image, "true")
        assert "failed to mount local volume: mount " in done.err
        assert words in done.err
        assert "secret" not in done.err
    assert "invalid option" in docker("volume", "create", "--opt", "nosuch=1", "t-x").err
    assert "quota size requested but no quota support" in docker("volume", "create", "--opt", "size=1g", "t-x").err


def test_events(docker: Client) -> None:
    docker.ok("run", "--rm", "--name", "t-told", "-v", "t-event:/v", docker.image, "true")
    docker.ok("volume", "rm", "t-event")
    query = ("--since", "1m", "--until", f"{time.time():.9f}", "--filter", "type=volume", "--filter", "volume=t-event")
    told = docker.ok("events", *query, "--format", "{{.Action}} {{.Actor.Attributes.driver}}")
    assert told.split("\n") == ["create local", "mount local", "unmount local", "destroy local"]


def test_disk_usage(docker: Client, pier: Client) -> None:
    docker.ok("run", "--rm", "-v", "t-df:/v", docker.image, "sh", "-c", "echo kept >/v/file")
    docker.ok("create", "-v", "t-used:/v", docker.image, "true")
    for client in (docker, pier):
        rows = [json.loads(line) for line in client.ok("system", "df", "--format", "json").splitlines()]
        [row] = [row for row in rows if row["Type"] == "Local Volumes"]
        shown = (str(row["TotalCount"]), str(row["Active"]), row["Size"], row["Reclaimable"])
        assert shown == ("2", "1", "5B", "5B (100%)")
        details = [line.split() for line in client.ok("system", "df", "-v").splitlines()]
        assert ["t-df", "0", "5B"] in details
        assert ["t-used", "1", "0B"] in details


def test_cp_reaches_volumes(docker: Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("copied")
    docker.ok("volume", "create", *TMPFS, "t-tmpfs")
    id = docker.ok("create", "-v", "t-cp:/v", "-v", "t-tmpfs:/t", docker.image, "cat", "/v/file")
    docker.ok("cp", f"{tmp_path}/file", f"{id}:/v/file")
    assert docker.ok("start", "-a", id) == "copied"
    docker.ok("cp", f"{id}:/v/file", f"{tmp_path}/back")
    assert (tmp_path / "back").read_text() == "copied"
    assert docker.ok("diff", id) in ("", "A /v", "A /t\nA /v", "A /v\nA /t"), "volumes are no part of the layer"


# --- W16


def test_wish_16_volumes_one_can_look_into(pier: Client, docker: Client, tmp_path: Path) -> None:
    docker.ok("run", "--rm", "-v", "t-w16:/v", docker.image, "sh", "-c", "mkdir /v/d; echo one >/v/d/f; ln -s d /v/l")
    docker.ok("run", "--rm", "-v", "t-w16:/v", docker.image, "sh", "-c", "chown 7:8 /v /v/d/f; chmod 2751 /v")
    assert pier.ok("volume", "ls-files", "-q", "t-w16").split() == ["d", "l"]
    assert pier.ok("volume", "ls-files", "-qR", "t-w16").split() == ["d", "d/f", "l"]
    row = pier.ok("volume", "ls-files", "--format", "{{.Mode}} {{.Owner}} {{.Bytes}} {{.Path}}", "t-w16", "/d/f")
    assert row == "-rw-r--r-- 7:8 4 d/f"
    pier.ok("volume", "cp", "t-w16:/d/f", f"{tmp_path}/f")
    assert (tmp_path / "f").read_text() == "one\n"
    (tmp_path / "f").write_text("two\n")
    pier.ok("volume", "cp", f"{tmp_path}/f", "t-w16:/d/")
    assert docker.ok("run", "--rm", "-v", "t-w16:/v", docker.image, "cat", "/v/l/f") == "two"

    pier.ok("volume", "export", "-o", f"{tmp_path}/v.tar", "t-w16")
    assert pier.ok("volume", "import", "t-w16-copy", f"{tmp_path}/v.tar") == "t-w16-copy"
    script = "stat -c '%u:%g %a' /v /v/d/f; readlink /v/l; cat /v/d/f"
    expected = "7:8 2751\n0:0 644\nd\ntwo"
    for name in ("t-w16", "t-w16-copy"):
        assert docker.ok("run", "--rm", "-v", f"{name}:/v", docker.image, "sh", "-c", script) == expected
    assert "Could not find the file /nosuch in volume t-w16" in pier("volume", "ls-files", "t-w16", "/nosuch").err
    assert "get nosuch: no such volume" in pier("volume", "export", "-o", f"{tmp_path}/x", "nosuch").err


def test_wish_16_a_volume_from_a_container(pier: Client, docker: Client) -> None:
    script = "mkdir -p /d/e; echo mine >/d/e/f; chown -R 7:8 /d; chmod 711 /d; ln -s /d /l"
    docker.ok("run", "--name", "t-has", docker.image, "sh", "-c", script)
    assert pier.ok("volume", "from", "t-has:/l/", "t-taken") == "t-taken"
    look = ("sh", "-c", "stat -c '%u:%g %a' /v /v/e; cat /v/e/f")
    assert docker.ok("run", "--rm", "-v", "t-taken:/v", docker.image, *look) == "7:8 711\n7:8 755\nmine"
    assert "volume t-taken exists already" in pier("volume", "from", "t-has:/d", "t-taken").err
    assert "Could not find the file /nosuch" in pier("volume", "from", "t-has:/nosuch", "t-other").err
    assert "not a directory" in pier("volume", "from", "t-has:/d/e/f", "t-other").err
    assert docker.ok("volume", "ls", "-q") == "t-taken"


def test_wish_16_snapshots_and_clones_while_in_use(pier: Client, docker: Client) -> None:
    script = "echo one >/v/file; while :; do echo x >>/v/log; done"
    docker.run("-v", "t-live:/v", docker.image, "sh", "-c", script, name="t-writes")
    poll(lambda: docker("exec", "t-writes", "test", "-s", "/v/log").status == 0, "the log")
    snapshot = pier.ok("volume", "snapshot", "--pause", "t-live")
    assert snapshot.startswith("t-live-")
    assert docker.ok("inspect", "-f", "{{.State.Status}}", "t-writes") == "running"
    assert docker.ok("volume", "inspect", "-f", "{{.Labels}}", snapshot) == "map[pier.snapshot-of:t-live]"
    docker.ok("exec", "t-writes", "sh", "-c", "echo two >/v/file")
    assert pier.ok("volume", "clone", "--label", "a=b", snapshot, "t-back") == "t-back"
    assert docker.ok("run", "--rm", "-v", "t-back:/v", docker.image, "cat", "/v/file") == "one"
    assert "volume t-back exists already" in pier("volume", "clone", snapshot, "t-back").err
    docker.ok("rm", "-f", "t-writes")


HOSTILE = {
    "traversal": {"../../../../../../var/tmp/{canary}/pwned": b"x"},
    "absolute": {"/var/tmp/{canary}/pwned": b"x"},
    "link then file": {"out": "/var/tmp/{canary}", "out/pwned": b"x"},
    "relative link": {"out": "../../../../../../../../var/tmp/{canary}", "out/pwned": b"x"},
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("how", ["import", "cp"])
def test_attack_20_a_hostile_archive_stays_in_the_volume(pier: Client, tmp_path: Path, kind: str, how: str) -> None:
    """CVE-2023-0778, and attack 10's tricks: the volume's root is the root of every name and link."""
    canary = Path(f"/var/tmp/canary-{tmp_path.parent.name[-8:]}-{how}")
    canary.mkdir()
    try:
        archive = _tar(
            tmp_path,
            {
                name.format(canary=canary.name): text.format(canary=canary.name) if isinstance(text, str) else text
                for name, text in HOSTILE[kind].items()
            },
        )
        pier.ok("volume", "create", "t-hostile")
        if how == "import":
            pier("volume", "import", "t-hostile", stdin=archive)
        else:
            pier("volume", "cp", "-", "t-hostile:/", stdin=archive)
        assert list(canary.iterdir()) == []
    finally:
        for path in canary.iterdir():
            path.unlink()
        canary.rmdir()


def test_attack_20_a_link_in_a_volume_leads_no_copy_to_the_host(pier: Client, docker: Client, tmp_path: Path) -> None:
    """What a container leaves in a volume is met by the daemon's root: export, cp and ls-files follow no link out."""
    (tmp_path / "secret").write_text("of the host")
    script = f"ln -s {tmp_path}/secret /v/file; ln -s {tmp_path} /v/dir; ln -s /etc/shadow /v/shadow"
    docker.ok("run", "--rm", "-v", "t-links:/v", docker.image, "sh", "-c", script)
    assert pier("volume", "cp", "-L", "t-links:/file", f"{tmp_path}/out").status == 1
    assert pier("volume", "cp", "t-links:/dir/secret", f"{tmp_path}/out").status == 1
    assert pier("volume", "ls-files", "t-links", "/dir/").status == 1
    (tmp_path / "new").write_text("x")
    pier("volume", "cp", f"{tmp_path}/new", "t-links:/dir/")
    assert {path.name for path in tmp_path.iterdir()} == {"secret", "new"}
    pier.ok("volume", "export", "-o", f"{tmp_path}/v.tar", "t-links")
    assert b"of the host" not in (tmp_path / "v.tar").read_bytes()


def _tar(place: Path, files: dict[str, bytes | str]) -> bytes:
    """An archive with these files, and symbolic links where the content is text."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                tar.addfile(entry)
            else:
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


# --- a daemon that is killed


def test_attack_26_volumes_of_a_killed_daemon(own_daemon: Daemon) -> None:
    """Shared, counted and kept across a kill; what the kill interrupted is finished or forgotten."""
    own_daemon.start()
    image = tar_of({"bin/busybox": Path("/bin/busybox").read_bytes(), "data/a": b"1", "data/b": b"2", "data/c": b"3"})
    assert own_daemon.docker("import", "--change", "VOLUME /data", "-", "box", stdin=image).status == 0
    before = host_mounts()

    def run(*words: str) -> str:
        done = own_daemon.docker("run", *words)
        assert done.status == 0, done.err
        return done.out.strip()

    assert own_daemon.docker("volume", "create", *TMPFS, "t-tmpfs").status == 0
    run("-d", "--name", "one", "-v", "t-tmpfs:/v", "box", "/bin/busybox", "sleep", "1000")
    own_daemon.docker("exec", "one", "/bin/busybox", "sh", "-c", "/bin/busybox touch /v/kept")
    own_daemon.kill()
    assert host_mounts() == before
    own_daemon.start()
    assert run("--rm", "-v", "t-tmpfs:/v", "box", "/bin/busybox", "ls", "/v") == "kept"
    assert own_daemon.docker("volume", "rm", "t-tmpfs").status == 1
    own_daemon.docker("rm", "-fv", "one")
    own_daemon.kill()

    for fault in ("copy-entry:kill:2", "fill-moved:kill:2"):
        own_daemon.within = ["env", f"PIER_FAULT={fault}"]
        own_daemon.start()
        own_daemon.within = []
        assert own_daemon.docker("create", "-v", "t-named:/data", "box", "/bin/busybox").status == 1
        poll(own_daemon.has_ended, "the point to be passed")
        own_daemon.start()
        listed = own_daemon.docker("volume", "ls", "-q").out.split()
        assert [name for name in listed if len(name) == 64] == [], "no volume of a container that was not made"
        assert run("--rm", "-v", "t-named:/data", "box", "/bin/busybox", "ls", "/data") == "a\nb\nc"
        assert own_daemon.docker("volume", "rm", "t-named").status == 0
        own_daemon.kill()

    own_daemon.start()
    assert own_daemon.docker("volume", "create", "t-leaving").status == 0
    own_daemon.kill()
    own_daemon.within = ["env", "PIER_FAULT=volume-gone:kill"]
    own_daemon.start()
    own_daemon.within = []
    assert own_daemon.docker("volume", "rm", "t-leaving").status == 1
    poll(own_daemon.has_ended, "the point to be passed")
    own_daemon.start()
    assert own_daemon.docker("volume", "ls", "-q").out.split() == ["t-tmpfs"]
    own_daemon.stop()
    assert os.listdir(own_daemon.data_root / "volumes") == ["t-tmpfs"]
    assert host_mounts() == before
