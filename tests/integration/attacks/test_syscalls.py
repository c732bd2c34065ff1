"""Attack 24: the system calls and devices by which containers were left before, tried from inside a default container.

The probe runs on the host's interpreter, mounted read-only. `kept shut` means that the kernel answers with the errno of
the filter: EPERM, or ENOSYS for what glibc must be able to do without.
"""

from __future__ import annotations

import errno
import json
import platform
from collections.abc import Sequence
from pathlib import Path

import pytest

from pier.kernel.seccomp_rules import numbers

from ..client import Client
from ..conftest import Daemon
from .conftest import HOST_LIBRARIES, PYTHON

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="compares x86-64's ABIs"),
]

CLONE_NEWUSER, CLONE_NEWNS = 0x10000000, 0x00020000
X32_BIT = 0x40000000
AF_VSOCK, SOCK_STREAM = 40, 1

SHUT: dict[str, tuple[str, Sequence[int]]] = {
    "keyctl": ("keyctl", [0, 0, 0]),
    "add_key": ("add_key", [0, 0, 0, 0]),
    "request_key": ("request_key", [0, 0, 0]),
    "bpf": ("bpf", [0, 0, 0]),
    "userfaultfd": ("userfaultfd", [0]),
    "perf_event_open": ("perf_event_open", [0, 0, -1, -1, 0]),
    "open_by_handle_at": ("open_by_handle_at", [-1, 0, 0]),
    "io_uring_setup": ("io_uring_setup", [1, 0]),
    "io_uring_enter": ("io_uring_enter", [-1, 0, 0, 0]),
    "unshare a user namespace": ("unshare", [CLONE_NEWUSER]),
    "unshare a mount namespace": ("unshare", [CLONE_NEWNS]),
    "clone a user namespace": ("clone", [CLONE_NEWUSER | 17, 0, 0, 0, 0]),
    "setns": ("setns", [0, 0]),
    "mount": ("mount", [0, 0, 0, 0, 0]),
    "umount2": ("umount2", [0, 0]),
    "pivot_root": ("pivot_root", [0, 0]),
    "open_tree": ("open_tree", [-1, 0, 0]),
    "move_mount": ("move_mount", [-1, 0, -1, 0, 0]),
    "fsopen": ("fsopen", [0, 0]),
    "mount_setattr": ("mount_setattr", [-1, 0, 0, 0, 0]),
    "init_module": ("init_module", [0, 0, 0]),
    "finit_module": ("finit_module", [-1, 0, 0]),
    "delete_module": ("delete_module", [0, 0]),
    "kexec_load": ("kexec_load", [0, 0, 0, 0]),
    "reboot": ("reboot", [0, 0, 0, 0]),
    "swapon": ("swapon", [0, 0]),
    "acct": ("acct", [0]),
    "quotactl": ("quotactl", [0, 0, 0, 0]),
    "settimeofday": ("settimeofday", [0, 0]),
    "iopl": ("iopl", [3]),
    "ioperm": ("ioperm", [0, 1, 1]),
    "syslog": ("syslog", [3, 0, 0]),
    "vhangup": ("vhangup", []),
    "AF_VSOCK": ("socket", [AF_VSOCK, SOCK_STREAM, 0]),
    "personality that is not listed": ("personality", [0x0400000]),
}
PROBE = """
import ctypes, errno, json, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
table = json.loads(sys.argv[1])

def native(number, arguments):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    return ctypes.get_errno() if result == -1 else 0

def in_child(call, number, arguments):
    # A child, since a call that is let through may change or end the process.
    pid = os.fork()
    if pid == 0:
        os._exit(call(number, arguments) & 0xff)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

# push rbx; mov eax, edi; mov ebx, esi; mov ecx, edx; mov edx, 0; int 0x80; pop rbx; ret
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("53 89f8 89f3 89d1 ba00000000 cd80 5b c3"))
gate = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int)(
    ctypes.addressof(ctypes.c_char.from_buffer(code)))

def i386(number, arguments):
    first, second = (list(arguments) + [0, 0])[:2]
    return -min(gate(number, first & 0x7fffffff, second & 0x7fffffff), 0)

doors = {"native": native, "x32": native, "i386": i386}
print(json.dumps({door: {name: in_child(doors[door], *call) for name, call in calls.items()}
                  for door, calls in table.items()}))
"""


