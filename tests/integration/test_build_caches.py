"""Caches elsewhere with the real buildx: in images, in folders of the client's, at a registry; on both drivers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import Daemon
from .test_buildx import Buildx, buildx, context, plugins
from .test_interop import Registry, program, registry

__all__ = ["buildx", "context", "plugins", "program", "registry"]

pytestmark = pytest.mark.root

FILE = """\
FROM busybox AS side
RUN echo side > /side
FROM busybox
COPY a /a
RUN cat /a > /b
COPY --from=side /side /s
"""
OTHERS = "application/vnd.buildkit.cacheconfig.v0"


@pytest.fixture(params=["docker", "remote"])
def driver(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The flags that build by this driver of buildx."""
    flags: tuple[str, ...] = request.getfixturevalue("remote") if request.param == "remote" else ()
    return flags


@pytest.fixture
def remote(buildx: Buildx, daemon: Daemon) -> Iterator[tuple[str, str]]:
    """The flags that build by plain gRPC, which the client lets export caches."""
    buildx.ok("buildx", "create", "--name", "caches", "--driver", "remote", f"unix://{daemon.socket}")
    yield "--builder", "caches"
    buildx.ok("buildx", "rm", "caches")


def forget(buildx: Buildx) -> None:
    buildx.ok("buildx", "prune", "-af")


def cached(shown: str) -> int:
    return sum(line.endswith(" CACHED") for line in shown.splitlines())


def test_a_folder_of_the_clients(
    buildx: Buildx, driver: tuple[str, ...], context: Callable[..., Path], tmp_path: Path
) -> None:
    folder, place = context(FILE, a="A"), tmp_path / "cache"
    shown = buildx.build(folder, *driver, "--cache-to", f"type=local,dest={place},mode=max,compression=gzip")
    assert "exporting cache to client directory" in shown
    index = json.loads((place / "index.json").read_text())
    [entry] = index["manifests"]
    assert entry["annotations"]["org.opencontainers.image.ref.name"] == "latest"
    manifest = json.loads((place / "blobs" / entry["digest"].replace(":", "/")).read_text())
    assert manifest["config"]["mediaType"] == OTHERS
    assert any(layer["mediaType"].endswith("+gzip") for layer in manifest["layers"])
    forget(buildx)
    shown = buildx.build(folder, *driver, "--cache-from", f"type=local,src={place}")
    assert f"importing cache manifest from local:{place}" in shown
    assert cached(shown) == 4, shown
    forget(buildx)
    (folder / "a").write_text("B")  # what comes of another stage is found even so
    shown = buildx.build(folder, *driver, "--cache-from", f"type=local,src={place}")
    assert cached(shown) == 1, shown


def test_only_what_the_result_has_is_exported(
    buildx: Buildx, remote: tuple[str, str], context: Callable[..., Path], tmp_path: Path
) -> None:
    folder = context(FILE, a="least")
    where = f"type=local,dest={tmp_path / 'cache'},tag=t,image-manifest=false"
    buildx.build(folder, *remote, "--cache-to", where)
    forget(buildx)
    (folder / "Dockerfile").write_text(FILE.replace("--from=side /side /s", "--from=side /side /t"))
    shown = buildx.build(folder, *remote, "--cache-from", f"type=local,src={tmp_path / 'cache'},tag=t")
    assert cached(shown) == 2, shown
    assert "[side 2/2] RUN echo side > /side\n" in shown.replace("CACHED ", "")


def test_an_image_that_carries_its_cache(buildx: Buildx, context: Callable[..., Path], registry: Registry) -> None:
    folder, name = context(FILE, a="inline"), f"{registry.host}/inline:1"
    shown = buildx.build(folder, "--cache-to", "type=inline", "-t", name)
    assert "preparing layers for inline cache done" in shown
    id = buildx.ok("inspect", "-f", "{{.Id}}", name)
    buildx.ok("push", name)
    forget(buildx)
    shown = buildx.build(folder, "--cache-from", name, "--cache-to", "type=inline", "-t", "again")
    assert cached(shown) == 4, shown  # the last step is found, and so nothing below it is looked at
    assert buildx.ok("inspect", "-f", "{{.Id}}", "again") == id
    forget(buildx)
    buildx.ok("rmi", "-f", name, "again")
    (folder / "Dockerfile").write_text(FILE.replace("--from=side /side /s", "--from=side /side /t"))
    shown = buildx.build(folder, "--cache-from", f"type=registry,ref={name}", "-t", "again")
    assert cached(shown) == 2, shown
    shown = buildx.build(folder, "--build-arg", "BUILDKIT_INLINE_CACHE=1", "-t", "argument")
    assert "preparing layers for inline cache done" in shown


