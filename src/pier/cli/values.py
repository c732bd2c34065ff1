"""What the flags of `run` and `create` take, as pure functions from a flag's text to the API's value.

Each raises ValueError with the words Docker's CLI puts after `invalid argument "…" for "--…" flag:`.
"""

from __future__ import annotations

from pier.cli.units import parse_duration
from pier.cli.words import parse_bool, parse_int, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SIZE_POWERS = {"": 0, "b": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_RLIMITS = frozenset(
    "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
)
_STREAMS = ("stdin", "stdout", "stderr")
_MOUNT_BOOLS = frozenset(("readonly", "ro", "bind-nonrecursive", "volume-nocopy", "idmap"))
_BIND_RECURSIVE = ("enabled", "disabled", "writable", "readonly")


def parse_size(text: str) -> int:
    """`512m`, `1.5g`, `64KiB`, `100` -> bytes, powers of 1024."""
    number = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    try:
        if not number or number != number.strip() or not number[-1].isdigit():
            raise ValueError
        value = float(number)
    except ValueError:
        raise ValueError(f"invalid size: '{text}'") from None
    if value < 0:
        raise ValueError(f"invalid size: '{text}'")
    suffix = text[len(number) :].strip().lower()
    power = _SIZE_POWERS.get(suffix[:1])
    if power is None or suffix[1:] not in ("", "b", "ib") or (suffix[:1] in ("", "b") and len(suffix) > 1):
        raise ValueError(f"invalid suffix: '{text[len(number) :].strip().lower()}'")
    return int(value * 1024**power)


def parse_swap(text: str) -> int:
    """As parse_size; -1 for unlimited."""
    return -1 if text == "-1" else parse_size(text)


def parse_cpus(text: str) -> int:
    """`1.5` or `3/2` -> billionths of a CPU."""
    from fractions import Fraction  # noqa: PLC0415 - only --cpus needs exact decimals

    try:
        nano = Fraction(text) * 1_000_000_000
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"failed to parse {text} as a rational number") from None
    if nano.denominator != 1:
        raise ValueError("value is too precise")
    return int(nano)


def parse_ulimit(text: str) -> dict[str, Any]:
    """`nofile=1024[:2048]` -> {Name, Soft, Hard}."""
    name, equals, limits = text.partition("=")
    if not equals:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in _RLIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    parts = limits.split(":")
    if len(parts) > 2:
        raise ValueError(f"too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`")
    soft = parse_int(parts[0])
    hard = parse_int(parts[1]) if len(parts) == 2 else soft
    if hard != -1 and (soft == -1 or soft > hard):
        shown = f"{soft} > {hard}"
        raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {shown}")
    return {"Name": name, "Hard": hard, "Soft": soft}


def parse_ip(text: str) -> str:
    """An IP address, in its usual form."""
    import _socket  # noqa: PLC0415 - only --dns needs it

    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            return _socket.inet_ntop(family, _socket.inet_pton(family, text.strip()))
        except OSError:
            continue
    raise ValueError(f"IP address is not correctly formatted: {text}")


def parse_extra_host(text: str) -> str:
    """`name:ip` or `name=ip` (also `host-gateway`) -> `name:ip`."""
    name, separator, address = text.partition("=")
    if not separator:
        name, separator, address = text.partition(":")
    if not separator or not name:
        raise ValueError(f"bad format for add-host: {quote(text)}")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    if address != "host-gateway":
        try:
            parse_ip(address)
        except ValueError:
            raise ValueError(f"invalid IP address in add-host: {quote(address)}") from None
    return f"{name}:{address}"


def parse_attach(text: str) -> str:
    stream = text.lower()
    if stream not in _STREAMS:
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")
    return stream


def parse_pair(text: str) -> tuple[str, str]:
    """`key=value` (the value may be left out)."""
    key, _, value = text.partition("=")
    return key, value


