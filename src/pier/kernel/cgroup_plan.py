"""What is to be written where for OCI's `linux.resources`, on cgroup v1, hybrid and v2. Pure: nothing is touched.

Sources: runtime-spec config-linux.md ("Control groups"), the kernel's admin-guide/cgroup-v1/*.rst and cgroup-v2.rst,
and for what OCI says in v1 words on a v2 host the conversions that runc and crun made. The device list is not in the
plan: it is not a file on v2 (`bpf_devices`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from pier.errors import InvalidParameter
from pier.kernel.cgroup_layout import Layout

Section = Mapping[str, Any]

DEFAULT_PERIOD_US = 100_000
"""The kernel's own CFS period, for a quota that comes without one."""


class Write(NamedTuple):
    """One value for one file of one controller."""

    field: str
    """Path below `linux.resources` of what asks for it: `memory.limit`."""
    controller: str
    file: str
    value: str
    lost: str = ""
    """Docker's warning for a kernel without this file or controller; empty: that is an error."""
    otherwise: tuple[str, str] | None = None
    """File and value where `file` is missing."""


class BadResources(InvalidParameter):
    """{reason}"""

    def __init__(self, *, reason: str, field: str = "") -> None:
        """`field` as in `Write`."""
        super().__init__(reason=reason, field=field)


def plan(resources: Mapping[str, Any], layout: Layout) -> list[Write]:
    """The writes for a container's resources, in order. Raises BadResources.

    What is absent, None or zero (where zero means "not set" to Docker) is left as the kernel has it.
    """
    writes: list[Write] = []
    for name, controller, v1, v2 in _SECTIONS:
        section = resources.get(name)
        if section:
            writes += (v2 if layout.version(controller) == 2 else v1)(section)
    unified = resources.get("unified")
    if unified:
        if layout.mode != "v2":
            raise BadResources(reason="files by name need cgroup v2, and this machine has cgroup v1", field="unified")
        writes += _unified(unified)
    return writes


def _lost(what: str, consequence: str) -> str:
    return f"Your kernel does not support {what} or the cgroup is not mounted. {consequence} discarded."


_LOST_MEMORY = _lost("memory limit capabilities", "Limitation")
_LOST_SWAP = (
    "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap."
)
_LOST_RESERVATION = _lost("memory soft limit capabilities", "Limitation")
_LOST_SWAPPINESS = _lost("memory swappiness capabilities", "Memory swappiness")
_LOST_OOM = "Your kernel does not support OomKillDisable. OomKillDisable discarded."
_LOST_KERNEL = "Specifying a kernel memory limit has no effect on this kernel. Kernel memory limit discarded."
_LOST_TCP = _lost("kernel memory TCP limit capabilities", "Kernel memory TCP limit")
_LOST_SHARES = _lost("CPU shares", "Shares")
_LOST_CFS = _lost("CPU CFS scheduler", "Period/quota")
_LOST_BURST = _lost("CPU CFS burst", "Burst")
_LOST_IDLE = _lost("CPU idle", "Idle")
_LOST_REALTIME = _lost("CPU realtime scheduler", "CPU realtime period/runtime")
_LOST_CPUSET = _lost("cpuset", "Cpuset")
_LOST_PIDS = _lost("PIDs limit capabilities", "PIDs limit")
_LOST_WEIGHT = _lost("Block I/O weight", "Weight")
_LOST_WEIGHT_DEVICE = _lost("Block I/O weight_device", "Weight-device")
_LOST_LEAF = _lost("Block I/O leaf weight", "Leaf weight")
_LOST_THROTTLE = {
    "throttleReadBpsDevice": _lost("BPS Block I/O read limit", "Block I/O BPS read limit"),
    "throttleWriteBpsDevice": _lost("BPS Block I/O write limit", "Block I/O BPS write limit"),
    "throttleReadIOPSDevice": _lost("IOPS Block I/O read limit", "Block I/O IOPS read limit"),
    "throttleWriteIOPSDevice": _lost("IOPS Block I/O write limit", "Block I/O IOPS write limit"),
}


