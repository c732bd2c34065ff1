"""Docker's command line as a user sits at it: run to the end, in the background with pipes, or at a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import tempfile
import termios
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

WAIT_S = 20.0
"""For what must come; nothing waits this long when it works."""


@dataclass
class Done:
    """A command that has ended."""

    status: int
    out: str
    err: str


class Session:
    """A command that runs while the test goes on. `output` is what it has written so far."""

    def __init__(self, argv: list[str], environment: Mapping[str, str], size: tuple[int, int] | None) -> None:
        self.output = b""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the session
        if size is None:
            self._process = subprocess.Popen(
                argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
            )
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        else:
            self._in = self._out = self._open_terminal(argv, environment, size)
        self._ended = False

    def _open_terminal(self, argv: list[str], environment: Mapping[str, str], size: tuple[int, int]) -> int:
        ours, theirs = pty.openpty()
        self._out = ours
        self.resize(*size, tell=False)
        self._process = subprocess.Popen(
            argv, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, process_group=0
        )
        os.close(theirs)
        return ours

    def resize(self, rows: int, columns: int, *, tell: bool = True) -> None:
        """Another size of the terminal, and the signal by which the kernel tells the foreground of it."""
        fcntl.ioctl(self._out, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if tell:
            self.signal(signal.SIGWINCH)

    def send(self, data: bytes) -> None:
        os.write(self._in, data)

    def close_stdin(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def read_until(self, text: str) -> str:
        """Everything written up to and including `text`, from where the last call ended."""
        wanted = text.encode()
        deadline = time.monotonic() + WAIT_S
        while wanted not in self.output:
            remaining = deadline - time.monotonic()
            if remaining < 0 or not self._read(remaining):
                raise AssertionError(f"{text!r} did not come, but: {self.output!r} {self.errors!r}")
        before, found, self.output = self.output.partition(wanted)
        return (before + found).decode(errors="replace")

    def shows(self, text: str) -> bool:
        """Has it written `text` by now?"""
        self._read(0.0)
        return text.encode() in self.output

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def _read(self, timeout_s: float) -> bool:
        """Take what is there; False at the end of file or when nothing came."""
        if self._ended or not select.select([self._out], [], [], timeout_s)[0]:
            return False
        try:
            data = os.read(self._out, 65536)
        except OSError:  # EIO: the last process of the terminal has closed it
            data = b""
        self._ended = not data
        self.output += data
        return bool(data)

    @property
    def errors(self) -> str:
        """Standard error so far, without a terminal."""
        size = os.fstat(self._errors.fileno()).st_size
        return os.pread(self._errors.fileno(), size, 0).decode(errors="replace")

    def wait(self) -> Done:
        """Read to the end; the output is what `read_until` has not taken."""
        deadline = time.monotonic() + WAIT_S
        while not self._ended:
            remaining = deadline - time.monotonic()
            assert remaining > 0, f"it goes on, with: {self.output[-500:]!r} {self.errors!r}"
            self._read(remaining)
        status = self._process.wait(WAIT_S)
        return Done(status, self.output.decode(errors="replace"), self.errors)

    def close(self) -> None:
        """End it, whatever it does."""
        if self._errors.closed:
            return
        self._process.kill()
        self._process.wait()
        self._errors.close()
        if self._process.stdin is not None and self._process.stdout is not None:
            self._process.stdin.close()
            self._process.stdout.close()
        else:
            os.close(self._out)


@dataclass
class Client:
    """The command `program` against one daemon; `image` is a busybox there."""

    environment: Mapping[str, str]
    image: str
    program: str = "docker"
    sessions: list[Session] = field(default_factory=list)

    def __call__(self, *words: str, stdin: bytes = b"") -> Done:
        """Run a command to its end."""
        ended = subprocess.run(
            [self.program, *words], env=self.environment, input=stdin, capture_output=True, timeout=60, check=False
        )
        return Done(ended.returncode, ended.stdout.decode(errors="replace"), ended.stderr.decode(errors="replace"))

    def ok(self, *words: str, stdin: bytes = b"") -> str:
        """Run a command that must succeed; its output without the last line's end."""
        done = self(*words, stdin=stdin)
        assert done.status == 0, f"{words}: {done}"
        return done.out.removesuffix("\n")

    def start(self, *words: str) -> Session:
        """Run a command in the background, its standard input and output held by the test."""
        return self._session(words, None)

    def terminal(self, *words: str, rows: int = 24, columns: int = 80) -> Session:
        """Run a command at a terminal of its own."""
        return self._session(words, (rows, columns))

    def _session(self, words: tuple[str, ...], size: tuple[int, int] | None) -> Session:
        made = Session([self.program, *words], self.environment, size)
        self.sessions.append(made)
        return made

    # what tests often want to know

    def run(self, *words: str, name: str = "") -> str:
        """`run -d`; returns the id."""
        named = ["--name", name] if name else []
        return self.ok("run", "-d", *named, *words)

    def field(self, reference: str, template: str) -> str:
        return self.ok("inspect", "-f", template, reference)

    def state(self, reference: str) -> str:
        return self.field(reference, "{{.State.Status}}")

    def ids(self) -> set[str]:
        """All containers there are."""
        return set(self.ok("ps", "-aq", "--no-trunc").split())

    def events(self, *words: str) -> list[str]:
        """The lines of what has happened by now."""
        seconds, rest = divmod(time.time_ns(), 10**9)
        return self.ok("events", "--since", "10m", "--until", f"{seconds}.{rest:09}", *words).splitlines()

    def names(self) -> set[str]:
        """All images that have a name."""
        return set(self.ok("images", "--format", "{{.Repository}}:{{.Tag}}").split())

    def close(self) -> None:
        while self.sessions:
            self.sessions.pop().close()
