"""The test machine's root file system: an uncompressed `newc` cpio archive, made of this host's own files.

It holds busybox, this Python with its standard library and pytest, Pier's code and tests, and kernel modules.
Format: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import lzma
import os
import re
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

BUSYBOX = Path("/bin/busybox")
PYTHON = Path(os.path.realpath(sys.executable))
PACKAGES = tuple("_pytest pytest pluggy iniconfig packaging pygments py pytest_asyncio typing_extensions".split())
"""pytest, its dependencies and the one plug-in the tests are written for."""
DAEMON_PACKAGES = tuple(
    "aiohttp aiohappyeyeballs aiosignal attr frozenlist idna isal msgspec multidict propcache yarl zstandard".split()
)
"""What `pierd` imports besides."""
SITE = "/site-packages"
CODE = "/pier"
"""Where the guest has the checkout's `src`, `tests` and `tools`."""
MODULES = "/modules"

UNWANTED = frozenset(
    "test tests idlelib lib2to3 ensurepip tkinter turtledemo pydoc_data distutils site-packages dist-packages "
    "curses dbm sqlite3 xmlrpc wsgiref venv".split()
)
"""Folders of the standard library and of packages that no test here imports."""


class Archive:
    """Writes entries of a cpio archive; each parent directory is made once, before what is in it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._inode = 0
        self._made = {"/"}

    def directory(self, path: str) -> None:
        if path in self._made:
            return
        self._made.add(path)
        self.directory(os.path.dirname(path))
        self._entry(path, stat.S_IFDIR | 0o755, b"", 0)

    def file(self, path: str, data: bytes, *, mode: int = 0o644, mtime: int = 0) -> None:
        if path in self._made:
            return
        self._made.add(path)
        self.directory(os.path.dirname(path))
        self._entry(path, stat.S_IFREG | mode, data, mtime)

    def copy(self, source: Path, path: str) -> None:
        """A host file with its mode and time: the time is what says that a `.pyc` belongs to its source."""
        info = source.stat()
        self.file(path, source.read_bytes(), mode=info.st_mode & 0o777, mtime=int(info.st_mtime))

    def symlink(self, path: str, target: str) -> None:
        self.directory(os.path.dirname(path))
        self._entry(path, stat.S_IFLNK | 0o777, target.encode(), 0)

    def close(self) -> None:
        self._entry("/TRAILER!!!", 0, b"", 0)

    def _entry(self, path: str, mode: int, data: bytes, mtime: int) -> None:
        self._inode += 1
        name = path.lstrip("/").encode() + b"\0"
        # inode, mode, uid, gid, links, mtime, size, device (4 numbers), length of the name, checksum
        fields = (self._inode, mode, 0, 0, 1, mtime, len(data), 0, 0, 0, 0, len(name), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + name
        self._file.write(header + bytes(-len(header) % 4) + data + bytes(-len(data) % 4))


def build(
    target: Path, *, checkout: Path, modules: Path, wanted_modules: Iterable[str], arguments: str, systemd: bool
) -> None:
    """Write the archive.

    `modules` is the kernel's `/lib/modules/VERSION` folder; `arguments` are pytest's; with `systemd` that is its init.
    """
    with open(target, "wb") as file:
        archive = Archive(file)
        for name in ("dev", "proc", "sys", "tmp", "run", "newroot"):
            archive.directory(f"/{name}")
        archive.copy(BUSYBOX, "/bin/busybox")
        archive.symlink("/bin/sh", "busybox")
        archive.copy(checkout / "tests/vm/guest/init", "/init")
        add_python(archive)
        if systemd:
            add_systemd(archive, checkout)
        for folder in ("src", "tests", "tools"):
            add_tree(archive, checkout / folder, f"{CODE}/{folder}")
        archive.copy(checkout / "pyproject.toml", f"{CODE}/pyproject.toml")
        archive.file(f"{CODE}/arguments.json", arguments.encode())
        for number, module in enumerate(in_load_order(modules, wanted_modules)):
            archive.file(f"{MODULES}/{number:02}-{module_name(module)}.ko", uncompressed(module))
        archive.close()


# --- Python ----------------------------------------------------------------------------------------------------------


def add_python(archive: Archive) -> None:
    """The interpreter, its libraries and its standard library, all where they are on this host; and pytest."""
    binaries = [PYTHON]
    archive.copy(PYTHON, str(PYTHON))
    archive.symlink("/bin/python3", str(PYTHON))
    for key in ("stdlib", "platstdlib"):
        folder = Path(sysconfig.get_path(key))
        add_tree(archive, folder, str(folder))
        binaries += folder.glob("lib-dynload/*.so")
    for library in shared_libraries(binaries):
        archive.copy(library, str(library))
    add_packages(archive, PACKAGES)
    for package in ("pytest", "pytest-asyncio"):  # both ask for their own version
        text = importlib.metadata.distribution(package).read_text("METADATA") or ""
        name = f"{package.replace('-', '_')}-{importlib.metadata.version(package)}.dist-info"
        archive.file(f"{SITE}/{name}/METADATA", text.encode())


def add_packages(archive: Archive, packages: Iterable[str]) -> None:
    """Packages of this interpreter's, and the libraries that they are linked with."""
    for package in packages:
        spec = importlib.util.find_spec(package)
        assert spec is not None, package
        assert spec.origin is not None, package
        origin = Path(spec.origin)
        if spec.submodule_search_locations:
            add_tree(archive, origin.parent, f"{SITE}/{package}")
            for library in shared_libraries(origin.parent.rglob("*.so")):
                archive.copy(library, str(library))
        else:
            archive.copy(origin, f"{SITE}/{origin.name}")


