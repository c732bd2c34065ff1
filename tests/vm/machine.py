"""Boot a distribution's kernel in qemu, without KVM, on a root file system of our own, and run tests in it.

.venv/bin/python tests/vm/machine.py [--systemd] [PYTEST ARGUMENTS]   # from the checkout's folder; shows what it says
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import initramfs

CHECKOUT = Path(__file__).resolve().parents[2]
QEMU = "qemu-system-x86_64"
MEMORY_MIB = 1024
TIMEOUT_S = 240
"""Three times what it takes on a machine that has nothing else to do."""
SYSTEMD_TIMEOUT_S = 300
"""With systemd as init: its tests wait for it, which has this one processor, too."""
MODULES = (
    *("overlay", "veth", "bridge", "nf_tables", "virtio_pci", "virtio_blk", "ext4"),
    *("macvlan", "ipvlan", "8021q", "dummy"),
)
"""What Pier needs of the kernel that distributions build as modules, the disks' driver, and a file system for one."""
STORE_BYTES = 64 << 20


COMMAND_LINE = (
    "console=ttyS0 loglevel=4 panic=-1 "
    # what costs an emulated processor time and changes nothing for cgroups and containers
    "mitigations=off nokaslr init_on_alloc=0 audit=0 no_timer_check tsc=reliable random.trust_cpu=on"
)
"""The kernel's; with one processor and four-level page tables, a third less time than with qemu's own choice."""


class Unavailable(Exception):
    """The machine cannot be had here; the text says why."""


@dataclass(frozen=True)
class Outcome:
    """How one test in the guest went."""

    test: str
    when: str
    outcome: str
    seconds: float
    text: str


@dataclass
class Session:
    """What a machine said from its start to its end."""

    outcomes: list[Outcome] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    """`kernel`, `uptime` (seconds from boot to Python), `ended` (pytest's exit status; missing when it did not end)."""
    console: str = ""
    seconds: float = 0

    def of(self, test: str) -> list[Outcome]:
        """Outcomes of one test function, all its parameters included."""
        return [outcome for outcome in self.outcomes if outcome.test.partition("[")[0] == test]


def run(kernel_package: Path, arguments: Sequence[str], *, systemd: bool = False) -> Session:
    """Boot, run pytest with `arguments` in the checkout's folder, and power off; with `systemd` that is pid 1."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pier-vm-") as name:
        folder = Path(name)
        kernel, modules = unpack_kernel(kernel_package, folder)
        initramfs.build(
            folder / "initrd",
            checkout=CHECKOUT,
            modules=modules,
            wanted_modules=MODULES,
            arguments=json.dumps(list(arguments)),
            systemd=systemd,
        )
        session = boot(kernel, folder / "initrd", folder, SYSTEMD_TIMEOUT_S if systemd else TIMEOUT_S)
    session.seconds = time.monotonic() - began
    return session


def unpack_kernel(package: Path, folder: Path) -> tuple[Path, Path]:
    """Extract a kernel package; returns the kernel and its folder of modules."""
    subprocess.run(["dpkg-deb", "-x", str(package), str(folder / "kernel")], check=True, timeout=60)
    (kernel,) = folder.glob("kernel/boot/vmlinuz-*")
    (modules,) = [*folder.glob("kernel/lib/modules/*"), *folder.glob("kernel/usr/lib/modules/*")]
    return kernel, modules


def boot(kernel: Path, initrd: Path, folder: Path, timeout_s: float) -> Session:
    """Run the machine until it powers itself off or its time is over."""
    console, results = folder / "console", folder / "results"
    with open(folder / "store", "wb") as store:  # the guest's /dev/vdb, to make a file system on
        store.truncate(STORE_BYTES)
    command = [
        QEMU,
        *("-accel", "tcg", "-cpu", "max,la57=off", "-smp", "1", "-m", str(MEMORY_MIB)),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-net", "none"),
        *("-blockdev", "driver=null-co,node-name=disk,size=16777216,read-zeroes=on"),
        *("-device", "virtio-blk-pci,drive=disk"),
        *("-blockdev", f"driver=file,node-name=store,filename={folder / 'store'}"),
        *("-device", "virtio-blk-pci,drive=store"),
        *("-kernel", str(kernel), "-initrd", str(initrd)),
        *("-append", COMMAND_LINE),
        *("-serial", f"file:{console}", "-serial", f"file:{results}"),
    ]
    with contextlib.suppress(subprocess.TimeoutExpired):
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=timeout_s, check=False
        )
        if ended.returncode:
            raise RuntimeError(f"{QEMU}: {ended.stderr}")
    return parse(results.read_text(errors="replace"), console.read_text(errors="replace"))


def parse(results: str, console: str) -> Session:
    """Read the guest's lines of JSON; the last may be cut off when it was killed."""
    session = Session(console=console)
    for line in results.splitlines():
        try:
            message = json.loads(line)
        except ValueError:
            continue
        if "test" in message:
            session.outcomes.append(Outcome(**message))
        else:
            session.facts |= message
    return session


def kernel_package() -> Path:
    """The cached kernel package. Raises Unavailable."""
    if shutil.which(QEMU) is None:
        raise Unavailable(f"{QEMU} is not installed")
    if not initramfs.BUSYBOX.exists():
        raise Unavailable("busybox-static is not installed")
    found = subprocess.run([CHECKOUT / "tools/cloud-kernel"], capture_output=True, text=True, timeout=300, check=False)
    if found.returncode:
        raise Unavailable(found.stderr.strip() or f"tools/cloud-kernel ended with {found.returncode}")
    return Path(found.stdout.strip())


if __name__ == "__main__":
    words = sys.argv[1:]
    with_systemd = words[:1] == ["--systemd"]
    session = run(kernel_package(), words[with_systemd:], systemd=with_systemd)
    print(session.console)
    for outcome in session.outcomes:
        print(
            f"{outcome.outcome:8}{outcome.seconds:6.2f} s  {outcome.test}", outcome.text, sep="\n" * bool(outcome.text)
        )
    print(session.facts, f"{session.seconds:.1f} s in all")
