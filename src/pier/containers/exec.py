"""More processes in a running container (`docker exec`): made, started, watched, forgotten a while after the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import dataclass, field
from typing import Any

import msgspec

from pier.containers import links, names, spec, spec_resources, spec_security
from pier.containers.attach import Attachment, make_ends
from pier.containers.start import NotRunning, Restarting
from pier.containers.validate import check_user
from pier.containers.world import Container, World, log
from pier.errors import Conflict, InvalidParameter, NotFound, PierError
from pier.kernel.paths import closing
from pier.model.exec import ExecConfig, ExecInspectResponse, ProcessConfig
from pier.runtime.client import ExecFailed, Monitor, MonitorLost
from pier.runtime.process.users import UserError, identify
from pier.runtime.request import ExecRequest

KEPT_S = 300.0
"""How long an exec that has ended can be inspected, as with Docker."""
SWEEP_S = 10.0
"""So often, at most, those that have been kept long enough are looked for."""


class NoSuchExec(NotFound):
    """No such exec instance: {id}"""


class ExecPaused(Conflict):
    """Container {id} is paused, unpause the container before exec"""


class ExecStarted(Conflict):
    """Error: Exec command {id} is already running"""


class NoSuchUser(PierError):
    """{reason}"""


class ExecOver(Conflict):
    """Error: Exec command {id} has already run"""


@dataclass(eq=False, slots=True)
class Exec:
    """One of them. `exit_code` is None until it has ended; the times are monotonic seconds."""

    id: str
    container: Container
    config: ExecConfig
    running: bool = False
    pid: int = 0
    exit_code: int | None = None
    ended_s: float = field(default=0.0)
    probe: bool = False
    """Of a health check: nobody attaches to it, and it is forgotten when it has ended."""
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_new(self) -> bool:
        """Whether it has not been started."""
        return not self.running and self.exit_code is None

    @property
    def command(self) -> str:
        """As events tell it."""
        return " ".join(self.config.cmd or ())


class Note(ExecConfig):
    """What a monitor keeps of an exec for the next daemon."""

    probe: bool = False


class Execs:
    """All execs that the daemon knows of."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._execs: dict[str, Exec] = {}
        self._swept_s = 0.0

    async def create(self, container: Container, config: ExecConfig, *, probe: bool = False) -> str:
        """Remember what is to be run; returns its id. Raises NotRunning, ExecPaused, InvalidParameter, NoSuchUser."""
        _require_running(container)
        if not config.cmd or not config.cmd[0]:
            raise InvalidParameter("No exec command specified")
        if any("\0" in word for word in (*config.cmd, *(config.env or ()), config.working_dir)):
            raise InvalidParameter("an argument of the command holds a NUL byte")
        if config.working_dir and not config.working_dir.startswith("/"):
            raise InvalidParameter("OCI runtime exec failed: exec failed: Cwd must be an absolute path")
        check_user(config.user)
        if config.user and not config.user[0].isdigit():
            await asyncio.to_thread(_require_user, container, config.user)
        self._forget_old()
        exec_ = Exec(names.make_id(), container, config, probe=probe)
        self._execs[exec_.id] = exec_
        container.execs.add(exec_.id)
        self._publish(exec_, f"exec_create: {exec_.command}")
        return exec_.id

    def prepare(self, id: str) -> None:
        """Have the monitor begin with what its client, who has the id now, will ask to be started next."""
        exec_ = self._execs.get(id)
        if exec_ is not None:
            self._world.tasks.start(self._prepare(exec_), f"prepare {id[:12]}")

    async def _prepare(self, exec_: Exec) -> None:
        try:
            request = await self._request(exec_, None)
        except (PierError, OSError):  # the start will say it
            return
        if exec_.container.monitor is not None and exec_.is_new:
            exec_.container.monitor.prepare(request)

    def get(self, id: str) -> Exec:
        """Raises NoSuchExec."""
        exec_ = self._execs.get(id)
        if exec_ is None:
            raise NoSuchExec(id=id)
        return exec_

    async def start(
        self, id: str, *, detach: bool, tty: bool, console_size: tuple[int, int] | None
    ) -> Attachment | None:
        """Run it; the client's end of its streams, None when detached. Raises ExecFailed, Conflict, NoSuchExec.

        Whether it has a terminal was decided when it was made; `tty` is what the client believes.
        """
        exec_ = self.get(id)
        if exec_.exit_code is not None:
            raise ExecOver(id=id)
        if exec_.running:
            raise ExecStarted(id=id)
        monitor = _require_running(exec_.container)
        config = exec_.config
        request = await self._request(exec_, console_size)
        sock, end = None, None
        if not detach:
            sock, end = make_ends(stdin=config.attach_stdin, stdout=config.attach_stdout, stderr=config.attach_stderr)
        exec_.running = True
        self._publish(exec_, f"exec_start: {exec_.command}")
        try:
            exec_.pid = await monitor.exec(request, end)
        except BaseException as error:
            if sock is not None:
                sock.close()
            self._end(exec_, error.exit_code if isinstance(error, ExecFailed) else 126)
            if isinstance(error, MonitorLost):
                raise NotRunning(id=exec_.container.id) from error
            raise
        finally:
            if end is not None:
                os.close(end.fd)
        self._world.tasks.start(self._watch(exec_), f"exec {id[:12]}")
        return None if sock is None else Attachment(sock, config.tty)

    def find_again(self, container: Container) -> None:
        """Remember the execs that an earlier daemon had started in a container whose monitor was found again."""
        monitor = container.monitor
        if monitor is None:
            return
        for found in monitor.execs_found:
            try:
                config = msgspec.json.decode(found.note, type=Note)
            except msgspec.MsgspecError as error:
                log.error("exec %s of container %s cannot be read: %s", found.id[:12], container.id[:12], error)
                continue
            exec_ = Exec(found.id, container, config, running=found.ended is None, pid=found.pid, probe=config.probe)
            self._execs[found.id] = exec_
            if found.ended is None:
                container.execs.add(found.id)
                self._world.tasks.start(self._watch(exec_), f"exec {found.id[:12]}")
                if exec_.probe:  # whoever waited for its answer is gone
                    self._world.tasks.start(self._end_probe(exec_), f"probe {found.id[:12]}")
            else:
                self._mark_ended(exec_, found.ended.exit_code)
                if not found.told:
                    self._publish(exec_, "exec_die", exitCode=str(found.ended.exit_code))

    async def _request(self, exec_: Exec, console_size: tuple[int, int] | None) -> ExecRequest:
        record, config = exec_.container.record, exec_.config
        process = exec_process(exec_, console_size, self._world)
        bounding = process["capabilities"]["bounding"]
        filter_path = None if config.privileged else await self._world.seccomp.path_for(record, bounding)
        return ExecRequest(
            exec_id=exec_.id,
            process=process,
            user=config.user or record.config.user or "0",
            group_add=list(record.host_config.group_add or ()),
            open_stdin=config.attach_stdin,
            seccomp_bpf=filter_path,
            note=_note(exec_),
            remapped_root=list(record.id_map.root) if record.id_map is not None else None,
        )

    async def _watch(self, exec_: Exec) -> None:
        monitor = exec_.container.monitor
        try:
            code = 137 if monitor is None else (await monitor.wait_exec(exec_.id)).exit_code
        except (KeyError, MonitorLost):
            code = 137
        self._end(exec_, code)

    def _mark_ended(self, exec_: Exec, exit_code: int) -> None:
        exec_.running, exec_.exit_code, exec_.pid = False, exit_code, 0
        exec_.ended_s = time.monotonic()
        exec_.container.execs.discard(exec_.id)
        exec_.over.set()

    async def ended(self, id: str) -> int:
        """Wait for its end; the exit code. Raises NoSuchExec."""
        exec_ = self.get(id)
        await exec_.over.wait()
        assert exec_.exit_code is not None
        return exec_.exit_code

    async def signal(self, id: str, number: int) -> None:
        """Send a signal to its process; nothing where it does not run. Raises NoSuchExec, MonitorError, MonitorLost."""
        exec_ = self.get(id)
        if exec_.running and exec_.pid and exec_.container.monitor is not None:
            await exec_.container.monitor.signal(number, exec_id=id)

    def forget(self, id: str) -> None:
        """Take it out of memory, whether or not it still runs."""
        exec_ = self._execs.pop(id, None)
        if exec_ is not None:
            exec_.container.execs.discard(id)

    async def _end_probe(self, exec_: Exec) -> None:
        with contextlib.suppress(PierError):
            await self.signal(exec_.id, signal.SIGKILL)
        await exec_.over.wait()
        self.forget(exec_.id)

    def _end(self, exec_: Exec, exit_code: int) -> None:
        self._mark_ended(exec_, exit_code)
        self._publish(exec_, "exec_die", exitCode=str(exit_code))

    def inspect(self, id: str) -> ExecInspectResponse:
        """Raises NoSuchExec."""
        exec_ = self.get(id)
        config = exec_.config
        command = list(config.cmd or ())
        return ExecInspectResponse(
            id=exec_.id,
            running=exec_.running,
            exit_code=exec_.exit_code,
            process_config=ProcessConfig(
                tty=config.tty,
                entrypoint=command[0],
                arguments=command[1:],
                privileged=config.privileged,
                user=config.user,
            ),
            open_stdin=config.attach_stdin,
            open_stderr=config.attach_stderr,
            open_stdout=config.attach_stdout,
            can_remove=False,
            container_id=exec_.container.id,
            detach_keys=config.detach_keys,
            pid=exec_.pid,
        )

    async def resize(self, id: str, height: int, width: int) -> None:
        """Set the size of its terminal. Raises NoSuchExec, NotRunning, MonitorError."""
        exec_ = self.get(id)
        if not exec_.running or exec_.container.monitor is None:
            raise NotRunning(id=exec_.container.id)
        await exec_.container.monitor.resize(height=height, width=width, exec_id=id)

    def detached(self, id: str) -> None:
        """A client left by its detach keys; the exec goes on. Raises NoSuchExec."""
        self._publish(self.get(id), "exec_detach")

    def _publish(self, exec_: Exec, action: str, **more: str) -> None:
        self._world.publish(exec_.container, action, execID=exec_.id, **more)

    def _forget_old(self) -> None:
        """Drop what ended a while ago, and what can no longer be started since its container's run is over."""
        now = time.monotonic()
        if now < self._swept_s + SWEEP_S:
            return
        self._swept_s, oldest = now, now - KEPT_S
        for id, exec_ in list(self._execs.items()):
            over = exec_.exit_code is not None and exec_.ended_s < oldest
            never = exec_.is_new and exec_.container.monitor is None
            if over or never:
                exec_.container.execs.discard(id)
                del self._execs[id]