# --- memory ----------------------------------------------------------------------------------------------------------


def memory_and_swap(memory: Section) -> tuple[int, int]:
    """Limit of memory, and of memory and swap together, in bytes; 0: not set, negative: none. Raises BadResources."""
    limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
    if limit < 0 and not swap:
        swap = -1  # Whoever lifts the limit of memory means that of both.
    if 0 < swap < limit:
        raise BadResources(
            reason="Minimum memoryswap limit should be larger than memory limit, see usage", field="memory.swap"
        )
    return limit, swap


def _asks_for_swap(memory: Section) -> str:
    return "memory.swap" if memory.get("swap") else "memory.limit"


def _memory_v1(memory: Section) -> Iterator[Write]:
    limit, swap = memory_and_swap(memory)
    if limit:
        yield Write("memory.limit", "memory", "memory.limit_in_bytes", str(max(limit, -1)), _LOST_MEMORY)
    if swap:
        yield Write(_asks_for_swap(memory), "memory", "memory.memsw.limit_in_bytes", str(max(swap, -1)), _LOST_SWAP)
    if memory.get("reservation"):
        yield Write(
            "memory.reservation", "memory", "memory.soft_limit_in_bytes", str(memory["reservation"]), _LOST_RESERVATION
        )
    if memory.get("kernel"):
        yield Write("memory.kernel", "memory", "memory.kmem.limit_in_bytes", str(memory["kernel"]), _LOST_KERNEL)
    if memory.get("kernelTCP"):
        yield Write("memory.kernelTCP", "memory", "memory.kmem.tcp.limit_in_bytes", str(memory["kernelTCP"]), _LOST_TCP)
    if memory.get("disableOOMKiller"):
        yield Write("memory.disableOOMKiller", "memory", "memory.oom_control", "1", _LOST_OOM)
    swappiness = memory.get("swappiness")
    if swappiness is not None and swappiness != -1:
        if not 0 <= swappiness <= 100:
            raise BadResources(
                reason=f"Invalid value: {swappiness}, valid memory swappiness range is 0-100",
                field="memory.swappiness",
            )
        yield Write("memory.swappiness", "memory", "memory.swappiness", str(swappiness), _LOST_SWAPPINESS)


def _memory_v2(memory: Section) -> Iterator[Write]:
    limit, swap = memory_and_swap(memory)
    if limit:
        yield Write("memory.limit", "memory", "memory.max", _or_max(limit), _LOST_MEMORY)
    if swap:
        # v1 counts memory and swap together, v2 swap alone; beside unlimited memory the sum can only mean swap.
        if swap > 0 and not limit:
            raise BadResources(reason="unable to set swap limit without memory limit", field="memory.swap")
        yield Write(
            _asks_for_swap(memory),
            "memory",
            "memory.swap.max",
            _or_max(swap - max(limit, 0) if swap > 0 else swap),
            _LOST_SWAP,
        )
    if memory.get("reservation"):
        yield Write("memory.reservation", "memory", "memory.low", _or_max(memory["reservation"]), _LOST_RESERVATION)
    # cgroup v2 has none of these, and a file that is never there says so in Docker's words.
    if memory.get("kernel"):
        yield Write("memory.kernel", "memory", "memory.kmem.limit_in_bytes", "", _LOST_KERNEL)
    if memory.get("kernelTCP"):
        yield Write("memory.kernelTCP", "memory", "memory.kmem.tcp.limit_in_bytes", "", _LOST_TCP)
    if memory.get("disableOOMKiller"):
        yield Write("memory.disableOOMKiller", "memory", "memory.oom_control", "", _LOST_OOM)
    if memory.get("swappiness") not in {None, -1}:
        yield Write("memory.swappiness", "memory", "memory.swappiness", "", _LOST_SWAPPINESS)


