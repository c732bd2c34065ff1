"""What trips Docker's users up (promises.md), where no other test of a running daemon carries the trap's number."""

from __future__ import annotations

import os
import shlex
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .attacks.conftest import Entry, archive, entry
from .client import Client, Done
from .conftest import Daemon

pytestmark = pytest.mark.root


@pytest.fixture
def pier(daemon: Daemon) -> Iterator[Client]:
    client = Client(daemon.environment, "busybox", program="pier")
    before = client.ids()
    try:
        yield client
    finally:
        if left := client.ids() - before:
            client("rm", "--force", *left)


# --- 1: storage drivers


@pytest.mark.parametrize("driver", ["aufs", "devicemapper", "nosuch"])
def test_trap_01_a_driver_that_is_not_there_is_refused_with_those_that_are(own_daemon: Daemon, driver: str) -> None:
    (own_daemon.root / "daemon.json").write_text("{}")
    ended = subprocess.run(
        [*own_daemon.command, "--storage-driver", driver], capture_output=True, text=True, timeout=20, check=False
    )
    assert ended.returncode == 1
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("pierd: ")]
    assert driver in line
    assert "overlay2" in ended.stderr


# --- 7 and 8: programs that cannot be executed


def elf(machine: int, loader: bytes = b"") -> bytes:
    """The head of a program for `machine` (elf(5)), with a PT_INTERP when it has a loader."""
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0x400000, 64, 0, 0, 64, 56, 1 if loader else 0, 0, 0, 0)
    size = len(loader) + 1
    return head + (struct.pack("<IIQQQQQQ", 3, 4, 120, 0x400078, 0x400078, size, size, 1) + loader + b"\0")


NATIVE = {"x86_64": 62, "aarch64": 183}.get(os.uname().machine, 62)
FOREIGN, FOREIGN_NAME = (183, "arm64") if NATIVE == 62 else (62, "amd64")
PROGRAMS: list[Entry] = [
    entry("musl", mode=0o755, data=elf(NATIVE, b"/lib/ld-musl-x86_64.so.1")),
    entry("glibc", mode=0o755, data=elf(NATIVE, b"/lib64/ld-linux-x86-64.so.2")),
    entry("script", mode=0o755, data="#!/opt/perl -w\n"),
    entry("foreign", mode=0o755, data=elf(FOREIGN)),
    entry("text", mode=0o755, data="just text\n"),
]


@pytest.fixture(scope="module")
def programs(daemon: Daemon) -> Iterator[str]:
    client = Client(daemon.environment, "busybox", program="pier")
    client.ok("import", "-", "programs", stdin=archive(*PROGRAMS))
    yield "programs"
    client("rmi", "--force", "programs")


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("/musl", "its loader /lib/ld-musl-x86_64.so.1 is not in the image (it was built for musl"),
        ("/glibc", "its loader /lib64/ld-linux-x86-64.so.2 is not in the image (it was built for glibc"),
        ("/script", "its loader /opt/perl is not in the image"),
    ],
)
def test_trap_07_the_missing_loader_is_named(pier: Client, programs: str, program: str, words: str) -> None:
    done = pier("run", "--rm", programs, program)
    assert done.status == 127
    assert words in done.err


def test_trap_08_the_architectures_are_named(pier: Client, programs: str) -> None:
    if any("enabled" in path.read_text() for path in Path("/proc/sys/fs/binfmt_misc").glob("qemu-*")):
        pytest.skip("this machine emulates other architectures")
    done = pier("run", "--rm", programs, "/foreign")
    assert done.status not in (0, 125)
    assert f"exec format error: the program is for linux/{FOREIGN_NAME}, this host is linux/" in done.err
    assert "apt-get install" in done.err


def test_trap_08_no_program_at_all(pier: Client, programs: str) -> None:
    done = pier("run", "--rm", programs, "/text")
    assert "neither an ELF program nor a script that begins with #!" in done.err


# --- 12: no terminal


@pytest.mark.parametrize("words", [["run", "--rm", "-it", "busybox", "true"], ["exec", "-it", "trap-12", "true"]])
def test_trap_12_the_flag_to_drop_is_named(pier: Client, words: list[str]) -> None:
    pier.run("busybox", "sleep", "1000", name="trap-12")
    done = pier(*words)
    assert done.status == 1
    assert done.err.startswith("the input device is not a TTY\n")
    assert "drop -t" in done.err


# --- 18: cannot connect


def version(environment: dict[str, str], *, user: int = 0) -> Done:
    words = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
    # Not the launcher: an unprivileged user may not be able to read this checkout.
    code = "import sys; sys.path[:0] = [sys.argv.pop(1)]; from pier.cli.main import main; sys.exit(main())"
    source = str(Path(__file__).resolve().parents[2] / "src")
    program = [os.path.realpath(sys.executable), "-ISc", code, source, "version"]
    ended = subprocess.run([*words, *program], env=environment, capture_output=True, text=True, check=False, cwd="/")
    return Done(ended.returncode, ended.stdout, ended.stderr)


def test_trap_18_each_cause_has_its_own_words(own_daemon: Daemon) -> None:
    own_daemon.start()
    elsewhere = version({**own_daemon.environment, "DOCKER_HOST": f"unix://{own_daemon.root}/no/pier.sock"})
    assert elsewhere.status == 1
    assert f"There is no directory {own_daemon.root}/no" in elsewhere.err
    assert "unset DOCKER_HOST" in elsewhere.err
    own_daemon.kill()
    dead = version(own_daemon.environment)
    assert dead.status == 1
    assert "nothing listens on it: the daemon has died" in dead.err
    own_daemon.start()
    own_daemon.stop()
    gone = version(own_daemon.environment)
    assert gone.status == 1
    assert f"There is no socket {own_daemon.socket}" in gone.err
    assert len({elsewhere.err, dead.err, gone.err}) == 3


