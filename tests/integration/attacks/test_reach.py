"""Who can reach the daemon, its monitors and its files: containers on the host's network, local users, their homes."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..client import Client
from ..conftest import BIN, Daemon
from .conftest import HOST_LIBRARIES, PYTHON
from .test_trace import zygote_of

pytestmark = pytest.mark.root

NOBODY = 65534


def inside_run(root: Path) -> Iterator[Path]:
    yield root
    yield from root.rglob("*")


def processes_of(daemon: Daemon) -> set[int]:
    """pierd, its zygote, and the monitors of running containers."""
    assert daemon.process is not None
    zygote = zygote_of(daemon)
    children = Path(f"/proc/{zygote}/task/{zygote}/children").read_text().split()
    return {daemon.process.pid, zygote, *map(int, children)}


def socket_inodes(pid: int) -> set[str]:
    found = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if match := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(fd)):
                found.add(match[1])
    return found


@pytest.fixture
def running(pier: Client, daemon: Daemon) -> Path:
    """A running container; returns its folder under the exec root."""
    id = pier.run("busybox", "sleep", "1000", name="reach")
    (folder,) = [path.parent for path in daemon.exec_root.rglob("monitor.sock") if path.parent.name == id]
    return folder


# --- 22: sockets (CVE-2020-15257)


def test_attack_22_no_process_listens_where_a_network_namespace_reaches(daemon: Daemon, running: Path) -> None:
    """Abstract and internet sockets belong to a network namespace: `--net=host` would share them."""
    ours = set().union(*map(socket_inodes, processes_of(daemon)))
    assert len(processes_of(daemon)) >= 3
    unix = [line.split() for line in Path("/proc/net/unix").read_text(errors="replace").splitlines()[1:]]
    named = {fields[6]: fields[7] for fields in unix if len(fields) > 7}
    assert any(inode in ours for inode in named), "the daemon's own socket must be found"
    assert [name for inode, name in named.items() if inode in ours and name.startswith("@")] == []
    for table in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6", "packet", "udplite"):
        with contextlib.suppress(FileNotFoundError):
            fields = [line.split() for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
            assert [words for words in fields if ours & set(words)] == [], table


def test_attack_22_modes_of_all_sockets_and_folders(daemon: Daemon, running: Path) -> None:
    assert (running / "monitor.sock").is_socket()
    for path in inside_run(daemon.exec_root):
        mode, name = path.lstat().st_mode, path.relative_to(daemon.root)
        assert path.lstat().st_uid == 0, name
        assert not mode & 0o022 or stat.S_ISSOCK(mode), f"{name} can be written by others"
        if stat.S_ISSOCK(mode):
            assert stat.S_IMODE(mode) == (0o660 if path == daemon.socket else 0o600), name
        elif stat.S_ISDIR(mode) and path != daemon.exec_root:
            assert stat.S_IMODE(mode) & 0o066 == 0, name


def test_attack_22_a_container_on_the_hosts_network_finds_no_way(pier: Client, daemon: Daemon, running: Path) -> None:
    """It tries every unix socket that its network namespace lists, by name and by path."""
    script = """
import socket
names = [line.split()[7] for line in open("/proc/net/unix") if len(line.split()) > 7]
assert names
for name in names:
    address = "\\0" + name[1:] if name.startswith("@") else name
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        try:
            socket.socket(socket.AF_UNIX, kind).connect(address)
            print("reached", name)
        except OSError:
            pass
print("tried")
"""
    run = ["run", "--rm", "--net=host", *HOST_LIBRARIES, "busybox", PYTHON, "-ISc", script]
    reached = pier.ok(*run).splitlines()
    assert reached[-1] == "tried"
    assert [line for line in reached if str(daemon.root) in line or "pier" in line] == []


def as_nobody(deed: Callable[[], None]) -> int:
    """Do it in a child process of an unprivileged user; its exit status."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            deed()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_attack_22_a_monitor_serves_root_alone(running: Path) -> None:
    """Even where every mode has been loosened, the kernel's word on who connects (SO_PEERCRED) counts."""
    loosened = [running / "monitor.sock", running, *list(running.parents)[:3]]
    before = {path: path.stat().st_mode for path in loosened}

    def connect() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(10)
            os.chdir(running)  # a socket's path has 107 bytes
            sock.connect("monitor.sock")
            assert sock.recv(65536) == b"", "it was told about the container"

    try:
        for path in loosened:
            path.chmod(0o777)
        assert as_nobody(connect) == 0
    finally:
        for path, mode in before.items():
            path.chmod(stat.S_IMODE(mode))


