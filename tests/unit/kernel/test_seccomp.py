"""The seccomp compiler: against libseccomp, against tables of decisions, and in the kernel."""

from __future__ import annotations

import ctypes
import errno
import itertools
import mmap
import os
import platform
import random
import signal
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from pier.kernel import seccomp
from pier.kernel.seccomp import BadProfile
from pier.kernel.seccomp_compiler import compile_profile
from pier.kernel.seccomp_rules import numbers
from pier.oci import seccomp_default

from .seccomp_oracle import AUDIT_ARCH, X32_BIT, Libseccomp, Program, disassemble, evaluate, run

ALLOW, KILL, ENOSYS_ANSWER, EPERM_ANSWER = 0x7FFF0000, 0, 0x00050026, 0x00050001
X86_64, I386 = AUDIT_ARCH["X86_64"], AUDIT_ARCH["X86"]
DEFAULT_CAPABILITIES = (
    "CAP_CHOWN CAP_DAC_OVERRIDE CAP_FSETID CAP_FOWNER CAP_MKNOD CAP_NET_RAW CAP_SETGID CAP_SETUID CAP_SETFCAP "
    "CAP_SETPCAP CAP_NET_BIND_SERVICE CAP_SYS_CHROOT CAP_KILL CAP_AUDIT_WRITE"
).split()
BOUNDARIES = (0, 1, 7, 8, 40, 0x20000, 0x7E020000, 0xFFFFFFFF, 1 << 32, (1 << 32) + 8, (1 << 64) - 1)

requires_x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="compares x86-64's ABIs")


def docker(capabilities: Iterable[str] = DEFAULT_CAPABILITIES, machine: str = "x86_64") -> dict[str, Any]:
    profile = seccomp_default.resolve(seccomp_default.default_profile(), list(capabilities), machine, (6, 1))
    assert profile is not None
    return profile


def profile_of(*rules: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": list(rules),
    } | keys


def allow(*names: str, args: Sequence[tuple[int, str, int, int]] = ()) -> dict[str, Any]:
    keys = ("index", "op", "value", "valueTwo")
    return {
        "names": list(names),
        "action": "SCMP_ACT_ALLOW",
        "args": [dict(zip(keys, arg, strict=True)) for arg in args],
    }


# --- against libseccomp ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def libseccomp() -> Libseccomp:
    if platform.machine() != "x86_64":
        pytest.skip("compares x86-64's ABIs")
    try:
        return Libseccomp()
    except OSError:
        pytest.skip("no libseccomp on this machine")


def only_known(profile: dict[str, Any], library: Libseccomp) -> dict[str, Any]:
    """Without the names that this libseccomp is too old for."""
    rules = [rule | {"names": [name for name in rule["names"] if library.knows(name)]} for rule in profile["syscalls"]]
    return profile | {"syscalls": [rule for rule in rules if rule["names"]]}


def highest(profile: dict[str, Any], abi: str) -> int:
    return max(
        (numbers(abi)[n] for rule in profile["syscalls"] for n in rule["names"] if n in numbers(abi)), default=-1
    )


def compare(profile: dict[str, Any], library: Libseccomp, arguments: Iterable[Sequence[int]]) -> int:
    """Both filters over all numbers and `arguments`; returns how many decisions were compared."""
    ours, theirs = disassemble(compile_profile(profile, "x86_64")), library.compile(profile)
    conditional = {name for rule in profile["syscalls"] if rule.get("args") for name in rule["names"]}
    rows = list(arguments)
    count = 0
    for abi in ("X86_64", "X86", "X32"):
        bit = X32_BIT if abi == "X32" else 0
        last = highest(profile, abi)
        strange = set(numbers(abi).values()) - library.numbers(abi)  # newer than this libseccomp
        looked_at = {numbers(abi)[name] for name in conditional if name in numbers(abi)}
        if abi == "X86":
            looked_at |= {numbers(abi)["socketcall"], numbers(abi)["ipc"]}
        for number in set(range(last + 1)) - strange:
            for row in rows if number in looked_at else rows[:1]:
                got = run(ours, number | bit, AUDIT_ARCH[abi], row)
                assert got == run(theirs, number | bit, AUDIT_ARCH[abi], row), (abi, number, row, hex(got))
                count += 1
        if last >= 0:
            # Above what the profile names libseccomp has the default, runc and we "no such system call".
            assert run(ours, last + 1 | bit, AUDIT_ARCH[abi]) == ENOSYS_ANSWER
    return count


