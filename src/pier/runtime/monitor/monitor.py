"""One container's parent: keeps its streams, log and exit status, serves its clients, outlives the daemon.

Forked from the zygote, single-threaded, never executes another program (where another OCI runtime makes the container,
what it forks does: `foreign.py`). Work that touches much memory is left to its children or to the end: what a monitor
does not touch it shares with all others.

Its control socket (`monitor.sock` in the container's folder, SOCK_SEQPACKET, root only) takes `Monitor.OPERATIONS` and
tells every connection when the container or an exec ends. Before anyone is told, the log is complete, the exit file
written, the cgroup gone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from pier.errors import PierError
from pier.kernel import namespaces, process
from pier.kernel.cgroup_layout import detect
from pier.kernel.cgroups import Cgroup
from pier.runtime import wire
from pier.runtime.group import group_at
from pier.runtime.log.logfile import Log
from pier.runtime.monitor.child import Child
from pier.runtime.monitor.compressor import Compressor
from pier.runtime.monitor.errands import Errands
from pier.runtime.monitor.execs import DRAIN_S, Client, Execs
from pier.runtime.monitor.foreign import ForeignMaker
from pier.runtime.monitor.maker import Maker, OwnMaker
from pier.runtime.monitor.oci_call import RuntimeFailed
from pier.runtime.monitor.oom import OomWatch
from pier.runtime.monitor.parking import Parked, ParkedMaker
from pier.runtime.monitor.poll import HANGUP, READ, Poller
from pier.runtime.monitor.starting import Starting, close_fds, make_stdio
from pier.runtime.monitor.streams import Streams
from pier.runtime.monitor.trace import describe as describe_error
from pier.runtime.process.init import Report
from pier.runtime.process.reaper import exit_code
from pier.runtime.request import ExecRequest, ExitRecord, LogFile, Supervision

SOCKET_NAME = "monitor.sock"
LINGER_S = 10.0
"""How long attached clients may take to read what they are owed once the container has ended."""
CONNECTIONS_MAX = 64
RESOLVER_SOCKETS = 2


class StartError(Exception):
    """The container did not start: the sentence for the user and Docker's exit code for it."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.exit_code = code


class Attached(NamedTuple):
    """A client that is there before the program runs."""

    sock: socket.socket
    stdin: bool
    stdout: bool
    stderr: bool


class Order(NamedTuple):
    """What the daemon hands to the zygote for one container."""

    supervision: Supervision
    request_fd: int
    """The StartRequest, `wire.sealed`."""
    control: socket.socket
    attached: list[Attached]

    @classmethod
    def decode(cls, packet: wire.Packet) -> Order:
        """Raises KeyError, IndexError, TypeError, ValueError, OSError for what is no order."""
        message, (control, request, *clients) = wire.decode(packet)
        supervision, ends = message["order"]
        attached = [Attached(socket.socket(fileno=fd), *wants) for fd, wants in zip(clients, ends, strict=True)]
        return cls(Supervision.from_list(supervision), request, socket.socket(fileno=control), attached)