@pytest.fixture(scope="module")
def answers(daemon: Daemon) -> dict[str, dict[str, dict[str, int]]]:
    """What each call answers, by the way into the container and by the door into the kernel."""
    x86_64, i386 = numbers("X86_64"), numbers("X86")
    table = {
        "native": {name: (x86_64[call], arguments) for name, (call, arguments) in SHUT.items()},
        "x32": {name: (x86_64[call] | X32_BIT, arguments) for name, (call, arguments) in SHUT.items()},
        "i386": {name: (i386[call], arguments) for name, (call, arguments) in SHUT.items() if call in i386},
    }
    for door, call_numbers in (("native", x86_64), ("i386", i386)):
        table[door] |= {"clone3": (call_numbers["clone3"], [0, 0]), "getpid": (call_numbers["getpid"], [])}
    client = Client(daemon.environment, "busybox", program="pier")
    probe = [PYTHON, "-ISc", PROBE, json.dumps(table)]
    client.run(*HOST_LIBRARIES, "busybox", "sleep", "1000", name="attack-24")
    try:
        return {
            "run": json.loads(client.ok("run", "--rm", *HOST_LIBRARIES, "busybox", *probe)),
            "exec": json.loads(client.ok("exec", "attack-24", *probe)),
        }
    finally:
        client("rm", "-f", "attack-24")


@pytest.mark.parametrize("way", ["run", "exec"])
@pytest.mark.parametrize("name", sorted(SHUT))
def test_attack_24_kept_shut_by_every_door(answers: dict[str, dict[str, dict[str, int]]], way: str, name: str) -> None:
    doors = {door: found[name] for door, found in answers[way].items() if name in found}
    # A kernel without x32 answers ENOSYS there whatever is asked.
    expected = {"native": {errno.EPERM}, "i386": {errno.EPERM, errno.ENOSYS}, "x32": {errno.EPERM, errno.ENOSYS}}
    assert {door: value for door, value in doors.items() if value not in expected[door]} == {}


@pytest.mark.parametrize("way", ["run", "exec"])
def test_attack_24_clone3_is_not_there_and_getpid_is(answers: dict[str, dict[str, dict[str, int]]], way: str) -> None:
    """glibc falls back to clone, whose flags a filter can see; and the probe does tell an open door from a shut one."""
    assert answers[way]["native"]["clone3"] == errno.ENOSYS
    assert answers[way]["native"]["getpid"] == 0
    if answers[way]["i386"]["getpid"] == 0:  # else: no IA32 emulation
        assert answers[way]["i386"]["clone3"] == errno.ENOSYS


def test_attack_24_the_same_calls_pass_without_the_filter(pier: Client) -> None:
    """So it is the filter, and not this kernel, that answered above."""
    probe = "import os, ctypes; print(ctypes.CDLL(None).unshare(0x10000000))"
    flags = ["--security-opt", "seccomp=unconfined"]
    assert pier.ok("run", "--rm", *flags, *HOST_LIBRARIES, "busybox", PYTHON, "-ISc", probe) == "0"


def test_attack_24_status_says_filtered(pier: Client) -> None:
    pier.run("busybox", "sleep", "1000", name="attack-24")
    look = ["grep", "-h", "^Seccomp:", "/proc/self/status"]
    assert pier.ok("run", "--rm", "busybox", *look) == "Seccomp:\t2"
    assert pier.ok("run", "--rm", "--init", "busybox", *look, "/proc/1/status") == "Seccomp:\t2\nSeccomp:\t2"
    assert pier.ok("exec", "attack-24", *look) == "Seccomp:\t2"


def host_disk() -> tuple[str, str]:
    for line in Path("/proc/partitions").read_text().splitlines()[2:]:
        major, minor, *_ = line.split()
        return major, minor
    pytest.skip("this machine has no block device")


def test_attack_24_a_node_of_the_hosts_disk_cannot_be_opened(pier: Client) -> None:
    major, minor = host_disk()
    script = f"mknod /disk b {major} {minor} && echo made; head -c 1 /disk 2>&1; mknod /kmsg c 1 11; echo x > /kmsg"
    done = pier("run", "--rm", "busybox", "sh", "-c", script)
    assert done.status != 0
    assert done.out.splitlines()[0] == "made"
    assert (done.out + done.err).count("Operation not permitted") == 2


def test_attack_24_cgroups_are_read_only_and_tell_nothing_of_the_host(pier: Client) -> None:
    """CVE-2022-0492: release_agent runs a program of the writer's on the host."""
    script = """
    find /sys/fs/cgroup -name release_agent
    for folder in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $folder/new && echo MADE $folder; done 2>/dev/null
    grep cgroup /proc/mounts | grep -v ' ro,' | sed 's/^/WRITABLE /'
    cut -d: -f3 /proc/self/cgroup | sort -u
    """
    lines = pier.ok("run", "--rm", "busybox", "sh", "-c", script).splitlines()
    assert [line for line in lines if line.startswith(("MADE", "WRITABLE"))] == []
    assert lines[-1] == "/"
