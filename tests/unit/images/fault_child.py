"""Scenarios on a store, each run in a process of its own that a fault may kill.

Reads a JSON object a line, `{"root": …, "scenario": …, "fault": …, "size": …}`: with a size the root is a tmpfs of so
many bytes. Answers each by the exit status, standard output and standard error of a fork; every module is loaded once.

A scenario prints how many times it was tried until it ended well, and how many trees could not be deleted. A fault that
is an error is raised once, so the second attempt, in the same process, must end well.
"""

# ruff: noqa: E402 - run as a program, it says itself where its neighbours are

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).parent)]

from lab import TOP, Lab, docker_archive, tar

from fixtures.registry import FakeRegistry
from pier.distribution import Registries, RegistryConfig
from pier.distribution.download import Backoff
from pier.images import ImageService
from pier.images.commit import Commit
from pier.kernel import namespaces
from pier.kernel.mounts import MS_PRIVATE, MS_REC, mount, mount_overlay
from pier.kernel.paths import closing
from pier.oci import Digest
from pier.oci.reference import Reference
from pier.runtime.request import OverlayRoot
from pier.storage import faults
from pier.storage.verify import leftovers, verify

CONTAINER = "c" * 64
BIG = tar({f"etc/{number}": b"%d" % number * 2000 for number in range(50)})


async def load(lab: Lab) -> None:
    await lab.load(docker_archive("loaded:1", layers=[BIG, TOP]))


async def import_(lab: Lab) -> None:
    await lab.import_(BIG, repo="imported", tag="1")


async def pull(lab: Lab) -> None:
    async with FakeRegistry().serving() as registry:
        images = {
            platform: registry.add_image("app", "", [BIG, TOP], platform=platform)
            for platform in ("linux/amd64", "linux/s390x")
        }
        registry.add_index("app", "1", images)
        registries = Registries(RegistryConfig(), backoff=Backoff(retries=2, first_s=0.01))
        service = ImageService(lab.content, lab.snapshots, lab.store, lab.bus, registries=registries)
        try:
            async for _ in service.pull(f"{registry.host}/app:1"):
                pass
        finally:
            await service.close()


async def commit(lab: Lab) -> None:
    if not lab.content.tags():
        await load(lab)
    image = await lab.images.get("loaded:1")
    lab.snapshots.remove(CONTAINER)
    root = lab.snapshots.prepare(CONTAINER, image.layers)
    assert isinstance(root, OverlayRoot)
    with closing(mount_overlay(root.lower, root.upper, root.work)) as fd:
        Path(f"/proc/self/fd/{fd}/etc/new").write_bytes(b"new" * 9000)
        Path(f"/proc/self/fd/{fd}/etc/1").unlink()
    asked = Commit(CONTAINER, image.id, image.config.config, {}, "a test")
    await lab.images.commit(asked, Reference.parse("committed:1"))
    assert (await lab.images.get("committed:1")).layers[:-1] == image.layers
    lab.snapshots.remove(CONTAINER)


async def compact(lab: Lab) -> None:
    """What `layer-blobs: rebuild` does after a load."""
    if not lab.content.tags():
        await load(lab)
    image = await lab.images.get("loaded:1")
    for digest, chain_id in zip((Digest.of(BIG), Digest.of(TOP)), image.layers, strict=True):
        with lab.content.keep():
            lab.content.drop(digest, chain_id)


async def collect(lab: Lab) -> None:
    if not lab.content.tags():
        await load(lab)
    lab.content.put(b"litter", "text/plain")
    lab.snapshots.unpack(Digest.of(TOP), None, io.BytesIO(TOP))
    await lab.images.delete("loaded:1", force=True)


SCENARIOS = {"load": load, "import": import_, "pull": pull, "commit": commit, "compact": compact, "collect": collect}


async def main(root: str, scenario: str) -> None:
    lab, attempts = None, 0
    while attempts < 3:
        attempts += 1
        try:
            lab = lab or Lab(root)
            await lab.images.start()
            await SCENARIOS[scenario](lab)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            assert "No space left" in text, text
            continue
        break
    assert lab is not None
    await lab.close()
    found = [*verify(lab.content, lab.snapshots), *leftovers(lab.content, lab.snapshots.root_dir)]
    in_trash = [path for path in found if "/trash/" in str(path)]
    print(attempts, len(in_trash))
    assert in_trash == found, found


def arm(fault: str) -> None:
    """As if PIER_FAULT had been set when the modules were loaded."""
    point = faults._armed(fault)
    for module in list(sys.modules.values()):
        if getattr(module, "point", None) is faults._nothing:
            module.point = point


def private_tmpfs(root: str, size: str) -> None:
    """A small disk that goes with this process."""
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", 0, f"size={size}")


def child(asked: dict[str, Any], out: int, err: int) -> None:
    """The fork's whole life."""
    status = 1
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdin = None
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
        if asked["size"]:
            private_tmpfs(asked["root"], asked["size"])
        if asked["fault"]:
            arm(asked["fault"])
        asyncio.run(main(asked["root"], asked["scenario"]))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if not pid:
            child(asked, out.fileno(), err.fileno())
        _, status = os.waitpid(pid, 0)
        written = {}
        for name, file in (("stdout", out), ("stderr", err)):
            file.seek(0)
            written[name] = file.read().decode()
    return {"status": os.waitstatus_to_exitcode(status), **written}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