def parse_sysctl(text: str) -> tuple[str, str]:
    """A namespaced kernel setting; those of the host are refused."""
    key, equals, value = text.partition("=")
    known = (
        key
        in (
            "kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax kernel.shmmni "
            "kernel.shm_rmid_forced"
        ).split()
    )
    if not equals or not (known or key.startswith(("net.", "fs.mqueue."))):
        raise ValueError(f"sysctl '{text}' is not allowed")
    return key, value


def parse_throttle(text: str) -> dict[str, Any]:
    """`/dev/sda:1mb` -> {Path, Rate} in bytes a second."""
    path, rate = _device_and_rate(text)
    try:
        return {"Path": path, "Rate": parse_size(rate)}
    except ValueError:
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. "
            "Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
        ) from None


def parse_throttle_iops(text: str) -> dict[str, Any]:
    """`/dev/sda:1000` -> {Path, Rate} in operations a second."""
    path, rate = _device_and_rate(text)
    try:
        return {"Path": path, "Rate": parse_int(rate, signed=False)}
    except ValueError:
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>. "
            "Number must be a positive integer"
        ) from None


def parse_weight(text: str) -> dict[str, Any]:
    """`/dev/sda:200` -> {Path, Weight}."""
    path, weight = _device_and_rate(text)
    try:
        value = parse_int(weight, bits=16, signed=False)
    except ValueError:
        raise ValueError(f"invalid weight for device: {text}") from None
    if value > 0 and not 10 <= value <= 1000:
        raise ValueError(f"invalid weight for device: {text}")
    return {"Path": path, "Weight": value}


