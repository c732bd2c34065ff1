"""One process's standard streams: from its pipes or terminal to the log and to any number of attached clients.

Every client has a bounded buffer. While all clients are behind, reading stops and the process feels the back-pressure
of a pipe: nothing is lost to a slow terminal. A client that is behind while another keeps up is dropped, so one
stopped terminal cannot hold the others.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from collections.abc import Callable

from pier.runtime.log.logfile import Log
from pier.runtime.monitor.poll import HANGUP, READ, WRITE, Poller

CHUNK = 32 * 1024
PIPE_SIZE = 256 * 1024
"""The program and this process take turns less often than with the kernel's 64 KiB."""
CLIENT_BUFFER_MAX = 1024 * 1024
STDIN_BUFFER_MAX = 64 * 1024

STDOUT, STDERR = 1, 2
STREAM_NAMES = {STDOUT: "stdout", STDERR: "stderr"}


def frame(stream: int, data: bytes) -> bytes:
    """Docker's multiplexing (Engine API, ContainerAttach, "Stream format"): an 8-byte header before each payload."""
    return struct.pack(">BxxxI", stream, len(data)) + data


class Client:
    """One attached client: what it wants, and what it has not taken yet."""

    def __init__(self, sock: socket.socket, *, stdin: bool, outputs: frozenset[int]) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.stdin = stdin
        self.outputs = outputs
        self.buffer = bytearray()
        self.finishing = False

    @property
    def behind(self) -> bool:
        return len(self.buffer) >= CLIENT_BUFFER_MAX


