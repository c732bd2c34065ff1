"""Which platforms run here, by what binfmt_misc says."""

from __future__ import annotations

from pathlib import Path

from pier.builder.emulation import elf_header, runnable

# What qemu-user's packages register for these two.
ARM64 = """enabled
interpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P
flags: POCF
offset 0
magic 7f454c460201010000000000000000000200b700
mask ffffffffffffff00fffffffffffffffffeffffff
"""
S390X = """enabled
interpreter /usr/libexec/qemu-binfmt/s390x-binfmt-P
flags: POCF
offset 0
magic 7f454c4602020100000000000000000000020016
mask ffffffffffffff00fffffffffffffffffffeffff
"""
BY_NAME = "enabled\ninterpreter /usr/bin/wine\nflags: \nextension .exe\n"


def test_emulators_that_are_switched_on_count(tmp_path: Path) -> None:
    (tmp_path / "qemu-aarch64").write_text(ARM64)
    (tmp_path / "qemu-s390x").write_text(S390X)
    (tmp_path / "qemu-riscv64").write_text(ARM64.replace("enabled", "disabled").replace("b700", "f300"))
    (tmp_path / "wine").write_text(BY_NAME)
    (tmp_path / "broken").write_text("enabled\nmagic zz\n")
    (tmp_path / "register").mkdir()
    emulated = {str(each) for each in runnable(str(tmp_path))} - {
        str(each) for each in runnable(str(tmp_path / "none"))
    }
    assert emulated <= {"linux/arm64", "linux/s390x"}
    assert "linux/s390x" in emulated


def test_the_hosts_own_platform_comes_first(tmp_path: Path) -> None:
    assert runnable(str(tmp_path / "none"))[0].os == "linux"


def test_a_header_is_elf() -> None:
    assert elf_header(64, True, 62)[:6] == b"\x7fELF\x02\x01"
    assert elf_header(64, False, 22)[16:] == b"\x00\x02\x00\x16"
