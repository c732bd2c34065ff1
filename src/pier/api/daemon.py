"""`pierd`: read the flags, open the engine, serve its API on its sockets until a signal says stop."""

from __future__ import annotations

import asyncio
import gc
import grp
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING

import pier
from pier.engine import flags
from pier.engine.config import DaemonConfig, Loaded
from pier.engine.engine import Engine
from pier.engine.lock import clear_socket
from pier.errors import PierError
from pier.kernel import process

from . import buildkit
from .app import make_app
from .server import Server

if TYPE_CHECKING:
    from pier.buildkit.door import Door

log = logging.getLogger("pier.daemon")

DOCKER_SOCKET = "/var/run/docker.sock"
SOCKET_MODE = 0o660
FIRST_PASSED_FD = 3
"""Of sockets that systemd opened (sd_listen_fds(3))."""
SETTLE_S = 1.0
"""When memory is settled: whoever waits for the first answer need not wait for that, too."""
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}


class CannotListen(PierError):
    """cannot listen on {address}: {reason}"""

    exit_code = 1
    remedy = "choose another address with --host"


def main(argv: Sequence[str] | None = None) -> int:
    """The command: exit status 0 after an orderly stop, 1 with one line on standard error otherwise."""
    try:
        return command(list(sys.argv[1:] if argv is None else argv))
    except PierError as error:
        problem = error.wire
    except OSError as error:
        problem = describe(error)
    except Exception as error:
        problem = f"the daemon cannot go on: {type(error).__name__}: {error}"
        log.debug("where that happened", exc_info=error)
    print(f"pierd: {problem}", file=sys.stderr)
    return 1


def command(argv: list[str]) -> int:
    """Do what the flags ask for; raises PierError and OSError."""
    given = flags.read(argv)
    if given.version:
        print(f"Pier version {pier.__version__}")
        return 0
    loaded = given.load()
    if given.validate:
        print("configuration OK")
        return 0
    set_up_log(loaded.config)
    for warning in loaded.warnings:
        log.warning("%s", warning)
    return run(loaded.config, given.load)


def describe(error: OSError) -> str:
    """`what: reason` of a system call's failure."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)


def set_up_log(config: DaemonConfig) -> None:
    """Log to standard error: systemd's journal adds the time by itself, so it is left out there."""
    stamp = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s "
    logging.basicConfig(
        stream=sys.stderr,
        level=LEVELS[config.level],
        format=f"{stamp}%(levelname)s %(name)s: %(message)s",
        force=True,
    )
    for library in ("asyncio", "hpack"):
        logging.getLogger(library).setLevel(max(LEVELS[config.level], logging.WARNING))


def run(config: DaemonConfig, read: Callable[[], Loaded]) -> int:
    """Serve until told to stop; on uvloop where that is installed."""
    gc.disable()  # until `settle_memory`: what is made until then stays
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        return asyncio.run(serve(config, read))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(config, read))


async def serve(config: DaemonConfig, read: Callable[[], Loaded]) -> int:
    """One life of the daemon; `read` reads its configuration again."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, log.warning, "SIGHUP: not while the daemon is starting")
    engine = await Engine.open(config)
    loop.add_signal_handler(signal.SIGHUP, reload, engine, read)
    try:
        with listening(config) as sockets:
            door = cache(partial(make_door, engine))
            server = Server(
                make_app(engine, experimental=config.experimental, door=door),
                shutdown_timeout_s=float(config.shutdown_timeout),
                accept_http2=lambda transport, early: buildkit.accept(door(), transport, early),
            )
            await server.start(sockets)
            loop.call_later(SETTLE_S, settle_memory)
            for sock in sockets:
                log.info("API listen on %s", sock.getsockname())
            notify("READY=1")
            log.info("Daemon has completed initialization")
            await stop.wait()
            log.info("stopping")
            notify("STOPPING=1")
            engine.events.close()  # ends the event streams, which would otherwise be waited for
            await server.close()
    finally:
        await engine.close()
    return 0


def settle_memory() -> None:
    """What start-up has made stays, so collections need not look at it; what it has freed goes back to the system."""
    gc.collect()
    gc.freeze()
    gc.enable()
    process.trim_memory()


def make_door(engine: Engine) -> Door:
    """BuildKit's door, with HTTP/2 and its messages loaded now: most daemons serve many containers before a build."""
    from pier.buildkit.door import Door  # noqa: PLC0415

    folder = os.path.join(engine.config.data_root, "builder")
    return Door(engine.builder, folder, engine.system.id)