class Streams:
    """Pumps between a process and its log and clients. `on_end` is called when both outputs have ended."""

    def __init__(
        self,
        poller: Poller,
        *,
        outputs: dict[int, int],
        stdin: int | None,
        terminal: bool,
        close_stdin_with_client: bool,
        log: Log | None,
        on_end: Callable[[], None],
    ) -> None:
        """`outputs`: stream number -> descriptor to read (a terminal's master is its stdout); `stdin`: one to write."""
        self._poller = poller
        self._outputs = dict(outputs)
        self._stdin = stdin
        self.terminal = terminal
        self._close_stdin_with_client = close_stdin_with_client
        self._log = log
        self._on_end = on_end
        self._clients: list[Client] = []
        self._stdin_buffer = bytearray()
        self._stdin_ends = False
        self._paused = False
        self._ended = False
        self.log_error = ""
        for stream, fd in self._outputs.items():
            os.set_blocking(fd, False)
            if not terminal:
                with contextlib.suppress(OSError):  # EPERM: beyond fs.pipe-max-size
                    fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
            self._watch_output(stream, fd)
        if stdin is not None and stdin not in self._outputs.values():
            os.set_blocking(stdin, False)

    def _watch_output(self, stream: int, fd: int) -> None:
        self._poller.watch(fd, READ, lambda events: self._output_ready(stream, fd))

    # outputs

    def _output_ready(self, stream: int, fd: int) -> None:
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return
        except OSError:  # EIO: the last process has closed the terminal
            data = b""
        if not data:
            self._end_output(stream, fd)
            return
        if self._log is not None:
            try:
                self._log.write(STREAM_NAMES[stream], data)
            except OSError as error:  # a full disk must not stop the program; what was printed is lost to the log
                self.log_error = str(error)
        if self._clients:
            self._broadcast(stream, data)

    def _broadcast(self, stream: int, data: bytes) -> None:
        packet = data if self.terminal else frame(stream, data)
        for client in list(self._clients):
            if stream in client.outputs and not client.finishing:
                client.buffer += packet
                self._send(client)
        self._balance()

    def _balance(self) -> None:
        """Drop the clients that are behind while others are not; stop reading while all of them are."""
        readers = [client for client in self._clients if client.outputs]
        behind = [client for client in readers if client.behind]
        if behind and len(behind) < len(readers):
            for client in behind:
                self._drop(client)
            behind = []
        pause = bool(behind) and not self._ended
        if pause != self._paused:
            self._paused = pause
            for stream, fd in self._outputs.items():
                if pause:
                    self._poller.forget(fd)
                else:
                    self._watch_output(stream, fd)
            if not pause and self.terminal and self._stdin_buffer:
                self._watch_stdin()

    def drain(self) -> None:
        """The process has ended: take what its pipes still hold, however slow the clients are."""
        self._ended = True
        if self._paused:
            self._balance()

    def _end_output(self, stream: int, fd: int) -> None:
        self._poller.forget(fd)
        del self._outputs[stream]
        if fd == self._stdin:
            self._stdin = None
        os.close(fd)
        if not self._outputs:
            self._on_end()

    @property
    def terminal_fd(self) -> int | None:
        """The terminal's master, while it is open."""
        return self._outputs.get(STDOUT) if self.terminal else None

    @property
    def open(self) -> bool:
        """Whether the process, or a child it left behind, can still print."""
        return bool(self._outputs)

    # clients

    def attach(self, sock: socket.socket, *, stdin: bool, stdout: bool, stderr: bool) -> None:
        """Join a client; the socket is this object's from now on."""
        wanted = {STDOUT} if stdout else set()
        if stderr:
            wanted.add(STDOUT if self.terminal else STDERR)
        client = Client(sock, stdin=stdin and self._stdin is not None, outputs=frozenset(wanted))
        self._clients.append(client)
        self._watch_client(client)
        if not self._outputs:
            self._finish(client)

    def _watch_client(self, client: Client) -> None:
        events = WRITE if client.buffer else 0
        if client.stdin and len(self._stdin_buffer) < STDIN_BUFFER_MAX:
            events |= READ
        self._poller.watch(client.sock.fileno(), events, lambda ready: self._client_ready(client, ready))

    def _client_ready(self, client: Client, events: int) -> None:
        if events & READ:
            self._read_client(client)
        elif events & HANGUP:
            self._drop(client)
            return
        if client in self._clients and events & WRITE:
            self._send(client)
            self._balance()

    def _read_client(self, client: Client) -> None:
        try:
            data = client.sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)
            return
        if data:
            self._stdin_buffer += data
            self._write_stdin()
        else:
            self._client_stdin_ended(client)
        if client in self._clients:
            self._watch_client(client)

    def _client_stdin_ended(self, client: Client) -> None:
        client.stdin = False
        if self._close_stdin_with_client:
            self._stdin_ends = True
            self._write_stdin()
        else:
            self._finish(client)

    def _send(self, client: Client) -> None:
        try:
            while client.buffer:
                del client.buffer[: client.sock.send(client.buffer[:CHUNK])]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)
            return
        if client.finishing and not client.buffer:
            self._drop(client)
        else:
            self._watch_client(client)

    def _finish(self, client: Client) -> None:
        """Let a client go once it has taken what is in its buffer."""
        client.finishing = True
        self._send(client)

    def _drop(self, client: Client) -> None:
        if client not in self._clients:
            return
        self._clients.remove(client)
        self._poller.forget(client.sock.fileno())
        client.sock.close()
        if client.stdin and self._close_stdin_with_client:
            self._stdin_ends = True
            self._write_stdin()
        self._balance()

    @property
    def clients(self) -> int:
        return len(self._clients)

    # stdin

    def _write_stdin(self) -> None:
        if self._stdin is None:
            self._stdin_buffer.clear()
            return
        was_full = len(self._stdin_buffer) >= STDIN_BUFFER_MAX
        try:
            while self._stdin_buffer:
                del self._stdin_buffer[: os.write(self._stdin, self._stdin_buffer[:CHUNK])]
        except BlockingIOError:
            self._watch_stdin()
        except OSError:  # EPIPE: the program has closed its input
            self._stdin_buffer.clear()
            self._stdin_ends = not self.terminal
        if not self._stdin_buffer:
            self._stdin_drained()
        if was_full:
            for client in self._clients:
                self._watch_client(client)

    def _watch_stdin(self) -> None:
        assert self._stdin is not None
        if self.terminal:
            stdin = self._stdin
            events = WRITE if self._paused else READ | WRITE
            self._poller.watch(stdin, events, lambda ready: self._terminal_ready(ready, stdin))
        else:
            self._poller.watch(self._stdin, WRITE, lambda ready: self._write_stdin())

    def _terminal_ready(self, events: int, fd: int) -> None:
        if events & WRITE:
            self._write_stdin()
        if events & ~WRITE and not self._paused:
            self._output_ready(STDOUT, fd)

    def _stdin_drained(self) -> None:
        assert self._stdin is not None
        if self.terminal:
            if self._paused:
                self._poller.forget(self._stdin)
            else:
                self._watch_output(STDOUT, self._stdin)
            return
        self._poller.forget(self._stdin)
        if self._stdin_ends:
            os.close(self._stdin)
            self._stdin = None

    def close_stdin(self) -> None:
        self._stdin_ends = True
        self._write_stdin()

    # end

    def finish(self) -> None:
        """Read no more; what `let_go` does."""
        for fd in self._outputs.values():
            self._poller.forget(fd)
            os.close(fd)
        self._outputs.clear()
        self.let_go()

    def let_go(self) -> None:
        """The process is over: flush the log, let every client go once it has taken what it is owed.

        Outputs that background processes hold open are read on and thrown away: a full pipe would stop them, a closed
        one kill them.
        """
        if self._stdin is not None and not self.terminal:
            self._poller.forget(self._stdin)
            os.close(self._stdin)
        self._stdin = None
        self._stdin_buffer.clear()
        for stream, fd in self._outputs.items():
            self._watch_output(stream, fd)
        if self._log is not None:
            with contextlib.suppress(OSError):
                self._log.close()
            self._log = None
        for client in list(self._clients):
            self._finish(client)
