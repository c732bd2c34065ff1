"""What Pier knows about one container, as it is kept in the state database (kind "container", key: the id).

A change of state is written before the world is changed: a record that says `running` is of a start that may or may not
have happened, or of a run that has ended since, and recovery asks the monitor and the exit file which.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec
from msgspec import field

from pier.containers.spec_mounts import UserMount
from pier.model.container import ContainerConfig, Health
from pier.model.host_config import HostConfig
from pier.model.image import OCIDescriptor
from pier.model.network import EndpointSettings
from pier.state import Put
from pier.storage.ids import IdMap

KIND = "container"

Status = Literal["created", "running", "paused", "restarting", "exited", "removing", "dead"]


class State(msgspec.Struct, kw_only=True):
    """Times in nanoseconds since 1970, 0: never. `pid` is the host's, 0 while nothing runs."""

    status: Status = "created"
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    """Why the last start failed."""
    oom_killed: bool = False
    started_at_ns: int = 0
    finished_at_ns: int = 0
    health: Health | None = None
    """What its health check knows; None: it has none."""

    @property
    def running(self) -> bool:
        """Docker counts a paused container and one about to be restarted as running."""
        return self.status in ("running", "paused", "restarting")


class Link(NamedTuple):
    """A legacy link to another container (`--link`)."""

    id: str
    alias: str


class Record(msgspec.Struct, kw_only=True):
    """One container. `config` is already merged with the image's, `host_config` with the daemon's defaults."""

    id: str
    """64 hexadecimal digits."""
    name: str
    """Without the leading slash that the API shows."""
    created_ns: int
    image_id: str
    """Digest of the image's configuration; what the user called it is `config.image`."""
    layers: list[str]
    """Chain ids, bottom first."""
    image_manifest: OCIDescriptor | None = None
    """The manifest of the image's platform; None in records of older daemons."""
    path: str
    args: list[str]
    driver: str
    config: ContainerConfig
    host_config: HostConfig
    networks: dict[str, EndpointSettings] = field(default_factory=dict)
    """What it asks of each network, by name, the main one first; with the network's id from the first start on."""
    mac_address: str | None = None
    """Of the one network of a container that an older daemon made, of which `networks` knows nothing."""
    mounts: list[UserMount] | None = None
    """The user's, those of other containers and of images resolved; None: a version that kept none made it."""
    links: list[Link] = field(default_factory=list)
    id_map: IdMap | None = None
    """Of its user namespace, decided when it was created: its files on disk have these owners."""
    oci_runtime: str = ""
    """The runtime that makes it; empty: Pier's own, whatever `host_config` calls it (records had `runc` for that)."""
    state: State = field(default_factory=State)
    restart_count: int = 0
    stopped_by_user: bool = False
    """`unless-stopped` and `always` look at this."""
    removes_volumes: bool = False
    """Its removal has begun, and takes the volumes without a name along."""

    def put(self) -> Put:
        """The change that writes this record."""
        return Put(KIND, self.id, msgspec.json.encode(self))

    @classmethod
    def decode(cls, data: bytes) -> Record:
        """Raises msgspec.DecodeError for a record that is not one."""
        record = _decoder.decode(data)
        mode = record.host_config.network_mode
        if record.mac_address is not None and not mode.startswith("container:"):
            record.networks = {mode: EndpointSettings(mac_address=record.mac_address)}
        record.mac_address = None
        return record


_decoder = msgspec.json.Decoder(Record)


def mark_started(state: State, *, pid: int, at_ns: int) -> None:
    """The container's program runs (pid 0: it is about to)."""
    state.status, state.pid, state.started_at_ns = "running", pid, at_ns
    state.exit_code, state.error, state.oom_killed = 0, "", False


def mark_ended(state: State, *, exit_code: int, at_ns: int, oom_killed: bool = False) -> None:
    """The container's program has ended."""
    state.status, state.pid = "exited", 0
    state.exit_code, state.finished_at_ns, state.oom_killed = exit_code, at_ns, oom_killed


def mark_failed(state: State, *, exit_code: int, error: str, before: Status) -> None:
    """A start came to nothing: the container is again what it was, and says why."""
    state.status, state.pid = before, 0
    state.started_at_ns = 0 if before == "created" else state.started_at_ns
    state.exit_code, state.error = exit_code, error