# --- cpu -------------------------------------------------------------------------------------------------------------


def weight_of_shares(shares: int) -> int:
    """cgroup v2 `cpu.weight` (1-10000, default 100) for v1 `cpu.shares` (2-262144, default 1024).

    The curve through (2, 1), (1024, 100) and (262144, 10000), so that a default stays a default; runc since 1.4 and
    crun since 1.23 have the same. 0: 0, "not set".
    """
    if shares == 0:
        return 0
    if shares <= MIN_SHARES:
        return 1
    if shares >= MAX_SHARES:
        return 10_000
    log = math.log2(shares)
    return math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


MIN_SHARES, MAX_SHARES = 2, 262_144


def _v1_shares(shares: int) -> int:
    """The kernel would put what is out of range to its end in silence. Raises BadResources in runc's words."""
    if shares < MIN_SHARES:
        raise BadResources(reason=f"the minimum allowed cpu-shares is {MIN_SHARES}", field="cpu.shares")
    if shares > MAX_SHARES:
        raise BadResources(reason=f"the maximum allowed cpu-shares is {MAX_SHARES}", field="cpu.shares")
    return shares


def _cpu_v1(cpu: Section) -> Iterator[Write]:
    # Realtime first: a task of that kind could not join before.
    if cpu.get("realtimePeriod"):
        yield Write("cpu.realtimePeriod", "cpu", "cpu.rt_period_us", str(cpu["realtimePeriod"]), _LOST_REALTIME)
    if cpu.get("realtimeRuntime"):
        yield Write("cpu.realtimeRuntime", "cpu", "cpu.rt_runtime_us", str(cpu["realtimeRuntime"]), _LOST_REALTIME)
    if cpu.get("shares"):
        yield Write("cpu.shares", "cpu", "cpu.shares", str(_v1_shares(cpu["shares"])), _LOST_SHARES)
    if cpu.get("period"):
        yield Write("cpu.period", "cpu", "cpu.cfs_period_us", str(cpu["period"]), _LOST_CFS)
    if cpu.get("quota"):
        yield Write("cpu.quota", "cpu", "cpu.cfs_quota_us", str(max(cpu["quota"], -1)), _LOST_CFS)
    if cpu.get("burst") is not None:
        yield Write("cpu.burst", "cpu", "cpu.cfs_burst_us", str(cpu["burst"]), _LOST_BURST)
    if cpu.get("idle") is not None:
        yield Write("cpu.idle", "cpu", "cpu.idle", str(cpu["idle"]), _LOST_IDLE)


def _cpu_v2(cpu: Section) -> Iterator[Write]:
    if cpu.get("realtimePeriod") or cpu.get("realtimeRuntime"):
        field = "cpu.realtimePeriod" if cpu.get("realtimePeriod") else "cpu.realtimeRuntime"
        yield Write(field, "cpu", "cpu.rt_runtime_us", "", _LOST_REALTIME)
    # An idle group has no weight of its own: the kernel refuses one.
    if cpu.get("shares") and not cpu.get("idle"):
        yield Write("cpu.shares", "cpu", "cpu.weight", str(weight_of_shares(cpu["shares"])), _LOST_SHARES)
    quota, period = cpu.get("quota") or 0, cpu.get("period") or 0
    if quota or period:
        yield Write(
            "cpu.quota" if quota else "cpu.period",
            "cpu",
            "cpu.max",
            f"{quota if quota > 0 else 'max'} {period or DEFAULT_PERIOD_US}",
            _LOST_CFS,
        )
    if cpu.get("burst") is not None:
        yield Write("cpu.burst", "cpu", "cpu.max.burst", str(cpu["burst"]), _LOST_BURST)
    if cpu.get("idle") is not None:
        yield Write("cpu.idle", "cpu", "cpu.idle", str(cpu["idle"]), _LOST_IDLE)