@pytest.mark.parametrize(
    "capabilities",
    [DEFAULT_CAPABILITIES, [], ["CAP_SYS_ADMIN"], ["CAP_SYS_PTRACE", "CAP_SYS_TIME", "CAP_BPF"]],
    ids=["default", "none", "admin", "some"],
)
def test_dockers_profile_decides_as_libseccomp(libseccomp: Libseccomp, capabilities: list[str]) -> None:
    profile = only_known(docker(capabilities), libseccomp)
    arguments = [(first, second) for first, second in itertools.product((*BOUNDARIES, *range(2, 48)), (0, 0x7E020000))]
    assert compare(profile, libseccomp, arguments) > 2000


NAMES = "read write openat ioctl prctl mmap close clone personality fcntl keyctl quotactl madvise".split()
"""Calls that are multiplexed nowhere."""


def random_profile(rng: random.Random, names: Sequence[str]) -> dict[str, Any]:
    """One rule for each name, mostly with arguments."""
    values = [*BOUNDARIES, rng.getrandbits(64), rng.getrandbits(32)]
    rules = []
    for name in names:
        args = []
        for index in rng.sample(range(6), rng.randint(0, 3)):
            op = rng.choice(["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"])
            value, other = rng.choice(values), rng.choice(values)
            args.append((index, f"SCMP_CMP_{op}", value, value & other if op == "MASKED_EQ" else 0))
        rules.append(allow(name, args=args))
    return profile_of(*rules)


def random_arguments(rng: random.Random, profile: dict[str, Any]) -> list[list[int]]:
    """Six arguments each, near what the profile compares them with."""
    compared = sorted({v for rule in profile["syscalls"] for a in rule["args"] for v in (a["value"], a["valueTwo"])})
    pool = [*BOUNDARIES, *compared, *((v + 1) % (1 << 64) for v in compared), *(v - 1 for v in compared if v)]
    return [[rng.choice(pool) for _ in range(6)] for _ in range(150)]


@pytest.mark.parametrize("seed", range(40))
def test_random_rules_decide_as_libseccomp(libseccomp: Libseccomp, seed: int) -> None:
    """One rule a call: libseccomp 2.5's merging of overlapping rules has mistakes of its own."""
    rng = random.Random(seed)
    profile = random_profile(rng, rng.sample(NAMES, rng.randint(1, 8)))
    compare(profile, libseccomp, random_arguments(rng, profile))


@pytest.mark.parametrize("seed", range(40))
def test_random_overlapping_rules_decide_as_the_specification(seed: int) -> None:
    rng = random.Random(seed)
    names = rng.choices(NAMES[:4], k=12)
    profile = random_profile(rng, names)
    for rule in profile["syscalls"]:
        rule["action"] = rng.choice(["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_ERRNO"])
    program = disassemble(compile_profile(profile, "x86_64"))
    for abi, name, row in itertools.product(("X86_64", "X86", "X32"), set(names), random_arguments(rng, profile)):
        got = run(program, numbers(abi)[name] | (X32_BIT if abi == "X32" else 0), AUDIT_ARCH[abi], row)
        assert got == evaluate(profile, name, row, bits=64 if abi == "X86_64" else 32), (abi, name, row)


# --- attack 24: the ways around a filter -----------------------------------------------------------------------------

