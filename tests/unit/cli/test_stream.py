"""Frames, detach keys and the pump between a hijacked connection and stdio."""

from __future__ import annotations

import os
import signal
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.cli.stream import Demux, Session, Signals, Sink, forwarded_signals, signal_name
from pier.cli.tty import DetachKeys, parse_detach_keys


def frame(stream: int, payload: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload


@given(st.lists(st.tuples(st.sampled_from([1, 2, 3]), st.binary(max_size=40))), st.integers(min_value=1, max_value=17))
def test_frames_come_apart_however_they_are_cut(frames: list[tuple[int, bytes]], step: int) -> None:
    data = b"".join(frame(*one) for one in frames)
    demux = Demux()
    seen: dict[int, bytes] = {1: b"", 2: b"", 3: b""}
    for start in range(0, len(data), step):
        for stream, piece in demux.feed(data[start : start + step]):
            seen[stream] += piece
    assert seen == {kind: b"".join(payload for stream, payload in frames if stream == kind) for kind in seen}


def test_a_stream_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="Unrecognized input header: 7"):
        list(Demux().feed(frame(7, b"x")))


@pytest.mark.parametrize(
    ("text", "sequence"),
    [("ctrl-p,ctrl-q", b"\x10\x11"), ("a,ctrl-x", b"a\x18"), ("ctrl-@", b"\0"), ("ctrl-[,ctrl-_", b"\x1b\x1f"),
     ("CTRL-a", b"\x01"), ("X", b"X")],
)  # fmt: skip
def test_detach_keys(text: str, sequence: bytes) -> None:
    assert parse_detach_keys(text) == sequence


@pytest.mark.parametrize("text", ["", "zz", "ctrl-", "ctrl-é", "é", "ctrl-p,"])
def test_wrong_detach_keys(text: str) -> None:
    with pytest.raises(ValueError, match="Unknown character"):
        parse_detach_keys(text)


@pytest.mark.parametrize(
    ("reads", "found"),
    [
        ([b"\x10\x11"], 2),
        ([b"ab\x10\x11c"], 4),
        ([b"\x10", b"\x11"], 1),
        ([b"\x10x\x11"], 0),
        ([b"\x10\x10\x11"], 3),
        ([b"\x10", b"x", b"\x11"], 0),
    ],
)
def test_detach_keys_are_found_across_reads(reads: list[bytes], found: int) -> None:
    keys = DetachKeys(b"\x10\x11")
    assert [keys.seen(data) for data in reads][-1] == found


def test_signal_names() -> None:
    assert [signal_name(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == [
        "TERM",
        "INT",
        "USR1",
    ]
    numbers = forwarded_signals()
    assert signal.SIGTERM in numbers
    assert not {signal.SIGKILL, signal.SIGCHLD, signal.SIGPIPE, signal.SIGWINCH} & set(numbers)


class Ends:
    """Pipes in place of stdin, stdout and stderr, and the daemon's end of the connection."""

    def __init__(self) -> None:
        self.ours, self.daemon = socket.socketpair()
        self.stdin_read, self.stdin_write = os.pipe()
        self.out_read, self.out_write = os.pipe()
        self.err_read, self.err_write = os.pipe()

    def output(self) -> tuple[bytes, bytes]:
        os.close(self.out_write)
        os.close(self.err_write)
        return os.read(self.out_read, 65536), os.read(self.err_read, 65536)


def test_output_is_split_and_stdin_is_half_closed() -> None:
    ends = Ends()
    received = b""

    def daemon() -> None:
        nonlocal received
        while data := ends.daemon.recv(4096):
            received += data
        ends.daemon.sendall(frame(1, b"out") + frame(2, b"err") + frame(1, received))
        ends.daemon.close()

    thread = threading.Thread(target=daemon)
    thread.start()
    os.write(ends.stdin_write, b"typed")
    os.close(ends.stdin_write)
    sink = Sink(multiplexed=True, stdout=ends.out_write, stderr=ends.err_write)
    Session(ends.ours, sink, stdin=ends.stdin_read).run(frame(1, b"first "))
    thread.join()
    assert received == b"typed"
    assert ends.output() == (b"first outtyped", b"err")


def test_much_in_both_directions_does_not_deadlock() -> None:
    ends = Ends()
    size = 4 << 20
    got = 0

    def daemon() -> None:
        nonlocal got
        ends.daemon.sendall(b"o" * size)  # a program that writes all before it reads
        while data := ends.daemon.recv(65536):
            got += len(data)
        ends.daemon.close()

    def feed() -> None:
        os.write(ends.stdin_write, b"i" * 65536)
        for _ in range(size // 65536 - 1):
            os.write(ends.stdin_write, b"i" * 65536)
        os.close(ends.stdin_write)

    drained = 0

    def drain() -> None:
        nonlocal drained
        while data := os.read(ends.out_read, 65536):
            drained += len(data)

    threads = [threading.Thread(target=work, daemon=True) for work in (daemon, feed, drain)]
    for thread in threads:
        thread.start()
    sink = Sink(multiplexed=False, stdout=ends.out_write, stderr=ends.err_write)
    Session(ends.ours, sink, stdin=ends.stdin_read).run()
    os.close(ends.out_write)
    for thread in threads:
        thread.join(10)
    assert (got, drained) == (size, size)


def test_detach_keys_end_the_session_and_are_handed_on() -> None:
    ends = Ends()
    os.write(ends.stdin_write, b"ls\x10\x11more")
    session = Session(
        ends.ours,
        Sink(multiplexed=False, stdout=ends.out_write),
        stdin=ends.stdin_read,
        detach_keys=DetachKeys(b"\x10\x11"),
    )
    session.run()
    assert session.detached
    assert ends.daemon.recv(100) == b"ls\x10\x11"


def test_signals_reach_the_handler_and_handlers_come_back() -> None:
    ends = Ends()
    before = signal.getsignal(signal.SIGUSR1)
    signals = Signals([signal.SIGUSR1])
    seen: list[int] = []

    def on_signal(number: int) -> bool:
        seen.append(number)
        return False

    os.kill(os.getpid(), signal.SIGUSR1)
    session = Session(ends.ours, Sink(multiplexed=False), stdin=ends.stdin_read, signals=signals, on_signal=on_signal)
    session.run()
    signals.close()
    assert (seen, session.interrupted_by) == ([signal.SIGUSR1], signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) == before