def _note(exec_: Exec) -> str:
    known = msgspec.structs.asdict(exec_.config) | {"probe": exec_.probe}
    return msgspec.json.encode(Note(**known)).decode()


def _require_running(container: Container) -> Monitor:
    """The container's monitor. Raises NotRunning, Restarting, ExecPaused."""
    if container.record.state.status == "restarting":
        raise Restarting(id=container.id)
    if container.record.state.status == "paused":
        raise ExecPaused(id=container.record.name)
    if container.monitor is None:
        raise NotRunning(id=container.id)
    return container.monitor


def _require_user(container: Container, user: str) -> None:
    """Tell of a user that the container does not have now, as Docker does, and not when it is started. Blocking.

    Only files below the container's root are read; a container that ends meanwhile is found out later.
    """
    try:
        with closing(os.open(f"/proc/{container.record.state.pid}/root", os.O_PATH | os.O_DIRECTORY)) as root:
            identify(root, user, [])
    except UserError as error:
        raise NoSuchUser(reason=str(error)) from error
    except OSError:
        return


def exec_process(exec_: Exec, console_size: tuple[int, int] | None, world: World) -> dict[str, Any]:
    """OCI `process` of an exec: the container's own, with the command's differences."""
    record, config = exec_.container.record, exec_.config
    host = record.host_config
    available = spec_security.available_capabilities()
    capabilities = available if config.privileged else spec_security.effective_capabilities(host, available)
    options = spec_security.parse_security_opts(host.security_opt or ())
    default = world.config.no_new_privileges
    container_env = spec.environment(record.config, record.config.hostname, links.environment(world, record))
    terminal = ["TERM=xterm"] if config.tty else []
    process: dict[str, Any] = {
        "terminal": config.tty,
        "args": list(config.cmd or ()),
        "env": spec.merge_env([*container_env, *terminal], config.env or ()),
        "cwd": config.working_dir or record.config.working_dir or "/",
        "capabilities": spec_security.capability_sets(capabilities),
        "rlimits": spec_resources.rlimits(host.ulimits or (), world.config.default_ulimits),
        "noNewPrivileges": default if options.no_new_privileges is None else options.no_new_privileges,
        "oomScoreAdj": host.oom_score_adj,
    }
    size = console_size or (tuple(config.console_size) if config.console_size else None)
    if config.tty and size and all(size):
        process["consoleSize"] = {"height": size[0], "width": size[1]}
    return process