DENIED = (
    "keyctl add_key request_key bpf userfaultfd open_by_handle_at io_uring_setup io_uring_enter io_uring_register "
    "mount umount2 pivot_root setns unshare kexec_load init_module finit_module delete_module perf_event_open "
    "move_mount open_tree fsopen fsconfig mount_setattr swapon swapoff reboot acct settimeofday quotactl "
    "lookup_dcookie vhangup kcmp iopl ioperm nfsservctl process_madvise mbind set_mempolicy fanotify_init"
).split()
ALLOWED = (
    "read write openat execve fork exit_group mmap futex clone ptrace process_vm_readv chroot prctl seccomp rseq "
    "statx getrandom epoll_wait sendmsg recvmsg bind fchmodat2 landlock_create_ruleset"
).split()


@pytest.fixture(scope="module")
def default() -> Program:
    return disassemble(compile_profile(docker(), "x86_64"))


@pytest.mark.parametrize("abi", ["X86_64", "X86", "X32"])
def test_attack_24_each_abi_has_the_same_doors(default: Program, abi: str) -> None:
    bit = X32_BIT if abi == "X32" else 0
    for name in DENIED:
        if name in numbers(abi):
            assert run(default, numbers(abi)[name] | bit, AUDIT_ARCH[abi]) == EPERM_ANSWER, name
    for name in ALLOWED:
        if name in numbers(abi):
            assert run(default, numbers(abi)[name] | bit, AUDIT_ARCH[abi]) == ALLOW, name


@pytest.mark.parametrize("abi", ["X86_64", "X86", "X32"])
def test_attack_24_clone_cannot_make_namespaces(default: Program, abi: str) -> None:
    number = numbers(abi)["clone"] | (X32_BIT if abi == "X32" else 0)
    assert run(default, number, AUDIT_ARCH[abi], [signal.SIGCHLD]) == ALLOW
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert run(default, number, AUDIT_ARCH[abi], [flag | signal.SIGCHLD]) == EPERM_ANSWER, hex(flag)
    number = numbers(abi)["clone3"] | (X32_BIT if abi == "X32" else 0)
    assert run(default, number, AUDIT_ARCH[abi]) == ENOSYS_ANSWER


def test_attack_24_sockets_by_family(default: Program) -> None:
    number = numbers("X86_64")["socket"]
    answers = {family: run(default, number, X86_64, [family]) for family in range(50)}
    for name, family in {"UNIX": 1, "INET": 2, "INET6": 10, "NETLINK": 16, "PACKET": 17}.items():
        assert answers[family] == ALLOW, name
    for name, family in {"ALG": 38, "VSOCK": 40}.items():
        assert answers[family] == EPERM_ANSWER, name
    assert run(default, number, X86_64, [1 << 32 | 1]) == EPERM_ANSWER, "the whole register counts"


def test_attack_24_numbers_that_nobody_knows(default: Program) -> None:
    for number in (500, 1000, 0x3FFFFFFF, X32_BIT | 600, X32_BIT | 0x3FFFFFFF, 0x7FFFFFFF, 0xFFFFFFFF):
        assert run(default, number, X86_64) == ENOSYS_ANSWER, hex(number)
    assert run(default, 500, I386) == ENOSYS_ANSWER
    # x32 entered with x86-64's numbers of calls that have others there
    assert run(default, X32_BIT | numbers("X86_64")["ptrace"], X86_64) == EPERM_ANSWER


@pytest.mark.parametrize("arch", [AUDIT_ARCH["AARCH64"], AUDIT_ARCH["ARM"], 0, 0xFFFFFFFF])
def test_attack_24_a_foreign_architecture_is_killed(default: Program, arch: int) -> None:
    for number in (0, 1, 59, 221):
        assert run(default, number, arch) == KILL


