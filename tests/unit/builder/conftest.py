"""A builder on folders of its own, with the real runtime and a busybox image; networks are `none` and `host` only."""

from __future__ import annotations

import io
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pier.builder import layers
from pier.builder.cache import Cache
from pier.builder.graph import EMPTY, Exec, File, FileAction, Meta, Mount, NetMode, Note, Output, Source, Vertex
from pier.builder.ground import Ground
from pier.builder.progress import Event, Printed
from pier.builder.service import BuildService
from pier.builder.session import Given
from pier.builder.solver import Build
from pier.builder.sources import context
from pier.builder.tree import Folder, Result
from pier.containers.seccomp_cache import SeccompCache
from pier.containers.world import ContainersConfig
from pier.distribution import Registries, RegistryConfig
from pier.events.bus import EventBus
from pier.images import ImageService
from pier.kernel.cgroup_layout import detect
from pier.kernel.cgroups import Cgroup
from pier.networks import NetworkRecord
from pier.networks.dns import DnsServer, NameTable
from pier.networks.endpoint import Ask, Publishing, Sandbox
from pier.networks.records import predefined
from pier.runtime.client import Runtime
from pier.state.memory import MemoryStore
from pier.storage import ContentStore, Setup
from pier.storage.overlay2 import Overlay2
from pier.storage.verify import leftovers, verify

from ..images.lab import docker_archive
from ..storage.archives import archive, directory, member, symlink

CGROUP_PARENT = f"/pier-unit-builder-{os.getpid()}"
BUSYBOX = Path("/bin/busybox")
APPLETS = "sh cat true false id ls sleep echo readlink pwd env touch rm mkdir stat find hostname mount ln kill grep"


class Networks:
    """No network but the host's."""

    def __init__(self) -> None:
        self.connected: set[str] = set()
        self.dns = DnsServer(NameTable())
        self.modes: list[str] = []

    async def connect(self, container_id: str, asks: Sequence[Ask], *, name: str, publishing: Publishing) -> Sandbox:
        self.connected.add(container_id)
        self.modes += [ask.network for ask in asks]
        return Sandbox()

    def find(self, ref: str) -> NetworkRecord:
        return predefined(ref, ref[0] * 64)

    async def release(self, container_id: str) -> None:
        self.connected.discard(container_id)


def busybox_layer() -> bytes:
    if not BUSYBOX.exists():
        pytest.skip("busybox-static is not installed")
    links = [symlink(f"bin/{applet}", "busybox") for applet in APPLETS.split()]
    return archive(
        [
            *(directory(name) for name in ("bin", "etc", "tmp", "proc", "sys", "dev", "root", "var")),
            member("bin/busybox", data=BUSYBOX.read_bytes(), mode=0o755),
            *links,
            member("etc/passwd", data=b"root:x:0:0:root:/root:/bin/sh\nana:x:1000:1001::/:/bin/sh\n"),
            member("etc/group", data=b"root:x:0:\nana:x:1001:\nwheel:x:10:ana\n"),
            symlink("var/run", "/run"),
        ]
    )


@dataclass
class Lab:
    """A builder, and short words for graphs."""

    service: BuildService
    ground: Ground
    networks: Networks
    folder: Path
    journals: list[Build] = field(default_factory=list)

    def context(self, files: dict[str, bytes | str]) -> Folder:
        """Files of a client; a value that is text is where a link points."""
        place = self.folder / "client" / os.urandom(4).hex()
        place.mkdir(parents=True)
        for name, data in files.items():
            path = place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(data, str):
                path.symlink_to(data)
            else:
                path.write_bytes(data)
        return context.as_folder(str(place))

    async def solve(self, *outputs: Output, **given: Any) -> list[Result]:
        entitlements = frozenset(given.pop("entitlements", ()))
        async with self.service.build(os.urandom(4).hex(), Given(**given), entitlements=entitlements) as build:
            self.journals.append(build)
            return await self.service.solve(build, outputs)

    async def tree(self, output: Output, **given: Any) -> dict[str, Any]:
        """Path -> content of a file, target of a link, names in a directory."""
        [result] = await self.solve(output, **given)
        return self.read(result)

    def read(self, result: Result) -> dict[str, Any]:
        with layers.shown(self.ground, result) as fd:
            return dict(_walk(f"/proc/self/fd/{fd}", ""))

    async def events(self) -> list[Event]:
        """What the last build has told."""
        return [event async for event in self.journals[-1].journal.read()]

    async def printed(self) -> str:
        return b"".join(event.data for event in await self.events() if isinstance(event, Printed)).decode()

    def problems(self) -> list[str]:
        """What a kill or a cancelled build has left that should not be."""
        driver = self.ground.snapshots
        driver._deleter.submit(lambda: None).result()  # type: ignore[attr-defined]
        claims = [name for name in driver.claims() if name.startswith(layers.PREFIX)]
        left = leftovers(self.ground.content, driver.root_dir)  # type: ignore[attr-defined]
        steps = os.listdir(self.ground.exec_dir)
        contexts = self.folder / "data/builder/contexts"
        kept = os.listdir(contexts) if contexts.exists() else []
        return [*map(str, verify(self.ground.content, driver)), *claims, *left, *steps, *kept, *self.networks.connected]