# --- 23: the data root (CVE-2021-41091)


def test_attack_23_a_local_user_sees_nothing_of_images_and_containers(
    pier: Client, daemon: Daemon, running: Path
) -> None:
    before = stat.S_IMODE(daemon.root.stat().st_mode)
    everything = [path for root in (daemon.data_root, daemon.exec_root) for path in root.rglob("*")]
    assert len(everything) > 100
    readable = [daemon.exec_root / "pier.pid"]

    def look() -> None:
        for root in (daemon.data_root, running):
            with pytest.raises(PermissionError):
                os.listdir(root)
            with pytest.raises(PermissionError):
                os.chdir(root)
        for path in everything:
            # A name directly under the exec root may be looked up; what is behind it may not be opened.
            with contextlib.suppress(PermissionError):
                os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW))
                assert path in readable, path
        with socket.socket(socket.AF_UNIX) as sock, pytest.raises(PermissionError):
            sock.connect(str(daemon.socket))

    daemon.root.chmod(0o755)  # as /var/lib and /run are
    try:
        assert as_nobody(look) == 0
    finally:
        daemon.root.chmod(before)


# --- 27: what surrounds a privileged Python


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A working directory and home full of modules that leave a mark when they are imported."""
    mark = tmp_path / "owned"
    bomb = f"open({str(mark)!r}, 'a').write(__name__ + '\\n')\n"
    folder = tmp_path / "hostile"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    user_site = folder / ".local" / "lib" / version / "site-packages"
    for place in (folder, user_site):
        place.mkdir(parents=True, exist_ok=True)
        for (
            name
        ) in "json asyncio msgspec pier sitecustomize usercustomize encodings aiohttp uvloop ctypes signal".split():
            (place / f"{name}.py").write_text(bomb)
        (place / "evil.pth").write_text("import os; " + bomb)
    # The bombs must go off where Python is not told to beware.
    subprocess.run([PYTHON, "-c", "import msgspec"], cwd=folder, env={"HOME": str(folder)}, check=True)
    assert "msgspec" in mark.read_text()
    mark.unlink()
    return folder


@pytest.fixture
def surrounded(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own environment made hostile, for whatever it starts; returns where the mark would be."""
    for name in ("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "HOME", "LD_LIBRARY_PATH_UNUSED"):
        monkeypatch.setenv(name, str(hostile / ".local" if name == "PYTHONUSERBASE" else hostile))
    monkeypatch.setenv("PYTHONSTARTUP", str(hostile / "json.py"))
    monkeypatch.setenv("PYTHONBREAKPOINT", "json.run")
    monkeypatch.setenv("PYTHONWARNINGS", "error::json.Warning")
    monkeypatch.chdir(hostile)
    return hostile.parent / "owned"


def test_attack_27_pier_and_pierd_import_nothing_of_their_surroundings(surrounded: Path) -> None:
    for command in (["pierd", "--version"], ["pier", "--version"], ["pier", "--help"], ["pier", "run", "--help"]):
        done = subprocess.run([str(BIN / command[0]), *command[1:]], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert not surrounded.exists(), surrounded.read_text()


def test_attack_27_nor_do_the_zygote_and_a_whole_run(
    surrounded: Path, own_daemon: Daemon, starter_images: list[Path]
) -> None:
    own_daemon.start()
    client = Client(own_daemon.environment, "busybox", program=shutil.which("pier", path=str(BIN)) or "pier")
    client.ok("import", str(starter_images[0]), "busybox")
    assert (
        client.ok("run", "--rm", "-v", f"{surrounded.parent}/hostile:/h", "-w", "/h", "busybox", "echo", "ran") == "ran"
    )
    own_daemon.stop()
    assert not surrounded.exists(), surrounded.read_text()