def test_trap_18_no_permission_names_the_group(own_daemon: Daemon) -> None:
    own_daemon.start()
    own_daemon.root.chmod(0o755)
    refused = version(own_daemon.environment, user=65534)
    if "ModuleNotFoundError" in refused.err:
        pytest.skip("this checkout cannot be read by other users")
    assert refused.status == 1
    assert "permission denied while trying to connect" in refused.err
    assert f"{own_daemon.socket} is open to root" in refused.err


# --- 9: time zones


def test_trap_09_a_time_zone_without_zone_data_in_the_image(pier: Client) -> None:
    assert pier.ok("run", "--rm", "--timezone", "Asia/Shanghai", "busybox", "cat", "/usr/share/zoneinfo/Asia/Tokyo")
    shown = pier.ok("run", "--rm", "--timezone", "Asia/Shanghai", "busybox", "sh", "-c", "echo $TZ; date +%z")
    assert shown.splitlines()[0] == "Asia/Shanghai"
    assert (
        pier.ok("run", "--rm", "--timezone", "Asia/Shanghai", "-e", "TZ=UTC", "busybox", "sh", "-c", "echo $TZ")
        == "UTC"
    )


def test_trap_09_a_zone_that_nobody_knows(pier: Client) -> None:
    refused = pier("run", "--rm", "--timezone", "Middle/Earth", "busybox", "true")
    assert refused.status == 125
    assert "Middle/Earth is neither known to the image nor to this host" in refused.err
    assert "not the name of a time zone" in pier("run", "--timezone", "../../etc/shadow", "busybox", "true").err


# --- 21: bind mounts that the container's user cannot write to


def test_trap_21_the_message_names_who_cannot_write_where_and_two_remedies_that_work(
    pier: Client, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    os.chown(data, 33, 34)
    write = ["busybox", "sh", "-c", "touch /data/new && stat -c %u:%g /data /data/new"]
    done = pier("run", "--rm", "--user", "1000:1000", "-v", f"{data}:/data", *write)
    assert done.status != 0
    assert f"user 1000:1000 cannot write to /data: {data} belongs to 33:34, mode 0755" in done.err

    words = shlex.split(done.err.partition("or show what is its owner's as the user's: `")[2].partition("`")[0])
    assert words[0] == "-v"
    shown = pier("run", "--rm", "--user", "1000:1000", *words, *write)
    assert (shown.status, shown.out.split(), shown.err) == (0, ["1000:1000", "1000:1000"], "")
    assert ((data / "new").stat().st_uid, (data / "new").stat().st_gid) == (33, 34)
    (data / "new").unlink()
    mount = f"type=bind,source={data},target=/data,{words[1].rpartition(':')[2]}"
    pier.ok("run", "--rm", "--user", "1000:1000", "--mount", mount, *write)
    assert (data / "new").stat().st_uid == 33
    assert "Invalid argument" not in pier("run", "--rm", "--mount", f"{mount},readonly", *write).err

    chown = shlex.split(done.err.partition("Give it to that user: `")[2].partition("`")[0])
    subprocess.run(chown, check=True)
    given = pier("run", "--rm", "--user", "1000:1000", "-v", f"{data}:/data", *write[:3], "touch /data/other")
    assert (given.status, given.err) == (0, "")


def test_trap_21_a_folder_that_v_makes_is_roots_and_that_is_said(pier: Client, tmp_path: Path) -> None:
    done = pier("create", "--user", "1000", "-v", f"{tmp_path}/made:/data", "busybox", "true")
    assert done.status == 0
    assert f"cannot write to /data: {tmp_path}/made belongs to 0:0" in done.err
    assert pier("create", "-v", f"{tmp_path}/made:/data", "busybox", "true").err == ""
    assert pier("create", "--user", "1000", "-v", f"{tmp_path}/made:/data:ro", "busybox", "true").err == ""

    done = pier("create", "--user", "1000", "-v", "t-trap:/v", "busybox", "true")
    assert "The container's user 1000:0 cannot write to /v" in done.err, "a new volume is root's"
    pier.ok("rm", done.out.strip())
    idmap = done.err.partition("`-v '")[2].partition("'`")[0]
    pier.ok("run", "--rm", "--user", "1000", "-v", idmap, "busybox", "touch", "/v/file")
    pier.ok("volume", "rm", "t-trap")


# --- 28: data in the container's own layer


def test_trap_28_declared_data_outlives_its_container(pier: Client, starter_images: list[Path]) -> None:
    change = ("--change", "VOLUME /data /empty", "--change", 'CMD ["sh"]')
    pier.ok("import", *change, str(starter_images[0]), "declares")
    write = "mkdir -p /data; head -c 3000000 /dev/zero > /data/big"
    volumes = "{{range .Mounts}}{{.Destination}} {{.Name}} {{end}}"
    names: list[str] = []
    try:
        pier.ok("run", "--name", "keeps", "declares", "sh", "-c", write)
        _, name, _, other = pier.ok("inspect", "--format", volumes, "keeps").split()
        names = [name, other]
        pier.ok("rm", "keeps")
        assert pier.ok("run", "--rm", "-v", f"{name}:/data", "busybox", "wc", "-c", "/data/big") == "3000000 /data/big"

        before = pier.ok("volume", "ls", "-q")
        pier.ok("run", "--name", "elsewhere", "--tmpfs", "/data", "declares", "sh", "-c", write)
        pier.ok("rm", "--volumes", "elsewhere")
        assert pier.ok("volume", "ls", "-q") == before
    finally:
        pier("volume", "rm", "--force", *names)
        pier("rmi", "--force", "declares")
