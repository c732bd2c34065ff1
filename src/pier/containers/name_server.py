"""The name server of a container on a user-defined network: when it has one, and how that works for it.

A container that gets its first such network while it runs gets a name server then, and keeps it, as with Docker.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from ipaddress import ip_address

from pier.containers import etc_files
from pier.containers.record import Record
from pier.containers.world import Container, ContainersConfig, World, log
from pier.errors import PierError
from pier.networks import Sandbox
from pier.networks.dns import DnsServer, Settings
from pier.networks.inside import run_inside
from pier.networks.resolv import HOST_NAMES, HOST_RESOLV_CONF, extra_host, parse_resolv_conf
from pier.runtime.client import Monitor
from pier.runtime.process.resolver import open_sockets

NDOTS = "ndots:"


def settings(record: Record, sandbox: Sandbox, daemon: ContainersConfig, *, host_resolv: str) -> Settings:
    """How the name server works for a container; `host_resolv` is the host's resolv.conf. Pure."""
    host = record.host_config
    options = host.dns_options or daemon.dns_opts or parse_resolv_conf(host_resolv).options
    return Settings(
        servers=tuple(etc_files.servers_behind(sandbox, host.dns or daemon.dns or (), host_resolv)),
        forwards=any(endpoint is not None and not endpoint.internal for endpoint in sandbox.gateways),
        single_label_is_local=any(option.startswith(NDOTS) for option in options),
        host_addresses=host_addresses(record, list(daemon.host_gateway_ips) or sandbox.host),
    )


def host_addresses(record: Record, gateways: list[str]) -> dict[bytes, tuple[bytes, ...]]:
    """The names by which a container reaches its host, with what they lead to; `--add-host` of one counts more."""
    entries = [entry.replace("=", ":", 1) for entry in record.host_config.extra_hosts or ()]
    extra = [pair for entry in entries for pair in extra_host(entry, gateways)]
    found = {}
    for name in HOST_NAMES:
        own = [address for address, extra_name in extra if extra_name == name]
        found[name.encode()] = tuple(ip_address(address).packed for address in own or gateways)
    return found


def serve(world: World, container: Container, monitor: Monitor) -> None:
    """Serve a container that has started, or was found running, where it has a name server."""
    if monitor.resolver:
        hand_over(world.networks.dns, container.record, monitor, _settings(world, container))


def hand_over(dns: DnsServer, record: Record, monitor: Monitor, how: Settings) -> None:
    """Have the name server's sockets served that a monitor has sent, if it has; a failure is logged."""
    fds, monitor.resolver = monitor.resolver, []
    if fds:
        try:
            dns.serve(record.id, fds, how)
        except PierError as error:
            log.warning("container %s has no name server: %s", record.name, error)


async def follow(world: World, container: Container, netns_fd: int) -> None:
    """A running container's networks have changed: give it a name server, or tell the one it has.

    `netns_fd` is its network namespace.
    """
    dns = world.networks.dns
    if dns.serves(container.id):
        dns.configure(container.id, _settings(world, container))
    elif _sandbox(world, container).finds_names:
        try:
            await _make(world, container, netns_fd)
        except (PierError, OSError) as error:
            log.warning("container %s gets no name server: %s", container.record.name, error)
            return
        with contextlib.suppress(OSError):
            await asyncio.to_thread(_rewrite, world, container)


async def _make(world: World, container: Container, netns_fd: int) -> None:
    """Raises OSError, NotNameServerSockets."""
    sockets = await asyncio.to_thread(run_inside, netns_fd, open_sockets)
    if sockets.warning:
        log.warning("container %s: %s", container.record.name, sockets.warning)
    fds = [sockets.udp.detach(), sockets.tcp.detach()]
    if container.monitor is not None:
        try:
            await container.monitor.keep_resolver(fds)
        except PierError as error:
            log.warning("the name server of container %s ends with this daemon: %s", container.record.name, error)
    world.networks.dns.serve(container.id, fds, _settings(world, container))


class HostServers:
    """Has the name servers of running containers follow the host's resolv.conf."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._seen = stamp_of(HOST_RESOLV_CONF)

    def look(self) -> None:
        """Tell them if the file has changed since the last look."""
        found = stamp_of(HOST_RESOLV_CONF)
        if found != self._seen:
            self._seen = found
            for container in self._world.containers.values():
                if self._world.networks.dns.serves(container.id):
                    self._world.networks.dns.configure(container.id, _settings(self._world, container))


def stamp_of(path: str) -> tuple[int, int, int] | None:
    """What is another after a change of the file; None: there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def stop(world: World, container: Container) -> None:
    """The container has ended."""
    world.networks.dns.stop(container.id)


def _sandbox(world: World, container: Container) -> Sandbox:
    return world.networks.sandbox(container.id) or Sandbox()


def _settings(world: World, container: Container) -> Settings:
    host_resolv, _ = world.host_texts()
    return settings(container.record, _sandbox(world, container), world.config, host_resolv=host_resolv)


def _rewrite(world: World, container: Container) -> None:
    """Have the container ask its name server, unless someone has edited its resolv.conf. Blocking. Raises OSError."""
    path = world.config.etc_file(container.id, "resolv.conf")
    if not etc_files.is_as_written(path):
        return
    host_resolv, _ = world.host_texts()
    text = etc_files.resolv_text(container.record, _sandbox(world, container), world.config, host_resolv=host_resolv)
    etc_files.rewrite(path, text)
