"""`docker image inspect`: an image as the Engine API shows it. Pure."""

from __future__ import annotations

from pier.images.image import Image
from pier.model.health import HealthConfig
from pier.model.image import (
    DriverData,
    ImageConfig,
    ImageInspect,
    ImageMetadata,
    RootFS,
)
from pier.model.time import rfc3339_nano
from pier.oci import RunConfig, image_config


def inspection(image: Image, *, size_bytes: int, driver: DriverData, last_tag_ns: int, parent: str) -> ImageInspect:
    """The answer; `last_tag_ns` is 0 where the image was never tagged here, `parent` what it was committed from."""
    config = image.config
    return ImageInspect(
        id=str(image.id),
        repo_tags=image.repo_tags,
        repo_digests=image.repo_digests,
        parent=parent,
        comment=config.history[-1].comment if config.history else "",
        created=config.created,
        container=config.container,
        container_config=config.container_config,
        docker_version=config.docker_version,
        author=config.author,
        architecture=config.architecture,
        variant=config.variant,
        os=config.os,
        os_version=config.os_version,
        size=size_bytes,
        graph_driver=driver,
        root_fs=RootFS(layers=[str(diff_id) for diff_id in config.rootfs.diff_ids]),
        metadata=ImageMetadata(last_tag_time=rfc3339_nano(last_tag_ns)),
        config=run_config(config.config),
    )


def run_config(config: RunConfig) -> ImageConfig:
    """The configuration in the API's form, where what is empty is null."""
    return ImageConfig(
        args_escaped=config.args_escaped,
        cmd=config.cmd,
        entrypoint=config.entrypoint,
        env=config.env or None,
        exposed_ports={port: {} for port in config.exposed_ports} or None,
        healthcheck=_health(config.healthcheck) if config.healthcheck else None,
        labels=config.labels or None,
        on_build=config.on_build or None,
        shell=config.shell or None,
        stop_signal=config.stop_signal,
        user=config.user,
        volumes={path: {} for path in config.volumes} or None,
        working_dir=config.working_dir,
    )


def _health(health: image_config.HealthConfig) -> HealthConfig:
    return HealthConfig(
        test=health.test or None,
        interval=health.interval,
        timeout=health.timeout,
        start_period=health.start_period,
        start_interval=health.start_interval,
        retries=health.retries,
    )
