"""User namespaces: a daemon with `userns-remap`, and containers with ranges of their own.

The daemon sees an /etc of its own: what the tests give away there is nobody's on the machine.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .client import Client
from .conftest import Daemon, poll

pytestmark = pytest.mark.root

UID, GID, SIZE = 1_200_000, 1_300_000, 65_536
POOL = 1_500_000
IN_ETC = (
    "mount --make-rprivate / && "
    'mount -t overlay -o "lowerdir=/etc,upperdir=$0/up,workdir=$0/work" etc /etc && exec "$@"'
)


def with_etc(daemon: Daemon) -> None:
    """Have the daemon run with ranges for `remapped` (as in userns-remap) and `containers` (as in --userns=auto)."""
    etc = daemon.root / "etc"
    for name in ("up", "work"):
        (etc / name).mkdir(parents=True)
    (etc / "up/passwd").write_text(f"root:x:0:0::/root:/bin/sh\nremapped:x:{UID}:{UID}::/:/bin/false\n")
    (etc / "up/group").write_text(f"root:x:0:\nremapped:x:{UID}:\n")
    (etc / "up/subuid").write_text(f"# ids\nremapped:{UID}:{SIZE}\ncontainers:{POOL}:4096\n")
    (etc / "up/subgid").write_text(f"remapped:{GID}:{SIZE}\ncontainers:{POOL}:4096\n")
    daemon.within = ["unshare", "-m", "sh", "-c", IN_ETC, str(etc)]


@pytest.fixture
def plain(own_daemon: Daemon, starter_images: list[Path]) -> Iterator[Client]:
    """A daemon without a remap."""
    yield from started(own_daemon, starter_images, [])


@pytest.fixture
def remapped(own_daemon: Daemon, starter_images: list[Path]) -> Iterator[Client]:
    """A daemon with `--userns-remap remapped`."""
    yield from started(own_daemon, starter_images, ["--userns-remap", "remapped"])


def started(daemon: Daemon, images: list[Path], flags: list[str]) -> Iterator[Client]:
    with_etc(daemon)
    daemon.flags = flags
    daemon.start()
    assert daemon.pier("import", "--change", 'CMD ["sh"]', str(images[0]), "busybox:latest").status == 0
    client = Client(daemon.environment, "busybox")
    try:
        yield client
    finally:
        client.close()


def host_pid(client: Client, name: str) -> int:
    return int(client.ok("inspect", "--format", "{{.State.Pid}}", name))


def map_of(pid: int, kind: str = "uid") -> list[str]:
    return Path(f"/proc/{pid}/{kind}_map").read_text().split()


def test_attack_23_root_is_nobody_outside_and_no_folder_is_open_to_it(remapped: Client, own_daemon: Daemon) -> None:
    assert "name=userns" in remapped.ok("info", "--format", "{{.SecurityOptions}}")
    remapped.ok("run", "-d", "--name", "one", "busybox", "sleep", "60")
    pid = host_pid(remapped, "one")
    assert map_of(pid) == ["0", str(UID), str(SIZE)]
    assert map_of(pid, "gid") == ["0", str(GID), str(SIZE)]
    assert os.stat(f"/proc/{pid}").st_uid == UID
    remapped.ok("exec", "one", "sh", "-c", "touch /made; mkdir -p /d; chown 7:8 /d")
    upper = Path(json.loads(remapped.ok("inspect", "one"))[0]["GraphDriver"]["Data"]["UpperDir"])
    assert (os.stat(upper / "made").st_uid, os.stat(upper / "made").st_gid) == (UID, GID)
    assert (os.stat(upper / "d").st_uid, os.stat(upper / "d").st_gid) == (UID + 7, GID + 8)
    for folder in (own_daemon.data_root, upper.parent, own_daemon.exec_root / "containers"):
        assert os.stat(folder).st_mode & 0o077 == 0, "attack 21284: the mapped root needs no way in"
        assert os.stat(folder).st_uid == 0


def test_exec_users_and_streams(remapped: Client) -> None:
    remapped.ok("run", "-d", "--name", "one", "-u", "1000", "busybox", "sleep", "60")
    assert os.stat(f"/proc/{host_pid(remapped, 'one')}").st_uid == UID + 1000
    script = "id -u; cat /proc/self/uid_map; echo named >/dev/stdout; hostname"
    lines = remapped.ok("exec", "one", "sh", "-c", script).split()
    assert lines[:5] == ["1000", "0", str(UID), str(SIZE), "named"]
    assert remapped.ok("exec", "-u", "0", "one", "id", "-u").strip() == "0"
    assert (
        remapped.ok("exec", "--privileged", "-u", "0", "one", "grep", "CapEff", "/proc/self/status").split()[1]
        != "0" * 16
    )
    session = remapped.terminal("exec", "-it", "-u", "0", "one", "sh", "-c", "tty; ls -ln $(tty); read x; echo got $x")
    session.read_until("/dev/pts/0")
    session.send(b"words\n")
    session.read_until("got words")
    assert session.wait().status == 0


def test_terminal_input_and_logs(remapped: Client) -> None:
    session = remapped.terminal("run", "--rm", "-it", "-u", "1000", "busybox", "sh", "-c", "id -u; read x; echo got $x")
    session.read_until("1000")
    session.send(b"words\n")
    session.read_until("got words")
    assert session.wait().status == 0
    remapped.ok("run", "--name", "log", "busybox", "sh", "-c", "echo out; echo err >&2")
    done = remapped("logs", "log")
    assert (done.out, done.err) == ("out\n", "err\n")


def test_an_image_with_files_of_several_owners(remapped: Client, own_daemon: Daemon, tmp_path: Path) -> None:
    archive = tmp_path / "owners.tar"
    with tarfile.open(archive, "w") as tar, open("/bin/busybox", "rb") as busybox:
        data = busybox.read()
        for name, uid, mode in (("root", 0, 0o600), ("ana", 1000, 0o600), ("far", 70_000, 0o644), ("ping", 0, 0o4755)):
            member = tarfile.TarInfo(name)
            member.uid = member.gid = uid
            member.mode, member.size = mode, len(data) if name == "ping" else 1
            tar.addfile(member, io.BytesIO(data if name == "ping" else b"x"))
        member = tarfile.TarInfo("bin")
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(member)
        member = tarfile.TarInfo("bin/busybox")
        member.size, member.mode = len(data), 0o755
        tar.addfile(member, io.BytesIO(data))
    assert own_daemon.pier("import", str(archive), "owners:latest").status == 0
    out = remapped.ok(
        "run", "--rm", "owners", "/bin/busybox", "stat", "-c", "%n %u %a", "/root", "/ana", "/far", "/ping"
    )
    assert out.splitlines() == ["/root 0 600", "/ana 1000 600", "/far 65534 644", "/ping 0 4755"]
    out = remapped.ok("run", "--rm", "-u", "1000", "owners", "/bin/busybox", "cat", "/ana")
    assert out == "x"
    assert remapped("run", "--rm", "-u", "1000", "owners", "/bin/busybox", "cat", "/root").status != 0
    remapped.ok("run", "-d", "--name", "ping", "-u", "1000", "owners", "/ping", "-q", "127.0.0.1")
    status = Path(f"/proc/{host_pid(remapped, 'ping')}/status").read_text()
    assert f"Uid:\t{UID + 1000}\t{UID}\t" in status, "a setuid file makes its runner the map's root"
    # The same image without a map, at the same time: nothing of it was chowned.
    out = remapped.ok("run", "--rm", "--userns", "host", "owners", "/bin/busybox", "stat", "-c", "%u", "/ana", "/far")
    assert out.split() == ["1000", "70000"]


def test_volumes_belong_to_the_map(remapped: Client, own_daemon: Daemon, tmp_path: Path) -> None:
    """Their roots are the mapped root's; what they take over from the image belongs to whom the image says."""
    with tarfile.open(tmp_path / "data.tar", "w") as tar:
        member = tarfile.TarInfo("bin/busybox")
        member.size, member.mode = os.stat("/bin/busybox").st_size, 0o755
        with open("/bin/busybox", "rb") as busybox:
            tar.addfile(member, busybox)
        for name, type_ in (("data", tarfile.DIRTYPE), ("data/ana", tarfile.REGTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.uid, member.gid, member.mode = type_, 1000, 1000, 0o750
            tar.addfile(member)
    assert own_daemon.pier("import", "--change", "VOLUME /data", f"{tmp_path}/data.tar", "data:latest").status == 0
    look = ("/bin/busybox", "stat", "-c", "%u:%g", "/data", "/data/ana")
    assert remapped.ok("run", "--name", "own", "data", *look).split() == ["1000:1000", "1000:1000"]
    place = Path(remapped.field("own", "{{(index .Mounts 0).Source}}"))
    assert [(found.stat().st_uid, found.stat().st_gid) for found in (place, place / "ana")] == [
        (UID + 1000, GID + 1000)
    ] * 2
    remapped.ok("run", "--rm", "-v", "named:/v", "busybox", "touch", "/v/file")
    named = own_daemon.data_root / "volumes/named/_data"
    assert (named.stat().st_uid, (named / "file").stat().st_uid) == (UID, UID)
    mount = "type=volume,source=named,target=/p,volume-subpath=file"
    assert remapped.ok("run", "--rm", "--mount", mount, "busybox", "stat", "-c", "%u", "/p") == "0"
    options = ("--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", f"o=uid={UID}")
    remapped.ok("volume", "create", *options, "memory")
    assert remapped.ok("run", "--rm", "-v", "memory:/v", "busybox", "sh", "-c", "touch /v/x; stat -c %u /v") == "0"
    os.chown(named / "file", 0, 0)
    shown = remapped.ok("run", "--rm", "-v", "named:/v:idmap", "busybox", "stat", "-c", "%u", "/v/file")
    assert shown == "0", "with the container's ids for those on disk"


def test_bind_mounts_belong_to_whom_they_belong(remapped: Client, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "theirs").write_text("x")
    missing = tmp_path / "to" / "make"
    assert remapped("run", "--rm", "-v", f"{tmp_path}:/d", "busybox", "sh", "-c", "echo y >/d/theirs").status != 0
    assert (
        remapped.ok("run", "--rm", "-v", f"{tmp_path}:/d:ro", "busybox", "stat", "-c", "%u", "/d/theirs").strip()
        == "65534"
    )
    remapped.ok("run", "--rm", "-v", f"{missing}:/d", "busybox", "touch", "/d/mine")
    assert {os.stat(path).st_uid for path in (missing, missing.parent, missing / "mine")} == {UID}
    assert os.stat(tmp_path).st_uid == 0


def test_idmap_shows_what_is_roots_outside_as_roots_inside(remapped: Client, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "theirs").write_text("x")
    script = "cat /d/theirs; echo y >/d/new; chown 7:8 /d/new; stat -c %u /d /d/theirs"
    out = remapped.ok("run", "--rm", "-v", f"{tmp_path}:/d:idmap", "busybox", "sh", "-c", script)
    assert out.split() == ["x0", "0"]
    assert (os.stat(tmp_path / "new").st_uid, os.stat(tmp_path / "new").st_gid) == (7, 8)
    remapped.ok("run", "--rm", "-v", f"{tmp_path}/made:/d:idmap", "busybox", "touch", "/d/in")
    assert {os.stat(tmp_path / name).st_uid for name in ("made", "made/in")} == {0}
    assert remapped("run", "--rm", "-v", f"{tmp_path}:/d:idmap,ro", "busybox", "touch", "/d/no").status != 0
    one = f"{tmp_path}:/d:idmap=uids=@0-1000-1;gids=@0-1000-1"
    write = "echo z >/d/z && stat -c %u:%g /d"
    out = remapped.ok("run", "--rm", "--user", "1000:1000", "-v", one, "busybox", "sh", "-c", write)
    assert (out, os.stat(tmp_path / "z").st_uid) == ("1000:1000", 0)
    remapped.ok("create", "--name", "idle", "-v", f"{tmp_path}:/d:idmap", "busybox", "true")
    (tmp_path / "sent").write_text("sent\n")
    remapped.ok("cp", f"{tmp_path}/sent", "idle:/d/got")
    assert (os.stat(tmp_path / "got").st_uid, os.stat(tmp_path / "got").st_gid) == (0, 0)
    unknown = remapped("run", "--rm", "-v", f"{tmp_path}:/d:idmap=uids=@0-99999-1", "busybox", "true")
    assert "the container's user namespace has no such ids" in unknown.err
    done = remapped("run", "--rm", "--userns", "host", "-v", f"{tmp_path}:/d:idmap", "busybox", "true")
    assert "the mount at /d asks for idmap, and the container has no user namespace" in done.err


def test_files_of_etc_devices_and_kernel_parameters(remapped: Client) -> None:
    script = (
        "echo 192.0.2.9 more >> /etc/hosts && stat -c %u /etc/hosts /etc/hostname /etc/resolv.conf && "
        "cat /proc/sys/net/ipv4/ping_group_range /proc/sys/net/ipv4/ip_unprivileged_port_start && "
        "echo x >/dev/null && head -c 4 /dev/urandom | wc -c && df /dev/shm | tail -n 1 && echo x >/dev/shm/x"
    )
    lines = remapped.ok("run", "--rm", "--device", "/dev/full", "busybox", "sh", "-c", script).split()
    assert lines[:7] == ["0", "0", "0", "0", str(SIZE - 1), "0", "4"]
    assert (
        remapped.ok("run", "--rm", "--sysctl", "kernel.msgmax=9000", "busybox", "cat", "/proc/sys/kernel/msgmax")
        == "9000"
    )
    assert remapped("run", "--rm", "--cap-add", "ALL", "busybox", "mknod", "/d", "c", "1", "3").status != 0


def test_network_and_published_port(remapped: Client) -> None:
    remapped.ok(
        "run",
        "-d",
        "--name",
        "web",
        "-p",
        "127.0.0.1:18414:80",
        "busybox",
        "sh",
        "-c",
        "mkdir /w; echo hi >/w/i; httpd -f -h /w",
    )
    address = remapped.ok("inspect", "--format", "{{.NetworkSettings.IPAddress}}", "web").strip()
    fetched = lambda: remapped("run", "--rm", "busybox", "wget", "-qO-", f"http://{address}/i").out == "hi\n"  # noqa: E731
    poll(fetched, "the server", 20)
    out = remapped.ok(
        "run", "--rm", "--userns", "host", "--network", "host", "busybox", "wget", "-qO-", "http://127.0.0.1:18414/i"
    )
    assert out == "hi"
    inner = remapped.ok("run", "--rm", "--network", "container:web", "busybox", "readlink", "/proc/self/ns/net").strip()
    assert inner == os.readlink(f"/proc/{host_pid(remapped, 'web')}/ns/net")
    out = remapped.ok(
        "run",
        "--rm",
        "--pid",
        "container:web",
        "busybox",
        "sh",
        "-c",
        "ps | grep -c httpd; wget -qO- http://" + address + "/i",
    )
    assert out.split()[-1] == "hi"
    remapped.ok("run", "--rm", "--uts", "host", "--cgroupns", "host", "busybox", "true")


def test_limits(remapped: Client) -> None:
    out = remapped.ok(
        *("run", "--rm", "-m", "64m", "--pids-limit", "1", "--ulimit", "nofile=2048:4096", "--oom-score-adj", "300"),
        *("busybox", "sh", "-c", "ulimit -n; read x </proc/self/oom_score_adj; echo $x"),
    )
    assert out.split() == ["2048", "300"]
    done = remapped(
        "run", "--rm", "-m", "16m", "--memory-swap", "16m", "busybox", "sh", "-c", "x=a; while :; do x=$x$x; done"
    )
    assert done.status == 137


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--privileged"],
            "privileged mode is incompatible with user namespaces.  You must run the container in the host",
        ),
        (["--network", "host"], "cannot share the host's network namespace when user namespaces are enabled"),
        (["--pid", "host"], "cannot share the host PID namespace when user namespaces are enabled"),
        (["--ipc", "host"], "cannot share the host's IPC namespace when user namespaces are enabled"),
    ],
)
def test_what_takes_the_host_is_refused(remapped: Client, flags: list[str], words: str) -> None:
    done = remapped("run", "--rm", *flags, "busybox", "true")
    assert done.status == 125
    assert words in done.err
    identity = remapped.ok("run", "--rm", "--userns", "host", *flags, "busybox", "cat", "/proc/self/uid_map").split()
    assert identity == ["0", "0", "4294967295"]


