"""The three files that a container gets in /etc from its engine: hosts, hostname, resolv.conf."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from pier.containers.record import Record
from pier.containers.world import ContainersConfig
from pier.networks import Sandbox
from pier.networks.resolv import (
    HOST_NAMES,
    HOST_RESOLV_CONF,
    Upstream,
    hosts,
    named_resolv_conf,
    resolv_conf,
    upstream_path,
    upstreams,
)

NAMES = ("resolv.conf", "hostname", "hosts")
FILE_MODE = 0o644
LOOPBACK = "127.0.0.1"
"""By which a container on the host's network reaches the host where there is no default bridge."""


def contents(
    record: Record,
    sandbox: Sandbox,
    daemon: ContainersConfig,
    *,
    host_resolv: str,
    host_hosts: str,
    linked: Sequence[tuple[str, str]] = (),
    host_gateway: Sequence[str] = (),
) -> dict[str, str]:
    """Name of the file -> text, from the host's own resolv.conf and hosts. Raises BadExtraHost.

    `linked` are further entries of hosts: (address, names); `host_gateway` are the default bridge's addresses, for an
    `--add-host NAME:host-gateway` of a container that no network leads to the host.
    """
    config, host = record.config, record.host_config
    own_network = host.network_mode != "host"
    gateways = list(daemon.host_gateway_ips) or sandbox.host
    full_name = f"{config.hostname}.{config.domainname}" if config.domainname else config.hostname
    return {
        "hostname": f"{full_name}\n",
        "hosts": hosts(
            hostname=config.hostname if own_network else "",
            domainname=config.domainname,
            addresses=[address for endpoint in sandbox.endpoints for address in endpoint.addresses],
            extra_hosts=[entry.replace("=", ":", 1) for entry in host.extra_hosts or ()],
            linked=linked,
            gateways=gateways,
            host_gateway=host_gateway or ([] if own_network else [LOOPBACK]),
            base=None if own_network else host_hosts,
        ),
        "resolv.conf": resolv_text(record, sandbox, daemon, host_resolv=host_resolv),
    }


def resolv_text(record: Record, sandbox: Sandbox, daemon: ContainersConfig, *, host_resolv: str) -> str:
    """A container's resolv.conf: the servers themselves, or its own name server on a user-defined network."""
    host = record.host_config
    dns = host.dns or daemon.dns
    search, options = host.dns_search or daemon.dns_search, host.dns_options or daemon.dns_opts
    if not sandbox.finds_names:
        own_network = host.network_mode != "host"
        if own_network and (path := upstream_path(host_resolv)) != HOST_RESOLV_CONF:
            host_resolv = _read(path)  # a stub on the host's loopback is out of the container's reach
        return resolv_conf(host_resolv, dns=dns, search=search, options=options, own_network=own_network)
    given = {"nameservers": dns, "search": search, "options": options}
    return named_resolv_conf(
        host_resolv,
        servers_behind(sandbox, dns, host_resolv),
        search=search,
        options=options,
        overrides=[name for name, value in given.items() if value],
    )


def servers_behind(sandbox: Sandbox, dns: Sequence[str], host_resolv: str) -> list[Upstream]:
    """The servers that a container's name server passes questions on to. Pure."""
    has_ipv4 = any(endpoint.ip for endpoint in sandbox.endpoints)
    has_ipv6 = any(endpoint.ip6 for endpoint in sandbox.endpoints)
    return upstreams(host_resolv, dns=dns, ipv4=has_ipv4, ipv6=has_ipv6)


def host_texts() -> tuple[str, str]:
    """(resolv.conf, hosts) of the host; empty where there is none. Blocking."""
    return _read(HOST_RESOLV_CONF), _read("/etc/hosts")


def readdress(path: str, names: str, address: str) -> None:
    """Give the names of one line of a hosts file another address. Blocking. OSError."""
    wanted = names.split()
    _edit(path, lambda lines: [f"{address}\t{names}\n" if line.split()[1:] == wanted else line for line in lines])


def change_own(
    path: str, names: str, *, added: Sequence[str] = (), removed: Sequence[str] = (), host: Sequence[str] = ()
) -> None:
    """Write addresses that a running container has got or lost into its hosts file. Blocking. OSError.

    `host` are those by which it reaches the host now; empty: as before.
    """
    gone = [[address, *names.split()] for address in removed]
    new = [f"{address}\t{names}\n" for address in added if names]

    def change(lines: list[str]) -> list[str]:
        of_host = [line for line in lines if is_hosts(line)] if host else []
        kept = [line for line in lines if line.split() not in gone and line not in of_host]
        names_of_host = of_host[0].partition("\t")[2] if of_host else ""
        return [*kept, *new, *(f"{address}\t{names_of_host}" for address in host if names_of_host)]

    _edit(path, change)


def is_hosts(line: str) -> bool:
    """Is it a line with the host's names?"""
    words = line.split()[1:]
    return bool(words) and set(words) <= set(HOST_NAMES)


def rewrite(path: str, text: str) -> None:
    """Replace a file's text in place: the file is mounted. Blocking. OSError."""
    _edit(path, lambda lines: [text])


def _edit(path: str, change: Callable[[list[str]], list[str]]) -> None:
    """Change the lines of a file in place: the file is mounted."""
    with open(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC), "r+", encoding="utf-8") as file:
        lines = file.read(1 << 20).splitlines(keepends=True)
        changed = change(lines)
        if changed != lines:
            file.seek(0)
            file.truncate()
            file.writelines(changed)


def write(folder: str, texts: dict[str, str], owner: tuple[int, int] | None = None) -> None:
    """Write the files into the container's folder, for the host's ids of its root. Blocking, some 100 µs. OSError."""
    written_at = int(time.time())
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    for name, text in texts.items():
        fd = os.open(f"{folder}/{name}", flags, FILE_MODE)
        try:
            os.write(fd, text.encode())
            if owner is not None:
                os.fchown(fd, *owner)
            os.fchmod(fd, FILE_MODE)  # whatever the daemon's umask: the container's users read them
            os.utime(fd, (written_at, written_at))
        finally:
            os.close(fd)


def is_as_written(path: str) -> bool:
    """Has nobody changed a file since `write`? Raises OSError.

    A file that was written by someone else has a time of change with a fraction of a second.
    """
    return os.stat(path).st_mtime_ns % 1_000_000_000 == 0


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""