def test_a_registry(
    buildx: Buildx, remote: tuple[str, str], context: Callable[..., Path], registry: Registry, daemon: Daemon
) -> None:
    folder, name = context(FILE, a="registry"), f"{registry.host}/cache:1"
    shown = buildx.build(folder, *remote, "--cache-to", f"type=registry,ref={name},mode=max")
    assert "exporting cache to registry" in shown
    assert json.loads(registry.raw("cache:1"))["config"]["mediaType"] == OTHERS
    forget(buildx)
    assert cached(buildx.build(folder, "--cache-from", name)) == 4
    (folder / "Dockerfile").write_text("FROM busybox AS side\nRUN echo side > /side\nFROM busybox\nCOPY a /a\n")
    forget(buildx)
    shown = buildx.build(folder, "--cache-from", f"{registry.host}/none:1", "--cache-from", name)
    assert cached(shown) == 1
    assert "ERROR: failed to configure registry cache importer: " in shown


def test_what_cannot_be_is_said(
    buildx: Buildx, remote: tuple[str, str], context: Callable[..., Path], tmp_path: Path
) -> None:
    folder = context("FROM busybox\n")
    refused = {
        "type=nonesuch": 'unknown cache exporter: "nonesuch"',
        "type=registry,ref=127.0.0.1:1/X": "must be lowercase",
        f"type=local,dest={tmp_path},oci-mediatypes=perhaps": "failed to parse oci-mediatypes: strconv.ParseBool",
        f"type=local,dest={tmp_path},compression=rar": "unsupported compression type rar",
    }
    for wish, words in refused.items():
        done = buildx("buildx", "build", *remote, "--cache-to", wish, str(folder))
        assert done.returncode == 1, wish
        assert words in done.stderr, done.stderr
    shown = buildx.build(folder, *remote, "--cache-to", "type=registry,ref=127.0.0.1:1/X,ignore-error=true")
    assert "the cache is not exported to 127.0.0.1:1/X" in shown
    shown = buildx.build(folder, *remote, "--cache-to", "type=azblob,name=x", "--cache-to", "type=inline")
    assert "the cache is not exported to azblob" in shown


def test_piers_own_client(
    buildx: Buildx, context: Callable[..., Path], daemon: Daemon, registry: Registry, tmp_path: Path
) -> None:
    folder, place = context(FILE, a="own client"), tmp_path / "cache"

    def build(*flags: str) -> str:
        forget(buildx)
        done = daemon.pier("build", "--progress=plain", *flags, folder)
        assert done.status == 0, done.err
        return done.err

    name = f"{registry.host}/own:1"
    shown = build("-t", "carrier", "--cache-to", f"type=local,dest={place},mode=max", "--cache-to", "type=inline")
    assert "#1 [internal]" in shown
    assert [each["annotations"] for each in json.loads((place / "index.json").read_text())["manifests"]] == [
        {"org.opencontainers.image.ref.name": "latest"}
    ]
    assert build("--cache-from", f"type=local,src={place}").count("CACHED") == 4
    shown = build("--cache-to", f"type=local,dest={place},tag=other", "--cache-to", f"type=registry,ref={name}")
    assert len(json.loads((place / "index.json").read_text())["manifests"]) == 2
    assert build("--cache-from", name).count("CACHED") == 4
    assert build("--cache-from", "carrier").count("CACHED") == 4
    shown = build("--cache-from", f"type=local,src={tmp_path}/none", "--cache-from", f"type=local,src={place},tag=x")
    assert f"local cache import at {tmp_path}/none not found due to err: no such file or directory" in shown
    assert "CACHED" not in shown
    assert daemon.pier("build", "--cache-to", "type=local", folder).err == "local cache exporter requires dest\n"
    assert 'unknown cache exporter: "x"' in daemon.pier("build", "--cache-to", "type=x", folder).err
    (place / "blobs/sha256" / json.loads((place / "index.json").read_text())["manifests"][0]["digest"][7:]).unlink()
    assert "not found due to err" in build("--cache-from", f"type=local,src={place}")


def test_the_classic_builder(buildx: Buildx, context: Callable[..., Path]) -> None:
    folder = context(FILE, a="classic")
    buildx.environment["DOCKER_BUILDKIT"] = "0"
    buildx.ok("build", "--build-arg", "BUILDKIT_INLINE_CACHE=1", "-t", "classic-carrier", str(folder))
    forget(buildx)
    shown = buildx.ok("build", "--cache-from", "classic-carrier", "--cache-from", "no-such-image", str(folder))
    assert "Using cache" in shown
    assert "Running in" not in shown
    assert "WARNING: the cache of no-such-image is not used: No such image" in shown
