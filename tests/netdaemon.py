"""A network service on machines made of network namespaces, driven by synchronous tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from netlab import Machine, machines
from pier.events import EventBus
from pier.kernel.netlink import NetlinkSocket
from pier.model.network import PortBinding
from pier.model.networks import NetworkCreateRequest
from pier.networks import Ask, Endpoint, NetworkService, Publishing, Sandbox
from pier.networks.service import NetworkConfig
from pier.runtime.request import Interface
from pier.state import MemoryStore

T = TypeVar("T")
HOST, LAN = "192.0.2.1", "192.0.2.9"


@dataclass
class Site:
    lan: Machine
    host: Machine
    one: Machine
    two: Machine


@contextlib.contextmanager
def make_site() -> Iterator[Site]:
    """lan ── (192.0.2.0/24) ── host; `one` and `two` stand for containers."""
    with machines(4) as (lan, host, one, two):
        with host.run(NetlinkSocket) as sock:
            sock.create_bridge("lan0", mac="02:42:c0:00:02:01")
            index = sock.link_index("lan0")
            sock.add_address(index, f"{HOST}/24")
            sock.set_up(index)
        lan.plug(Interface("eth0", "vethlan", "lan0", "02:42:c0:00:02:09", [f"{LAN}/24"], [HOST]), host)
        yield Site(lan, host, one, two)


def on_host(site: Site, deed: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return site.host.run(lambda: asyncio.run(deed()))


def bindings(*texts: str) -> dict[str, list[PortBinding]]:
    """`-p` forms: `[ip:]host:container/protocol`."""
    found: dict[str, list[PortBinding]] = {}
    for text in texts:
        rest, key = text.rsplit(":", 1)
        ip, _, port = rest.rpartition(":")
        found.setdefault(key, []).append(PortBinding(ip, port))
    return found


class Daemon:
    """A network service on the host, on an event loop in the host's thread, for synchronous tests."""

    def __init__(self, site: Site, store: MemoryStore | None = None, **config: Any) -> None:
        self.site, self.store = site, store or MemoryStore()
        self.config = NetworkConfig(**config)
        self.loop = site.host.run(asyncio.new_event_loop)
        self.events = EventBus()
        self.service = site.host.run(lambda: NetworkService(self.config, self.store, self.events))

    def do(self, deed: Coroutine[Any, Any, T]) -> T:
        return self.site.host.run(lambda: self.loop.run_until_complete(deed))

    def start(self, live: set[str] | None = None) -> list[str]:
        return self.do(self.service.start(live or set()))

    def create(self, name: str, **options: Any) -> str:
        """The id of a new network."""
        return self.do(self.service.create(NetworkCreateRequest(name=name, **options))).id

    def connect(
        self,
        container_id: str,
        machine: Machine | None = None,
        *ports: str,
        mode: str = "bridge",
        name: str = "",
        **publishing: Any,
    ) -> Endpoint:
        """Put a container on one network, its interface made in `machine`."""
        asked = Publishing(bindings(*ports), **publishing)
        return self.start_on(container_id, machine, Ask(mode), name=name, publishing=asked).endpoints[0]

    def start_on(
        self,
        container_id: str,
        machine: Machine | None,
        *asks: Ask,
        name: str = "",
        publishing: Publishing | None = None,
    ) -> Sandbox:
        """Put a container on networks, its interfaces made in `machine`."""
        asked = publishing or Publishing()
        sandbox = self.do(self.service.connect(container_id, asks, name=name, publishing=asked))
        for interface in sandbox.interfaces if machine else []:
            assert machine is not None
            machine.plug(interface, self.site.host)
        return sandbox

    def keeps(self, container_id: str) -> bool:
        """Is there a record of an endpoint of this container?"""
        return any(kind == "endpoint" and key.startswith(container_id) for kind, key in self.store.records)

    def sandbox(self, container_id: str) -> Sandbox:
        found = self.service.sandbox(container_id)
        assert found is not None
        return found

    def kill(self) -> None:
        """As `kill -9`: sockets and threads are gone, nothing is tidied."""
        if self.loop.is_closed():
            return
        self.do(self.service.close())
        self.site.host.run(self.loop.close)
