"""Images go round with the tools of others: Debian's registry, skopeo and umoci; what comes back is what went."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fixtures.loopback import listen

from .client import Client
from .conftest import DEMO, Daemon, poll

pytestmark = pytest.mark.root

TOOL = DEMO.parent / "tools" / "registry"
BUSYBOX = Path("/bin/busybox")
USER, PASSWORD = "alice", "s3cret"
HTPASSWD = f"{USER}:$2b$04$3ysY9HF3O2eIXUlJrqcJsOdJ8iriXOmm/ltfU74.5GRWjM3SQ8gyK\n"
CONFIG = """version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}
compatibility: {{schema1: {{enabled: true}}}}
http: {{addr: "{host}"}}
{auth}
"""


@pytest.fixture(scope="module")
def program() -> str:
    """Debian's docker-registry; the module is skipped without it, skopeo or umoci."""
    for tool in ("skopeo", "umoci"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    found = subprocess.run([TOOL], capture_output=True, text=True, check=False, timeout=300)
    if found.returncode:
        pytest.skip(f"there is no docker-registry: {found.stderr.strip()}")
    return found.stdout.strip()


@dataclass
class Registry:
    """One that runs; `host` is 127.0.0.1:PORT."""

    host: str

    def raw(self, name: str) -> bytes:
        """The bytes of a manifest or index, as skopeo fetches it."""
        return skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{self.host}/{name}")

    def digest(self, name: str) -> str:
        return skopeo("inspect", "--tls-verify=false", "--format", "{{.Digest}}", self.at(name)).decode().strip()

    def at(self, name: str) -> str:
        return f"docker://{self.host}/{name}"


def serve(program: str, folder: Path, auth: str = "") -> Iterator[Registry]:
    with listen() as probe:
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    config = folder / "registry.yml"
    config.write_text(CONFIG.format(root=folder / "registry", host=host, auth=auth))
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def answers() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", int(host.rpartition(":")[2]))) == 0

    try:
        poll(answers, "the registry")
        yield Registry(host)
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def registry(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    yield from serve(program, tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def private(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """One that asks for a login."""
    folder = tmp_path_factory.mktemp("private")
    (folder / "htpasswd").write_text(HTPASSWD)
    yield from serve(program, folder, f"auth: {{htpasswd: {{realm: x, path: {folder}/htpasswd}}}}")


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory, program: str) -> Path:
    """An OCI image layout that umoci has made: `app:1`, two layers and a command."""
    place = tmp_path_factory.mktemp("umoci") / "layout"
    note = place.parent / "note"
    note.write_text("by umoci\n")
    umoci("init", "--layout", str(place))
    umoci("new", "--image", f"{place}:1")
    umoci("insert", "--image", f"{place}:1", str(BUSYBOX), "/bin/busybox")
    umoci("insert", "--image", f"{place}:1", str(note), "/etc/note")
    command = ("--config.entrypoint", "/bin/busybox", "--config.cmd", "cat", "--config.cmd", "/etc/note")
    umoci("config", "--image", f"{place}:1", *command)
    return place


def skopeo(*words: str) -> bytes:
    return _run("skopeo", *words)


def umoci(*words: str) -> bytes:
    return _run("umoci", *words)


def _run(*words: str) -> bytes:
    done = subprocess.run(words, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, f"{words}: {done.stderr.decode(errors='replace')}"
    return done.stdout


def manifest_digest(docker: Client, name: str) -> str:
    """By which the image was pulled or pushed."""
    return docker.ok("image", "inspect", "-f", "{{index .RepoDigests 0}}", name).partition("@")[2]


@pytest.fixture
def pushed(registry: Registry, layout: Path) -> str:
    """The image of `layout`, in the registry as `app:1`."""
    skopeo("copy", "--dest-tls-verify=false", f"oci:{layout}:1", registry.at("app:1"))
    return f"{registry.host}/app:1"


def test_an_image_of_umoci_s_through_skopeo_and_the_registry(docker: Client, registry: Registry, pushed: str) -> None:
    """pull → run → push → pull: the digest is the same everywhere."""
    digest = registry.digest("app:1")
    docker.ok("pull", pushed)
    assert docker.ok("run", "--rm", pushed) == "by umoci"
    assert manifest_digest(docker, pushed) == digest
    copy = f"{registry.host}/elsewhere/copy:2"
    docker.ok("tag", pushed, copy)
    assert f"digest: {digest}" in docker.ok("push", copy)
    assert registry.raw("elsewhere/copy:2") == registry.raw("app:1")
    docker.ok("rmi", pushed, copy)
    docker.ok("pull", f"{registry.host}/elsewhere/copy@{digest}")
    assert docker.ok("run", "--rm", f"{registry.host}/elsewhere/copy@{digest}") == "by umoci"
    docker.ok("rmi", f"{registry.host}/elsewhere/copy@{digest}")


@pytest.mark.parametrize(
    "options",
    [
        ["--format", "v2s2"],
        ["--format", "oci", "--dest-compress-format", "zstd"],
        ["--format", "oci", "--dest-decompress"],
    ],
)
def test_every_format_and_compression(
    docker: Client, registry: Registry, layout: Path, tmp_path: Path, options: list[str]
) -> None:
    source = f"oci:{layout}:1"
    if "--dest-decompress" in options:  # skopeo does so for folders only
        skopeo("copy", "--dest-decompress", source, f"dir:{tmp_path}/plain")
        source, options = f"dir:{tmp_path}/plain", []
    skopeo("copy", *options, "--dest-tls-verify=false", source, registry.at("formats:1"))
    name = f"{registry.host}/formats:1"
    docker.ok("pull", name)
    assert docker.ok("run", "--rm", name) == "by umoci"
    docker.ok("tag", name, f"{registry.host}/formats:2")
    docker.ok("push", f"{registry.host}/formats:2")
    assert registry.raw("formats:2") == registry.raw("formats:1")


def test_the_store_is_read_in_place(docker: Client, daemon: Daemon, pushed: str, tmp_path: Path) -> None:
    """`oci:` of skopeo and the layouts of umoci are what the data root has."""
    docker.ok("pull", pushed)
    store = daemon.data_root / "content"
    said = json.loads(skopeo("inspect", f"oci:{store}:{pushed}"))
    assert said["Digest"] == manifest_digest(docker, pushed)
    assert pushed in umoci("ls", "--layout", str(store)).decode().split()
    skopeo("copy", f"oci:{store}:{pushed}", f"oci:{tmp_path}/out:1")
    umoci("unpack", "--rootless", "--image", f"{tmp_path}/out:1", str(tmp_path / "bundle"))
    assert (tmp_path / "bundle/rootfs/etc/note").read_text() == "by umoci\n"


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
def test_archives_of_skopeo_are_loaded(docker: Client, layout: Path, tmp_path: Path, kind: str) -> None:
    archive = tmp_path / "image.tar"
    skopeo("copy", f"oci:{layout}:1", f"{kind}:{archive}:t-skopeo:{kind}")
    loaded = docker.ok("load", "-i", str(archive)).splitlines()[-1]
    name = loaded.removeprefix("Loaded image: ")
    assert name == f"t-skopeo:{kind}"
    assert docker.ok("run", "--rm", name) == "by umoci"


def test_an_index_of_docker_manifest_goes_round_whole(docker: Client, registry: Registry, layout: Path) -> None:
    """Two platforms, listed by Docker's client, pulled one by one, pushed on as what they were."""
    host, other = index_of_two(docker, registry, layout)
    name, copy = f"{registry.host}/list:1", f"{registry.host}/list-copy:1"
    docker.ok("pull", name)
    assert docker.ok("run", "--rm", name) == "by umoci"
    docker.ok("pull", "--platform", other, name)
    assert docker.ok("image", "inspect", "--platform", other, "-f", "{{.Architecture}}", name) == other.split("/")[1]
    assert docker.ok("image", "inspect", "-f", "{{.Os}}/{{.Architecture}}", name) == host
    made = docker.ok("create", "--platform", other, name)
    assert docker.ok("ps", "-aq", "--no-trunc", "--filter", f"ancestor={name}") == made
    docker.ok("rm", made)
    docker.ok("tag", name, copy)
    docker.ok("push", copy)
    assert registry.raw("list-copy:1") == registry.raw("list:1")
    tree = docker.ok("images", "--tree", name)
    assert f"├─ {host}" in tree
    assert f"└─ {other}" in tree
    docker.ok("push", "--platform", other, copy)
    assert "manifests" not in json.loads(registry.raw("list-copy:1"))
    pier = Client(docker.environment, docker.image, "pier")
    template = "{{.Os}}/{{.Architecture}}"
    assert pier.ok("image", "inspect", "--platform", other, "-f", template, name) == other
    assert pier.ok("history", "-q", "--platform", other, name).count("\n") == docker.ok("history", "-q", name).count(
        "\n"
    )
    pier.ok("rmi", "--platform", other, name)
    assert docker("rmi", "--platform", other, name).status == 1
    assert docker("image", "inspect", "--platform", other, name).status == 1
    assert docker.ok("run", "--rm", name) == "by umoci"


def index_of_two(docker: Client, registry: Registry, layout: Path) -> tuple[str, str]:
    """`list:1` of the image for this host and for another; returns the two platforms."""
    version: Any = json.loads(docker.ok("version", "-f", "json"))["Server"]
    host = f"{version['Os']}/{version['Arch']}"
    other = "linux/s390x"
    for tag, platform in (("host", host), ("other", other)):
        umoci("config", "--image", f"{layout}:1", "--tag", tag, "--architecture", platform.split("/")[1])
        skopeo("copy", "--dest-tls-verify=false", f"oci:{layout}:{tag}", registry.at(f"list:{tag}"))
    at = f"{registry.host}/list"
    docker.ok("manifest", "create", "--insecure", f"{at}:1", f"{at}:host", f"{at}:other")
    docker.ok("manifest", "annotate", "--arch", "s390x", f"{at}:1", f"{at}:other")
    docker.ok("manifest", "push", "--insecure", "--purge", f"{at}:1")
    return host, other


def test_all_tags(docker: Client, registry: Registry, layout: Path) -> None:
    for tag in ("a", "b"):
        skopeo("copy", "--dest-tls-verify=false", f"oci:{layout}:1", registry.at(f"tags:{tag}"))
    docker.ok("pull", "-a", f"{registry.host}/tags")
    assert {f"{registry.host}/tags:{tag}" for tag in ("a", "b")} <= docker.names()
    for tag in ("a", "b"):
        docker.ok("tag", f"{registry.host}/tags:{tag}", f"{registry.host}/tags-copy:{tag}")
    docker.ok("push", "-a", f"{registry.host}/tags-copy")
    assert set(json.loads(skopeo("list-tags", "--tls-verify=false", registry.at("tags-copy")))["Tags"]) == {"a", "b"}


def test_wish_07_both_clients_are_told_what_changed(docker: Client, registry: Registry, layout: Path) -> None:
    pier = Client(docker.environment, docker.image, "pier")
    name = f"{registry.host}/moves:1"

    def put(source: str) -> str:
        skopeo("copy", "--dest-tls-verify=false", f"oci:{layout}:{source}", registry.at("moves:1"))
        return registry.digest("moves:1")

    umoci("config", "--image", f"{layout}:1", "--tag", "newer", "--config.env", "NEWER=1")
    old = put("1")
    assert pier.ok("pull", name).splitlines()[-2:] == [f"Status: Downloaded newer image for {name}", name]
    assert pier.ok("pull", name).splitlines()[-2:] == ["up to date", name]
    docker.ok("tag", name, f"{registry.host}/moves:old")
    new = put("newer")
    assert pier.ok("pull", name).splitlines()[-2:] == [f"updated: {old} -> {new}", name]
    said = docker.ok("pull", name).splitlines()
    assert f"Status: Image is up to date for {name}" in said
    docker.ok("tag", f"{registry.host}/moves:old", name)
    said = docker.ok("push", name).splitlines()
    assert said[-2] == f"1: updated: {new} -> {old}"
    assert said[-1].startswith(f"1: digest: {old} size: ")
    assert "1: up to date" in pier.ok("push", name).splitlines()


def test_trap_25_a_login_is_asked_for_and_kept(docker: Client, private: Registry) -> None:
    name = f"{private.host}/team/app:1"
    docker.ok("tag", docker.image, name)
    refused = docker("push", name)
    assert refused.status == 1
    assert "no basic auth credentials (asked" in refused.err
    assert docker("login", "-u", USER, "--password-stdin", private.host, stdin=b"wrong").status == 1
    docker.ok("login", "-u", USER, "--password-stdin", private.host, stdin=PASSWORD.encode())
    try:
        docker.ok("push", name)
        docker.ok("rmi", name)
        docker.ok("pull", name)
    finally:
        docker.ok("logout", private.host)
    refused = docker("pull", name)
    assert refused.status == 1
    assert f'Head "http://{private.host}/v2/team/app/manifests/1": no basic auth credentials' in refused.err


def test_schema_1_is_refused_with_advice(docker: Client, registry: Registry, layout: Path) -> None:
    skopeo("copy", "--format", "v2s1", "--dest-tls-verify=false", f"oci:{layout}:1", registry.at("old:1"))
    refused = docker("pull", f"{registry.host}/old:1")
    assert refused.status == 1
    assert "schema 1 support has been removed. Suggest the author of " in refused.err
    assert "push" in refused.err
