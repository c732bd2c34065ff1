"""Device rules: parsed, folded, as v1 lines, and as a BPF program that is run here and by the kernel."""

from __future__ import annotations

import errno
import itertools
import os
import struct
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pier.kernel import bpf_devices
from pier.kernel.bpf_devices import DEFAULT_RULES, BadDeviceRule, DeviceRule

R, W, M = 2, 4, 1
RWM = R | W | M
NOTHING = DeviceRule(False)
EVERYTHING = DeviceRule(True)
NULL = DeviceRule(True, "c", 1, 3)


@pytest.mark.parametrize(
    ("oci", "expected"),
    [
        ({"allow": False, "access": "rwm"}, NOTHING),
        ({"allow": True}, EVERYTHING),
        ({"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"}, NULL),
        ({"allow": True, "type": "b", "major": 8, "minor": -1, "access": "r"}, DeviceRule(True, "b", 8, None, R)),
        ({"allow": True, "type": "a", "major": None, "access": "m"}, DeviceRule(True, "a", None, None, M)),
        ({"allow": True, "type": "c", "major": 0, "minor": 0, "access": ""}, DeviceRule(True, "c", 0, 0, RWM)),
    ],
)
def test_parse(oci: dict[str, object], expected: DeviceRule) -> None:
    assert bpf_devices.parse([oci]) == [expected]


@pytest.mark.parametrize("oci", [{"type": "u"}, {"type": "p"}, {"access": "rx"}])
def test_parse_refuses(oci: dict[str, object]) -> None:
    with pytest.raises(BadDeviceRule):
        bpf_devices.parse([oci])


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], [("devices.deny", "a *:* rwm")]),
        ([NOTHING, NULL, NOTHING, NULL, NULL], [("devices.deny", "a *:* rwm"), ("devices.allow", "c 1:3 rwm")]),
        ([NOTHING, NULL, EVERYTHING], [("devices.allow", "a *:* rwm")]),
        ([EVERYTHING, *DEFAULT_RULES], [("devices.allow", "a *:* rwm")]),
        (
            [EVERYTHING, DeviceRule(False, "b", 8, None, W)],
            [("devices.allow", "a *:* rwm"), ("devices.deny", "b 8:* w")],
        ),
        # `a *:* r` would allow everything: the kernel reads no further than the `a`.
        (
            [NOTHING, DeviceRule(True, "a", None, None, R)],
            [("devices.deny", "a *:* rwm"), ("devices.allow", "b *:* r"), ("devices.allow", "c *:* r")],
        ),
        (
            [DeviceRule(True, "a", 1, 3)],
            [("devices.deny", "a *:* rwm"), ("devices.allow", "b 1:3 rwm"), ("devices.allow", "c 1:3 rwm")],
        ),
    ],
)
def test_v1_writes(rules: list[DeviceRule], expected: list[tuple[str, str]]) -> None:
    assert bpf_devices.v1_writes(rules) == expected


def decide(rules: Sequence[DeviceRule], kind: str, major: int, minor: int, access: int) -> bool:
    """What the specification says, in the plainest way: for each access, the last rule that names it."""

    def one(bit: int) -> bool:
        for rule in reversed(rules):
            if (
                rule.type in {"a", kind}
                and rule.major in {None, major}
                and rule.minor in {None, minor}
                and rule.access & bit
            ):
                return rule.allow
        return False

    return all(one(bit) for bit in (R, W, M) if access & bit)


def run(code: bytes, kind: str, major: int, minor: int, access: int) -> bool:
    """Interpret the instructions that `program` emits, as the kernel would."""
    context = struct.pack("=III", access << 16 | {"b": 1, "c": 2}[kind], major, minor)
    registers = [0] * 11
    at = 0
    while True:
        opcode, both, offset, value = struct.unpack_from("=BBhi", code, at * 8)
        destination, source = both & 15, both >> 4
        at += 1
        match opcode:
            case 0x61:
                assert source == 1
                registers[destination] = struct.unpack_from("=I", context, offset)[0]
            case 0xB7:
                registers[destination] = value
            case 0xBF:
                registers[destination] = registers[source]
            case 0x57:
                registers[destination] &= value
            case 0x77:
                registers[destination] >>= value
            case 0x05:
                at += offset
            case 0x55:
                at += offset if registers[destination] != value else 0
            case 0x45:
                at += offset if registers[destination] & value else 0
            case 0x95:
                return bool(registers[0])
            case _:
                raise AssertionError(f"opcode {opcode:#x}")


POLICIES = {
    "nothing": [NOTHING],
    "no rules": [],
    "everything": [EVERYTHING],
    "container": [NOTHING, *DEFAULT_RULES],
    "privileged": [EVERYTHING, *DEFAULT_RULES],
    "read and write apart": [NOTHING, DeviceRule(True, "c", 1, 3, R), DeviceRule(True, "c", 1, 3, W)],
    "one taken back": [NOTHING, DeviceRule(True, "c", 1, None), DeviceRule(False, "c", 1, 3, W)],
    "all but one": [EVERYTHING, DeviceRule(False, "b", 8, 0)],
    "all but writes": [EVERYTHING, DeviceRule(False, "a", None, None, W)],
    "mknod of all": [NOTHING, DeviceRule(True, "a", None, None, M), NULL],
    "allowed again": [EVERYTHING, DeviceRule(False, "c", 1, None), NULL],
}


@pytest.mark.parametrize("rules", POLICIES.values(), ids=POLICIES)
def test_program_decides_as_the_specification(rules: list[DeviceRule]) -> None:
    code = bpf_devices.program(rules)
    for kind, major, minor, access in itertools.product("bc", (0, 1, 5, 8, 136), (0, 2, 3, 7), range(1, 8)):
        assert run(code, kind, major, minor, access) == decide(rules, kind, major, minor, access), (
            kind,
            major,
            minor,
            access,
        )


@pytest.fixture
def cgroup2() -> Iterator[Path]:
    """A directory of the cgroup2 hierarchy, which takes a device program in hybrid mode too."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup2 " in line:
            break
    else:
        pytest.skip("no cgroup2 hierarchy is mounted")
    directory = Path(tempfile.mkdtemp(prefix="pier-test-devices-", dir=line.split()[4]))
    yield directory
    directory.rmdir()


def errno_of_open(cgroup: Path, device: str) -> int:
    """Open a device for reading from inside the cgroup; 0 or the errno."""
    if not (pid := os.fork()):
        code = 255
        try:
            (cgroup / "cgroup.procs").write_text("0")
            os.close(os.open(device, os.O_RDONLY))
            code = 0
        except OSError as error:
            code = error.errno or 254
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.root
def test_kernel_takes_every_program_and_obeys_the_last(cgroup2: Path) -> None:
    fd = os.open(cgroup2, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for rules in POLICIES.values():
            bpf_devices.attach(fd, rules)
        bpf_devices.attach(fd, [NOTHING, *DEFAULT_RULES])
        assert errno_of_open(cgroup2, "/dev/zero") == 0
        assert errno_of_open(cgroup2, "/dev/kmsg") == errno.EPERM
        bpf_devices.attach(fd, [NOTHING, DeviceRule(True, "c", 1, 11)])
        assert errno_of_open(cgroup2, "/dev/zero") == errno.EPERM
        assert errno_of_open(cgroup2, "/dev/kmsg") == 0
        bpf_devices.attach(fd, [EVERYTHING])
        assert errno_of_open(cgroup2, "/dev/zero") == 0
    finally:
        os.close(fd)