def test_a_restarted_daemon_knows_its_containers(remapped: Client, own_daemon: Daemon) -> None:
    remapped.ok("run", "-d", "--name", "one", "busybox", "sh", "-c", "echo x >> /kept; exec sleep 60")
    own_daemon.kill()
    own_daemon.flags = []
    own_daemon.start()
    assert remapped.ok("exec", "one", "cat", "/proc/self/uid_map").split()[1] == str(UID)
    remapped.ok("restart", "-t", "0", "one")
    assert remapped.ok("exec", "one", "cat", "/kept") == "x\nx"
    assert map_of(host_pid(remapped, "one"))[1] == str(UID), (
        "its files are those of its map, whatever the daemon's is now"
    )
    assert remapped.ok("run", "--rm", "busybox", "cat", "/proc/self/uid_map").split()[1] == "0"


def test_auto_gives_each_its_own_range(plain: Client, own_daemon: Daemon) -> None:
    run = ("run", "-d", "--userns", "auto:size=1024")
    for name in ("one", "two"):
        assert own_daemon.pier(*run, "--name", name, "busybox", "sleep", "60").status == 0
    starts = {name: map_of(host_pid(plain, name)) for name in ("one", "two")}
    assert starts == {"one": ["0", str(POOL), "1024"], "two": ["0", str(POOL + 1024), "1024"]}
    assert plain.ok("inspect", "--format", "{{.HostConfig.UsernsMode}}", "one").strip() == "auto:size=1024"
    # Docker's command checks the flag's words itself; a security option it passes on.
    security = ("--security-opt", "userns=auto:size=1024")
    plain.ok("run", "-d", "--name", "three", *security, "busybox", "sleep", "60")
    assert map_of(host_pid(plain, "three"))[1] == str(POOL + 2048)
    done = plain("run", "--rm", "--network", "container:one", *security, "busybox", "true")
    assert "cannot join the network namespace of container one: its user namespace has other ids" in done.err
    done = plain("run", "--rm", "--security-opt", "userns=auto", "busybox", "true")
    assert 'no 65536 consecutive subordinate user ids are left in the ranges of user "containers"' in done.err
    own_daemon.kill()
    own_daemon.start()
    plain.ok("rm", "-f", "one")
    plain.ok("run", "-d", "--name", "four", *security, "busybox", "sleep", "60")
    assert map_of(host_pid(plain, "four"))[1] == str(POOL), "freed by rm, remembered across a restart"
    assert plain.ok("run", "--rm", "busybox", "cat", "/proc/self/uid_map").split() == ["0", "0", "4294967295"]