def _device_and_rate(text: str) -> tuple[str, str]:
    path, colon, rate = text.partition(":")
    if not colon:
        raise ValueError(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    return path, rate


def split_csv(text: str) -> list[str]:
    """One line of comma-separated fields, where a field may be in double quotes (RFC 4180)."""
    fields: list[str] = []
    at = 0
    while True:
        if text[at : at + 1] == '"':
            value, at = _quoted(text, at + 1)
        else:
            end = text.find(",", at)
            end = len(text) if end < 0 else end
            value, at = text[at:end], end
        fields.append(value)
        if at >= len(text):
            return fields
        at += 1


def _quoted(text: str, at: int) -> tuple[str, int]:
    out: list[str] = []
    while at < len(text):
        if text[at] != '"':
            out.append(text[at])
        elif text[at + 1 : at + 2] == '"':
            out.append('"')
            at += 1
        else:
            return "".join(out), at + 1
        at += 1
    raise ValueError('parse error on line 1: extraneous or missing " in quoted-field')


def parse_mount(text: str) -> dict[str, Any]:
    """`type=bind,source=/a,target=/b,readonly` -> the API's Mount."""
    mount: dict[str, Any] = {"Type": "volume"}
    for field in split_csv(text):
        name, equals, value = field.partition("=")
        key = name.lower()
        if not equals and key not in _MOUNT_BOOLS:
            raise ValueError(f"invalid field '{field}' must be a key=value pair")
        _mount_field(mount, key, value if equals else "true", field)
    _check_mount(mount)
    return mount


def _mount_field(mount: dict[str, Any], key: str, value: str, field: str) -> None:  # noqa: PLR0912 - one branch a key
    bind, volume, tmpfs = "BindOptions", "VolumeOptions", "TmpfsOptions"
    if key == "type":
        mount["Type"] = value.lower()
    elif key in ("source", "src"):
        mount["Source"] = _absolute(value) if value.startswith(".") else value
    elif key in ("target", "dst", "destination"):
        mount["Target"] = value
    elif key in ("readonly", "ro"):
        mount["ReadOnly"] = _mount_bool(key, value)
    elif key == "consistency":
        mount["Consistency"] = value.lower()
    elif key == "bind-propagation":
        mount.setdefault(bind, {})["Propagation"] = value.lower()
    elif key == "idmap":
        mount.setdefault(bind, {})["IdMap"] = value
    elif key == "bind-nonrecursive":
        mount.setdefault(bind, {})["NonRecursive"] = _mount_bool(key, value)
    elif key == "bind-recursive":
        _bind_recursive(mount.setdefault(bind, {}), value)
    elif key == "volume-subpath":
        mount.setdefault(volume, {})["Subpath"] = value
    elif key == "volume-nocopy":
        mount.setdefault(volume, {})["NoCopy"] = _mount_bool(key, value)
    elif key == "volume-label":
        mount.setdefault(volume, {}).setdefault("Labels", {}).update([parse_pair(value)])
    elif key == "volume-driver":
        mount.setdefault(volume, {}).setdefault("DriverConfig", {})["Name"] = value
    elif key == "volume-opt":
        driver = mount.setdefault(volume, {}).setdefault("DriverConfig", {})
        driver.setdefault("Options", {}).update([parse_pair(value)])
    elif key == "image-subpath":
        mount.setdefault("ImageOptions", {})["Subpath"] = value
    elif key == "tmpfs-size":
        mount.setdefault(tmpfs, {})["SizeBytes"] = _mount_value(key, value, parse_size)
    elif key == "tmpfs-mode":
        mount.setdefault(tmpfs, {})["Mode"] = _mount_value(key, value, lambda text: int(text, 8))
    else:
        raise ValueError(f"unexpected key '{key}' in '{field}'")


def _bind_recursive(options: dict[str, Any], value: str) -> None:
    if value not in _BIND_RECURSIVE:
        choices = ", ".join(f'"{choice}"' for choice in _BIND_RECURSIVE)
        raise ValueError(f"invalid value for bind-recursive: {value} (must be one of {choices})")
    member = {"disabled": "NonRecursive", "writable": "ReadOnlyNonRecursive", "readonly": "ReadOnlyForceRecursive"}
    if value in member:
        options[member[value]] = True


def _mount_bool(key: str, value: str) -> bool:
    try:
        return parse_bool(value)
    except ValueError:
        raise ValueError(f"invalid value for {key}: {value}") from None


def _mount_value(key: str, value: str, parser: Callable[[str], int]) -> int:
    try:
        return parser(value)
    except ValueError:
        raise ValueError(f"invalid value for {key}: {value}") from None


_OPTIONS_OF = {"BindOptions": "bind", "VolumeOptions": "volume", "TmpfsOptions": "tmpfs", "ImageOptions": "image"}


def _check_mount(mount: dict[str, Any]) -> None:
    if not mount["Type"]:
        raise ValueError("type is required")
    if not mount.get("Target"):
        raise ValueError("target is required")
    bind = mount.get("BindOptions", {})
    if bind.get("ReadOnlyForceRecursive") and not (mount.get("ReadOnly") and bind.get("Propagation") == "rprivate"):
        missing = "bind-propagation=rprivate" if mount.get("ReadOnly") else "readonly"
        raise ValueError(f"option 'bind-recursive=readonly' requires '{missing}' to be specified in conjunction")
    if bind.get("ReadOnlyNonRecursive") and not mount.get("ReadOnly"):
        raise ValueError("option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction")
    for member, kind in _OPTIONS_OF.items():
        if member in mount and mount["Type"] != kind:
            raise ValueError(f"cannot mix '{kind}-*' options with mount type '{mount['Type']}'")


def _absolute(path: str) -> str:
    import os.path  # noqa: PLC0415 - only relative sources need it

    return os.path.abspath(path)


def parse_network(text: str) -> dict[str, Any]:
    """`NAME` or `name=NAME,alias=…,ip=…,ip6=…,mac-address=…,driver-opt=k=v,gw-priority=n` -> a network to join."""
    if not _is_long_form(text):
        return {"Name": text}
    network: dict[str, Any] = {"Name": ""}
    for field in split_csv(text):
        name, equals, value = field.partition("=")
        key = name.strip().lower()
        value = value.strip()
        if not equals or not key:
            raise ValueError(f"invalid field {field}")
        if key == "name":
            network["Name"] = value
        elif key in ("alias", "link-local-ip"):
            network.setdefault({"alias": "Aliases", "link-local-ip": "LinkLocalIPs"}[key], []).append(value)
        elif key in _NETWORK_TEXTS:
            network[_NETWORK_TEXTS[key]] = value
        elif key == "driver-opt":
            option, equals, setting = value.partition("=")
            if not option or not equals:
                raise ValueError("invalid key value pair format in driver options")
            network.setdefault("DriverOpts", {})[option.strip().lower()] = setting.strip()
        elif key == "gw-priority":
            network["GwPriority"] = _priority(value)
        else:
            raise ValueError(f"invalid field key {key}")
    if not network["Name"]:
        raise ValueError("network name/id is not specified")
    return network


def _is_long_form(text: str) -> bool:
    """Whether somewhere a word, `=` and a word stand side by side."""
    before, equals, after = text.partition("=")
    while equals:
        if before and after and all(c.isalnum() or c == "_" for c in (before[-1], after[0])):
            return True
        before, equals, after = after.partition("=")
    return False


def _priority(text: str) -> int:
    try:
        return parse_int(text)
    except ValueError as error:
        raise ValueError(f"invalid gw-priority ({text}): {str(error).rpartition(': ')[2]}") from None


def check_mac(text: str) -> str:
    """`text` if it is an Ethernet, EUI-64 or InfiniBand address as Go's net.ParseMAC takes them; raises ValueError."""
    for separator, width in ((":", 2), ("-", 2), (".", 4)):
        parts = text.split(separator)
        if len(parts) * width in (12, 16, 40) and all(
            len(part) == width and set(part.lower()) <= set("0123456789abcdef") for part in parts
        ):
            return text
    raise ValueError(f"{text} is not a valid mac address")


_NETWORK_TEXTS = {"ip": "IPv4Address", "ip6": "IPv6Address", "mac-address": "MacAddress"}


def parse_gpus(text: str) -> list[dict[str, Any]]:
    """`all`, a count, or `device=0,driver=…,capabilities=…,options=…` -> the API's DeviceRequests."""
    request: dict[str, Any] = {"Driver": "", "Count": 0, "DeviceIDs": None, "Capabilities": [["gpu"]], "Options": {}}
    seen: set[str] = set()
    for field in split_csv(text):
        key, equals, value = field.partition("=")
        key = key if equals else "count"
        value = value if equals else field
        if key in seen:
            raise ValueError(f"gpu request key '{key}' can be specified only once")
        seen.add(key)
        if key == "driver":
            request["Driver"] = value
        elif key == "count":
            request["Count"] = _gpu_count(value)
        elif key == "device":
            request["DeviceIDs"] = value.split(",")
        elif key == "capabilities":
            request["Capabilities"] = [[*value.split(","), "gpu"]]
        elif key == "options":
            request["Options"] = dict(map(parse_pair, split_csv(value)))
        else:
            raise ValueError(f"unexpected key '{key}' in '{field}'")
    if "count" not in seen and request["DeviceIDs"] is None:
        request["Count"] = 1
    return [request]


def _gpu_count(text: str) -> int:
    if text == "all":
        return -1
    try:
        return int(text)
    except ValueError:
        raise ValueError(f'invalid count ({text}): value must be either "all" or an integer: invalid syntax') from None


PARSERS: dict[str, Callable[[str], Any]] = {
    "attach": parse_attach,
    "bytes": parse_size,
    "swap": parse_swap,
    "decimal": parse_cpus,
    "dns": parse_ip,
    "duration": parse_duration,
    "gpus": parse_gpus,
    "hosts": parse_extra_host,
    "map": parse_pair,
    "mount": parse_mount,
    "network": parse_network,
    "strings": str,
    "sysctl": parse_sysctl,
    "throttle": parse_throttle,
    "throttle-iops": parse_throttle_iops,
    "uint16": lambda text: parse_int(text, bits=16, signed=False),
    "uint": lambda text: parse_int(text, signed=False),
    "ulimit": parse_ulimit,
    "weight": parse_weight,
}
"""Kind of flag -> how its text is read."""
