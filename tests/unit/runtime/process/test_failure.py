"""Why a program cannot be executed, in words."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest

from pier.runtime.process.failure import ProgramError, explain, find, interpreter


def elf(machine: int = 62, loader: bytes = b"/lib/ld-musl-x86_64.so.1") -> bytes:
    """The smallest ELF file with a PT_INTERP segment: 64-byte header, one 56-byte program header, the loader's name."""
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 3, 4, 120, 0, 0, len(loader) + 1, len(loader) + 1, 1)
    return header + segment + loader + b"\0"


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    for name, mode in (("tool", 0o755), ("data", 0o644)):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(mode)
    (tmp_path / "folder").mkdir()
    return tmp_path


def test_found_in_path_in_order(programs: Path) -> None:
    assert find("tool", f"/nowhere:{programs}") == f"{programs}/tool"
    assert find(f"{programs}/tool", "") == f"{programs}/tool"


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("none", 127, 'exec: "none": executable file not found in $PATH'),
        ("{}/none", 127, 'exec: "{}/none": stat {}/none: no such file or directory'),
        ("{}/folder", 126, 'exec: "{}/folder": is a directory: permission denied'),
        ("{}/data", 126, 'exec: "{}/data": permission denied'),
        ("", 127, 'exec: "": executable file not found in $PATH'),
    ],
)
def test_not_found_in_dockers_words(programs: Path, name: str, code: int, text: str) -> None:
    with pytest.raises(ProgramError) as caught:
        find(name.replace("{}", str(programs)), str(programs))
    assert str(caught.value) == text.replace("{}", str(programs))
    assert caught.value.exit_code == code


@pytest.mark.parametrize(
    ("head", "loader"),
    [
        (b"#!/usr/bin/env python3\n", "/usr/bin/env"),
        (b"#! /bin/sh -e\n", "/bin/sh"),
        (b"#!\n", None),
        (elf(), "/lib/ld-musl-x86_64.so.1"),
        (elf()[:100], None),
        (b"\x7fELF", None),
        (b"text", None),
        (b"", None),
    ],
)
def test_interpreter(head: bytes, loader: str | None) -> None:
    assert interpreter(head, "/nonexistent") == loader


def test_trap_07_the_missing_loader_is_named(tmp_path: Path) -> None:
    program = tmp_path / "musl"
    program.write_bytes(elf())
    error = explain(str(program), errno.ENOENT, "amd64")
    assert "its loader /lib/ld-musl-x86_64.so.1 is not in the image" in str(error)
    assert "no such file or directory" in str(error)
    assert error.exit_code == 127


def test_trap_08_the_architectures_are_named(tmp_path: Path) -> None:
    program = tmp_path / "arm"
    program.write_bytes(elf(machine=183))
    error = explain(str(program), errno.ENOEXEC, "amd64")
    assert "exec format error" in str(error)
    assert "linux/arm64, this host is linux/amd64" in str(error)
    assert "binfmt" in str(error)


def test_trap_08_the_architecture_of_a_script_s_interpreter(tmp_path: Path) -> None:
    shell, script, wrapper = tmp_path / "sh", tmp_path / "entrypoint.sh", tmp_path / "wrapper"
    shell.write_bytes(elf(machine=183))
    script.write_text(f"#!{shell} -e\nexec true\n")
    wrapper.write_text(f"#!{script}\n")
    for program in (script, wrapper):
        assert "linux/arm64, this host is linux/amd64" in str(explain(str(program), errno.ENOEXEC, "amd64"))
    script.write_text(f"#!{script}\n")
    assert str(explain(str(script), errno.ENOEXEC, "amd64")) == f"exec {script}: exec format error"


def test_text_without_shebang(tmp_path: Path) -> None:
    program = tmp_path / "script"
    program.write_text("echo hello\n")
    assert "neither an ELF program nor a script" in str(explain(str(program), errno.ENOEXEC, "amd64"))


def test_reading_a_fifo_as_program_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert explain(str(tmp_path / "fifo"), errno.EACCES, "amd64").exit_code == 126
