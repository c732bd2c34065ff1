"""A terminal or a pair of pipes attached to a container or an exec, from the first byte to the restored terminal."""

from __future__ import annotations

import os

from pier.cli.errors import ApiError, Failure
from pier.cli.jsontext import loads
from pier.cli.stream import Session, Signals, Sink, forwarded_signals, signal_name
from pier.cli.tty import DETACH_KEYS, DetachKeys, Raw, parse_detach_keys, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pier.cli.http import Client, Exchange, Response

_SIGWINCH, _SIGTERM, _SIGINT, _SIGHUP, _SIGQUIT = 28, 15, 2, 1, 3
_ENDING = (_SIGTERM, _SIGINT, _SIGHUP, _SIGQUIT)


class Target:
    """What is attached: `path` is its API path (`/containers/ID` or `/exec/ID`)."""

    __slots__ = ("detach_keys", "path", "proxy_signals", "stdin", "tty")

    def __init__(self, path: str, *, tty: bool, stdin: bool, proxy_signals: bool, detach_keys: str = "") -> None:
        self.path = path
        self.tty = tty
        self.stdin = stdin
        self.proxy_signals = proxy_signals
        self.detach_keys = detach_keys


class Detached(Exception):
    """The detach keys were typed: the container goes on without us."""


class Attachment:
    """From the answer to an attach request to the end of the stream.

    Made before the container is started, so that no byte of its output and no signal in between is lost.
    """

    def __init__(self, client: Client, response: Response, target: Target) -> None:
        self._client = client
        self._target = target
        self._sock, self._first = response.upgraded()
        multiplexed = response.multiplexed or ("content-type" not in response.headers and not target.tty)
        self._sink = Sink(multiplexed=multiplexed and not target.tty)
        numbers = forwarded_signals() if target.proxy_signals else list(_ENDING)
        if target.tty and size():
            numbers.append(_SIGWINCH)
        self._signals = Signals(numbers)

    def pump(self) -> None:
        """Until the end of the stream. Detached after the detach keys, Failure when a signal not proxied ended it."""
        target = self._target
        raw_fd = 0 if target.tty and target.stdin and os.isatty(0) else None
        keys = DetachKeys(_sequence(target.detach_keys)) if raw_fd is not None else None
        session = Session(
            self._sock,
            self._sink,
            stdin=0 if target.stdin else None,
            detach_keys=keys,
            signals=self._signals,
            on_signal=self._signal,
        )
        try:
            if raw_fd is None:
                session.run(self._first)
            else:
                with Raw(raw_fd):
                    session.run(self._first)
        finally:
            self.close()
        if self._sink.daemon_error:
            raise Failure(f"Error grabbing logs: {self._sink.daemon_error.decode('utf-8', 'replace')}")
        if session.interrupted_by:
            raise Failure(status=128 + session.interrupted_by)
        if session.detached:
            raise Detached

    def close(self) -> None:
        self._signals.close()
        self._sock.close()

    def resize(self) -> None:
        """Tell the container how large the terminal is."""
        if self._target.tty and (now := size()):
            rows, columns = now
            self._quietly(f"{self._target.path}/resize", h=rows, w=columns)

    def redraw(self) -> None:
        """Have a program that draws a screen draw it again: a size that is off by one, then the right one."""
        if self._target.tty and (now := size()):
            rows, columns = now
            self._quietly(f"{self._target.path}/resize", h=rows + 1, w=columns + 1)
            self.resize()

    def _signal(self, number: int) -> bool:
        """Hand one signal on; False when it is meant for us and ends the session."""
        if number == _SIGWINCH:
            self.resize()
            return True
        if not self._target.proxy_signals:
            return False
        self._quietly(f"{self._target.path}/kill", signal=signal_name(number))
        return True

    def _quietly(self, path: str, **query: object) -> None:
        """A request whose failure changes nothing: the container may just have ended."""
        try:
            self._client.post(path, **query)
        except ApiError:
            return


def _sequence(text: str) -> bytes:
    """The detach keys' bytes; the daemon has refused wrong ones before, so those become the default here."""
    try:
        return parse_detach_keys(text or DETACH_KEYS)
    except ValueError:
        return parse_detach_keys(DETACH_KEYS)


def require_tty(*, stdin: bool, tty: bool) -> None:
    """Refuse -i together with -t when stdin is no terminal (trap 12)."""
    if stdin and tty and not os.isatty(0):
        raise Failure(
            "the input device is not a TTY\n"
            "(stdin is a pipe or a file here: drop -t to send it to the program, or -i to run without input)"
        )


def attach(client: Client, target: Target, streams: list[str], *, logs: bool = False) -> Attachment:
    """POST attach; Failure in Docker's words when the daemon does not upgrade the connection."""
    return Attachment(client, begin_attach(client, target, streams, logs=logs).response(), target)


def begin_attach(client: Client, target: Target, streams: list[str], *, logs: bool = False) -> Exchange:
    """The request alone; its answer makes an `Attachment`."""
    query = {
        "detachKeys": target.detach_keys,
        "logs": logs,
        "stream": True,
        "stdin": "stdin" in streams,
        "stdout": "stdout" in streams,
        "stderr": "stderr" in streams,
    }
    return client.begin("POST", f"{target.path}/attach", query=query, upgrade=True)


def upgrade(client: Client, path: str, query: dict[str, object], body: object = None) -> Response:
    """A POST that turns into a raw stream."""
    return client.request("POST", path, query=query, body=body, upgrade=True)


def wait_status(response: Response) -> int:
    """The exit status from the answer to a wait request. Failure when the daemon could not tell it."""
    # The status is known with the first line; the end of the body would be one more turn of the daemon's.
    answer = loads(next(response.lines(), b"{}"))
    if error := (answer.get("Error") or {}).get("Message"):
        raise Failure(f"Error waiting for container: {error}", 125)
    return int(answer.get("StatusCode", 0))