def test_attack_24_unlisted_abis_are_killed() -> None:
    permissive = profile_of(architectures=["SCMP_ARCH_X86_64"], defaultAction="SCMP_ACT_ALLOW")
    for profile in (permissive, profile_of(allow("read"), architectures=[])):
        program = disassemble(compile_profile(profile, "x86_64"))
        assert run(program, 0, X86_64) == ALLOW
        assert run(program, 0, I386) == KILL
        assert run(program, X32_BIT, X86_64) == KILL
        assert run(program, X32_BIT | 59, X86_64) == KILL


def test_multiplexers_of_i386_open_only_what_is_named() -> None:
    program = disassemble(compile_profile(profile_of(allow("connect", "shmat")), "x86_64"))
    socketcall, ipc = numbers("X86")["socketcall"], numbers("X86")["ipc"]
    assert [call for call in range(25) if run(program, socketcall, I386, [call]) == ALLOW] == [3]
    assert [call for call in range(25) if run(program, ipc, I386, [call]) == ALLOW] == [21]
    checked = profile_of(allow("socket", args=[(0, "SCMP_CMP_EQ", 1, 0)]))
    program = disassemble(compile_profile(checked, "x86_64"))
    assert not any(run(program, socketcall, I386, [call]) == ALLOW for call in range(25))


@pytest.mark.parametrize("abi", ["AARCH64", "ARM"])
def test_arm(abi: str) -> None:
    program = disassemble(compile_profile(docker(machine="aarch64"), "aarch64"))
    assert run(program, numbers(abi)["read"], AUDIT_ARCH[abi]) == ALLOW
    assert run(program, numbers(abi)["mount"], AUDIT_ARCH[abi]) == EPERM_ANSWER
    assert run(program, 600, AUDIT_ARCH[abi]) == ENOSYS_ANSWER
    if abi == "ARM":
        assert run(program, numbers(abi)["set_tls"], AUDIT_ARCH[abi]) == ALLOW
        assert run(program, 0xF0003, AUDIT_ARCH[abi]) == EPERM_ANSWER
        assert run(program, 0xF0009, AUDIT_ARCH[abi]) == ENOSYS_ANSWER
    assert run(program, 0, X86_64) == KILL


# --- rules -----------------------------------------------------------------------------------------------------------


def answer(profile: dict[str, Any], name: str, *arguments: int) -> int:
    return run(disassemble(compile_profile(profile, "x86_64")), numbers("X86_64")[name], X86_64, arguments)


def test_an_unconditional_rule_wins_over_those_with_arguments() -> None:
    deny = allow("read", args=[(0, "SCMP_CMP_EQ", 5, 0)]) | {"action": "SCMP_ACT_KILL_PROCESS"}
    assert answer(profile_of(deny, allow("read")), "read", 5) == ALLOW


def test_the_first_rule_that_fits_wins() -> None:
    log = allow("read", args=[(0, "SCMP_CMP_GE", 5, 0)]) | {"action": "SCMP_ACT_LOG"}
    profile = profile_of(allow("read", args=[(0, "SCMP_CMP_EQ", 7, 0)]), log)
    assert [answer(profile, "read", value) for value in (4, 5, 7)] == [EPERM_ANSWER, 0x7FFC0000, ALLOW]


def test_conditions_on_one_argument_are_alternatives() -> None:
    profile = profile_of(allow("read", args=[(0, "SCMP_CMP_EQ", 1, 0), (0, "SCMP_CMP_GT", 8, 0)]))
    assert [answer(profile, "read", value) for value in (0, 1, 2, 8, 9)] == [
        EPERM_ANSWER,
        ALLOW,
        EPERM_ANSWER,
        EPERM_ANSWER,
        ALLOW,
    ]


