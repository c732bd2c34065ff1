"""`pier build --cache-from` and `--cache-to`: what they mean, and what lies in a folder."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any, cast

import pytest

from pier.cli.build_caches import Cache, caches_of, folders_of, send
from pier.cli.errors import Failure
from pier.oci import Digest


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name:1", [("registry", {"ref": "name:1"})]),
        ("one,two", [("registry", {"ref": "one"}), ("registry", {"ref": "two"})]),
        ("type=inline", [("inline", {})]),
        ("type=local,src=/x,tag=a=b", [("local", {"src": "/x", "tag": "a=b"})]),
        ("Type=registry,REF=Name", [("registry", {"ref": "Name"})]),
        ("", []),
    ],
)
def test_what_is_meant(text: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert [(each.kind, each.attrs) for each in caches_of([text])] == expected


@pytest.mark.parametrize(
    ("text", "words"), [("ref=x", 'type required form> "ref=x"'), ("type=registry,x", "invalid value x")]
)
def test_what_means_nothing(text: str, words: str) -> None:
    with pytest.raises(Failure) as caught:
        caches_of([text])
    assert caught.value.text == words


def test_folders_of_exports() -> None:
    caches = caches_of(["type=inline", "type=local,dest=/a", "type=local,dest=/b"])
    assert [each.dest for each in folders_of(caches)] == ["/a", "/b"]
    with pytest.raises(Failure, match="requires dest"):
        folders_of([Cache("local", {})])
    with pytest.raises(Failure, match="requires src"):
        send(cast(Any, None), [Cache("local", {})])


class Daemon:
    """Takes what is sent."""

    def __init__(self) -> None:
        self.taken: list[set[str]] = []

    def request(self, method: str, path: str, *, stream: Any) -> io.BytesIO:
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
            self.taken.append(set(archive.getnames()))
        return io.BytesIO()


def layout(folder: Path) -> dict[str, Any]:
    """One with a cache called `t`, and a blob that does not belong to it; the cache's entry."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes) -> dict[str, Any]:
        (blobs / Digest.of(data).hex).write_bytes(data)
        return {"digest": str(Digest.of(data)), "size": len(data)}

    put(b"another")
    entry = put(json.dumps({"config": put(b"config"), "layers": [put(b"layer"), put(b"layer")]}).encode())
    entry["annotations"] = {"org.opencontainers.image.ref.name": "t"}
    (folder / "index.json").write_text(json.dumps({"manifests": [entry]}))
    return entry


def test_only_the_chosen_cache_is_sent(tmp_path: Path) -> None:
    entry = layout(tmp_path)
    daemon = Daemon()
    asked = [{"tag": "t"}, {"digest": entry["digest"]}]
    assert send(cast(Any, daemon), [Cache("local", {"src": str(tmp_path), **each}) for each in asked]) == []
    names = {"index.json", f"blobs/{entry['digest'].replace(':', '/')}"}
    names |= {f"blobs/sha256/{Digest.of(data).hex}" for data in (b"config", b"layer")}
    assert daemon.taken == [names, names]
    [warning] = send(cast(Any, daemon), [Cache("local", {"src": str(tmp_path)})])
    assert warning == f"local cache import at {tmp_path} not found due to err: no cache is called latest"


@pytest.mark.parametrize("index", ["[]", "{", '{"manifests":[{"digest":"sha256:../../x"}]}', '{"manifests":[{}]}'])
def test_a_folder_that_is_something_else(tmp_path: Path, index: str) -> None:
    (tmp_path / "index.json").write_text(index)
    assert send(cast(Any, Daemon()), [Cache("local", {"src": str(tmp_path)})]) == [
        f"local cache import at {tmp_path} is no OCI image layout"
    ]
