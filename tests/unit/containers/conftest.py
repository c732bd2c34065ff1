"""A world without a kernel: fake runtime, images, layers and network, a store in memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pier.containers import ContainersConfig, ContainerService
from pier.errors import NotFound, PierError
from pier.events import EventBus
from pier.kernel.cgroups import Layout
from pier.kernel.paths import closing
from pier.model.container import ContainerCreateRequest
from pier.model.host_config import HostConfig
from pier.model.network import PortMap
from pier.networks import Ask, Endpoint, NetworkRecord, Publishing, Sandbox
from pier.networks.dns import DnsServer, NameTable
from pier.networks.firewall import Forward
from pier.networks.ports import parse_container_port
from pier.networks.records import SubnetRecord, predefined
from pier.networks.registry import NetworkNotFound
from pier.oci.descriptor import Descriptor
from pier.oci.digest import Digest
from pier.oci.image_config import ImageConfig, RootFS, RunConfig
from pier.oci.manifest import OCI_MANIFEST
from pier.runtime.client import FoundExec, MonitorLost, StartFailed
from pier.runtime.request import AttachEnd, ExecRequest, ExitRecord, OverlayRoot, StartRequest
from pier.state import MemoryStore
from pier.storage.ids import IdMap
from pier.volumes import VolumeService

LAYER = Digest("sha256:" + "2" * 64)


class FakeMonitor:
    """A container that ends when the test says so, or by SIGKILL."""

    def __init__(self, id: str, exec_dir: str) -> None:
        self.id, self.exec_dir = id, exec_dir
        self.pid, self.started_at_ns = 4242, 1_700_000_000_000_000_000
        self.own_pid = 0
        self.foreign = False
        self.asked: list[Any] = []
        self.signals: list[int] = []
        self.deaf: set[int] = set()
        self.ooms = 0
        self.cgroup = ""
        self.on_oom: Callable[[], None] = lambda: None
        self.resolver: list[int] = []
        self.execs_found: list[FoundExec] = []
        self.execs: dict[str, asyncio.Future[ExitRecord]] = {}
        self.exec_requests: list[ExecRequest] = []
        self.prepared: list[ExecRequest] = []
        self.exec_ends: dict[str, int] = {}
        self.exec_answer: tuple[int, bytes] | None = None
        """(exit code, frames) of every exec to come; None: it goes on until the test ends it."""
        self.ended: asyncio.Future[ExitRecord] = asyncio.get_running_loop().create_future()

    def end(self, code: int, *, oom: bool = False) -> None:
        if not self.ended.done():
            if oom:
                self.oom()
            self.ended.set_result(ExitRecord(code, 1_700_000_003_000_000_000, oom))

    def oom(self) -> None:
        self.ooms += 1
        self.on_oom()

    async def signal(self, number: int, *, exec_id: str | None = None) -> None:
        if self.ended.done():
            raise MonitorLost
        if exec_id is not None:
            self.end_exec(exec_id, 128 + number)
            return
        self.signals.append(number)
        if number in (9, 15) and number not in self.deaf:
            self.end(128 + number)

    async def attach(self, end: AttachEnd) -> int:
        if self.ended.done():
            raise MonitorLost
        os.write(end.fd, b"attached")
        return 1

    async def pause(self) -> None:
        self.asked.append("pause")

    async def resume(self) -> None:
        self.asked.append("resume")

    async def update(self, resources: Any) -> None:
        self.asked.append(resources)

    async def resize(self, *, height: int, width: int, exec_id: str | None = None) -> None:
        self.size = (height, width, exec_id)

    def prepare(self, request: ExecRequest) -> None:
        self.prepared.append(request)

    async def exec(self, request: ExecRequest, end: AttachEnd | None) -> int:
        self.exec_requests.append(request)
        self.execs[request.exec_id] = asyncio.get_running_loop().create_future()
        if end is not None and self.exec_answer is not None:
            code, output = self.exec_answer
            os.write(end.fd, output)
            self.end_exec(request.exec_id, code)
        elif end is not None:
            self.exec_ends[request.exec_id] = os.dup(end.fd)
        return 4300

    def end_exec(self, id: str, code: int) -> None:
        if not self.execs[id].done():
            self.execs[id].set_result(ExitRecord(code, 1_700_000_003_000_000_000))
        if id in self.exec_ends:
            os.close(self.exec_ends.pop(id))

    async def wait_exec(self, id: str) -> ExitRecord:
        return await self.execs[id]

    async def wait(self) -> ExitRecord:
        return await asyncio.shield(self.ended)

    def close(self) -> None:
        pass


class FakeRuntime:
    """Remembers the requests; `fail` is raised by the next launches."""

    def __init__(self) -> None:
        self.requests: list[StartRequest] = []
        self.ends: list[int] = []
        self.monitors: dict[str, FakeMonitor] = {}
        self.fail: StartFailed | None = None
        self.pause_s = 0.0

    async def launch(self, request: StartRequest, ends: Sequence[AttachEnd] = ()) -> Any:
        self.requests.append(request)
        self.ends.append(len(ends))
        await asyncio.sleep(self.pause_s)
        if self.fail:
            raise self.fail
        self.monitors[request.exec_dir] = FakeMonitor(request.id, request.exec_dir)
        return self.monitors[request.exec_dir]

    async def reconnect(self, exec_dir: str) -> Any:
        monitor = self.monitors.get(exec_dir)
        return monitor if monitor and not monitor.ended.done() else None


class FakeImage:
    def __init__(self, run: RunConfig) -> None:
        self.id = Digest("sha256:" + "1" * 64)
        self.layers = [LAYER]
        self.platforms = [self]
        self.manifest = Descriptor(OCI_MANIFEST, Digest("sha256:" + "2" * 64), 7)
        self.config = ImageConfig(architecture="amd64", os="linux", rootfs=RootFS(), config=run)


class FakeImages:
    def __init__(self) -> None:
        self.known = {"bb": FakeImage(RunConfig(cmd=["sh"], env=["PATH=/bin"], labels={"name": "evil", "a": "b"}))}

    async def get(self, ref: str, platform: str = "") -> FakeImage:
        if ref not in self.known:
            raise NotFound(f"No such image: {ref}:latest")
        return self.known[ref]


class FakeSnapshots:
    name = "overlay2"

    def __init__(self) -> None:
        self.made: set[str] = set()
        self.id_maps: dict[str, IdMap | None] = {}
        self.fault = ""
        self.trees = (Path("/"), Path("/"))
        """What a container and its image show."""
        self.mounted: list[tuple[list[Digest], str]] = []

    def idmap_fault(self) -> str:
        return self.fault

    def prepare(
        self, container_id: str, layers: list[Digest], size_bytes: int = 0, id_map: IdMap | None = None
    ) -> OverlayRoot:
        self.made.add(container_id)
        self.id_maps[container_id] = id_map
        return self.root(container_id, layers)

    def root(self, container_id: str, layers: list[Digest]) -> OverlayRoot:
        return OverlayRoot(["/layers/1"], f"/snap/{container_id}/up", f"/snap/{container_id}/work")

    def remove(self, container_id: str) -> None:
        self.made.discard(container_id)

    def usage(self, container_id: str, layers: list[Digest]) -> int:
        return 11

    def layer_size(self, chain_id: Digest) -> int:
        return 100

    def view(self, container_id: str, layers: list[Digest]) -> contextlib.AbstractContextManager[int]:
        return closing(os.open(self.trees[0], os.O_PATH))

    def layer_view(self, layers: list[Digest]) -> contextlib.AbstractContextManager[int]:
        return closing(os.open(self.trees[1], os.O_PATH))

    def layer_mount(self, layers: list[Digest], subpath: str = "") -> int:
        self.mounted.append((layers, subpath))
        return os.open("/", os.O_PATH)

    def container_data(self, container_id: str, layers: list[Digest]) -> dict[str, str]:
        return {"UpperDir": f"/snap/{container_id}/up"}


class FakeNetworks:
    """The predefined networks, and those that a test puts into `records`. Addresses are made up."""

    def __init__(self) -> None:
        self.records = {name: predefined(name, name[0] * 64) for name in ("bridge", "host", "none")}
        self.dns = DnsServer(NameTable())
        self.sandboxes: dict[str, Sandbox] = {}
        self.asks: list[Ask] = []
        self.fail: PierError | None = None

    def add(self, name: str, *subnets: str) -> NetworkRecord:
        ranges = [SubnetRecord(subnet, "", asked=True) for subnet in subnets]
        self.records[name] = NetworkRecord(id=name.ljust(64, "0"), name=name, driver="bridge", subnets=ranges)
        return self.records[name]

    def find(self, ref: str) -> NetworkRecord:
        found = [record for record in self.records.values() if ref in (record.name, record.id)]
        if not found:
            raise NetworkNotFound(name=ref)
        return found[0]

    def host_gateway(self) -> list[str]:
        return ["172.17.0.1"]

    def sandbox(self, container_id: str) -> Sandbox | None:
        return self.sandboxes.get(container_id)

    async def connect(self, container_id: str, asks: Sequence[Ask], *, name: str, publishing: Publishing) -> Sandbox:
        self.sandboxes[container_id] = Sandbox()
        for ask in asks:
            self._add(container_id, ask, name)
        return self.sandboxes[container_id]

    async def release(self, container_id: str) -> None:
        self.sandboxes.pop(container_id, None)

    async def join(self, container_id: str, ask: Ask, *, name: str, **_: Any) -> Endpoint:
        return self._add(container_id, ask, name)

    async def leave(self, container_id: str, network_id: str, **_: Any) -> None:
        self.sandboxes[container_id] = self.sandboxes[container_id].without(network_id)

    async def verify(self, container_id: str, netns_fd: int) -> Sequence[Endpoint]:
        return []

    async def change_ports(self, container_id: str, add: PortMap, remove: Sequence[Forward], *, name: str) -> bool:
        if self.fail is not None:
            raise self.fail
        sandbox = self.sandboxes[container_id]
        if not sandbox.endpoints:
            return False
        (owner,) = sandbox.endpoints
        forwards = [one for one in owner.forwards if one not in remove]
        for key, bindings in add.items():
            port, protocol = parse_container_port(key)
            for one in bindings or ():
                host_port = int(one.host_port or 32768)
                forwards.append(Forward(protocol, one.host_ip or "0.0.0.0", host_port, owner.ip, port, "pier0"))
        self.sandboxes[container_id] = sandbox.having(replace(owner, forwards=forwards))
        return True

    async def rename(self, container_id: str, name: str, names: Mapping[str, Sequence[str]]) -> None:
        self.renamed = (name, names)

    def _add(self, container_id: str, ask: Ask, name: str) -> Endpoint:
        if self.fail is not None:
            raise self.fail
        self.asks.append(ask)
        record = self.find(ask.network)
        sandbox = self.sandboxes.get(container_id, Sandbox())
        number = 17 + len(sandbox.endpoints)
        ip, gateway = ask.ipv4 or f"172.{number}.0.2", f"172.{number}.0.1"
        endpoint = Endpoint(
            container_id=container_id,
            container=name,
            network_id=record.id,
            network=record.name,
            driver=record.driver,
            endpoint_id="e" * 64,
            ip=ip,
            gateway=gateway,
            names=list(ask.names),
            host=[gateway],
        )
        self.sandboxes[container_id] = sandbox.having(endpoint)
        return endpoint


class House:
    """The service with everything that is fake about it; `again` is a daemon's restart."""

    def __init__(self, tmp_path: Path) -> None:
        self.runtime, self.images, self.snapshots = FakeRuntime(), FakeImages(), FakeSnapshots()
        self.networks, self.store, self.events = FakeNetworks(), MemoryStore(), EventBus()
        self.config = ContainersConfig(
            data_root=str(tmp_path / "data"),
            exec_root=str(tmp_path / "run"),
            cgroups=Layout("v2", {}, (str(tmp_path / "cgroup"),), str(tmp_path / "cgroup")),
            seccomp_profile="unconfined",
        )
        self.volumes = self.make_volumes()
        self.service = self.make()

    def make_volumes(self) -> VolumeService:
        data, run = self.config.data_root, self.config.exec_root
        return VolumeService(top=f"{data}/volumes", notes=f"{run}/volumes", store=self.store, events=self.events)

    def make(self) -> ContainerService:
        return ContainerService(
            runtime=self.runtime,
            images=self.images,
            snapshots=self.snapshots,
            networks=self.networks,
            volumes=self.volumes,
            store=self.store,
            events=self.events,
            config=self.config,
        )

    async def again(self) -> list[str]:
        await self.service.close()
        await self.volumes.close()
        self.volumes = self.make_volumes()
        self.service = self.make()
        return await self.start()

    async def start(self) -> list[str]:
        repaired = await self.volumes.start()
        self.volumes.users = self.service.by_volume
        return [*repaired, *await self.service.start()]

    async def create(self, name: str = "web", *, cmd: list[str] | None = None, **host: Any) -> str:
        body = ContainerCreateRequest(image="bb", cmd=cmd, host_config=HostConfig(**host))
        return (await self.service.create(body, name=name, platform="")).id

    async def run(self, name: str = "web", **host: Any) -> FakeMonitor:
        id = await self.create(name, **host)
        await self.service.start_container(id)
        return self.monitor(id)

    def monitor(self, id: str) -> FakeMonitor:
        return self.runtime.monitors[self.config.exec_dir(id)]

    def actions(self) -> list[str]:
        return [event.action for event in self.events._history if event.type == "container"]

    async def status(self, ref: str = "web") -> str:
        return (await self.service.inspect(ref, size=False)).state.status


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    await made.start()
    yield made
    await made.service.close()
    await made.volumes.close()
