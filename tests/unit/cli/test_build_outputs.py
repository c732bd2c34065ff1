"""What `pier build` asks its outputs to be, and how it takes them out of the stream."""

from __future__ import annotations

import io
import json
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pier.cli.build_agents import parse_agents
from pier.cli.build_outputs import Output, Receiver, annotations_of, outputs_of, parse_output
from pier.cli.errors import Failure


class Flags(dict[str, Any]):
    """Flags that were not given are empty."""

    def __missing__(self, name: str) -> Any:
        return {"push": False, "load": False, "iidfile": ""}.get(name, [])


def asked(**flags: Any) -> list[tuple[str, dict[str, str], str]]:
    return [(each.kind, each.attrs, each.dest) for each in outputs_of(Flags(flags))]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("out", ("local", {}, "out")),
        ("-", ("tar", {}, "-")),
        ("type=tar,dest=x.tar", ("tar", {}, "x.tar")),
        ("type=oci,dest=x.tar,compression=zstd", ("oci", {"compression": "zstd"}, "x.tar")),
        ("type=docker", ("image", {}, "")),
        ("type=registry,name=a/b", ("image", {"name": "a/b", "push": "true"}, "")),
        ('type=image,"name=a,b",Push=true', ("image", {"name": "a,b", "push": "true"}, "")),
        ("type=cacheonly", ("cacheonly", {}, "")),
    ],
)
def test_an_output(text: str, expected: tuple[str, dict[str, str], str]) -> None:
    found = parse_output(text)
    assert (found.kind, found.attrs, found.dest) == expected


def test_flags_together() -> None:
    assert asked() == [("image", {}, "")]
    assert asked(tag=["a", "b:1"], push=True) == [("image", {"push": "true", "name": "a,b:1"}, "")]
    assert [kind for kind, *_ in asked(output=["out"])] == ["local"]
    assert [kind for kind, *_ in asked(output=["out"], load=True)] == ["local", "image"]
    assert asked(output=["type=cacheonly"], annotation=["a=b"]) == [("cacheonly", {}, "")]
    assert asked(annotation=["a=b", "index,manifest[linux/arm64]:c=d"])[0][1] == {
        "annotation.a": "b",
        "annotation-index.c": "d",
        "annotation-manifest[linux/arm64].c": "d",
    }


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"output": ["type=local"]}, "dest is required for local exporter"),
        ({"output": ["type=oci,tar=false,dest="]}, "dest is required for oci exporter"),
        ({"output": ["type=tar,dest=/"]}, "destination file / is a directory"),
        ({"output": ["type=oci,foo"]}, "invalid value foo"),
        ({"output": ["dest=a,b=c"]}, "type is required for output"),
        ({"push": True}, "tag is needed when pushing to registry"),
        ({"annotation": ["c"]}, 'parse annotations: invalid annotation "c", expected key=value'),
        ({"annotation": ["foo:c=d"]}, 'parse annotations: unknown annotation type "foo"'),
        ({"output": ["out"], "iidfile": "x"}, "local and tar exporters are incompatible with image ID file"),
        (
            {"output": ["type=docker,dest=x"], "platform": ["linux/amd64,linux/arm64"]},
            "docker exporter does not support exporting manifest lists, use the oci exporter instead",
        ),
    ],
)
def test_what_is_wrong_with_outputs(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(Failure) as caught:
        outputs_of(Flags(flags))  # type: ignore[arg-type]
    assert str(caught.value) == message


def packed(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def stream(*parts: tuple[int, bytes] | dict[str, Any]) -> bytes:
    raw = b""
    for part in parts:
        if isinstance(part, dict):
            raw += json.dumps(part).encode() + b"\r\n"
            continue
        number, data = part
        for at in range(0, len(data), 1000):
            piece = data[at : at + 1000]
            raw += b'{"output":{"number":%d,"bytes":%d}}\n' % (number, len(piece)) + piece
        raw += b'{"output":{"number":%d}}\r\n' % number
    return raw


def in_pieces(raw: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(raw), size):
        yield raw[at : at + size]


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_outputs_are_taken_out_of_the_stream(tmp_path: Path, size: int) -> None:
    outputs = [Output("oci", {}, str(tmp_path / "o.tar")), Output("local", {}, str(tmp_path / "new/out"))]
    raw = stream(
        {"started": 1},
        (1, packed({"a/b": "x\n{\n"})),
        (0, b"\n\x00{" * 700),
        (1, packed({"c": "y"})),
        {"aux": 2},
    )
    lines = list(Receiver(outputs).lines(in_pieces(raw, size)))
    assert [json.loads(line) for line in lines] == [{"started": 1}, {"aux": 2}]
    assert (tmp_path / "o.tar").read_bytes() == b"\n\x00{" * 700
    assert (tmp_path / "new/out/a/b").read_text() == "x\n{\n"
    assert (tmp_path / "new/out/c").read_text() == "y"


def test_what_has_not_come_whole_is_not_left(tmp_path: Path) -> None:
    receiver = Receiver([Output("oci", {}, str(tmp_path / "o.tar"))])
    raw = stream((0, b"x" * 500))[:200]
    with pytest.raises(Failure, match="ended the build's stream within an output"):
        list(receiver.lines(iter([raw])))
    receiver.close()
    assert list(tmp_path.iterdir()) == []


def test_a_layout_keeps_what_it_names_already(tmp_path: Path) -> None:
    def entry(name: str, digest: str) -> dict[str, Any]:
        return {"digest": digest, "annotations": {"io.containerd.image.name": name}}

    place = tmp_path / "layout"
    for number, name in enumerate(("one", "two", "one")):
        index = json.dumps({"schemaVersion": 2, "manifests": [entry(name, str(number))]})
        output = Output("oci", {"tar": "false"}, str(place))
        list(Receiver([output]).lines(iter([stream((0, packed({"index.json": index})))])))
    assert [each["digest"] for each in json.loads((place / "index.json").read_text())["manifests"]] == ["1", "2"]


def test_annotations_of_every_place() -> None:
    assert annotations_of(["manifest-descriptor:a=b=c", ""]) == {"annotation-manifest-descriptor.a": "b=c"}


def test_agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "agent"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert parse_agents([f"x={path}"]) == {"x": str(path)}
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        assert parse_agents(["default"]) == {"default": str(path)}
    monkeypatch.delenv("SSH_AUTH_SOCK")
    with pytest.raises(Failure, match="invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set"):
        parse_agents(["default"])
    with pytest.raises(Failure, match='failed to convert agent config for ID: "x": stat /none: no such file'):
        parse_agents(["x=/none"])
    (tmp_path / "key").write_text("key")
    with pytest.raises(Failure, match="is no agent's socket: add the key to an agent"):
        parse_agents([f"x={tmp_path}/key"])
