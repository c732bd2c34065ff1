"""What must not cross the border between a container and the host: mounts, keys, device nodes, the kernel's files."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from pier.kernel import mounts, namespaces
from pier.runtime.client import Runtime, StartFailed
from pier.runtime.process import rootfs
from pier.runtime.request import OverlayRoot

from .conftest import Lab
from .test_runtime import exec_request, run_exec

pytestmark = pytest.mark.root


def in_shared_mounts(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a scenario in a mount namespace of its own whose mounts are shared, as systemd makes them on a host."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            namespaces.unshare(namespaces.CLONE_NEWNS)
            mounts.mount(None, "/", None, mounts.MS_PRIVATE | mounts.MS_REC)
            mounts.mount(None, "/", None, mounts.MS_SHARED | mounts.MS_REC)
            asyncio.run(scenario())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    if raised:
        raise raised[0]


@pytest.mark.parametrize("propagation", ["", "slave", "shared"])
def test_trap_10_the_hosts_mounts_stay_as_they_are_whatever_a_volume_shares(
    propagation: str, tmp_path: Path, busybox_root: Path
) -> None:
    """On a host with shared mounts the container's root must not appear there, nor the old root's unmounting travel."""
    volume = tmp_path / "volume"
    volume.mkdir()

    async def scenario() -> None:
        mounts.mount("tmpfs", str(volume), "tmpfs", 0)
        (volume / "below").mkdir()
        mounts.mount("tmpfs", str(volume / "below"), "tmpfs", 0)
        before = Path("/proc/thread-self/mountinfo").read_text()
        assert "shared:" in before
        runtime = Runtime()
        await runtime.start()
        lab = Lab(runtime, tmp_path, busybox_root)
        try:
            request = lab.request(["sh", "-c", "cat /proc/self/mountinfo; sleep 100"])
            if propagation:
                request.spec["linux"]["rootfsPropagation"] = propagation
            options = ["rbind", propagation or "rprivate"]
            request.spec["mounts"].append(
                {"destination": "/volume", "type": "bind", "source": str(volume), "options": options}
            )
            container = await lab.start(request)
            try:
                await container.read_until(b" /volume/below ")
                assert Path("/proc/thread-self/mountinfo").read_text() == before
                lines = container.output.decode(errors="replace").splitlines()
                line = next(line for line in lines if " /volume " in line)
                assert {"": "", "slave": "master:", "shared": "shared:"}[propagation] in line
            finally:
                await lab.end()
            assert Path("/proc/thread-self/mountinfo").read_text() == before
        finally:
            await runtime.close()

    in_shared_mounts(scenario)


async def test_a_session_keyring_of_the_containers_own(lab: Lab) -> None:
    """The session keyring of the daemon, and through it the host's keys, must not be inherited."""
    if not Path("/proc/keys").exists():
        pytest.skip("this kernel has no keys")
    request = lab.request(["sh", "-c", "cat /proc/keys; echo read; sleep 100"])
    request.spec["linux"]["maskedPaths"] = []
    container = await lab.start(request)
    await container.read_until(b"read")
    _, text = await run_exec(lab, container, exec_request(["cat", "/proc/keys"]))
    for seen in (container.output.decode(errors="replace"), text):
        assert seen.count(f" _ses.{request.id}") == 1


@pytest.mark.parametrize(("link", "destination"), [("/proc", "/alias"), (".", "/alias/proc"), ("/proc/self", "/alias")])
async def test_attack_05_an_images_link_leads_no_volume_onto_proc(
    lab: Lab, tmp_path: Path, link: str, destination: str
) -> None:
    layer, volume = tmp_path / "layer", tmp_path / "volume"
    layer.mkdir()
    volume.mkdir()
    (layer / "alias").symlink_to(link)
    request = lab.request(["true"])
    root = OverlayRoot([str(layer), *request.root.lower], request.root.upper, request.root.work)
    for mount in (
        {"destination": destination, "type": "bind", "source": str(volume), "options": ["rbind"]},
        {"destination": destination, "type": "tmpfs", "source": "tmpfs"},
    ):
        spec = {**request.spec, "mounts": [*request.spec["mounts"], mount]}
        with pytest.raises(StartFailed, match="cannot be mounted because it is inside /proc"):
            await lab.start(lab.request(["true"], root=root, spec=spec))


async def test_a_dev_that_is_the_users_is_not_filled(lab: Lab, tmp_path: Path) -> None:
    theirs = tmp_path / "dev"
    theirs.mkdir()
    request = lab.request(["true"])
    request.spec["mounts"] = [mount for mount in request.spec["mounts"] if not mount["destination"].startswith("/dev")]
    request.spec["mounts"].append({"destination": "/dev", "type": "bind", "source": str(theirs), "options": ["rbind"]})
    container = await lab.start(request)
    assert (await container.running.wait()).exit_code == 0
    assert list(theirs.iterdir()) == []


def test_attack_07_a_device_swapped_for_a_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device on a volume that a neighbour shares: what lies behind the name may change right after mknod."""
    secret, volume = tmp_path / "secret", tmp_path / "volume"
    secret.write_text("host's")
    secret.chmod(0o600)
    volume.mkdir()

    def swapped(name: str, mode: int, device: int, *, dir_fd: int) -> None:
        os.symlink(secret, name, dir_fd=dir_fd)

    monkeypatch.setattr(rootfs.os, "mknod", swapped)
    root_fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    null_fd = rootfs.open_null()
    try:
        device = {"path": "/volume/x", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 5, "gid": 5}
        rootfs.MakeDevices([device]).execute(rootfs.Tree(root_fd, null_fd))
    finally:
        os.close(root_fd)
        os.close(null_fd)
    info = secret.stat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid) == (0o600, 0)
