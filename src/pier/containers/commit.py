"""`docker commit`: a container becomes an image. It stands still meanwhile, unless the client would rather not."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

import msgspec

from pier.containers import freezer
from pier.containers import merge as rules
from pier.containers.start import NotRunning, Restarting
from pier.containers.world import Container, World
from pier.errors import Conflict
from pier.images.changes import apply_changes
from pier.images.commit import Commit
from pier.model import wire
from pier.model.container import ContainerConfig
from pier.model.container import HealthConfig as ContainerHealth
from pier.oci import Digest, Reference, RunConfig
from pier.oci.image_config import HealthConfig


class CannotCommit(Conflict):
    """You cannot commit container {id} which is {how}"""


async def commit(
    world: World,
    container: Container,
    *,
    name: Reference | None,
    author: str,
    comment: str,
    changes: Sequence[str],
    pause: bool,
    config: ContainerConfig | None,
) -> Digest:
    """Make an image of what the container changed; returns its id.

    `config` is put over the container's own, then `changes` are applied to it: Dockerfile instructions. Raises
    CannotCommit, InvalidChange, BaseImageGone, OSError.
    """
    record = container.record
    if record.state.status in ("dead", "removing"):
        raise CannotCommit(id=container.id, how="Dead" if record.state.status == "dead" else "being removed")
    asked = Commit(
        container_id=container.id,
        base=Digest(record.image_id),
        config=image_config(record.config, config, changes),
        container_config=wire.to_builtins(record.config),
        created_by=" ".join(record.config.cmd or ()),
        author=author,
        comment=comment,
    )
    async with _standing_still(world, container) if pause else contextlib.nullcontext():
        image_id = await world.images.commit(asked, name)
        familiar = name.familiar if name else ""
        world.publish(container, "commit", comment=comment, imageID=str(image_id), imageRef=familiar)
    return image_id


@contextlib.asynccontextmanager
async def _standing_still(world: World, container: Container) -> AsyncIterator[None]:
    """Paused while the block runs; one that does not run, or is paused already, is left as it is."""
    try:
        await freezer.pause(world, container)
    except (NotRunning, Restarting, freezer.AlreadyPaused):
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(freezer.NotPaused):  # somebody else let it go on, or it was killed
            await freezer.unpause(world, container)


def image_config(own: ContainerConfig, given: ContainerConfig | None, changes: Sequence[str]) -> RunConfig:
    """What containers of the image will run with. Raises InvalidChange."""
    changed = apply_changes(run_config(given or own), changes)
    merged = rules.merge_config(_as_container(changed), run_config(own))
    return msgspec.structs.replace(run_config(merged), on_build=changed.on_build)


def run_config(config: ContainerConfig) -> RunConfig:
    """The part of a container's configuration that an image has."""
    return RunConfig(
        user=config.user,
        exposed_ports=config.exposed_ports or {},
        env=config.env or [],
        entrypoint=config.entrypoint,
        cmd=config.cmd,
        healthcheck=_health(config.healthcheck) if config.healthcheck else None,
        args_escaped=config.args_escaped,
        volumes=config.volumes or {},
        working_dir=config.working_dir,
        on_build=config.on_build or [],
        labels=config.labels or {},
        stop_signal=config.stop_signal,
        shell=config.shell or [],
    )


def _health(config: ContainerHealth) -> HealthConfig:
    return HealthConfig(**{**msgspec.structs.asdict(config), "test": config.test or []})


def _as_container(config: RunConfig) -> ContainerConfig:
    return wire.convert(msgspec.to_builtins(config), ContainerConfig)
