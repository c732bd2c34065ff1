"""Attack 10 through the daemon: `import` and `load` of hostile archives beside a canary; the tables of entries are unit
tests of the extractor, what is new here is the way through API, content store and image service."""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..client import Client
from ..conftest import Daemon
from .conftest import Entry, archive, directory, entry, symlink

pytestmark = pytest.mark.root


def hard_link(name: str, target: str) -> Entry:
    return entry(name, kind=tarfile.LNKTYPE, link=target)


def device(name: str) -> Entry:
    made = entry(name, kind=tarfile.CHRTYPE, mode=0o666)
    made[0].devmajor, made[0].devminor = 1, 1
    return made


LAYERS: dict[str, Callable[[Path], list[Entry]]] = {
    "parent": lambda canary: [entry("../" * 30 + f"{canary}/new", data="owned")],
    "through a link": lambda canary: [symlink("s", str(canary)), entry("s/file", data="owned")],
    "through a relative link": lambda canary: [symlink("s", "../" * 30 + str(canary)), entry("s/file", data="owned")],
    "a link replaced": lambda canary: [symlink("s", f"{canary}/file"), entry("s", data="owned")],
    "hard link outside": lambda canary: [hard_link("h", f"{canary}/file"), entry("h", data="owned")],
    "hard link through a link": lambda canary: [symlink("s", str(canary)), hard_link("h", "s/file")],
    "mode through a link": lambda canary: [
        symlink("s", f"{canary}/file"),
        entry("s/", kind=tarfile.DIRTYPE, mode=0o777),
    ],
    "whiteout outside": lambda canary: [symlink("s", str(canary)), entry("s/.wh.file")],
    "whiteout of the parent": lambda canary: [entry("..", kind=tarfile.DIRTYPE), entry("a/.wh...")],
    "opaque outside": lambda canary: [symlink("s", str(canary)), entry("s/.wh..wh..opq")],
    "device through a link": lambda canary: [symlink("s", str(canary)), device("s/device")],
    "set-id through a link": lambda canary: [symlink("s", str(canary)), entry("s/su", mode=0o4755, data="owned")],
}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def config_of(layer: bytes) -> bytes:
    return json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest(layer)}"]},
        }
    ).encode()


def saved(layer: bytes) -> bytes:
    """As `docker save` writes it."""
    config = config_of(layer)
    manifest = [{"Config": "config.json", "RepoTags": ["hostile:saved"], "Layers": ["layer.tar"]}]
    return archive(
        entry("layer.tar", data=layer),
        entry("config.json", data=config),
        entry("manifest.json", data=json.dumps(manifest)),
    )


def layout(layer: bytes) -> bytes:
    """An OCI image layout."""
    packed, config = gzip.compress(layer), config_of(layer)
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("config.v1+json", config),
            "layers": [descriptor("layer.v1.tar+gzip", packed)],
        }
    ).encode()
    index = {"schemaVersion": 2, "manifests": [descriptor("manifest.v1+json", manifest)]}
    blobs = [entry(f"blobs/sha256/{digest(data)}", data=data) for data in (packed, config, manifest)]
    return archive(
        *blobs, entry("oci-layout", data='{"imageLayoutVersion":"1.0.0"}'), entry("index.json", data=json.dumps(index))
    )


def descriptor(kind: str, data: bytes) -> dict[str, object]:
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest(data)}", "size": len(data)}


def outside(daemon: Daemon) -> set[str]:
    """What stands in and directly below the daemon's folder, where a traversal out of a store would land first."""
    return {str(path) for depth in ("*", "*/*") for path in daemon.root.glob(depth) if "pier.db" not in path.name}


@pytest.fixture
def untouched(daemon: Daemon, pier: Client, canary: Path) -> Iterator[Path]:
    """The canary, the daemon's folder and its list of images stay as they are, and it goes on to answer."""
    images, before = pier.ok("images", "-aq"), outside(daemon)
    yield canary
    for image in set(pier.ok("images", "-aq").split()) - set(images.split()):
        pier("rmi", "--force", image)
    assert outside(daemon) == before
    assert pier("version").status == 0
    assert "Traceback" not in daemon.log.read_text()


@pytest.mark.parametrize("way", ["import", "load saved", "load layout"])
@pytest.mark.parametrize("name", LAYERS)
def test_attack_10_layers(pier: Client, untouched: Path, name: str, way: str) -> None:
    """Refused in one line, or taken in with everything inside the image; the canary tells."""
    layer = archive(*LAYERS[name](untouched))
    words = ["import", "-", "hostile:imported"] if way == "import" else ["load"]
    data = {"import": lambda made: made, "load saved": saved, "load layout": layout}[way](layer)
    done = pier(*words, stdin=data)
    if done.status:
        assert "archive entry" in done.err, done
        assert len(done.err.strip().splitlines()) <= 3, done.err


PATHS = [
    "../" * 30 + "etc/passwd",
    "/etc/passwd",
    "blobs/../../../etc/passwd",
    "link",
    "sha256:../../../etc/passwd",
    "",
    ".",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("field", ["Config", "Layers"])
def test_attack_10_names_in_the_table_of_contents(pier: Client, untouched: Path, field: str, path: str) -> None:
    """A name in manifest.json means a member of the archive, and never a file of the host."""
    layer = archive(entry("f", data="x"))
    table: dict[str, object] = {"Config": "config.json", "Layers": ["layer.tar"], "RepoTags": ["hostile:names"]}
    table[field] = path if field == "Config" else [path]
    data = archive(
        symlink("link", "/etc/passwd"),
        entry("layer.tar", data=layer),
        entry("config.json", data=config_of(layer)),
        entry("manifest.json", data=json.dumps([table])),
    )
    done = pier("load", stdin=data)
    assert done.status != 0
    assert "root:" not in done.out + done.err


@pytest.mark.parametrize(
    "value", ["sha256:../../../../etc/passwd", "../x", "sha256:" + 64 * "0", "md5:" + 32 * "0", ""]
)
def test_attack_10_digests_in_an_index(pier: Client, untouched: Path, value: str) -> None:
    named = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": value, "size": 2}
    index = json.dumps({"schemaVersion": 2, "manifests": [named]})
    done = pier(
        "load",
        stdin=archive(entry("oci-layout", data='{"imageLayoutVersion":"1.0.0"}'), entry("index.json", data=index)),
    )
    assert done.status != 0


def test_attack_10_names_of_the_archive_itself(pier: Client, untouched: Path) -> None:
    """Members of an image archive are taken by content: none is written under the name it has."""
    layer = archive(entry("f", data="x"))
    hostile = [
        entry("../" * 30 + f"{untouched}/new", data="owned"),
        entry(f"{untouched}/file", data="owned"),
        symlink("blobs", str(untouched)),
        entry("blobs/new", data="owned"),
        hard_link("blobs/file", "/etc/passwd"),
        directory("../../../pier-new"),
        device("device"),
    ]
    done = pier("load", stdin=archive(*hostile) + saved(layer))
    assert "owned" not in done.out


def test_attack_10_an_archive_in_an_archive(pier: Client, untouched: Path) -> None:
    """A layer that is an image archive is files, nothing more."""
    inner = saved(archive(symlink("s", str(untouched)), entry("s/file", data="owned")))
    done = pier("load", stdin=saved(archive(entry("image.tar", data=inner), entry("manifest.json", data="[]"))))
    assert done.status == 0, done.err
