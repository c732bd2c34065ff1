"""The daemon as a process: start, refusals, stop, kill -9."""

import os
import re
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from .conftest import Daemon, poll

pytestmark = pytest.mark.root


def refused(daemon: Daemon, *flags: str) -> str:
    """Run a daemon that must not start; returns its one line."""
    ended = subprocess.run(
        [*daemon.command, *flags], capture_output=True, text=True, timeout=20, check=False, stdin=subprocess.DEVNULL
    )
    assert ended.returncode == 1
    lines = [line for line in ended.stderr.splitlines() if line.startswith("pierd: ")]
    assert len(lines) == 1, ended.stderr
    return lines[0]


def devices() -> list[str]:
    return os.listdir("/sys/class/net")


def test_a_start_and_a_stop_leave_nothing(own_daemon: Daemon) -> None:
    own_daemon.start()
    assert own_daemon.bridge in devices()
    assert own_daemon.stop() == 0
    assert own_daemon.bridge not in devices()
    assert not own_daemon.socket.exists()
    assert not (own_daemon.exec_root / "pier.pid").exists()


def test_trap_19_the_second_daemon_is_refused(own_daemon: Daemon) -> None:
    own_daemon.start()
    assert own_daemon.process is not None
    line = refused(own_daemon)
    assert f"(pid {own_daemon.process.pid})" in line
    assert f"data root {own_daemon.data_root}" in line
    elsewhere = own_daemon.root / "elsewhere"
    assert f"exec root {own_daemon.exec_root}" in refused(own_daemon, "--data-root", str(elsewhere))
    assert own_daemon.answers()


def test_trap_19_a_foreign_listener_keeps_its_socket(own_daemon: Daemon) -> None:
    path = own_daemon.root / "foreign.sock"
    own_daemon.start()
    own_daemon.stop()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(1)
        assert f"(pid {os.getpid()}) listens on {path}" in refused(own_daemon, "-H", f"unix://{path}")
        assert path.exists()
    assert own_daemon.bridge not in devices(), "a start that fails leaves nothing"


def test_kill_9_and_start_again(own_daemon: Daemon) -> None:
    own_daemon.start()
    own_daemon.kill()
    assert own_daemon.socket.exists(), "a killed daemon leaves its socket"
    own_daemon.start()
    assert own_daemon.pier("ps").status == 0


def test_trap_20_a_damaged_database_does_not_keep_the_daemon_down(own_daemon: Daemon) -> None:
    own_daemon.start()
    own_daemon.stop()
    (own_daemon.data_root / "pier.db").write_bytes(b"garbage" * 1000)
    own_daemon.start()
    assert own_daemon.pier("ps").status == 0
    assert "the state database was damaged" in own_daemon.log.read_text()
    assert [path for path in own_daemon.data_root.iterdir() if ".damaged-" in path.name]


def test_attack_23_roots_and_sockets_are_closed(own_daemon: Daemon) -> None:
    own_daemon.start()
    assert mode(own_daemon.data_root) == 0o700
    assert mode(own_daemon.exec_root) == 0o711
    assert mode(own_daemon.socket) == 0o660


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_attack_22_no_abstract_sockets(own_daemon: Daemon) -> None:
    own_daemon.start()
    with open("/proc/net/unix", encoding="ascii", errors="replace") as file:
        assert not [line for line in file if "@pier" in line or f"@{own_daemon.root}" in line]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('{"nonsense": 1}', "the following directives don't match any configuration option: nonsense"),
        ('{"debug": true}', "specified both as a flag and in the configuration file: debug: (from flag: true"),
        ("{", "invalid JSON"),
        ('{"userns-remap": "nobody-such"}', 'Error during uid lookup for "nobody-such"'),
        ('{"userns-remap": "a:b:c"}', 'Invalid user/group specification in --userns-remap: "a:b:c"'),
        ('{"storage-driver": "aufs"}', "aufs"),
        ('{"fixed-cidr": "192.168.250.0/24"}', "fixed-cidr"),
    ],
)
def test_a_bad_configuration_is_one_line(own_daemon: Daemon, text: str, part: str) -> None:
    (own_daemon.root / "daemon.json").write_text(text)
    assert part in refused(own_daemon)
    assert own_daemon.bridge not in devices()


def test_only_root_runs_it(own_daemon: Daemon) -> None:
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    own_daemon.root.chmod(0o777)
    (own_daemon.root / "daemon.json").write_text("{}")
    ended = subprocess.run(
        [*nobody, *own_daemon.command], capture_output=True, text=True, timeout=20, check=False, cwd="/"
    )
    if "Permission denied" in ended.stderr and "pierd: pierd must" not in ended.stderr:
        pytest.skip("this checkout cannot be read by other users")
    assert ended.stderr.splitlines()[-1].startswith("pierd: pierd must run as root (")
    assert ended.returncode == 1


def test_docker_talks_to_it(own_daemon: Daemon) -> None:
    own_daemon.start()
    assert "Pier" in own_daemon.docker("version").out
    info = own_daemon.docker("info")
    assert info.status == 0
    assert "Storage Driver: overlay2" in info.out
    assert f"Docker Root Dir: {own_daemon.data_root}" in info.out


def test_it_takes_the_descriptors_it_may_have_and_containers_get_what_it_got(
    own_daemon: Daemon, starter_images: list[Path]
) -> None:
    own_daemon.within = ["prlimit", "--nofile=1024:4096"]
    own_daemon.start()
    assert own_daemon.process is not None
    limits = Path(f"/proc/{own_daemon.process.pid}/limits").read_text()
    assert re.search(r"Max open files +4096 +4096", limits)
    assert own_daemon.pier("import", str(starter_images[0]), "busybox:latest").status == 0
    shown = own_daemon.docker("run", "--rm", "busybox", "sh", "-c", "ulimit -Sn; ulimit -Hn").out
    assert shown.split() == ["1024", "4096"]


def test_debug_log_has_no_traceback(own_daemon: Daemon) -> None:
    own_daemon.start()
    own_daemon.pier("ps")
    own_daemon.stop()
    poll(own_daemon.log.exists, "the log")
    assert "Traceback" not in own_daemon.log.read_text()
