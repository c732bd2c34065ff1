"""The daemon's sockets and its way of failing; nothing here needs an engine."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from pier.api import daemon
from pier.engine.lock import NotASocket, SocketInUse


def test_attack_22_the_socket_is_never_open_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, modes = tmp_path / "s", []
    chown = os.chown
    monkeypatch.setattr(
        os, "chown", lambda *args: (modes.append(stat.S_IMODE(path.stat().st_mode)), chown(path, -1, -1))
    )
    sock = daemon.bind(str(path), "docker")
    sock.close()
    assert modes == [0o600], "before it has its group nobody but root connects"
    assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_a_socket_that_is_answered_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        with pytest.raises(SocketInUse, match=str(os.getpid())):
            daemon.bind(path, "")
    assert os.path.exists(path)


@pytest.mark.root
def test_a_dead_socket_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    daemon.bind(path, "").close()


def test_a_file_is_no_socket_to_replace(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(NotASocket):
        daemon.bind(str(tmp_path / "s"), "")
    assert (tmp_path / "s").read_text() == "precious"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--no-such-flag"], "no-such-flag"),
        (["--config-file", "/nonexistent/daemon.json"], "/nonexistent/daemon.json"),
        (["-H", "tcp://0.0.0.0:2375"], "tcp://0.0.0.0:2375"),
        (["--log-level", "loud"], "loud"),
        (["--data-root", "relative"], "absolute"),
    ],
)
def test_a_daemon_that_cannot_start_says_so_in_one_line(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert daemon.main(argv) == 1
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert "Traceback" not in said


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert daemon.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("Pier version ")


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "n"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))
        daemon.notify("READY=1")
        assert systemd.recv(64) == b"READY=1"


def test_nobody_is_told_where_nobody_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    daemon.notify("READY=1")


def test_sockets_of_another_process_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "1")
    with pytest.raises(daemon.CannotListen):
        daemon.passed_sockets()
