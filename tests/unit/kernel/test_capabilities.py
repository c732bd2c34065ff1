"""Capabilities: names and masks, and what is left to a process that gave them up."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from pier.kernel import capabilities as caps

DOCKER_DEFAULT = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CAP_NET_RAW", "CAP_NET_RAW"),
        ("NET_RAW", "CAP_NET_RAW"),
        ("net_raw", "CAP_NET_RAW"),
        (" cap_sys_admin ", "CAP_SYS_ADMIN"),
        ("ALL", "ALL"),
        ("all", "ALL"),
        ("CAP_ALL", "ALL"),
    ],
)
def test_parse(text: str, expected: str) -> None:
    assert caps.parse(text) == expected


@pytest.mark.parametrize("text", ["", "CAP_", "CAP_CAP_CHOWN", "NET-RAW", "41"])
def test_parse_refuses_what_is_no_capability(text: str) -> None:
    with pytest.raises(caps.UnknownCapability, match="unknown capability"):
        caps.parse(text)


def test_numbers_are_the_kernels() -> None:
    header = Path("/usr/include/linux/capability.h")
    if not header.exists():
        pytest.skip("no kernel headers")
    defined = re.findall(r"^#define (CAP_\w+)\s+(\d+)$", header.read_text(), re.MULTILINE)
    assert {name: int(number) for name, number in defined} == caps.NUMBERS


def test_mask_and_names_are_inverse() -> None:
    assert caps.mask(DOCKER_DEFAULT) == 0xA80425FB  # what a Docker container shows as CapBnd
    assert sorted(caps.names(0xA80425FB)) == sorted(DOCKER_DEFAULT)
    assert caps.mask(["chown", "CAP_KILL"]) == 0b100001


def test_last_cap_is_the_kernels() -> None:
    assert caps.last_cap() == int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    assert caps.mask(["ALL"]) == (1 << (caps.last_cap() + 1)) - 1


def test_sets_from_oci() -> None:
    sets = caps.CapabilitySets.from_oci({"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "ambient": []})
    assert sets == caps.CapabilitySets(bounding=32, effective=32)
    with pytest.raises(caps.UnknownCapability):
        caps.CapabilitySets.from_oci({"bounding": ["CAP_NOPE"]})


def test_capget_agrees_with_proc() -> None:
    status = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines())
    sets = caps.capget()
    assert sets.effective == int(status["CapEff"], 16)
    assert sets.permitted == int(status["CapPrm"], 16)
    assert sets.inheritable == int(status["CapInh"], 16)
    assert sets.bounding == int(status["CapBnd"], 16)
    assert sets.ambient == int(status["CapAmb"], 16)


def in_child(deed: Callable[[], None]) -> None:
    """Run in a forked process, whose failure is the test's."""
    if not (pid := os.fork()):
        status = 1
        try:
            deed()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.root
def test_apply_to_root_leaves_exactly_what_was_asked() -> None:
    wanted = caps.mask(DOCKER_DEFAULT)

    def deed() -> None:
        caps.drop_bounding(wanted)
        caps.apply(caps.CapabilitySets(wanted, wanted, wanted))
        assert caps.capget() == caps.CapabilitySets(wanted, wanted, wanted, 0, 0)

    in_child(deed)


@pytest.mark.root
def test_attack_14_nothing_is_inheritable() -> None:
    wanted = caps.mask(DOCKER_DEFAULT)

    def deed() -> None:
        held = caps.capget().permitted
        caps.capset(effective=held, permitted=held, inheritable=wanted)
        caps.drop_bounding(wanted)
        caps.apply(caps.CapabilitySets.from_oci(dict.fromkeys(("bounding", "effective", "permitted"), DOCKER_DEFAULT)))
        assert caps.capget().inheritable == 0
        assert caps.capget().ambient == 0

    in_child(deed)


@pytest.mark.root
def test_apply_after_setuid_with_ambient() -> None:
    kept = caps.mask(["CAP_NET_BIND_SERVICE", "CAP_CHECKPOINT_RESTORE"])

    def deed() -> None:
        caps.drop_bounding(kept)
        caps.keep_across_setuid(True)
        os.setgroups([])
        os.setresgid(4242, 4242, 4242)
        os.setresuid(4242, 4242, 4242)
        caps.apply(caps.CapabilitySets(kept, kept, kept, kept, kept))
        assert caps.capget() == caps.CapabilitySets(kept, kept, kept, kept, kept)
        with pytest.raises(PermissionError):
            caps.capset(effective=1, permitted=1, inheritable=0)

    in_child(deed)


@pytest.mark.root
def test_ambient_without_inheritable_is_refused_by_name() -> None:
    def deed() -> None:
        with pytest.raises(PermissionError, match="CAP_KILL"):
            caps.apply(caps.CapabilitySets(ambient=32, permitted=32, effective=32))

    in_child(deed)