def _walk(root: str, at: str) -> Any:
    for entry in os.scandir(f"{root}/{at}"):
        path = f"{at}{entry.name}"
        if entry.is_symlink():
            yield path, os.readlink(entry.path)
        elif entry.is_dir():
            yield path, sorted(os.listdir(entry.path))
            yield from _walk(root, f"{path}/")
        elif entry.is_file() and entry.name != "busybox":
            yield path, Path(entry.path).read_bytes()


def base() -> Output:
    return Vertex(Source("docker-image://base")).output()


def local(name: str = "context") -> Output:
    return Vertex(Source(f"local://{name}")).output()


def sh(command: str, root: Output | None = None, *mounts: Mount, inputs: Sequence[Output] = (), **more: Any) -> Output:
    """A step of a shell's; `mounts` name `inputs` from 1 on."""
    meta = Meta(("/bin/sh", "-c", command), env=("PATH=/bin",), **more.pop("meta", {}))
    note = more.pop("note", Note(f"RUN {command}"))
    op = Exec(meta, (Mount("/", input=0, output=0), *mounts), **{"network": NetMode.NONE, **more})
    return Vertex(op, (root or base(), *inputs), note=note).output()


def file(deed: Any, root: Output | None = None, source: Output | None = None) -> Output:
    """One change of files."""
    inputs = tuple(each for each in (root, source) if each is not None)
    action = FileAction(
        deed,
        input=0 if root is not None else EMPTY,
        secondary_input=len(inputs) - 1 if source is not None else EMPTY,
        output=0,
    )
    return Vertex(File((action,)), inputs).output()


def make_ground(folder: Path, runtime: Runtime, networks: Networks) -> Ground:
    data, run = str(folder / "data"), str(folder / "run")
    os.makedirs(run, exist_ok=True)
    content = ContentStore(f"{data}/content")
    snapshots = Overlay2(data, Setup(leases=content.leases))
    images = ImageService(content, snapshots, MemoryStore(), EventBus())
    config = ContainersConfig(
        data_root=data,
        exec_root=run,
        cgroups=detect(),
        cgroup_parent=CGROUP_PARENT,
        default_shm_size=1 << 20,
    )
    seccomp = SeccompCache(f"{run}/seccomp")
    web = Registries(RegistryConfig())
    return Ground(snapshots, content, images, runtime, networks, seccomp, config, lambda: ("", ""), web)


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    runtime = Runtime()
    await runtime.start()
    networks = Networks()
    ground = make_ground(tmp_path, runtime, networks)
    cache = Cache(MemoryStore(), ground.snapshots, ground.content)
    ground.images.kept = cache.kept
    await ground.images.start()
    await load(ground.images, docker_archive("base:latest", layers=[busybox_layer()]))
    service = BuildService(ground, cache)
    await service.start()
    yield Lab(service, ground, networks, tmp_path)
    await service.close()
    await ground.registries.close()
    await ground.images.close()
    ground.snapshots.close()
    await runtime.close()


async def load(images: ImageService, raw: bytes) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        stream = io.BytesIO(raw)
        while data := stream.read(1 << 20):
            yield data

    async for _ in images.archives.load(chunks(), quiet=True, platform="", tags=[]):
        pass


@pytest.fixture(scope="session", autouse=True)
def no_cgroup_left() -> Any:
    yield
    if os.geteuid() == 0:
        parent = Cgroup(detect(), CGROUP_PARENT)
        assert parent.pids() == []
        parent.remove()


Make = Callable[..., Output]
