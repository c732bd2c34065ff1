"""Write the commands `pier`, `pierd` and `pier-runtime` for one installation.

Not pip's entry points, for two reasons. Speed: an interpreter with `-S` starts in half the time, and `pier` needs no
third-party package. Safety (attack 27): a privileged program must not run code that PYTHONPATH, the working directory,
a user's site-packages or a `.pth` file put in its way, so the interpreter runs isolated (`-I`), without `site` (`-S`),
and the launcher names the folders to import from, in full.

`pier-runtime` is an ELF program where one can be made (`launcher_elf`), and as these elsewhere.

    launchers.py --python PYTHON --bin FOLDER --code FOLDER --packages FOLDER
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import launcher_elf

ISOLATED = "-IS"
SHEBANG_MAX = 255
"""BINPRM_BUF_SIZE - 1: a longer first line is cut off by the kernel."""


def shebang(python: str) -> str:
    """The lines that make the kernel run a script with this interpreter, isolated.

    A path that a `#!` line cannot hold (too long, or with a blank) goes through /bin/sh, in lines that Python reads as
    a string.
    """
    line = f"#!{python} {ISOLATED}\n"
    if len(os.fsencode(line)) <= SHEBANG_MAX and not any(letter.isspace() for letter in python):
        return line
    quoted = python.replace("'", "'\"'\"'")
    return f"#!/bin/sh\n'''exec' '{quoted}' {ISOLATED} \"$0\" \"$@\"\n' '''\n"


def launcher(python: str, folders: list[str], module: str) -> str:
    """The text of a command that calls `module.main()` with `folders` first on the import path."""
    return (
        f"{shebang(python)}"
        f"# Written by tools/launchers.py: isolated, and importing from these folders and the standard library only.\n"
        f"{code(folders, module)}"
    )


def code(folders: list[str], module: str) -> str:
    return f"import sys\nsys.path[:0] = {folders!r}\nfrom {module} import main\nsys.exit(main())\n"


def pack_of(folder: str, cache_tag: str) -> str:
    """The file that `pack.py` makes for the code in `folder` and interpreters of one kind."""
    return f"{folder}/pier/runtime/__pycache__/pier-runtime.{cache_tag}.pack"


def runtime_code(folder: str) -> str:
    """As `code`, but modules come from the pack where there is one for the interpreter that runs (`runtime.packed`)."""
    return f"""\
import sys, posix
from marshal import loads
try:
    fd = posix.open({pack_of(folder, "%s")!r} % sys.implementation.cache_tag, posix.O_RDONLY | posix.O_CLOEXEC)
    head = posix.pread(fd, 65536, 0)
    posix.close(fd)
    ours, _, content = head.partition(b"\\0")
    if ours == sys.version.encode():
        packed, *rest = loads(content)
        module = type(sys)("pier.runtime.command.packed")
        exec(packed, module.__dict__)
        module.start(module, *rest)
except OSError:
    pass
{code([folder], "pier.runtime.command.entry")}"""


def runtime_launcher(python: str, folder: str) -> bytes:
    """`pier-runtime`, whose interpreter must be on a read-only mount before it enters a container."""
    text = runtime_code(folder)
    if os.uname().machine in launcher_elf.MACHINES:
        return launcher_elf.program(python, ISOLATED, text)
    return f"{shebang(python)}{text}".encode()


def write(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file, in place of another one that may be in use."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(content)
    fresh.chmod(mode)
    fresh.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the commands pier, pierd and pier-runtime")
    parser.add_argument("--python", required=True, help="absolute path of the interpreter")
    parser.add_argument("--bin", required=True, type=Path, help="folder the commands go to")
    parser.add_argument("--code", required=True, help="folder that holds the package pier")
    parser.add_argument("--packages", required=True, help="folder that holds the third-party packages")
    given = parser.parse_args()
    commands = {
        "pier": launcher(given.python, [given.code], "pier.cli.main").encode(),
        "pierd": launcher(given.python, [given.code, given.packages], "pier.api.daemon").encode(),
        "pier-runtime": runtime_launcher(given.python, given.code),
    }
    for name, content in commands.items():
        write(given.bin / name, content, 0o755)


if __name__ == "__main__":
    main()
