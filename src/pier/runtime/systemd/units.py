"""What systemd is asked for a container: the names of its scope and slice, and the properties of its limits. Pure.

Sources: systemd.unit(5), systemd.slice(5), systemd.resource-control(5), org.freedesktop.systemd1(5). Names and
properties are those that runc gives its scopes, so tools that know one know the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pier.errors import InvalidParameter
from pier.kernel import bpf_devices, cgroup_plan
from pier.kernel.bpf_devices import DeviceRule
from pier.kernel.cgroup_layout import Layout
from pier.runtime.systemd.dbus_wire import Variant

Property = tuple[str, Variant]

DEFAULT_SLICE = "system.slice"
NAME_MAX = 255
NAME_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\@")
INFINITY = 2**64 - 1
"""systemd's "no limit", for sizes, counts and times."""
QUOTA_STEP_US = 10_000
"""systemd keeps a CPU quota in whole percents of a CPU second."""

SINCE_CPUSET, SINCE_QUOTA_PERIOD, SINCE_DEVICE_NUMBERS, SINCE_IDLE = 244, 242, 240, 252
"""The versions of systemd that brought AllowedCPUs=, CPUQuotaPeriodSec=, devices by number, CPUWeight=idle."""


class BadName(InvalidParameter):
    """{reason}"""


class BadProperty(InvalidParameter):
    """annotation org.systemd.property.{name}: {reason}"""

    remedy = "values are written as GVariant text: 'word', true, uint64 5, ['a', 'b']"


class ScopeName(NamedTuple):
    """A container's place among systemd's units."""

    slice: str
    unit: str

    @classmethod
    def parse(cls, cgroups_path: str) -> ScopeName:
        """`slice:prefix:name`; an empty slice is `system.slice`. Raises BadName in runc's words."""
        parts = cgroups_path.split(":", 2)
        if len(parts) != 3:
            reason = (
                'expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, '
                f'got "{cgroups_path}" instead'
            )
            raise BadName(reason=reason)
        parent, prefix, name = parts
        if name.endswith(".slice"):
            raise BadName(reason=f'cgroupsPath "{cgroups_path}": a slice holds units and no process; name a scope')
        unit = f"{prefix}-{name}.scope"
        if not name or len(unit) > NAME_MAX or not NAME_LETTERS.issuperset(unit):
            raise BadName(reason=f'cgroupsPath "{cgroups_path}": "{unit}" cannot name a unit of systemd\'s')
        expand_slice(parent or DEFAULT_SLICE)
        return cls("-.slice" if parent == "-" else parent or DEFAULT_SLICE, unit)

    @property
    def path(self) -> str:
        """The cgroup's path below each hierarchy's mount."""
        return f"{expand_slice(self.slice)}/{self.unit}"


def expand_slice(name: str) -> str:
    """The path of a slice, each dash a level: `a-b.slice` -> `/a.slice/a-b.slice`; the root's is empty. BadName."""
    if name in ("-", "-.slice"):
        return ""
    parts = name.removesuffix(".slice").split("-")
    if not name.endswith(".slice") or not all(parts) or not NAME_LETTERS.issuperset(name) or len(name) > NAME_MAX:
        raise BadName(reason=f"invalid slice name: {name}")
    return "".join(f"/{'-'.join(parts[: count + 1])}.slice" for count in range(len(parts)))


def is_slice(name: str) -> bool:
    """Whether Docker takes this `--cgroup-parent` where systemd keeps the cgroups."""
    try:
        return name.endswith(".slice") and bool(expand_slice(name) or name == "-.slice")
    except BadName:
        return False


# --- the scope -------------------------------------------------------------------------------------------------------


def scope_properties(name: ScopeName, pid: int, layout: Layout) -> list[Property]:
    """A scope around one process, whose cgroup is ours to divide."""
    accounting = ["MemoryAccounting", "CPUAccounting", "TasksAccounting"]
    accounting.append("IOAccounting" if layout.mode == "v2" else "BlockIOAccounting")
    return [
        ("Description", Variant("s", f"container {name.unit.removesuffix('.scope')}")),
        ("Slice", Variant("s", name.slice)),
        ("PIDs", Variant("au", [pid])),
        ("Delegate", Variant("b", True)),
        *((word, Variant("b", True)) for word in accounting),
        # Without them systemd would stop the scope at shutdown before who made it, and need sysinit.target.
        ("DefaultDependencies", Variant("b", False)),
    ]


