"""Why a program could not be executed, in Docker's words plus the cause Docker leaves out.

Runs in the container's root after everything else is set up: plain file reads only, nothing is imported or looked up.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

ELF_MAGIC = b"\x7fELF"
PT_INTERP = 3
ELF_MACHINES = {
    3: "386",
    40: "arm",
    62: "amd64",
    183: "arm64",
    243: "riscv64",
    21: "ppc64le",
    22: "s390x",
    258: "loong64",
}
HEAD_BYTES = 4096
MAX_SCRIPTS = 5
"""Scripts run by scripts, as the kernel counts them."""

NOT_FOUND, NOT_EXECUTABLE, OTHER = 127, 126, 128
"""Exit codes Docker gives a container that could not start."""


class ProgramError(Exception):
    """The program cannot be executed; `exit_code` as a shell would give it."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def find(name: str, path: str) -> str:
    """The file that `name` means with $PATH being `path` (execvp(3)); raises ProgramError as Go's LookPath words it."""
    if "/" in name:
        problem = _problem(name)
        if problem is None:
            return name
        raise _worded(name, problem, f"stat {name}: no such file or directory")
    denied = None
    for directory in path.split(":"):
        candidate = os.path.join(directory or ".", name)
        problem = _problem(candidate)
        if problem is None:
            return candidate
        denied = denied or (problem if problem != errno.ENOENT else None)
    if denied == errno.EACCES:
        raise _worded(name, denied, "")
    raise _worded(name, errno.ENOENT, "executable file not found in $PATH")


def _problem(path: str) -> int | None:
    """The errno that stands in the way of executing `path`, None for nothing."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return error.errno
    if stat.S_ISDIR(mode):
        return errno.EISDIR
    return None if os.access(path, os.X_OK, effective_ids=True) else errno.EACCES


def _worded(name: str, problem: int, missing: str) -> ProgramError:
    if problem in (errno.ENOENT, errno.ENOTDIR):
        return ProgramError(f'exec: "{name}": {missing}', NOT_FOUND)
    denied = ": permission denied" if problem == errno.EISDIR else ""
    return ProgramError(f'exec: "{name}": {_go_error(problem)}{denied}', NOT_EXECUTABLE)


def _go_error(number: int) -> str:
    """The text of an errno as Go prints it, which is what Docker's clients look for."""
    return os.strerror(number).lower()


def explain(path: str, number: int, host_arch: str) -> ProgramError:
    """Why execve(2) of the existing file `path` failed with errno `number`."""
    text = f"exec {path}: {_go_error(number)}"
    head = _head(path)
    if number == errno.ENOENT:
        loader = interpreter(head, path)
        if loader is not None:
            text += f": the file is there, but its loader {loader} is not in the image"
            if "ld-musl" in loader:
                text += " (it was built for musl, as Alpine has; build it statically or use an Alpine base)"
            elif "ld-linux" in loader:
                text += " (it was built for glibc; build it statically or use a Debian or Ubuntu base)"
        return ProgramError(text, NOT_FOUND)
    if number == errno.ENOEXEC:
        return ProgramError(text + _format_cause(_innermost(head, path), host_arch), OTHER)
    return ProgramError(text, NOT_EXECUTABLE if number in (errno.EACCES, errno.EPERM, errno.EISDIR) else OTHER)


def _head(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, HEAD_BYTES) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    except OSError:
        return b""
    finally:
        os.close(fd)


def interpreter(head: bytes, path: str) -> str | None:
    """The loader a file asks for: an ELF's PT_INTERP (elf(5)) or a script's `#!` line; None when it asks for none.

    `head` holds the file's first bytes; an interpreter named beyond them is read from `path`.
    """
    if head.startswith(b"#!"):
        words = head[2:].split(b"\n", 1)[0].split()
        return words[0].decode("utf-8", "replace") if words else None
    if not head.startswith(ELF_MAGIC) or len(head) < 64:
        return None
    order = "<" if head[5] == 1 else ">"
    wide = head[4] == 2
    try:
        if wide:
            offset, size, count = (
                struct.unpack_from(f"{order}Q", head, 32)[0],
                *struct.unpack_from(f"{order}HH", head, 54),
            )
        else:
            offset, size, count = (
                struct.unpack_from(f"{order}I", head, 28)[0],
                *struct.unpack_from(f"{order}HH", head, 42),
            )
        for index in range(count):
            at = offset + index * size
            if struct.unpack_from(f"{order}I", head, at)[0] == PT_INTERP:
                start = struct.unpack_from(f"{order}Q" if wide else f"{order}I", head, at + (8 if wide else 4))[0]
                name = head[start : start + 256] or _read_at(path, start)
                return name.split(b"\0", 1)[0].decode("utf-8", "replace") or None
    except struct.error:
        return None
    return None


def _innermost(head: bytes, path: str) -> bytes:
    """The head of the program that runs a script: it is that one whose format the kernel does not know (execve(2))."""
    for _ in range(MAX_SCRIPTS):
        loader = interpreter(head, path) if head.startswith(b"#!") else None
        if loader is None:
            break
        head, path = _head(loader), loader
    return head


def _read_at(path: str, offset: int) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.pread(fd, 256, offset)
    finally:
        os.close(fd)


def _format_cause(head: bytes, host_arch: str) -> str:
    if head.startswith(ELF_MAGIC) and len(head) >= 20:
        machine = struct.unpack_from("<H" if head[5] == 1 else ">H", head, 18)[0]
        arch = ELF_MACHINES.get(machine, f"machine {machine}")
        if arch != host_arch:
            return (
                f": the program is for linux/{arch}, this host is linux/{host_arch}; register an emulator with "
                "`apt-get install qemu-user-static binfmt-support` or use an image for this platform"
            )
    elif head and not head.startswith((b"#!", ELF_MAGIC)):
        return ": the file is neither an ELF program nor a script that begins with #!"
    return ""