@pytest.mark.parametrize(
    ("action", "errno_ret", "expected"),
    [
        ("SCMP_ACT_KILL", None, 0),
        ("SCMP_ACT_KILL_THREAD", None, 0),
        ("SCMP_ACT_KILL_PROCESS", None, 0x80000000),
        ("SCMP_ACT_TRAP", None, 0x00030000),
        ("SCMP_ACT_ERRNO", None, 0x00050001),
        ("SCMP_ACT_ERRNO", 0, 0x00050000),
        ("SCMP_ACT_ERRNO", 38, 0x00050026),
        ("SCMP_ACT_TRACE", 7, 0x7FF00007),
        ("SCMP_ACT_LOG", None, 0x7FFC0000),
        ("SCMP_ACT_NOTIFY", None, 0x7FC00000),
    ],
)
def test_actions(action: str, errno_ret: int | None, expected: int) -> None:
    rule = {"names": ["read"], "action": action, "errnoRet": errno_ret}
    assert answer(profile_of(rule, defaultAction="SCMP_ACT_ALLOW"), "read") == expected


def test_a_permissive_default_has_no_enosys() -> None:
    rule = {"names": ["read"], "action": "SCMP_ACT_ERRNO"}
    program = disassemble(compile_profile(profile_of(rule, defaultAction="SCMP_ACT_ALLOW"), "x86_64"))
    assert run(program, 999, X86_64) == ALLOW
    assert run(program, numbers("X86_64")["read"], X86_64) == EPERM_ANSWER


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ({}, "unknown defaultAction None"),
        (profile_of(defaultAction="SCMP_ACT_MAYBE"), "unknown defaultAction 'SCMP_ACT_MAYBE'"),
        (profile_of(defaultErrnoRet=5000), "5000 is no errno"),
        (profile_of({"names": [], "action": "SCMP_ACT_ALLOW"}), "a rule without names"),
        (profile_of({"names": ["read"], "action": "ALLOW"}), "unknown action 'ALLOW'"),
        (profile_of(allow("read", args=[(0, "EQ", 0, 0)])), "unknown operator 'EQ'"),
        (profile_of(allow("read", args=[(6, "SCMP_CMP_EQ", 0, 0)])), "argument index 6"),
        (profile_of(allow("read", args=[(0, "SCMP_CMP_EQ", -1, 0)])), "unsigned 64-bit"),
        (profile_of(allow("read", args=[(0, "SCMP_CMP_EQ", 1 << 64, 0)])), "unsigned 64-bit"),
        (profile_of(architectures=["SCMP_ARCH_VAX"]), "unknown architecture 'SCMP_ARCH_VAX'"),
        (
            profile_of(*(allow("read", args=[(0, "SCMP_CMP_NE", v, 0), (1, "SCMP_CMP_NE", v, 0)]) for v in range(900))),
            "the kernel takes 4096",
        ),
    ],
)
def test_bad_profiles(profile: dict[str, Any], words: str) -> None:
    with pytest.raises(BadProfile, match=words):
        compile_profile(profile, "x86_64")


def test_unknown_machine() -> None:
    with pytest.raises(BadProfile, match="no table of system calls for vax"):
        compile_profile(profile_of(), "vax")


def test_dockers_filter_is_short(default: Program) -> None:
    assert len(default) < 800

    def depth(number: int) -> int:
        steps = 0

        class Counting(list[tuple[int, int, int, int]]):
            def __getitem__(self, at: Any) -> Any:
                nonlocal steps
                steps += 1
                return super().__getitem__(at)

        run(Counting(default), number, X86_64)
        return steps

    assert max(depth(number) for number in numbers("X86_64").values()) <= 60
    assert depth(numbers("X86_64")["read"]) <= 14


def test_flags() -> None:
    assert seccomp.flags_of({}) == seccomp.SECCOMP_FILTER_FLAG_SPEC_ALLOW
    assert seccomp.flags_of({"flags": ["SECCOMP_FILTER_FLAG_LOG"]}) == seccomp.SECCOMP_FILTER_FLAG_LOG
    with pytest.raises(BadProfile, match="unknown flag"):
        seccomp.flags_of({"flags": ["SECCOMP_FILTER_FLAG_NEW_LISTENER"]})


