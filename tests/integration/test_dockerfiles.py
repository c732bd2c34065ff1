"""Dockerfiles that Docker 28.5 has built, built here: the files each changes in its base image, owner and mode and all.

`tests/fixtures/dockerfiles.json` records them; what becomes of the configuration is tested beside the compiler.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from .conftest import Daemon

pytestmark = pytest.mark.root

RECORDED = json.loads((Path(__file__).parents[1] / "fixtures" / "dockerfiles.json").read_text())
_MADE_BY_THE_ENGINE = re.compile(r"|\.dockerenv|dev(/.*)?|proc|sys|etc(/(hostname|hosts|mtab|resolv\.conf))?")
_FILES = {"a": "A\n", "b": "B\n", "dir/x": "x", "dir/sub/y": "y", "dir/sab/z": "z", "sp ace": "s"}
_LINKS = {"dir/in": "../a", "link": "a"}

Tree = dict[str, list[Any]]


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[Any]:
    connected = docker.DockerClient(base_url=f"unix://{daemon.socket}")
    yield connected
    connected.api.prune_builds(all=True)
    connected.close()


@pytest.fixture(scope="module")
def base(client: Any) -> Tree:
    return tree(client, "busybox")


def entry(name: str, data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, io.BytesIO]:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info, io.BytesIO(data)


def context(dockerfile: str) -> bytes:
    packed, inner = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as archive:
        archive.addfile(*entry("f", type=tarfile.DIRTYPE, mode=0o755))
        archive.addfile(*entry("f/one", b"1"))
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for folder in ("dir", "dir/sub", "dir/sab"):
            archive.addfile(*entry(folder, type=tarfile.DIRTYPE, mode=0o755))
        for name, text in {**_FILES, "Dockerfile": dockerfile, ".dockerignore": "Dockerfile\n.dockerignore"}.items():
            archive.addfile(*entry(name, text.encode()))
        for name, target in _LINKS.items():
            archive.addfile(*entry(name, type=tarfile.SYMTYPE, linkname=target, mode=0o777))
        archive.addfile(*entry("t.tar", inner.getvalue()))
    return packed.getvalue()


def tree(client: Any, image: str) -> Tree:
    """Path -> type, mode, owner, group, target or digest of the content."""
    container = client.api.create_container(image, "x")["Id"]
    try:
        data = b"".join(client.api.export(container))
    finally:
        client.api.remove_container(container)
    found: Tree = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            content = hashlib.sha256(file.read()).hexdigest()[:16] if file else ""
            name = member.name.removeprefix("./").rstrip("/")
            if not _MADE_BY_THE_ENGINE.fullmatch(name):
                kind = member.type.decode()
                found[name] = [kind, f"{member.mode:o}", member.uid, member.gid, member.linkname or content]
    return found


def options(text: str) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if match := re.match(r"# build-args: (.*)\n", text):
        said["buildargs"] = dict(each.split("=", 1) for each in match[1].split())
    if match := re.match(r"# target: (.*)\n", text):
        said["target"] = match[1]
    return said


@pytest.mark.parametrize("recorded", RECORDED, ids=[str(number) for number in range(len(RECORDED))])
def test_the_same_files_as_docker_makes(client: Any, base: Tree, recorded: dict[str, Any]) -> None:
    text = recorded["dockerfile"]
    stream = client.api.build(
        fileobj=io.BytesIO(context(text)), custom_context=True, tag="recorded", decode=True, **options(text)
    )
    failed = [line["error"] for line in stream if "error" in line]
    assert not failed
    try:
        made = tree(client, "recorded")
    finally:
        client.api.remove_image("recorded", force=True)
    changed = {name: facts for name, facts in made.items() if base.get(name) != facts}
    assert changed == recorded["files"]


def test_questions_about_a_dockerfile(daemon: Daemon, tmp_path: Path) -> None:
    """`--check` and `--call` send the Dockerfile alone, and print what buildx prints."""
    text = (
        "# check=experimental=CopyIgnoredFile\n# N says who\nARG N=1\nFROM busybox AS out\nARG N\nCOPY gone /\nCMD $N"
    )
    (tmp_path / "Dockerfile").write_text(text)
    (tmp_path / ".dockerignore").write_text("gone\n")
    os.mkfifo(tmp_path / "pipe")
    checked = daemon.pier("build", "--check", tmp_path)
    assert (checked.status, checked.err) == (1, "")
    assert checked.out.startswith("Check complete, 2 warnings have been found!\n\nWARNING: CopyIgnoredFile - ")
    found = json.loads(daemon.pier("build", "--call=check,format=json,ignorestatus", tmp_path).out)
    assert [warning["ruleName"] for warning in found["warnings"]] == ["CopyIgnoredFile", "JSONArgsRecommended"]
    outline = daemon.pier("build", "--call=outline", "--build-arg", "N=7", tmp_path)
    assert outline.out == "TARGET: out\n\nBUILD ARG   VALUE   DESCRIPTION\nN           7       says who\n\n"
    targets = daemon.pier("build", "--call=targets", "-f", "-", tmp_path, stdin=b"FROM busybox AS one\nFROM one")
    assert targets.out == "TARGET    DESCRIPTION\none       \n(default) \n"
    wrong = daemon.pier("build", "--call=outline", "-f", "-", tmp_path, stdin=b"FORM busybox")
    assert "dockerfile parse error on line 1: unknown instruction: FORM (did you mean FROM?)" in wrong.err
    assert daemon.pier("build", "--call=nothing", tmp_path).err.startswith("invalid call 'nothing'")