def _cpuset(cpu: Section) -> Iterator[Write]:
    if cpu.get("cpus"):
        yield Write("cpu.cpus", "cpuset", "cpuset.cpus", cpu["cpus"], _LOST_CPUSET)
    if cpu.get("mems"):
        yield Write("cpu.mems", "cpuset", "cpuset.mems", cpu["mems"], _LOST_CPUSET)


# --- pids, block I/O and the rest ------------------------------------------------------------------------------------


def _pids(pids: Section) -> Iterator[Write]:
    if pids.get("limit"):
        yield Write("pids.limit", "pids", "pids.max", _or_max(pids["limit"]), _LOST_PIDS)


def io_weight_of(weight: int) -> int:
    """cgroup v2 `io.weight` (1-10000) for OCI's and v1's block I/O weight (10-1000)."""
    return 1 + (weight - 10) * 9999 // 990


def _weight(block_io: Section) -> int:
    weight = int(block_io.get("weight") or 0)
    if weight and not 10 <= weight <= 1000:
        raise BadResources(reason="range of blkio weight is from 10 to 1000", field="blockIO.weight")
    return weight


def _device(rule: Section) -> str:
    return f"{rule['major']}:{rule['minor']}"


_THROTTLES = (
    # OCI's name, v1's file, v2's key in io.max
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops"),
)


def _block_io_v1(block_io: Section) -> Iterator[Write]:
    weight = _weight(block_io)
    if weight:
        yield Write(
            "blockIO.weight", "blkio", "blkio.bfq.weight", str(weight), _LOST_WEIGHT, ("blkio.weight", str(weight))
        )
    if block_io.get("leafWeight"):
        yield Write("blockIO.leafWeight", "blkio", "blkio.leaf_weight", str(block_io["leafWeight"]), _LOST_LEAF)
    for index, rule in enumerate(block_io.get("weightDevice") or ()):
        field = f"blockIO.weightDevice[{index}]"
        if rule.get("weight"):
            value = f"{_device(rule)} {rule['weight']}"
            instead = ("blkio.weight_device", value)
            yield Write(f"{field}.weight", "blkio", "blkio.bfq.weight_device", value, _LOST_WEIGHT_DEVICE, instead)
        if rule.get("leafWeight"):
            yield Write(
                f"{field}.leafWeight",
                "blkio",
                "blkio.leaf_weight_device",
                f"{_device(rule)} {rule['leafWeight']}",
                _LOST_LEAF,
            )
    for name, file, _ in _THROTTLES:
        for index, rule in enumerate(block_io.get(name) or ()):
            yield Write(
                f"blockIO.{name}[{index}]", "blkio", file, f"{_device(rule)} {rule['rate']}", _LOST_THROTTLE[name]
            )


def _block_io_v2(block_io: Section) -> Iterator[Write]:
    weight = _weight(block_io)
    if block_io.get("leafWeight") or any(rule.get("leafWeight") for rule in block_io.get("weightDevice") or ()):
        field = "blockIO.leafWeight" if block_io.get("leafWeight") else "blockIO.weightDevice"
        yield Write(field, "io", "blkio.leaf_weight", "", _LOST_LEAF)  # there is none in cgroup v2
    if weight:
        instead = ("io.weight", str(io_weight_of(weight)))
        yield Write("blockIO.weight", "io", "io.bfq.weight", str(weight), _LOST_WEIGHT, instead)
    for index, rule in enumerate(block_io.get("weightDevice") or ()):
        if rule.get("weight"):
            instead = ("io.weight", f"{_device(rule)} {io_weight_of(rule['weight'])}")
            value = f"{_device(rule)} {rule['weight']}"
            yield Write(
                f"blockIO.weightDevice[{index}].weight", "io", "io.bfq.weight", value, _LOST_WEIGHT_DEVICE, instead
            )
    for name, _, key in _THROTTLES:
        for index, rule in enumerate(block_io.get(name) or ()):
            # 0 lifts a limit on v1; v2 says "max" for it.
            value = f"{_device(rule)} {key}={rule['rate'] or 'max'}"
            yield Write(f"blockIO.{name}[{index}]", "io", "io.max", value, _LOST_THROTTLE[name])