def test_modes_nobody_knows(plain: Client, own_daemon: Daemon) -> None:
    for mode in ("keep-id", "auto:size=3", "auto:what=5"):
        done = plain("run", "--rm", "--security-opt", f"userns={mode}", "busybox", "true")
        assert done.status == 125
        assert f"invalid user namespace mode: {mode} (host, auto or auto:size=N" in done.err


def test_a_driver_of_whole_trees(own_daemon: Daemon, starter_images: list[Path]) -> None:
    flags = ["--storage-driver", "vfs", "--userns-remap", "remapped"]
    for client in started(own_daemon, starter_images, flags):
        client.ok("run", "-d", "--name", "one", "busybox", "sh", "-c", "echo x >/kept; exec sleep 60")
        assert client.ok("exec", "one", "stat", "-c", "%u", "/", "/kept", "/bin/busybox").split() == ["0", "0", "0"]
        assert map_of(host_pid(client, "one")) == ["0", str(UID), str(SIZE)]
        place = json.loads(client.ok("inspect", "one"))[0]["GraphDriver"]["Data"]["dir"]
        assert os.stat(f"{place}/kept").st_uid == 0, "a whole tree has the container's ids on disk"


def test_default_makes_its_user(own_daemon: Daemon, starter_images: list[Path]) -> None:
    for client in started(own_daemon, starter_images, ["--userns-remap", "default"]):
        etc = own_daemon.root / "etc/up"
        line = next(line for line in (etc / "subuid").read_text().splitlines() if line.startswith("dockremap:"))
        assert "dockremap:" in (etc / "passwd").read_text()
        assert client.ok("run", "--rm", "busybox", "cat", "/proc/self/uid_map").split() == ["0", *line.split(":")[1:]]
        own_daemon.stop()
        own_daemon.start()
        assert (etc / "subuid").read_text().count("dockremap:") == 1


