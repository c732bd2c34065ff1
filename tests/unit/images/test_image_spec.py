"""What Pier writes is what the OCI image specification says: layout, index, manifests, configurations."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fixtures.image_spec import LAYOUT, document_faults, faults
from pier.images.changes import apply_changes
from pier.images.commit import Commit
from pier.oci.manifest import OCI_CONFIG, OCI_LAYER

from .lab import BASE, TOP, Lab, docker_archive, layout_files, tar

pytestmark = pytest.mark.root

CHANGES = (
    "USER 7:8",
    "EXPOSE 80 53/udp",
    "ENV A=b C=d",
    'ENTRYPOINT ["a"]',
    'CMD ["b"]',
    "VOLUME /data",
    "WORKDIR /work",
    "LABEL k=v",
    "STOPSIGNAL SIGINT",
    "HEALTHCHECK --interval=3s CMD true",
    "ONBUILD RUN true",
)


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    lab = Lab(str(tmp_path))
    await lab.images.start()
    yield lab
    await lab.close()


def documents(lab: Lab) -> list[Any]:
    """The JSON documents of the store, the index first."""
    folder = Path(lab.root) / "content"
    blobs = [path.read_bytes() for path in sorted(folder.glob("blobs/sha256/*"))]
    return [json.loads(data) for data in ((folder / "index.json").read_bytes(), *blobs) if data.startswith(b"{")]


async def test_every_document_is_as_specified(lab: Lab) -> None:
    await lab.load(docker_archive("saved:1"))
    await lab.load(tar(layout_files("layout:1", [BASE, TOP])))
    await lab.import_(TOP, repo="imported", tag="1", message="from a test", changes=CHANGES, platform="linux/arm/v6")
    await lab.import_(BASE)
    await lab.images.tag("saved:1", "other/name", "2")
    image = await lab.images.get("saved:1")
    lab.snapshots.prepare("c" * 64, image.layers)
    Path(lab.snapshots.root_dir, "containers", "c" * 64, "diff/new").write_bytes(b"new")
    changed = apply_changes(image.config.config, CHANGES)
    made = await lab.images.commit(Commit("c" * 64, image.id, changed, {"Hostname": "x"}, "sh", "me", "why"), None)
    found = documents(lab)
    assert len(found) == 1 + 2 + 2 + 2 * 2 + 2 - 1, "one configuration is that of two manifests"
    assert (await lab.images.get(str(made))).config.history[-1].comment == "why"
    assert [fault for document in found for fault in document_faults(document)] == []
    assert list(faults(json.loads((Path(lab.root) / "content/oci-layout").read_bytes()), LAYOUT)) == []
    written = next(document for document in found if document.get("os") and document["architecture"] == "arm")
    assert written["variant"] == "v6"
    assert sorted(written["config"]["ExposedPorts"]) == ["53/udp", "80/tcp"]
    for document in found:
        for layer in document.get("layers", []):
            assert layer["mediaType"] in (OCI_LAYER, f"{OCI_LAYER}+gzip")
            assert document["config"]["mediaType"] == OCI_CONFIG


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ({"schemaVersion": 1, "mediaType": "a/b", "manifests": []}, ".schemaVersion: 1"),
        ({"schemaVersion": 2, "mediaType": "a/b", "layers": []}, ".config: missing"),
        ({"os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}, ".architecture: missing"),
        ({"schemaVersion": 2, "mediaType": "a/b", "manifests": [{"size": True}]}, ".manifests[0].size: True is no int"),
    ],
)
def test_the_check_itself(document: Any, fault: str) -> None:
    assert fault in document_faults(document)
