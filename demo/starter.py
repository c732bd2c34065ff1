"""The starter images, made from the distribution's own packages: no registry is needed.

`busybox` is one static program with its applets as symlinks; `debian-python` is a slim Debian or Ubuntu with Python,
built once by mmdebstrap from the mirrors that apt uses here, and cached. Both are root file system archives, taken in
by `pier import`.

    starter.py FOLDER        make what is missing in FOLDER; print the path of each archive
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CACHE = Path("/var/cache/pier")
BUSYBOX = Path("/bin/busybox")
PACKAGES = ("python3",)
EXCLUDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/lintian/*")
KEPT = ("/usr/share/doc/*/copyright",)
LEFT_OUT = ("/var/cache/apt/*", "/var/lib/apt/lists/*", "/var/log/*.log", "/var/log/apt")

FOLDERS = {
    **dict.fromkeys(("bin", "dev", "etc", "home", "lib", "proc", "sbin", "sys", "usr", "usr/bin", "var"), 0o755),
    "root": 0o700,
    "tmp": 0o1777,
    "var/www": 0o755,
}
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/shadow": "root:*:::::::\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}


class CannotMake(Exception):
    """A starter image cannot be made; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Starter:
    """An image of the demo: its name, the settings `pier import --change` gets, and its root file system."""

    name: str
    changes: tuple[str, ...]
    archive: Path

    @property
    def recipe(self) -> str:
        """Tells one make of the archive from another."""
        return f"{self.archive.name} of {int(self.archive.stat().st_mtime)}"


def busybox_entries(applets: list[str], program: bytes) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """The image's files, in order; every time stamp is 0, so that equal packages make equal images."""
    for name, mode in FOLDERS.items():
        yield _entry(name, mode=mode, type=tarfile.DIRTYPE), b""
    for name, text in FILES.items():
        mode = 0o640 if name == "etc/shadow" else 0o644
        yield _entry(name, mode=mode, size=len(text)), text.encode()
    yield _entry("bin/busybox", mode=0o755, size=len(program)), program
    for applet in sorted(applets):
        if applet != "busybox":
            yield _entry(f"bin/{applet}", mode=0o777, type=tarfile.SYMTYPE, linkname="busybox"), b""


def _entry(
    name: str, *, mode: int, type: bytes = tarfile.REGTYPE, size: int = 0, linkname: str = ""
) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.type, entry.size, entry.linkname = mode, type, size, linkname
    return entry


def busybox(folder: Path) -> Starter:
    """Make the archive of the busybox image. Raises CannotMake."""
    archive = folder / "busybox.tar"
    if not BUSYBOX.exists():
        raise CannotMake(f"{BUSYBOX} is missing: apt-get install busybox-static")
    if not archive.exists() or archive.stat().st_mtime < BUSYBOX.stat().st_mtime:
        program = BUSYBOX.read_bytes()
        if b"ld-linux" in program[:4096] or b"ld-musl" in program[:4096]:
            raise CannotMake(f"{BUSYBOX} is not static: apt-get install busybox-static")
        applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
        text = io.BytesIO()
        with tarfile.open(fileobj=text, mode="w") as tar:
            for entry, content in busybox_entries(applets, program):
                tar.addfile(entry, io.BytesIO(content))
        _put(archive, text.getvalue())
    return Starter("busybox:latest", ('CMD ["sh"]', "ENV PATH=/bin:/sbin:/usr/bin"), archive)


def debian_python(folder: Path) -> Starter:
    """Make the archive of the Debian image, or take the cached one made by the same recipe. Raises CannotMake."""
    sources = apt_sources()
    recipe = hashlib.sha256("\n".join((sources, *PACKAGES, *EXCLUDED, *LEFT_OUT)).encode()).hexdigest()[:12]
    archive = folder / f"debian-python-{recipe}.tar"
    if not archive.exists():
        fresh = archive.with_suffix(".new.tar")
        try:
            done = subprocess.run(mmdebstrap(fresh), input=sources, text=True, capture_output=True, check=False)
        except FileNotFoundError:
            raise CannotMake("mmdebstrap is missing: apt-get install mmdebstrap") from None
        if done.returncode:
            fresh.unlink(missing_ok=True)
            raise CannotMake(f"mmdebstrap could not build the Debian image:\n{done.stderr[-1500:].strip()}")
        fresh.replace(archive)
    return Starter("debian-python:latest", ('CMD ["python3"]', "ENV LANG=C.UTF-8"), archive)


def mmdebstrap(target: Path) -> list[str]:
    """The command that builds the root file system; it reads its apt sources from standard input."""
    options = [f"--dpkgopt=path-exclude={pattern}" for pattern in EXCLUDED]
    options += [f"--dpkgopt=path-include={pattern}" for pattern in KEPT]
    options += [f"--aptopt={line}" for line in apt_proxy()]
    options.append("--customize-hook=rm -rf " + " ".join(f'"$1"{pattern}' for pattern in LEFT_OUT))
    include = f"--include={','.join(PACKAGES)}"
    return [
        "mmdebstrap",
        "--quiet",
        "--mode=root",
        "--variant=minbase",
        include,
        *options,
        codename(),
        str(target),
        "-",
    ]


def codename() -> str:
    """This system's release, e.g. `bookworm`."""
    with open("/etc/os-release", encoding="utf-8") as file:
        values = dict(line.strip().split("=", 1) for line in file if "=" in line)
    return values.get("VERSION_CODENAME", "stable").strip('"')


def apt_sources() -> str:
    """The lines of sources.list for this system's own release: its main archive, updates and security."""
    fields = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)"
    command = ["apt-get", "indextargets", "--format", fields, "Created-By: Packages"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    release = codename()
    lines = []
    for line in listed.splitlines():
        uri, suite, component, origin = (*line.split(" ", 3), "")[:4]
        is_own = suite == release or suite.startswith((f"{release}-updates", f"{release}-security"))
        if is_own and component == "main" and origin in ("Debian", "Ubuntu", ""):
            lines.append(f"deb {uri} {suite} {component}")
    if not lines:
        raise CannotMake(f"apt knows no mirror of {release}; add one to /etc/apt/sources.list")
    return "\n".join(sorted(set(lines))) + "\n"


def apt_proxy() -> list[str]:
    """apt's own proxy and TLS settings, as options."""
    dumped = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    wanted = ("Acquire::http::", "Acquire::https::")
    return [line.rstrip(";") for line in dumped.splitlines() if line.startswith(wanted) and not line.endswith('"";')]


def _put(path: Path, content: bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(path)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else CACHE
    os.makedirs(folder, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two sessions of the tests may begin at once
        try:
            for make in (busybox, debian_python):
                print(make(folder).archive)
        except CannotMake as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
