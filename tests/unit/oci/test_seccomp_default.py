"""Docker's default seccomp profile, and profiles in Docker's format resolved for a container."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pier.errors import InvalidParameter
from pier.kernel.seccomp_compiler import compile_profile
from pier.oci import seccomp_default
from pier.oci.seccomp_default import BadSeccompProfile, default_profile, load, parse_kernel_version, resolve

DEFAULT = (
    "CAP_CHOWN CAP_DAC_OVERRIDE CAP_FSETID CAP_FOWNER CAP_MKNOD CAP_NET_RAW CAP_SETGID CAP_SETUID CAP_SETFCAP "
    "CAP_SETPCAP CAP_NET_BIND_SERVICE CAP_SYS_CHROOT CAP_KILL CAP_AUDIT_WRITE"
).split()


def rules(name: str, capabilities: list[str], arch: str = "x86_64", kernel: tuple[int, int] = (6, 1)) -> list[Any]:
    """The rules for one call, as (action, args)."""
    profile = resolve(default_profile(), capabilities, arch, kernel)
    assert profile is not None
    return [
        (rule["action"].removeprefix("SCMP_ACT_"), rule.get("args"))
        for rule in profile["syscalls"]
        if name in rule["names"]
    ]


ALLOW = [("ALLOW", None)]


@pytest.mark.parametrize(
    ("name", "capability"),
    [
        ("open_by_handle_at", "CAP_DAC_READ_SEARCH"),
        ("mount", "CAP_SYS_ADMIN"),
        ("unshare", "CAP_SYS_ADMIN"),
        ("bpf", "CAP_BPF"),
        ("bpf", "CAP_SYS_ADMIN"),
        ("perf_event_open", "CAP_PERFMON"),
        ("reboot", "CAP_SYS_BOOT"),
        ("chroot", "CAP_SYS_CHROOT"),
        ("init_module", "CAP_SYS_MODULE"),
        ("acct", "CAP_SYS_PACCT"),
        ("kcmp", "CAP_SYS_PTRACE"),
        ("pidfd_getfd", "CAP_SYS_PTRACE"),
        ("iopl", "CAP_SYS_RAWIO"),
        ("settimeofday", "CAP_SYS_TIME"),
        ("vhangup", "CAP_SYS_TTY_CONFIG"),
        ("mbind", "CAP_SYS_NICE"),
        ("syslog", "CAP_SYSLOG"),
    ],
)
def test_a_capability_opens_its_calls(name: str, capability: str) -> None:
    assert rules(name, []) == []
    assert rules(name, [capability]) == ALLOW


@pytest.mark.parametrize("name", ["keyctl", "userfaultfd", "io_uring_setup", "kexec_load", "pivot_root", "swapon"])
def test_what_no_capability_opens(name: str) -> None:
    every = ["CAP_SYS_ADMIN", *DEFAULT, "CAP_SYS_BOOT", "CAP_SYS_PTRACE", "CAP_SYS_RAWIO", "CAP_SYS_NICE"]
    assert rules(name, every) == []


def test_clone() -> None:
    mask = {"index": 0, "value": 0x7E020000, "op": "SCMP_CMP_MASKED_EQ"}
    assert rules("clone", DEFAULT) == [("ALLOW", [mask])]
    assert rules("clone3", DEFAULT) == [("ERRNO", None)]
    assert rules("clone", ["CAP_SYS_ADMIN"]) == rules("clone3", ["CAP_SYS_ADMIN"]) == ALLOW
    assert rules("clone", DEFAULT, "s390x") == [("ALLOW", [mask | {"index": 1}])]


def test_ptrace_by_kernel_version() -> None:
    assert rules("ptrace", [], kernel=(4, 7)) == []
    assert rules("ptrace", [], kernel=(4, 8)) == ALLOW
    assert rules("ptrace", [], kernel=(5, 0)) == ALLOW
    assert rules("ptrace", ["CAP_SYS_PTRACE"], kernel=(4, 7)) == ALLOW


def test_by_architecture() -> None:
    assert rules("arch_prctl", [], "x86_64") == ALLOW
    assert rules("arch_prctl", [], "aarch64") == []
    assert rules("set_tls", [], "aarch64") == ALLOW
    architectures = {
        machine: (resolve(default_profile(), [], machine, (6, 1)) or {})["architectures"]
        for machine in ("x86_64", "aarch64", "riscv64", "ppc64le")
    }
    assert architectures == {
        "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        "riscv64": ["SCMP_ARCH_RISCV64"],
        "ppc64le": [],
    }


def test_resolving_changes_nothing_in_the_profile() -> None:
    before = json.dumps(default_profile())
    resolve(default_profile(), DEFAULT)
    assert json.dumps(default_profile()) == before


def test_the_resolved_profile_is_ocis() -> None:
    profile = resolve(default_profile(), DEFAULT)
    assert profile is not None
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    assert profile["defaultErrnoRet"] == 1
    assert set(profile) == {"defaultAction", "defaultErrnoRet", "architectures", "syscalls"}
    assert all(set(rule) <= {"names", "action", "errnoRet", "args"} for rule in profile["syscalls"])


# --- profiles of the user --------------------------------------------------------------------------------------------


def test_an_oci_profile_without_conditions() -> None:
    text = (
        b'{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], '
        b'"syscalls": [{"names": ["chmod"], "action": "SCMP_ACT_ERRNO"}]}'
    )
    assert resolve(load(text), []) == {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["chmod"], "action": "SCMP_ACT_ERRNO"}],
    }


def test_the_old_form_with_one_name() -> None:
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "chmod", "action": "SCMP_ACT_ERRNO"}]}
    assert (resolve(profile, []) or {})["syscalls"] == [{"names": ["chmod"], "action": "SCMP_ACT_ERRNO"}]


def test_an_empty_profile_is_none() -> None:
    assert resolve(load("{}"), []) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Decoding seccomp profile failed"),
        ("[]", "not a JSON object"),
        ("[" * 100_000, "Decoding seccomp profile failed"),
        (b"\xff\xfe{", "Decoding seccomp profile failed"),
        (" " * (seccomp_default.MAX_PROFILE_BYTES + 1), "bytes, at most"),
    ],
)
def test_not_a_profile(text: str, words: str) -> None:
    with pytest.raises(BadSeccompProfile, match=words):
        load(text)


RULE = {"names": ["read"], "action": "SCMP_ACT_ALLOW"}


@pytest.mark.parametrize(
    "profile",
    [
        {"architectures": ["SCMP_ARCH_X86"], "archMap": [{"architecture": "SCMP_ARCH_X86"}]},
        {"syscalls": {"names": []}},
        {"syscalls": ["read"]},
        {"syscalls": [RULE | {"name": "write"}]},
        {"syscalls": [RULE | {"names": "read"}]},
        {"syscalls": [RULE | {"names": [1]}]},
        {"syscalls": [RULE | {"names": []}]},
        {"syscalls": [RULE | {"action": ["SCMP_ACT_ALLOW"]}]},
        {"syscalls": [RULE | {"args": [1]}]},
        {"syscalls": [RULE | {"args": [{"index": 0, "op": []}]}]},
        {"syscalls": [RULE | {"args": [{"index": "0", "op": "SCMP_CMP_EQ"}]}]},
        {"syscalls": [RULE | {"args": [{"index": 0, "op": "SCMP_CMP_EQ", "value": 1.5}]}]},
        {"syscalls": [RULE | {"errnoRet": "EPERM", "action": "SCMP_ACT_ERRNO"}]},
        {"syscalls": [RULE | {"includes": ["CAP_X"]}]},
        {"syscalls": [RULE | {"includes": {"caps": "CAP_X"}}]},
        {"syscalls": [RULE | {"includes": {"minKernel": "new"}}]},
        {"syscalls": [RULE | {"excludes": {"minKernel": 4}}]},
        {"archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": 5}]},
        {"archMap": "x"},
        {"architectures": [3]},
        {"defaultAction": 7},
    ],
)
def test_hostile_profiles_are_refused_in_words(profile: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter):
        compile_profile(resolve({"defaultAction": "SCMP_ACT_ERRNO"} | profile, [], "x86_64", (6, 1)) or {}, "x86_64")


@pytest.mark.parametrize(
    ("text", "version"),
    [("4.8", (4, 8)), ("6.18.44-generic", (6, 18)), ("5.10-rc1", (5, 10)), ("6.1+", (6, 1))],
)
def test_kernel_version(text: str, version: tuple[int, int]) -> None:
    assert parse_kernel_version(text) == version