def reload(engine: Engine, read: Callable[[], Loaded]) -> None:
    """SIGHUP: take over what may change; a configuration that cannot be read changes nothing."""
    try:
        loaded = read()
    except (PierError, OSError) as error:
        log.error("reload: %s; nothing was changed", error)
        return
    for warning in loaded.warnings:
        log.warning("%s", warning)
    waiting = engine.reload(loaded.config)
    logging.getLogger().setLevel(LEVELS[engine.config.level])
    if waiting:
        log.warning("reload: %s: changes of these wait for a restart", ", ".join(waiting))
    log.info("the configuration was reloaded")


@contextmanager
def listening(config: DaemonConfig) -> Iterator[list[socket.socket]]:
    """Bound sockets, made before the first client is answered; their names go away with the daemon.

    Raises SocketInUse, NotASocket, CannotListen.
    """
    sockets: list[socket.socket] = []
    paths: list[str] = []
    try:
        for address in config.listen:
            scheme, _, place = address.partition("://")
            if scheme == "fd":
                sockets += passed_sockets()
            else:
                sockets.append(bind(place, config.group))
                paths.append(place)
        if config.claims_docker_socket:
            taken = claim_docker_socket(config.group)
            if taken is not None:
                sockets.append(taken)
                paths.append(DOCKER_SOCKET)
        yield sockets
    finally:
        for sock in sockets:
            sock.close()
        for path in paths:
            remove(path)


def claim_docker_socket(group: str) -> socket.socket | None:
    """Docker's own socket, when no other daemon answers on it."""
    try:
        return bind(DOCKER_SOCKET, group)
    except PierError as error:
        log.info("%s is left alone: %s", DOCKER_SOCKET, error.message)
    return None


def bind(path: str, group: str) -> socket.socket:
    """A unix socket at `path`, 0660 and of the group, never open wider for a moment (attack 22).

    Raises SocketInUse and NotASocket (`engine.lock`), CannotListen.
    """
    try:
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        clear_socket(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        mask = os.umask(0o177)
        try:
            sock.bind(path)
        finally:
            os.umask(mask)
        os.chown(path, 0, group_id(group))
        os.chmod(path, SOCKET_MODE)
    except OSError as error:
        raise CannotListen(address=f"unix://{path}", reason=describe(error)) from error
    sock.setblocking(False)
    return sock


def group_id(group: str) -> int:
    """The group's number; root's where there is no such group, as Docker does."""
    try:
        return int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError:
        if group not in ("", "docker"):
            log.warning("there is no group %s: the socket is root's alone", group)
        return 0


def remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError as error:
        log.debug("%s stays: %s", path, error.strerror)


def passed_sockets() -> list[socket.socket]:
    """The sockets of `fd://`: those systemd passed to this process. Raises CannotListen."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        raise CannotListen(address="fd://", reason="no sockets were passed to this process")
    count = int(os.environ.get("LISTEN_FDS", "0"))
    sockets = [socket.socket(fileno=fd) for fd in range(FIRST_PASSED_FD, FIRST_PASSED_FD + count)]
    for sock in sockets:
        sock.setblocking(False)
        os.set_inheritable(sock.fileno(), False)
    return sockets


def notify(state: str) -> None:
    """Tell systemd (sd_notify(3)), where it asked to be told."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    target = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(state.encode(), target)
        except OSError as error:
            log.debug("systemd cannot be told: %s", error)


if __name__ == "__main__":
    sys.exit(main())