def _hugetlb_v1(limits: list[Section]) -> Iterator[Write]:
    for index, limit in enumerate(limits):
        field = f"hugepageLimits[{index}]"
        page, value = _file_part(limit["pageSize"], field), str(limit["limit"])
        yield Write(field, "hugetlb", f"hugetlb.{page}.limit_in_bytes", value)
        yield Write(field, "hugetlb", f"hugetlb.{page}.rsvd.limit_in_bytes", value, _OPTIONAL)


def _hugetlb_v2(limits: list[Section]) -> Iterator[Write]:
    for index, limit in enumerate(limits):
        field = f"hugepageLimits[{index}]"
        page, value = _file_part(limit["pageSize"], field), _or_max(limit["limit"])
        yield Write(field, "hugetlb", f"hugetlb.{page}.max", value)
        yield Write(field, "hugetlb", f"hugetlb.{page}.rsvd.max", value, _OPTIONAL)


_OPTIONAL = "-"
"""In `lost`: missing without a word; the limit is in another file already."""


def _network(network: Section) -> Iterator[Write]:
    if network.get("classID"):
        yield Write("network.classID", "net_cls", "net_cls.classid", str(network["classID"]))
    for index, rule in enumerate(network.get("priorities") or ()):
        yield Write(
            f"network.priorities[{index}]", "net_prio", "net_prio.ifpriomap", f"{rule['name']} {rule['priority']}"
        )


def _rdma(limits: Mapping[str, Section]) -> Iterator[Write]:
    for device, limit in limits.items():
        keys = (("hca_handle", "hcaHandles"), ("hca_object", "hcaObjects"))
        values = [f"{key}={limit[name]}" for key, name in keys if limit.get(name) is not None]
        if values:
            yield Write(f"rdma.{device}", "rdma", "rdma.max", " ".join([device, *values]))


_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
CGROUP_LIMITS = frozenset({"cgroup.max.depth", "cgroup.max.descendants", "cgroup.pressure"})
"""The files of the hierarchy itself that limit; with the others processes are moved, stopped and killed."""


def _unified(files: Mapping[str, str]) -> Iterator[Write]:
    for file, value in files.items():
        controller, *parameter = parts = file.split(".")
        plain = parameter and all(part and _NAME_CHARACTERS.issuperset(part) for part in parts)
        if not plain or (controller == "cgroup" and file not in CGROUP_LIMITS):
            raise BadResources(reason=f"{file!r} is no file of a controller", field=f"unified.{file}")
        for line in value.splitlines():
            yield Write(f"unified.{file}", controller, file, line)


def _file_part(text: str, field: str) -> str:
    if not text.isalnum():
        raise BadResources(reason=f"{text!r} is no page size such as 2MB", field=f"{field}.pageSize")
    return text


def _or_max(value: int) -> str:
    return "max" if value < 0 else str(value)


_Planner = Callable[[Any], Iterator[Write]]

_SECTIONS: tuple[tuple[str, str, _Planner, _Planner], ...] = (
    # OCI's section, the controller that tells v1 from v2, and what plans it on each
    ("memory", "memory", _memory_v1, _memory_v2),
    ("cpu", "cpu", _cpu_v1, _cpu_v2),
    ("cpu", "cpuset", _cpuset, _cpuset),
    ("pids", "pids", _pids, _pids),
    ("blockIO", "blkio", _block_io_v1, _block_io_v2),
    ("hugepageLimits", "hugetlb", _hugetlb_v1, _hugetlb_v2),
    ("network", "net_cls", _network, _network),
    ("rdma", "rdma", _rdma, _rdma),
)
