"""A create request put over the image's configuration and the daemon's defaults (Docker's rules). Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pier.containers.names import check_name
from pier.containers.spec_security import MASKED_PATHS, READONLY_PATHS, parse_security_opts
from pier.containers.world import ContainersConfig
from pier.errors import InvalidParameter
from pier.model.container import ContainerConfig, HealthConfig
from pier.model.host_config import HostConfig
from pier.oci.image_config import HealthConfig as ImageHealthConfig
from pier.oci.image_config import RunConfig


class NoCommand(InvalidParameter):
    """no command specified"""

    remedy = "name one after the image, or build the image with CMD or ENTRYPOINT"


def merge_config(given: ContainerConfig, image: RunConfig) -> ContainerConfig:
    """What the container runs with: the request where it says something, the image where it does not.

    Labels are only labels: nothing in the engine reads them, so an image cannot steer it by one.
    """
    entrypoint, cmd = merge_command(given, image)
    return msgspec.structs.replace(
        given,
        user=given.user or image.user,
        exposed_ports={**image.exposed_ports, **(given.exposed_ports or {})} or None,
        env=merge_env(given.env, image.env),
        entrypoint=entrypoint,
        cmd=cmd,
        healthcheck=merge_health(given.healthcheck, image.healthcheck),
        volumes={**image.volumes, **(given.volumes or {})} or None,
        working_dir=given.working_dir or image.working_dir,
        labels={**image.labels, **(given.labels or {})},
        on_build=list(image.on_build) or given.on_build,
        stop_signal=given.stop_signal or image.stop_signal,
        shell=given.shell or list(image.shell) or None,
    )


def merge_command(given: ContainerConfig, image: RunConfig) -> tuple[list[str] | None, list[str] | None]:
    """(entrypoint, cmd). An entrypoint in the request resets the image's command; `[""]` is none at all."""
    entrypoint, cmd = given.entrypoint, given.cmd
    if not entrypoint:
        if not cmd:
            cmd = image.cmd
        if entrypoint is None:
            entrypoint = image.entrypoint
    if entrypoint == [""]:
        entrypoint = None
    return entrypoint, cmd


def merge_env(given: Sequence[str] | None, image: Sequence[str]) -> list[str] | None:
    """The request's entries, then those of the image whose names the request does not have."""
    taken = {entry.partition("=")[0] for entry in given or ()}
    merged = [*(given or ()), *(entry for entry in image if entry.partition("=")[0] not in taken)]
    return merged if merged or given is not None else None


def merge_health(given: HealthConfig | None, image: ImageHealthConfig | None) -> HealthConfig | None:
    """Each value of the request that is set, and the image's for the others."""
    if image is None:
        return given
    given = given or HealthConfig()
    return HealthConfig(
        test=given.test or list(image.test) or None,
        interval=given.interval or image.interval,
        timeout=given.timeout or image.timeout,
        start_period=given.start_period or image.start_period,
        start_interval=given.start_interval or image.start_interval,
        retries=given.retries or image.retries,
    )


def command(config: ContainerConfig) -> tuple[str, list[str]]:
    """Path and arguments of the container's program. Raises NoCommand."""
    words = [*(config.entrypoint or ()), *(config.cmd or ())]
    if not words or not words[0]:
        raise NoCommand
    return words[0], words[1:]


def fill_host_config(given: HostConfig, daemon: ContainersConfig, *, network_disabled: bool = False) -> HostConfig:
    """The request with the daemon's defaults in the empty places, as inspect shows it."""
    mode = "none" if network_disabled else given.network_mode
    masked, readonly = given.masked_paths, given.readonly_paths
    options = parse_security_opts(given.security_opt or ())
    if options.system_paths_unconfined:
        masked, readonly = [], []
    if not given.privileged:
        masked = list(MASKED_PATHS) if masked is None else masked
        readonly = list(READONLY_PATHS) if readonly is None else readonly
    log = given.log_config
    if log.type in ("", daemon.log_driver):  # the daemon's options are for its own driver
        log = msgspec.structs.replace(log, type=daemon.log_driver, config={**daemon.log_opts, **(log.config or {})})
    # Docker shares the host's cgroup namespace on v1; ours is the container's own there too, it shows less.
    default_cgroupns = daemon.default_cgroupns_mode or ("host" if given.privileged else "private")
    return msgspec.structs.replace(
        given,
        runtime=daemon.oci_runtimes.name_for(given.runtime),
        network_mode="bridge" if mode in ("", "default") else mode,
        ipc_mode=given.ipc_mode or daemon.default_ipc_mode,
        userns_mode=given.userns_mode or options.userns,
        cgroupns_mode=given.cgroupns_mode or default_cgroupns,
        shm_size=given.shm_size or daemon.default_shm_size,
        memory_swap=given.memory_swap or 2 * given.memory,
        log_config=log,
        masked_paths=masked,
        readonly_paths=readonly,
        port_bindings=given.port_bindings or {},
        memory_swappiness=None if given.memory_swappiness == -1 else given.memory_swappiness,
        pids_limit=given.pids_limit if (given.pids_limit or 0) > 0 else None,
        oom_kill_disable=bool(given.oom_kill_disable),
        restart_policy=msgspec.structs.replace(given.restart_policy, name=given.restart_policy.name or "no"),
        init=given.init if given.init is not None or not daemon.init else True,
        dns=given.dns or [],
        dns_options=given.dns_options or [],
        dns_search=given.dns_search or [],
        ulimits=given.ulimits or [],
        devices=given.devices or [],
        blkio_weight_device=given.blkio_weight_device or [],
        blkio_device_read_bps=given.blkio_device_read_bps or [],
        blkio_device_write_bps=given.blkio_device_write_bps or [],
        blkio_device_read_iops=given.blkio_device_read_iops or [],
        blkio_device_write_iops=given.blkio_device_write_iops or [],
    )


def wanted_name(name: str) -> str:
    """The name of the request, checked; empty: one has to be made up. Raises InvalidName."""
    return check_name(name) if name else ""