def limits(resources: Mapping[str, Any], layout: Layout, version: int) -> list[Property]:
    """OCI's `linux.resources` as far as systemd has words for them, which it writes into files when it likes.

    `version` is systemd's. Everything else, and everything to the exact number, is in the cgroup's files besides.
    Raises BadResources, BadDeviceRule.
    """
    found: list[Property] = []
    if "devices" in resources and version >= SINCE_DEVICE_NUMBERS:
        rules = [*bpf_devices.parse(resources["devices"] or ()), *bpf_devices.DEFAULT_RULES]
        found += devices(rules)
    found += (_memory_v2 if layout.version("memory") == 2 else _memory_v1)(resources.get("memory") or {})
    found += _cpu(resources.get("cpu") or {}, v2=layout.version("cpu") == 2, version=version)
    if layout.version("cpuset") == 2 and version >= SINCE_CPUSET:
        found += _cpuset(resources.get("cpu") or {})
    count = (resources.get("pids") or {}).get("limit")
    if count:
        found.append(("TasksMax", _number(count)))
    weight = (resources.get("blockIO") or {}).get("weight")
    if weight:
        v2 = layout.version("blkio") == 2
        value = cgroup_plan.io_weight_of(weight) if v2 else weight
        found.append(("IOWeight" if v2 else "BlockIOWeight", Variant("t", value)))
    for file, text in (resources.get("unified") or {}).items():
        found += _unified(file, text.strip(), version)
    return found


def _number(value: int) -> Variant:
    return Variant("t", INFINITY if value < 0 else value)


def _memory_v1(memory: Mapping[str, Any]) -> list[Property]:
    limit, _ = cgroup_plan.memory_and_swap(memory)
    return [("MemoryLimit", _number(limit))] if limit else []


def _memory_v2(memory: Mapping[str, Any]) -> list[Property]:
    limit, swap = cgroup_plan.memory_and_swap(memory)
    found = [("MemoryMax", _number(limit))] if limit else []
    if swap:
        found.append(("MemorySwapMax", _number(swap if swap < 0 else swap - max(limit, 0))))
    if memory.get("reservation"):
        found.append(("MemoryLow", _number(memory["reservation"])))
    return found


def _cpu(cpu: Mapping[str, Any], *, v2: bool, version: int) -> list[Property]:
    found: list[Property] = []
    if v2 and cpu.get("idle") and version >= SINCE_IDLE:
        found.append(("CPUWeight", Variant("t", 0)))
    elif cpu.get("shares"):
        shares = cpu["shares"]
        found.append(
            ("CPUWeight", Variant("t", cgroup_plan.weight_of_shares(shares)))
            if v2
            else ("CPUShares", Variant("t", shares))
        )
    return found + _quota(cpu.get("quota") or 0, cpu.get("period") or 0, version)