def test_cp_speaks_of_the_containers_ids(remapped: Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text\n")
    os.chown(tmp_path / "file", 12, 34)
    made = "mkdir -m 700 /own; touch /own/file; chown 56:78 /own/file; echo ready; exec sleep 1000"
    remapped.run(remapped.image, "sh", "-c", made, name="ids")
    poll(lambda: remapped.ok("logs", "ids") == "ready", "the files")
    for running in (True, False):
        remapped.ok("cp", "-a", f"{tmp_path}/file", "ids:/own/copied")
        listed = {}
        for path in ("/own", "/bin/sh"):
            done = remapped("cp", f"ids:{path}", "-")
            with tarfile.open(fileobj=io.BytesIO(done.out.encode())) as tar:
                listed |= {entry.name: (entry.uid, entry.gid) for entry in tar}
        assert listed == {"own": (0, 0), "own/file": (56, 78), "own/copied": (12, 34), "sh": (0, 0)}
        if running:
            assert remapped.ok("exec", "ids", "stat", "-c", "%u:%g", "/own/copied") == "12:34"
            remapped.ok("kill", "ids")
            remapped.ok("wait", "ids")
    remapped.ok("start", "ids")
    poll(lambda: remapped.ok("logs", "ids") == "ready\nready", "the second start")
    assert remapped.ok("exec", "ids", "stat", "-c", "%u:%g", "/own/copied") == "12:34"