def add_tree(archive: Archive, source: Path, destination: str) -> None:
    """Copy a folder, links resolved, without what `UNWANTED` names and without other Pythons' byte code."""
    for folder, folders, names in os.walk(source):
        here = destination + folder.removeprefix(str(source))
        top = folder == str(source)
        folders[:] = sorted(name for name in folders if not (name in UNWANTED or (top and name.startswith("config-"))))
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file() and not name.endswith((".opt-1.pyc", ".opt-2.pyc", ".a", ".pack")):
                archive.copy(path, f"{here}/{name}")


def shared_libraries(binaries: Iterable[Path]) -> list[Path]:
    """Paths of the libraries, the loader among them, that binaries are linked with (ldd(1))."""
    text = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, timeout=60, check=False).stdout
    return sorted({Path(path) for path in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", text, re.MULTILINE)})


# --- systemd ---------------------------------------------------------------------------------------------------------

SYSTEMD = (Path("/usr/lib/systemd/systemd"), Path("/usr/bin/systemctl"), Path("/usr/bin/dbus-daemon"))
UNITS = "tests/vm/systemd/units"


def add_systemd(archive: Archive, checkout: Path) -> None:
    """This host's systemd, its command, a message bus, units of the tests' own in place of a distribution's; and what
    `pierd` needs.
    """
    add_packages(archive, DAEMON_PACKAGES)
    sqlite = Path(sysconfig.get_path("stdlib"), "sqlite3")
    add_tree(archive, sqlite, str(sqlite))
    for binary in SYSTEMD:
        archive.copy(binary, str(binary))
    for library in shared_libraries(SYSTEMD):
        archive.copy(library, str(library))
    for path in (checkout / UNITS).iterdir():
        archive.copy(path, f"/etc/{path.name}" if path.suffix == ".conf" else f"/etc/systemd/system/{path.name}")
    archive.file("/etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
    archive.file("/etc/group", b"root:x:0:\n")
    archive.file("/etc/machine-id", b"0123456789abcdef0123456789abcdef\n")
    archive.file("/etc/os-release", b"ID=guest\nPRETTY_NAME=guest\n")


# --- kernel modules --------------------------------------------------------------------------------------------------


def in_load_order(folder: Path, wanted: Iterable[str]) -> Iterator[Path]:
    """Module files, each after those it depends on. A name that is no file is built into this kernel."""
    files = {module_name(path): path for path in folder.rglob("*.ko*")}
    done: set[str] = set()

    def visit(name: str) -> Iterator[Path]:
        if name in done or name not in files:
            return
        done.add(name)
        for dependency in dependencies(uncompressed(files[name])):
            yield from visit(dependency)
        yield files[name]

    for name in wanted:
        yield from visit(name)


def module_name(path: Path) -> str:
    return path.name.partition(".")[0].replace("-", "_")


def dependencies(module: bytes) -> list[str]:
    """What the module's `.modinfo` says it needs: the `depends=a,b` string."""
    found = re.search(rb"\0depends=([^\0]*)\0", module)
    return [name.replace("-", "_") for name in found[1].decode().split(",") if name] if found else []


def uncompressed(path: Path) -> bytes:
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data
