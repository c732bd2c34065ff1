"""Hooks: programs that a configuration has run at points of a container's life (runtime-spec config.md, "POSIX-platform
Hooks"; runtime.md, "Lifecycle").

Each gets the container's state on standard input. Forked without any import, so that the container's own first process
can run them too.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from pier.kernel import process
from pier.runtime.process.reaper import exit_code

OUTPUT_MAX = 64 * 1024
"""What is kept of a hook's output for the error; the rest is read and dropped."""

WAIT_MAX_S = 86400.0
"""Of one wait; poll(2) takes no more milliseconds than an int holds."""

Hook = Mapping[str, Any]
"""OCI: `path`, and maybe `args`, `env`, `timeout` (seconds)."""


class HookError(OSError):
    """A hook that failed, in runc's words."""


def state(spec: Mapping[str, Any], *, container_id: str, pid: int, status: str, bundle: str) -> dict[str, Any]:
    """What a hook reads (runtime.md, "State")."""
    document: dict[str, Any] = {"ociVersion": spec["ociVersion"], "id": container_id, "status": status}
    if pid:
        document["pid"] = pid
    document["bundle"] = bundle
    if spec.get("annotations"):
        document["annotations"] = spec["annotations"]
    return document


def run_all(spec: Mapping[str, Any], kind: str, document: Mapping[str, Any]) -> None:
    """Run the hooks of one kind in their order. Raises HookError at the first that fails."""
    listed: Sequence[Hook] = spec.get("hooks", {}).get(kind, [])
    text = json.dumps(document, separators=(",", ":")).encode() if listed else b""
    for index, hook in enumerate(listed):
        try:
            run(hook, text)
        except OSError as error:
            reason = error if isinstance(error, HookError) else error.strerror or error
            raise HookError(f"error running {kind} hook #{index}: {reason}") from None


def run_poststop(spec: Mapping[str, Any], container_id: str, bundle: str, warn: Callable[[str], None]) -> None:
    """Run the poststop hooks; the failure of one is a warning (config.md, "Poststop")."""
    try:
        run_all(spec, "poststop", state(spec, container_id=container_id, pid=0, status="stopped", bundle=bundle))
    except OSError as error:
        warn(str(error))


def run(hook: Hook, state_text: bytes) -> None:
    """Run one hook to its end. Raises HookError when it exits with another status than 0 or is out of time, OSError."""
    stdin, to_hook = os.pipe2(os.O_CLOEXEC)
    from_hook, output = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _become(hook, stdin, output)
    os.close(stdin)
    os.close(output)
    pidfd = os.pidfd_open(pid)
    try:
        kept = _Conversation(pidfd, to_hook, from_hook, state_text).hold(hook.get("timeout"))
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise HookError(f"{hook['path']}: not done after its timeout of {hook['timeout']} s") from None
    finally:
        os.close(pidfd)
        os.close(from_hook)
    code = exit_code(os.waitpid(pid, 0)[1])
    if code:
        said = kept.decode("utf-8", "replace").strip()
        raise HookError(f"{hook['path']}: exit status {code}" + (f", output: {said}" if said else ""))


def _become(hook: Hook, stdin: int, output: int) -> NoReturn:
    """Be the hook's process, in a session of its own that a timeout ends as a whole."""
    try:
        os.setsid()
        os.dup2(stdin, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        process.close_all_but([])
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        environment = dict(entry.partition("=")[::2] for entry in hook.get("env", []))
        os.execve(hook["path"], hook.get("args") or [hook["path"]], environment)  # noqa: S606
    except OSError as error:
        os.write(2, f"{error.strerror}\n".encode())
    finally:
        os._exit(127)


class _Conversation:
    """Feeding a hook and reading what it says, until it has ended."""

    def __init__(self, pidfd: int, stdin: int, output: int, text: bytes) -> None:
        self._pidfd, self._stdin, self._output = pidfd, stdin, output
        self._text = text
        self._kept = b""

    def hold(self, timeout_s: float | None) -> bytes:
        """Returns the output. Raises TimeoutError."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        os.set_blocking(self._stdin, False)
        os.set_blocking(self._output, False)
        try:
            while not self._turn(deadline):
                pass
        finally:
            self._close_stdin()
        self._read()  # what was written just before the end
        return self._kept

    def _turn(self, deadline: float | None) -> bool:
        """One round of waiting; True when the hook has ended."""
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        poller.register(self._output, select.POLLIN)
        if self._stdin >= 0:
            poller.register(self._stdin, select.POLLOUT)
        ready = {fd for fd, _ in poller.poll(None if left is None else min(left, WAIT_MAX_S) * 1000)}
        if self._stdin in ready:
            self._write()
        if self._output in ready and not self._read() and self._pidfd not in ready:
            # It closed its output and works on: nothing more to read, wait for its end alone.
            select.select([self._pidfd], [], [], None if left is None else min(left, WAIT_MAX_S))
        return self._pidfd in ready

    def _write(self) -> None:
        try:
            self._text = self._text[os.write(self._stdin, self._text) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # it does not want to know
            self._text = b""
        if not self._text:
            self._close_stdin()

    def _close_stdin(self) -> None:
        if self._stdin >= 0:
            os.close(self._stdin)
            self._stdin = -1

    def _read(self) -> bool:
        """Read what there is; False at end of file."""
        try:
            while data := os.read(self._output, 65536):
                self._kept = (self._kept + data)[:OUTPUT_MAX]
        except BlockingIOError:
            return True
        return False