class Monitor:
    """The state of one running container."""

    def __init__(self, order: Order, cgroup: Cgroup, maker: Maker) -> None:
        self._supervision, self._request_fd, control, attached = order
        self._cgroup = cgroup
        self._maker = maker
        self._poller = Poller()
        self._controls: dict[int, socket.socket] = {control.fileno(): control}
        self._attached = attached
        self._execs = Execs(self._poller, maker, self._tell, self._broadcast)
        self._errands = Errands(self._poller, maker)
        self._resolver: list[int] = []
        """The sockets of the container's name server, UDP and TCP, where it has one: kept for the daemons to come."""
        self._oom = OomWatch(self._poller, cgroup, self._tell_oom)
        self._ooms = 0
        self._listener: socket.socket | None = None
        self._init: Child | None = None
        self._warnings: list[str] = []
        self._held_mounts: int | None = None
        self._started_at_ns = 0
        self._finished_at_ns = 0

    # start

    def run(self) -> None:
        """Start the container, serve it until it has ended, leave nothing behind."""
        (control,) = self._controls.values()
        try:
            self.start()
        except (StartError, PierError, OSError, ValueError, KeyError, struct.error) as error:
            self._abandon()
            code = error.exit_code if isinstance(error, StartError) else 128
            text = f"malformed request: missing {error}" if isinstance(error, KeyError) else str(error)
            with contextlib.suppress(OSError):
                wire.send(control, {"error": text, "exit_code": code})
            return
        self.serve()
        self._finish()

    def serve(self) -> None:
        """Tell the daemon, and serve it and every other client until the container's first process has ended."""
        for control in list(self._controls.values()):
            self._watch_control(control)
            self._introduce(control)
        self._oom.open()
        while not self._container_ended():
            self._round(None)

    def start(self) -> None:
        """Raises StartError, and what else `run` catches."""
        supervision = self._supervision
        terminal = supervision.terminal
        self._listen()
        inner, outer = make_stdio(terminal=terminal, open_stdin=supervision.open_stdin)
        mine, theirs = wire.pair()
        pid, goes_on = self._maker.first(self._request_fd, Report(theirs), inner)
        theirs.close()
        close_fds((*inner, self._request_fd))
        starting = Starting(pid, mine, outer, terminal=terminal, goes_on=goes_on)
        self._await_start(starting)
        self._maker.settled({starting.pid})
        self._resolver = starting.resolver
        self._started_at_ns = time.time_ns()
        self._held_mounts = _hold_mounts(starting.pid)
        log = self._open_log(supervision.log) if supervision.log is not None else None
        self._init = Child(starting, self._streams(starting, log, close_stdin=supervision.stdin_once and not terminal))
        for client in self._attached:
            self._init.streams.attach(client.sock, stdin=client.stdin, stdout=client.stdout, stderr=client.stderr)
        self._attached = []
        self._watch_child(self._init)

    def _open_log(self, kept: LogFile) -> Log:
        return Log(kept, Compressor(self._poller, kept.path, kept.max_files) if kept.compress else None)

    def _await_start(self, starting: Starting) -> None:
        """Wait until the first process is the program. Raises StartError with what it reported."""
        while not starting.done:
            starting.receive()
            self._warnings += starting.take_warnings()
        starting.report.close()
        if starting.error is not None:
            starting.abandon()
            starting.bury()
            raise StartError(*starting.error)

    def _abandon(self) -> None:
        """Undo a start that failed."""
        with contextlib.suppress(OSError, PierError):
            self._cgroup.kill()
        self._forget()
        self._unlisten()

    def _forget(self) -> None:
        """Have the container's runtime leave nothing of it, and remove its cgroup."""
        try:
            self._maker.clear()
        except (RuntimeFailed, OSError) as error:
            self._note(f"{error}\n")
        with contextlib.suppress(OSError, PierError):
            self._cgroup.remove()

    def _streams(self, starting: Starting, log: Log | None, *, close_stdin: bool) -> Streams:
        return Streams(
            self._poller,
            outputs=starting.outputs,
            stdin=starting.stdin,
            terminal=starting.terminal,
            close_stdin_with_client=close_stdin,
            log=log,
            on_end=lambda: None,
        )

    def _watch_child(self, child: Child) -> None:
        self._poller.watch(child.pidfd, READ, lambda events: self._reap(child))

    def _reap(self, child: Child) -> None:
        _, status = os.waitpid(child.pid, 0)
        child.exit_code = exit_code(status)
        child.finished_at_ns = time.time_ns()
        child.streams.drain()
        self._poller.forget(child.pidfd)

    # service

    def _round(self, timeout_s: float | None) -> None:
        """One turn of the loop. Nothing a client sends, and no bug in serving it, may cost the container its parent."""
        try:
            self._poller.run_once(timeout_s)
        except Exception as error:
            self._note(describe_error(error))

    def _note(self, text: str) -> None:
        with (
            contextlib.suppress(OSError),
            open(f"{self._supervision.exec_dir}/monitor.err", "a", encoding="utf-8") as file,
        ):
            file.write(text)

    def _container_ended(self) -> bool:
        return self._init is not None and self._init.exit_code is not None

    def _listen(self) -> None:
        """Listen in the container's folder, reached by descriptor: its path may be longer than sun_path holds."""
        folder = os.open(self._supervision.exec_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(SOCKET_NAME, dir_fd=folder)  # of a monitor that was killed
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            old = os.umask(0o177)
            try:
                listener.bind(f"/proc/self/fd/{folder}/{SOCKET_NAME}")
            finally:
                os.umask(old)
            listener.listen(16)
            listener.setblocking(False)
        finally:
            os.close(folder)
        self._listener = listener
        self._poller.watch(listener.fileno(), READ, lambda events: self._accept())

    def _unlisten(self) -> None:
        if self._listener is not None:
            self._poller.forget(self._listener.fileno())
            self._listener.close()
            self._listener = None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self._supervision.exec_dir}/{SOCKET_NAME}")

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        _, uid, _ = struct.unpack("3i", credentials)
        if uid != 0 or len(self._controls) >= CONNECTIONS_MAX:
            sock.close()
            return
        self._controls[sock.fileno()] = sock
        self._watch_control(sock)
        self._introduce(sock)

    def _introduce(self, sock: socket.socket) -> None:
        if self._tell(sock, {"started": self._describe()}, self._resolver):
            self._execs.all_told()

    def _describe(self) -> dict[str, Any]:
        assert self._init is not None
        return {
            "id": self._supervision.id,
            "pid": self._init.pid,
            "started_at_ns": self._started_at_ns,
            "cgroup": self._supervision.cgroup_path,
            "warnings": self._warnings,
            "execs": self._execs.describe(),
            "oom": self._ooms,
            "oci_runtime": self._maker.runtime,
        }

    def _watch_control(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._poller.watch(sock.fileno(), READ, lambda events: self._control_ready(sock, events))

    def _control_ready(self, sock: socket.socket, events: int) -> None:
        try:
            received = wire.receive(sock) if events & READ else None
        except BlockingIOError:
            return
        except (OSError, ValueError) as error:
            self._note(f"control: {error}\n")
            received = None
        if received is None or (events & HANGUP and not events & READ):
            self._drop_control(sock)
            return
        message, fds = received
        reply: dict[str, Any] | None
        try:
            operation = self.OPERATIONS[message.get("op", "")]
            reply = operation(self, sock, message, fds)
        except KeyError as error:
            reply = {"error": f"monitor: unknown operation or missing field {error}"}
        except (OSError, ValueError, TypeError) as error:
            reply = {"error": str(error)}
        finally:
            close_fds(fds)
        if reply is not None:
            self._tell(sock, {"id": message.get("id"), **reply})

    def _tell(self, sock: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> bool:
        """Send one message; a daemon that does not read its replies is dropped (False), it can connect again."""
        try:
            wire.send(sock, message, fds)
        except OSError:
            self._drop_control(sock)
            return False
        return True

    def _drop_control(self, sock: socket.socket) -> None:
        if self._controls.pop(sock.fileno(), None) is not None:
            self._poller.forget(sock.fileno())
            sock.close()

    def _child(self, message: dict[str, Any]) -> Child:
        exec_id = message.get("exec_id")
        if exec_id is None:
            assert self._init is not None
            return self._init
        return self._execs.running(exec_id)

    def _op_attach(self, sock: socket.socket, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        client = socket.socket(fileno=os.dup(fds[0]))
        wants = {name: bool(message.get(name)) for name in ("stdin", "stdout", "stderr")}
        self._child(message).streams.attach(client, **wants)
        return {"ok": True, "at_ns": time.time_ns()}

    def _op_resize(self, sock: socket.socket, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        child = self._child(message)
        terminal = child.streams.terminal_fd
        if terminal is None:
            raise ValueError("the process has no terminal")
        process.set_window_size(terminal, int(message["height"]), int(message["width"]))
        return {"ok": True}

    def _op_signal(self, sock: socket.socket, message: dict[str, Any], fds: list[int]) -> dict[str, Any] | None:
        child, signum = self._child(message), int(message["signum"])
        if child is not self._init or self._maker.runtime is None:
            namespaces.pidfd_send_signal(child.pidfd, signum)
            return {"ok": True}

        def sent(error: str) -> None:
            # A runtime that is gone, or stuck, must not keep its containers from being killed.
            if error and signum == signal.SIGKILL:
                namespaces.pidfd_send_signal(child.pidfd, signum)
                error = ""
            self._answer(sock, message, error)

        self._errands.run("kill", self._supervision.id, str(signum), then=sent)
        return None

    def _op_pause(self, sock: socket.socket, message: dict[str, Any], fds: list[int]) -> None:
        self._errands.run("pause", self._supervision.id, then=lambda error: self._answer(sock, message, error))

    def _op_resume(self, sock: socket.socket, message: dict[str, Any], fds: list[int]) -> None:
        self._errands.run("resume", self._supervision.id, then=lambda error: self._answer(sock, message, error))

    def _op_update(self, sock: socket.socket, message: dict[str, Any], fds: list[int]) -> None:
        self._errands.run(
            "update",
            self._supervision.id,
            then=lambda error: self._answer(sock, message, error),
            resources=message["resources"],
        )

    def _op_resolver(self, sock: socket.socket, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Keep the sockets of a name server that the container has got meanwhile."""
        if len(fds) != RESOLVER_SOCKETS:
            raise ValueError(f"a name server has {RESOLVER_SOCKETS} sockets, not {len(fds)}")
        close_fds(self._resolver)
        self._resolver = [os.dup(fd) for fd in fds]
        return {"ok": True}

    def _answer(self, sock: socket.socket, message: dict[str, Any], error: str) -> None:
        self._tell(sock, {"id": message.get("id"), **({"error": error} if error else {"ok": True})})

    def _op_exec(self, sock: socket.socket, message: dict[str, Any], fds: list[int]) -> None:
        """The reply follows when the new process is the program or has failed."""
        assert self._init is not None
        self._execs.start(ExecRequest(**message["request"]), self._init.pid, Client(sock, message, fds))

    def _op_prepare(self, sock: socket.socket, message: dict[str, Any], fds: list[int]) -> None:
        """There is no reply: where nothing can be prepared, the start says why."""
        assert self._init is not None
        with contextlib.suppress(OSError):
            self._execs.prepare(ExecRequest(**message["request"]), self._init.pid)

    OPERATIONS = {  # noqa: RUF012
        "attach": _op_attach,
        "resize": _op_resize,
        "signal": _op_signal,
        "exec": _op_exec,
        "prepare": _op_prepare,
        "pause": _op_pause,
        "resume": _op_resume,
        "update": _op_update,
        "resolver": _op_resolver,
    }

    def _tell_oom(self) -> None:
        self._ooms += 1
        self._broadcast({"oom": self._ooms})

    def _broadcast(self, message: dict[str, Any]) -> bool:
        """Whether anyone has heard it."""
        heard = [self._tell(sock, message) for sock in list(self._controls.values())]
        return any(heard)

    # end

    def hang_up(self) -> None:
        """Let go of what this process holds of a container that has ended."""
        assert self._init is not None
        while self._init.streams.open:
            self._round(None)
        self._init.streams.finish()
        self._oom.close()
        self._release_mounts()
        os.close(self._init.pidfd)
        self._unlisten()
        for control in list(self._controls.values()):
            self._drop_control(control)
        self._poller.close()

    def _release_mounts(self) -> None:
        if self._held_mounts is not None:
            os.close(self._held_mounts)
            self._held_mounts = None

    def _finish(self) -> None:
        init = self._init
        assert init is not None
        killed_last = self._oom.count()
        self._oom.close()
        self._cgroup.kill()
        deadline = time.monotonic() + DRAIN_S
        while self._work_is_left(init) and (left := deadline - time.monotonic()) > 0:
            self._round(left)
        init.streams.finish()
        close_fds(self._resolver)  # the network namespace goes with the last socket in it
        self._resolver = []
        self._forget()
        record = ExitRecord(init.exit_code or 0, init.finished_at_ns, killed_last or self._ooms > 0)
        try:
            write_exit_file(self._supervision.exit_file, record)
        except OSError as error:  # a full disk: a daemon that runs is told all the same
            self._note(f"exit file: {error}\n")
        self._unlisten()  # a new daemon that cannot connect finds the file
        if killed_last:
            self._tell_oom()
        self._broadcast({"ended": record.to_dict()})
        self._release_mounts()
        deadline = time.monotonic() + LINGER_S
        while init.streams.clients and (left := deadline - time.monotonic()) > 0:
            self._round(left)

    def _work_is_left(self, init: Child) -> bool:
        return init.streams.open or self._execs.any_running or self._errands.any_running


def _hold_mounts(pid: int) -> int | None:
    """A descriptor of the process's mount namespace: its mounts go when that is closed, not before the process can.

    To unmount them takes milliseconds, which nobody who waits for the exit code need wait for.
    """
    try:
        return os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # it has ended already
        return None


def write_exit_file(path: str, record: ExitRecord) -> None:
    """Write the record so that a reader sees all of it or none."""
    temporary = f"{path}.new"
    with open(temporary, "wb") as file:
        file.write(record.to_json())
    os.rename(temporary, path)


def make_maker(supervision: Supervision, cgroup: Cgroup, parked: Parked | None) -> Maker:
    """Another runtime's way where one was asked for, else Pier's own, with the parked process if it will do."""
    if parked is not None and supervision.ordinary and not supervision.oci_runtime:
        return ParkedMaker(cgroup, supervision.cgroup_path, parked)
    if parked is not None:
        parked.give_up()
    return ForeignMaker(supervision) if supervision.oci_runtime else OwnMaker(cgroup, supervision.pid_namespace)


def main(order: Order, parked: Parked | None) -> NoReturn:
    """Be the monitor of one container; the process ends here."""
    try:
        os.setsid()
        process.set_name("pier-monitor")
        cgroup = group_at(detect(), order.supervision.cgroup_path)
        Monitor(order, cgroup, make_maker(order.supervision, cgroup, parked)).run()
    except BaseException as error:
        with (
            contextlib.suppress(OSError),
            open(f"{order.supervision.exec_dir}/monitor.err", "a", encoding="utf-8") as file,
        ):
            file.write(describe_error(error))
        os._exit(1)
    os._exit(0)