# --- in the kernel ---------------------------------------------------------------------------------------------------


def in_child(deed: Callable[[], None]) -> int:
    """Run in a forked process with no_new_privs; its exit status, negative for a signal."""
    if not (pid := os.fork()):
        status = 1
        try:
            assert ctypes.CDLL(None).prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
            deed()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def errno_of(number: int, *arguments: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    return ctypes.get_errno() if libc.syscall(number, *arguments) < 0 else 0


@requires_x86_64
def test_kernel_takes_dockers_filter_and_obeys_it() -> None:
    bpf = compile_profile(docker([]), "x86_64")

    def deed() -> None:
        seccomp.install(bpf)
        table = numbers("X86_64")
        assert errno_of(table["getpid"]) == 0
        assert errno_of(table["keyctl"], 0, 0) == errno.EPERM
        assert errno_of(table["unshare"], 0x10000000) == errno.EPERM
        assert errno_of(table["clone3"], 0, 0) == errno.ENOSYS
        assert errno_of(table["io_uring_setup"], 1, 0) == errno.EPERM
        assert errno_of(table["socket"], 40, 1, 0) == errno.EPERM
        assert errno_of(table["socket"], 38, 5, 0) == errno.EPERM
        assert errno_of(700) == errno.ENOSYS
        assert errno_of(X32_BIT | table["getpid"]) in {0, errno.ENOSYS}
        assert errno_of(X32_BIT | table["keyctl"], 0, 0) in {errno.EPERM, errno.ENOSYS}
        os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)

    assert in_child(deed) == 0


def int_0x80(number: int, argument: int) -> int:
    """An i386 system call from a 64-bit process: its result, negative errno in case of failure."""
    # push rbx; mov eax, edi; mov ebx, esi; int 0x80; pop rbx; ret
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(bytes.fromhex("53 89f8 89f3 cd80 5b c3"))
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    return int(ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int)(address)(number, argument))


@requires_x86_64
def test_attack_24_kernel_obeys_it_for_i386_too() -> None:
    table = numbers("X86")
    if in_child(lambda: os._exit(0 if int_0x80(table["getpid"], 0) == os.getpid() else 1)) != 0:
        pytest.skip("this kernel has no IA32 emulation")
    bpf = compile_profile(docker([]), "x86_64")

    def deed() -> None:
        int_0x80(table["getpid"], 0)
        seccomp.install(bpf)
        assert int_0x80(table["getpid"], 0) == os.getpid()
        for name in ("keyctl", "unshare", "bpf", "mount", "userfaultfd", "io_uring_setup", "reboot"):
            assert int_0x80(table[name], 0) == -errno.EPERM, name
        assert int_0x80(table["clone3"], 0) == -errno.ENOSYS
        # x86-64's getpid is i386's mkdir, and its keyctl i386's fadvise64: each ABI is read by its own table
        assert int_0x80(numbers("X86_64")["keyctl"], -1) != -errno.EPERM

    assert in_child(deed) == 0


@requires_x86_64
def test_kernel_kills_on_the_unlisted_abi() -> None:
    bpf = compile_profile(profile_of(defaultAction="SCMP_ACT_ALLOW", architectures=[]), "x86_64")

    def deed() -> None:
        seccomp.install(bpf)
        errno_of(X32_BIT | numbers("X86_64")["getpid"])

    assert in_child(deed) == -signal.SIGSYS


def test_install_without_the_right_to() -> None:
    def deed() -> None:
        with pytest.raises(OSError, match="seccomp"):
            seccomp.install(b"")
        with pytest.raises(OSError, match="no array"):
            seccomp.install(b"1234567")
        with pytest.raises(OSError, match="seccomp"):
            seccomp.install(b"\0" * 8)  # ends without an answer

    assert in_child(deed) == 0
