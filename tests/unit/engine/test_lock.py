import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pier.engine.lock import FolderInUse, FolderLock, NotASocket, SocketInUse, clear_socket, listener_pid

HOLDER = """
import sys, time
from pier.engine.lock import FolderLock
FolderLock.take(sys.argv[1], what="the data root", flag="--data-root")
print("held", flush=True)
time.sleep(60)
"""


def take(folder: Path) -> FolderLock:
    return FolderLock.take(str(folder), what="the data root", flag="--data-root")


def test_trap_19_the_second_daemon_names_the_first(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(FolderInUse) as caught:
            take(tmp_path)
        assert f"(pid {holder.pid}) uses the data root {tmp_path}" in str(caught.value)
        assert "--data-root" in str(caught.value)
        assert caught.value.exit_code == 1
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        take(tmp_path).release()  # a killed holder leaves no stale lock


def test_a_released_folder_is_free_and_the_pid_is_ours(tmp_path: Path) -> None:
    lock = take(tmp_path)
    assert (tmp_path / "pierd.lock").read_text() == f"{os.getpid()}\n"
    lock.release()
    lock.release()
    take(tmp_path).release()


def test_the_lock_file_is_no_way_to_another_file(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "pierd.lock").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        take(tmp_path)
    assert victim.read_text() == "precious"


def listening(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(1)
    return server


def test_trap_19_a_socket_in_use_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "pier.sock"
    with listening(path):
        assert listener_pid(str(path)) == os.getpid()
        with pytest.raises(SocketInUse, match=rf"pid {os.getpid()}\) listens on {path}"):
            clear_socket(str(path))
        assert path.exists()


def test_a_busy_listener_is_still_a_listener(tmp_path: Path) -> None:
    path = tmp_path / "pier.sock"
    with listening(path):
        waiting = []
        for _ in range(4):
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            client.connect_ex(str(path))
            waiting.append(client)
        with pytest.raises(SocketInUse):
            clear_socket(str(path))
        for client in waiting:
            client.close()


def test_a_stale_socket_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "pier.sock"
    listening(path).close()
    assert stat.S_ISSOCK(path.stat().st_mode)
    clear_socket(str(path))
    assert not path.exists()
    clear_socket(str(path))


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "pier.sock"
    path.write_text("notes")
    with pytest.raises(NotASocket, match="is not a socket"):
        clear_socket(str(path))
    path.unlink()
    target = tmp_path / "real.sock"
    with listening(target):
        path.symlink_to(target)
        with pytest.raises(NotASocket):
            clear_socket(str(path))
