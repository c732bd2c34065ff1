"""Call an OCI runtime's binary for one container (the command line that runc, crun, youki, runsc and Pier's own share).

For monitors and what they fork: standard library only. The binary brings its own defences; what is kept from it here
is every descriptor but the three streams, the daemon's environment, and time without end.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
from typing import NamedTuple, NoReturn

from pier.kernel import process
from pier.kernel.paths import closing
from pier.runtime.process.failure import NOT_EXECUTABLE, NOT_FOUND, OTHER, ProgramError
from pier.runtime.process.init import Stdio, reset_signals

CALL_S = 50.0
"""How long a runtime may take for one verb: its monitor waits longer for two, so that the runtime is named."""
FAREWELL_S = 20.0
"""How long it may take to delete a container: the end of it is waited for."""
LOG_MAX = 64 * 1024
ENVIRONMENT = {"LANG": "C.UTF-8", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
BEGINNINGS = ("OCI runtime ", "failed to retrieve OCI runtime container pid: ")
"""How the sentence of a RuntimeFailed begins."""

_CODES = (
    (NOT_FOUND, ("executable file not found", "no such file or directory")),
    (NOT_EXECUTABLE, ("permission denied", "is a directory")),
)
"""Docker knows a program that cannot be executed by the runtime's words."""


class RuntimeFailed(ProgramError):
    """The runtime did not do what it was called for: Docker's sentence, and its exit code for that."""

    def __init__(self, text: str) -> None:
        super().__init__(text, exit_code_of(text))


def exit_code_of(text: str) -> int:
    """Docker's exit code for a container whose start failed with these words."""
    lowered = text.lower()
    return next((code for code, phrases in _CODES if any(phrase in lowered for phrase in phrases)), OTHER)


class OciRuntime(NamedTuple):
    """A runtime's binary, and the container it is called for."""

    command: list[str]
    """Absolute path, and the arguments that come before all others."""
    folder: str
    """The container's bundle: `config.json`, `rootfs`, and the runtime's own state in `state`."""
    id: str

    @property
    def state(self) -> str:
        return f"{self.folder}/state"

    def arguments(self, verb: str, *rest: str, log: str = "/dev/null") -> list[str]:
        """The whole command line of one verb."""
        return [*self.command, "--root", self.state, "--log", log, "--log-format", "json", verb, *rest]

    def call(self, verb: str, *rest: str, stdio: Stdio | None = None, timeout_s: float = CALL_S) -> None:
        """Run one verb to its end; its streams are `stdio`, or nothing. Raises RuntimeFailed."""
        log = f"{self.folder}/{verb}-{os.getpid()}.log"
        try:
            how = self._run(self.arguments(verb, *rest, log=log), stdio, timeout_s)
            if how:
                raise RuntimeFailed(f"OCI runtime {verb} failed: {_reason(log, how)}")
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(log)

    def _run(self, argv: list[str], stdio: Stdio | None, timeout_s: float) -> str:
        """Why the call failed; empty where it did not."""
        with contextlib.ExitStack() as stack:
            if stdio is None or stdio.stdin < 0:
                null = stack.enter_context(closing(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)))
                stdio = Stdio(null, null, null)
            told, telling = os.pipe2(os.O_CLOEXEC)
            pid = os.fork()
            if pid == 0:
                _become(argv, stdio, telling)
            os.close(telling)
            with closing(told):
                number = os.read(told, 16)
        if number:
            os.waitpid(pid, 0)
            return f"fork/exec {argv[0]}: {os.strerror(int(number)).lower()}"
        return _wait(pid, argv[0], timeout_s)

    def clear(self, timeout_s: float = FAREWELL_S) -> None:
        """Have the runtime forget the container, killed if it still runs, and remove the folder. Raises RuntimeFailed.

        The folder stays where the runtime fails: what it says there is the only way to what it may have left.
        """
        if os.path.isdir(self.state) and os.listdir(self.state):
            self.call("delete", "--force", self.id, timeout_s=timeout_s)
        remove_tree(self.folder)


def _become(argv: list[str], stdio: Stdio, telling: int) -> NoReturn:
    """Be the runtime: it dies with who called it, and leads a process group that can be killed as one."""
    try:
        process.close_all_but([telling, *stdio])
        process.prctl(process.PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        os.umask(0o022)
        reset_signals()
        for number, fd in enumerate(stdio):
            os.dup2(fd, number, inheritable=True)
        os.execve(argv[0], argv, ENVIRONMENT)  # noqa: S606
    except OSError as error:
        os.write(telling, str(error.errno).encode())
    finally:
        os._exit(127)


def _wait(pid: int, path: str, timeout_s: float) -> str:
    """Bury the process, killed if it takes too long; how it failed, empty where it did not."""
    poller = select.poll()
    with closing(os.pidfd_open(pid)) as pidfd:
        poller.register(pidfd, select.POLLIN)
        in_time = bool(poller.poll(timeout_s * 1000))
        if not in_time:
            os.killpg(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if not in_time:
        return f"{path} did not answer in {timeout_s:.0f} s"
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return ""
    ended = f"exit status {code}" if code > 0 else f"signal {-code}"
    return f"{path} did not terminate successfully: {ended}"


def _reason(log: str, how: str) -> str:
    """The runtime's own last word, or how it ended, in containerd's."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_MAX))
            return last_error(file.read(LOG_MAX)) or how
    except OSError as error:
        problem = (error.strerror or "").lower()
        return f"unable to retrieve OCI runtime error (open {log}: {problem}): {how}"


def last_error(log: bytes) -> str:
    """The message of the last entry of level error in a log of JSON lines; empty without one."""
    found = ""
    for line in log.split(b"\n"):
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and entry.get("level") == "error" and isinstance(entry.get("msg"), str):
                found = entry["msg"]
    return found


def remove_tree(path: str) -> None:
    """Remove a folder of the monitor's own and all below it; links are not followed. Missing ones are no error."""
    for folder, folders, files in os.walk(path, topdown=False):
        for name in (*files, *(name for name in folders if os.path.islink(f"{folder}/{name}"))):
            os.unlink(f"{folder}/{name}")
        os.rmdir(folder)