def _quota(quota: int, period: int, version: int) -> list[Property]:
    found: list[Property] = []
    if period and version >= SINCE_QUOTA_PERIOD:
        found.append(("CPUQuotaPeriodUSec", Variant("t", period)))
    if quota or period:
        per_second = INFINITY
        if quota > 0:
            # Up to the next percent: what is below may ask for all of what was given here.
            per_second = -(-quota * 1_000_000 // (period or cgroup_plan.DEFAULT_PERIOD_US) // QUOTA_STEP_US)
            per_second *= QUOTA_STEP_US
        found.append(("CPUQuotaPerSecUSec", Variant("t", per_second)))
    return found


def _cpuset(cpu: Mapping[str, Any]) -> list[Property]:
    words = (("cpus", "AllowedCPUs"), ("mems", "AllowedMemoryNodes"))
    return [(name, Variant("ay", bits_of(cpu[key], f"cpu.{key}"))) for key, name in words if cpu.get(key)]


def bits_of(ranges: str, field: str = "") -> bytes:
    """`0-2,9` as a bit mask, its lowest bits first. Raises BadResources, with `field`."""
    mask = 0
    for part in ranges.strip().split(","):
        first, dash, last = part.strip().partition("-")
        low, high = (_cpu_number(word, ranges, field) for word in (first, last if dash else first))
        if low > high:
            raise cgroup_plan.BadResources(reason=f"{ranges!r} is no list of numbers such as 0-2,9", field=field)
        mask |= ((1 << (high - low + 1)) - 1) << low
    return mask.to_bytes((mask.bit_length() + 7) // 8, "little")


def _cpu_number(text: str, ranges: str, field: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 8191:
        raise cgroup_plan.BadResources(reason=f"{ranges!r} is no list of numbers such as 0-2,9", field=field)
    return int(text)


_UNIFIED = {
    "cpu.weight": "CPUWeight",
    "memory.high": "MemoryHigh",
    "memory.low": "MemoryLow",
    "memory.max": "MemoryMax",
    "memory.min": "MemoryMin",
    "memory.swap.max": "MemorySwapMax",
    "pids.max": "TasksMax",
}
"""Files of cgroup v2 with a property of one number."""


def _unified(file: str, text: str, version: int) -> list[Property]:
    """What systemd has for a file of v2; empty where it has nothing, or the value is one for the kernel to judge."""
    words = text.split()
    plain = all(word == "max" or (word.isascii() and word.isdigit()) for word in words)
    if not words or not plain:
        return _cpuset({file.removeprefix("cpuset."): text}) if _is_cpuset(file, version) and words else []
    numbers = [-1 if word == "max" else int(word) for word in words]
    if file == "cpu.max" and len(numbers) <= 2:
        return _quota(numbers[0], numbers[1] if len(numbers) == 2 else cgroup_plan.DEFAULT_PERIOD_US, version)
    if _is_cpuset(file, version):
        return _cpuset({file.removeprefix("cpuset."): text})
    return [(_UNIFIED[file], _number(numbers[0]))] if file in _UNIFIED and len(numbers) == 1 else []


def _is_cpuset(file: str, version: int) -> bool:
    return file in ("cpuset.cpus", "cpuset.mems") and version >= SINCE_CPUSET


# --- devices ---------------------------------------------------------------------------------------------------------


def devices(rules: Sequence[DeviceRule]) -> list[Property]:
    """A policy for systemd, which knows a list of what is allowed and no exceptions from it.

    Where the rules have some it allows more than they do; the cgroup's own policy does not.
    """
    everything, rest = bpf_devices.fold(rules)
    if everything and all(rule.allow for rule in rest):
        return [("DevicePolicy", Variant("s", "auto")), ("DeviceAllow", Variant("a(ss)", []))]
    kinds = {"c": "char", "b": "block"}
    allowed = [["char-*", "rwm"], ["block-*", "rwm"]] if everything else []
    for rule in rest:
        if not rule.allow or (rule.major is None and rule.minor is not None):
            continue
        kind = kinds[rule.type]
        if rule.major is None:
            path = f"{kind}-*"
        elif rule.minor is None:
            path = f"{kind}-{rule.major}"
        else:
            path = f"/dev/{kind}/{rule.major}:{rule.minor}"
        allowed.append([path, rule.line.rpartition(" ")[2]])
    # An empty list first takes away what an earlier policy allowed.
    return [
        ("DevicePolicy", Variant("s", "strict")),
        ("DeviceAllow", Variant("a(ss)", [])),
        ("DeviceAllow", Variant("a(ss)", allowed)),
    ]


# --- properties a configuration asks for -----------------------------------------------------------------------------

ANNOTATION = "org.systemd.property."


def asked_for(annotations: Mapping[str, str]) -> list[Property]:
    """The properties in annotations `org.systemd.property.NAME`, as runc reads them. Raises BadProperty."""
    found = []
    for key, text in annotations.items():
        name = key.removeprefix(ANNOTATION)
        if key == name:
            continue
        if len(name) < 3 or not name.isascii() or not name.isalnum():
            raise BadProperty(name=name, reason="no property has that name")
        found.append((name, parse_gvariant(name, text)))
    return found


_INTEGERS = {"byte": "y", "int16": "n", "uint16": "q", "int32": "i", "uint32": "u", "int64": "x", "uint64": "t"}
_BITS = {"y": 8, "n": 15, "q": 16, "i": 31, "u": 32, "x": 63, "t": 64}


def parse_gvariant(name: str, text: str) -> Variant:
    """What properties need of GVariant's text format: words, booleans, numbers, arrays of words. Raises BadProperty."""
    text = text.strip()
    if text in ("true", "false"):
        return Variant("b", text == "true")
    if text[:1] in ("'", '"'):
        word, rest = _word(name, text)
        if rest:
            raise BadProperty(name=name, reason=f"{rest!r} after the end of {text!r}")
        return Variant("s", word)
    if text.startswith("[") and text.endswith("]"):
        return Variant("as", list(_words(name, text[1:-1].strip())))
    kind, space, digits = text.rpartition(" ")
    code = _INTEGERS.get(kind.strip() or "int32") if space or kind == "" else None
    if code is None or not digits.removeprefix("-").isdecimal() or not digits.isascii():
        raise BadProperty(name=name, reason=f"{text!r} is no value")
    number = int(digits)
    if not -(1 << _BITS[code]) * (code in "nix") <= number < 1 << _BITS[code]:
        raise BadProperty(name=name, reason=f"{text!r} is out of range")
    return Variant(code, number)


def _words(name: str, text: str) -> list[str]:
    found = []
    while text:
        word, text = _word(name, text)
        found.append(word)
        if text:
            if not text.startswith(","):
                raise BadProperty(name=name, reason=f"{text!r} where a comma is wanted")
            text = text[1:].lstrip()
    return found


def _word(name: str, text: str) -> tuple[str, str]:
    """The quoted word at the start, and what follows it."""
    quote, word, at = text[:1], "", 1
    if quote not in ("'", '"'):
        raise BadProperty(name=name, reason=f"{text!r} where a quoted word is wanted")
    while at < len(text):
        if text[at] == quote:
            return word, text[at + 1 :].lstrip()
        at += text[at] == "\\"
        word += text[at : at + 1]
        at += 1
    raise BadProperty(name=name, reason=f"{text!r} has no closing quote")
