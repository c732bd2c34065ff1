"""The same Dockerfiles, built by BuildKit 0.23 and recorded: files, configuration and history have to be the same.

`build_facts.json`: the context (a value after `->` is where a link points), and for each case the Dockerfile, the paths
that differ from the base (kind, mode, uid, gid, size, link, content), those that are gone, configuration and history.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from pier.builder import layers
from pier.builder.building import built, compiled
from pier.builder.dockerfile.options import Options
from pier.builder.dockerfile.parse import parse
from pier.builder.exporting import completed
from pier.builder.session import Given
from pier.builder.sources import context
from pier.builder.tree import Folder, Result, Tree
from pier.images import ImageService

from ..images.lab import config, docker_archive
from ..storage.archives import archive, directory, member, symlink
from .conftest import BUSYBOX, Lab, load

pytestmark = pytest.mark.root

FACTS = json.loads((Path(__file__).parents[2] / "fixtures/build_facts.json").read_text())
APPLETS = (
    "ash cat chmod chown cp echo env false grep hostname id ln ls mkdir mkfifo mount rm sh sort stat test touch true "
    "umask wc"
).split()
FURNITURE = {"etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab"}
AT_ONCE = 6


def base_layer() -> bytes:
    if not BUSYBOX.exists():
        pytest.skip("busybox-static is not installed")
    passwd = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n"
    return archive(
        [
            *(directory(name) for name in ("bin", "etc", "proc", "sys", "dev", "root", "var")),
            directory("tmp", mode=0o1777),
            member("bin/busybox", data=BUSYBOX.read_bytes(), mode=0o755),
            *(symlink(f"bin/{applet}", "busybox") for applet in APPLETS),
            member("etc/passwd", data=passwd),
            member("etc/group", data=b"root:x:0:\nnobody:x:65534:\n"),
        ]
    )


def packed() -> bytes:
    """The archive that ADD unpacks."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data, mode, owner in (("td", None, 0o750, 3), ("td/f", b"F", 0o640, 3), ("g", b"G", 0o4755, 0)):
            info = tarfile.TarInfo(name)
            info.mode, info.uid, info.gid, info.mtime = mode, owner, owner, 1_000_000_000
            info.type, info.size = (tarfile.DIRTYPE, 0) if data is None else (tarfile.REGTYPE, len(data))
            tar.addfile(info, io.BytesIO(data or b""))
        info = tarfile.TarInfo("sl")
        info.type, info.linkname = tarfile.SYMTYPE, "g"
        tar.addfile(info)
    return buffer.getvalue()


def make_context(place: Path) -> Folder:
    for name, value in FACTS["context"].items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if value is None:
            path.mkdir(exist_ok=True)
        elif value.startswith("->"):
            path.symlink_to(value[2:])
        elif value in ("TAR", "TGZ"):
            path.write_bytes(packed() if value == "TAR" else gzip.compress(packed(), mtime=0))
        else:
            path.write_text(value)
    for name, mode in FACTS["modes"].items():
        (place / name).chmod(int(mode, 8))
    return context.as_folder(str(place))


def listing(lab: Lab, result: Result) -> dict[str, list[Any]]:
    with layers.shown(lab.ground, result) as fd:
        links: dict[int, str] = {}
        return dict(_walk(f"/proc/self/fd/{fd}", "", links))


def _walk(root: str, at: str, links: dict[int, str]) -> Any:
    for name in sorted(os.listdir(f"{root}/{at}")):
        path = f"{at}{name}"
        if path in FURNITURE or path in ("dev", "proc", "sys"):
            continue
        info = os.lstat(f"{root}/{path}")
        yield path, _row(f"{root}/{path}", path, info, links)
        if stat.S_ISDIR(info.st_mode):
            yield from _walk(root, f"{path}/", links)


def _row(place: str, path: str, info: os.stat_result, links: dict[int, str]) -> list[Any]:
    mode, owner = f"{stat.S_IMODE(info.st_mode):o}", (info.st_uid, info.st_gid)
    kind = {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFIFO: "p"}[stat.S_IFMT(info.st_mode)]
    if kind == "f" and info.st_nlink > 1 and links.setdefault(info.st_ino, path) != path:
        return ["h", mode, *owner, 0, links[info.st_ino], ""]
    if kind != "f":
        return [kind, mode, *owner, 0, os.readlink(place) if kind == "l" else "", ""]
    data = Path(place).read_bytes()
    if path.endswith(".gz"):  # whose bytes are zlib's business
        return ["f", mode, *owner, 0, "", "gzip"]
    text = data.decode("utf-8", "replace") if len(data) < 400 else hashlib.sha256(data).hexdigest()[:12]
    return ["f", mode, *owner, len(data), "", text]


async def outcome(lab: Lab, folder: Folder, dockerfile: str, base: dict[str, Any]) -> dict[str, Any]:
    """What a case has come to, in the form of the facts."""
    session = Given(locals={"context": folder, "dockerfile": folder})
    async with lab.service.build(os.urandom(4).hex(), session) as build:
        file = parse(dockerfile.encode(), "Dockerfile")
        found = await built(lab.service, build, await compiled(lab.service, build, file, Options()))
        image = completed(found.compiled.image, found.tree, "2026-01-01T00:00:00Z", one_time=False)
        tree = await lab.ground.in_thread(listing, lab, found.tree)
    run = {key: value for key, value in msgspec.to_builtins(image.config).items() if value}
    return {
        "dockerfile": dockerfile,
        "tree": {path: row for path, row in tree.items() if base.get(path) != row},
        "gone": [path for path in base if path not in tree],
        "config": run,
        "history": [step.created_by for step in image.history],
    }


async def test_every_case_comes_to_what_buildkit_made_of_it(lab: Lab, tmp_path: Path) -> None:
    raw = base_layer()
    images = cast(ImageService, lab.ground.images)
    document = config([raw], Cmd=["sh"])
    await load(images, docker_archive("solve-base:latest", layers=[raw], document=document))
    base = await images.get("solve-base")
    tree = Tree(tuple(layers.LayerRef(diff_id) for diff_id in base.config.rootfs.diff_ids))
    at_base = listing(lab, tree)
    folder = make_context(tmp_path / "context")
    room = asyncio.Semaphore(AT_ONCE)

    async def one(name: str, facts: dict[str, Any]) -> str:
        below = {} if name.startswith("scratch") else at_base
        async with room:
            found = await outcome(lab, folder, facts["dockerfile"], below)
        if not name.startswith("scratch"):
            found["history"] = ["", *found["history"][1:]]
        different = {key: (found[key], facts[key]) for key in facts if found[key] != facts[key]}
        return f"{name}: {different}" if different else ""

    verdicts = await asyncio.gather(*(one(name, facts) for name, facts in FACTS["cases"].items()))
    assert [verdict for verdict in verdicts if verdict] == []
    assert lab.problems() == []
