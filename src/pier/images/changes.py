"""`--change`: Dockerfile instructions applied to an image's configuration (`docker import -c`, `docker commit -c`).

Pure. The grammar is that of a Dockerfile's line (Dockerfile reference: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK,
LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR), with variables of the image's environment put in as builds do.
"""

from __future__ import annotations

import json
import posixpath
import re
import signal
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from pier.errors import InvalidParameter
from pier.model.time import BadDuration, parse_duration
from pier.oci import RunConfig
from pier.oci.image_config import HealthConfig

DEFAULT_SHELL: Final = ["/bin/sh", "-c"]
MAX_PORTS: Final = 65_536


class InvalidChange(InvalidParameter):
    """{message}"""


def apply_changes(config: RunConfig, changes: Iterable[str]) -> RunConfig:
    """The configuration with every instruction applied in order. Raises InvalidChange.

    An ENTRYPOINT takes away the command that was there, unless a CMD among the changes has set it: as in a Dockerfile.
    """
    changes = list(changes)
    found = instructions(changes)
    if changes and not found:
        raise InvalidChange("file with no instructions")
    cmd_is_set = False
    for instruction in found:
        keyword, _, rest = instruction.partition(" ")
        apply = _INSTRUCTIONS.get(keyword.upper())
        if apply is None:
            raise InvalidChange(f"{keyword} is not a valid change command")
        config = apply(config, rest.strip())
        cmd_is_set = cmd_is_set or keyword.upper() == "CMD"
        if keyword.upper() == "ENTRYPOINT" and not cmd_is_set:
            config = msgspec.structs.replace(config, cmd=None)
    return config


def instructions(changes: Iterable[str]) -> list[str]:
    """The lines of a small Dockerfile, continued ones joined, without comments and empty ones."""
    text = re.sub(r"(?m)^\s*#.*$", "", "\n".join(changes))
    return [line.strip() for line in re.sub(r"\\[ \t]*\n", "", text).split("\n") if line.strip()]


# --- reading a line


def exec_form(text: str) -> list[str] | None:
    """The words of `["a", "b"]`; None where the text is not a JSON array: then it is a shell command.

    Raises InvalidChange for an array of anything but strings.
    """
    if not text.startswith("["):
        return None
    try:
        words = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(word, str) for word in words):
        raise InvalidChange("when using JSON array syntax, arrays must be comprised of strings only")
    return list(words)


_WORD: Final = re.compile(r"""(?:[^\s"'\\]|\\.|"(?:[^"\\]|\\.)*"|'[^']*')+""", re.DOTALL)


def words(text: str) -> list[str]:
    """Split at white space outside quotes; quotes and backslashes stay."""
    found = _WORD.findall(text)
    if sum(map(len, found)) != len(re.sub(r"""\s""", "", text)) and "".join(found) != "".join(text.split()):
        remainder = _WORD.sub("", text).strip()
        if remainder:
            raise InvalidChange(f"unexpected end of statement while looking for matching quote: {text}")
    return found


def unquote(word: str) -> str:
    """A word without its quotes and backslashes."""
    return re.sub(
        r"""'([^']*)'|"((?:[^"\\]|\\.)*)"|\\(.)""",
        lambda m: m[1] if m[1] is not None else re.sub(r'\\(["\\$])', r"\1", m[2]) if m[2] is not None else m[3],
        word,
        flags=re.DOTALL,
    )


_VARIABLE: Final = re.compile(r"""\\\$|'[^']*'|\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?::([-+])([^}]*))?\})""")


def expand(text: str, env: Mapping[str, str]) -> str:
    """Put variables in: `$A`, `${A}`, `${A:-default}`, `${A:+other}`; not in single quotes or after a backslash."""

    def value(match: re.Match[str]) -> str:
        plain, braced, operator, word = match.groups()
        name = plain or braced
        if name is None:
            return match[0]
        found = env.get(name, "")
        if operator == "-":
            return found or word
        if operator == "+":
            return word if found else ""
        return found

    return _VARIABLE.sub(value, text)


def _environment(config: RunConfig) -> dict[str, str]:
    return {name: value for name, _, value in (item.partition("=") for item in config.env)}


def _pairs(text: str, instruction: str) -> list[tuple[str, str]]:
    """`a=b c="d e"`, or the old form `a the rest of the line`."""
    found = words(text)
    if not found:
        raise InvalidChange(f"{instruction} requires at least one argument")
    if "=" not in found[0]:
        name, _, value = text.partition(" ")
        if not value.strip():
            raise InvalidChange(f"{instruction} must have two arguments")
        return [(unquote(name), value.strip())]
    pairs = []
    for word in found:
        name, equals, value = word.partition("=")
        if not equals:
            raise InvalidChange(f'Syntax error - can\'t find = in "{word}". Must be of the form: name=value')
        if not name:
            raise InvalidChange(f"{instruction} names can not be blank")
        pairs.append((unquote(name), unquote(value)))
    return pairs


# --- instructions


def _cmd(config: RunConfig, text: str) -> RunConfig:
    return msgspec.structs.replace(config, cmd=_command(config, text))


def _entrypoint(config: RunConfig, text: str) -> RunConfig:
    return msgspec.structs.replace(config, entrypoint=(_command(config, text) if text else None) or None)


def _command(config: RunConfig, text: str) -> list[str]:
    found = exec_form(text)
    if found is not None:
        return found
    return [*(config.shell or DEFAULT_SHELL), *([text] if text else [])]


def _env(config: RunConfig, text: str) -> RunConfig:
    env = list(config.env)
    for name, value in _pairs(expand(text, _environment(config)), "ENV"):
        item = f"{name}={value}"
        places = [index for index, old in enumerate(env) if old.partition("=")[0] == name]
        if places:
            env[places[0]] = item
        else:
            env.append(item)
    return msgspec.structs.replace(config, env=env)


def _expose(config: RunConfig, text: str) -> RunConfig:
    found = words(expand(text, _environment(config)))
    if not found:
        raise InvalidChange("EXPOSE requires at least one argument")
    ports = dict(config.exposed_ports)
    for word in found:
        ports |= {key: {} for key in _ports(word)}
    return msgspec.structs.replace(config, exposed_ports=dict(sorted(ports.items())))


def _ports(word: str) -> list[str]:
    """`80`, `53/udp`, `8000-8010/tcp` -> `80/tcp`, …"""
    text, _, protocol = word.partition("/")
    protocol = protocol.lower() or "tcp"
    first, dash, last = text.rpartition(":")[2].partition("-")
    if protocol not in ("tcp", "udp", "sctp"):
        raise InvalidChange(f"Invalid proto: {protocol}")
    bounds = [first, last if dash else first]
    if not all(re.fullmatch(r"[0-9]{1,5}", bound) and 0 < int(bound) < MAX_PORTS for bound in bounds):
        raise InvalidChange(f"Invalid containerPort: {text}")
    low, high = map(int, bounds)
    if high < low:
        raise InvalidChange(f"Invalid range specified for port: {text}")
    return [f"{port}/{protocol}" for port in range(low, high + 1)]


def _label(config: RunConfig, text: str) -> RunConfig:
    pairs = _pairs(expand(text, _environment(config)), "LABEL")
    return msgspec.structs.replace(config, labels={**config.labels, **dict(pairs)})


def _user(config: RunConfig, text: str) -> RunConfig:
    return msgspec.structs.replace(config, user=_single(config, text, "USER"))


def _workdir(config: RunConfig, text: str) -> RunConfig:
    path = posixpath.normpath(posixpath.join("/", config.working_dir, _single(config, text, "WORKDIR")))
    return msgspec.structs.replace(config, working_dir="/" + path.lstrip("/"))


def _stopsignal(config: RunConfig, text: str) -> RunConfig:
    name = _single(config, text, "STOPSIGNAL")
    if not is_signal(name):
        raise InvalidChange(f"invalid signal: {name}")
    return msgspec.structs.replace(config, stop_signal=name)


def is_signal(text: str) -> bool:
    """Whether signal(7) has one of that name or number: `KILL`, `sigkill`, `9`, `RTMIN+3`."""
    if re.fullmatch(r"[0-9]{1,3}", text):
        return 1 <= int(text) <= _SIGNAL_MAX
    name = text.upper().removeprefix("SIG")
    return f"SIG{name}" in signal.Signals.__members__ or bool(_REALTIME.fullmatch(name))


_SIGNAL_MAX: Final = 64
_REALTIME: Final = re.compile(r"RTMIN(\+([0-9]|1[0-5]))?|RTMAX(-([0-9]|1[0-4]))?")


def _single(config: RunConfig, text: str, instruction: str) -> str:
    if not text:
        raise InvalidChange(f"{instruction} requires exactly one argument")
    return unquote(expand(text, _environment(config)))


def _volume(config: RunConfig, text: str) -> RunConfig:
    found = exec_form(text)
    paths = found if found is not None else [unquote(word) for word in words(expand(text, _environment(config)))]
    if not paths:
        raise InvalidChange("VOLUME requires at least one argument")
    if not all(path.strip() for path in paths):
        raise InvalidChange("VOLUME specified can not be an empty string")
    volumes = {**config.volumes, **{path.strip(): {} for path in paths}}
    return msgspec.structs.replace(config, volumes=dict(sorted(volumes.items())))


def _onbuild(config: RunConfig, text: str) -> RunConfig:
    keyword = text.partition(" ")[0].upper()
    if not keyword:
        raise InvalidChange("ONBUILD requires at least one argument")
    if keyword == "ONBUILD":
        raise InvalidChange("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if keyword in ("MAINTAINER", "FROM"):
        raise InvalidChange(f"{keyword} isn't allowed as an ONBUILD trigger")
    return msgspec.structs.replace(config, on_build=[*config.on_build, text])


_HEALTH_DURATIONS: Final = {
    "--interval": "interval",
    "--timeout": "timeout",
    "--start-period": "start_period",
    "--start-interval": "start_interval",
}
_MIN_DURATION_NS: Final = 1_000_000


def _healthcheck(config: RunConfig, text: str) -> RunConfig:
    """`[--interval=…] [--timeout=…] [--start-period=…] [--start-interval=…] [--retries=N] CMD …`, or `NONE`."""
    options: dict[str, Any] = {}
    if not text:
        raise InvalidChange("HEALTHCHECK requires at least one argument")
    while text.startswith("--"):
        flag, _, text = text.partition(" ")
        text = text.strip()
        name, _, value = flag.partition("=")
        options |= _health_option(name, value)
    keyword, _, command = text.partition(" ")
    match keyword.upper():
        case "NONE" if not command and not options:
            test = ["NONE"]
        case "CMD" if command.strip():
            listed = exec_form(command.strip())
            test = ["CMD", *listed] if listed is not None else ["CMD-SHELL", command.strip()]
        case "CMD":
            raise InvalidChange("Missing command after HEALTHCHECK CMD")
        case "NONE":
            raise InvalidChange("HEALTHCHECK NONE takes no arguments")
        case _:
            raise InvalidChange(f'Unknown type "{keyword}" in HEALTHCHECK (try CMD)')
    return msgspec.structs.replace(config, healthcheck=HealthConfig(test=test, **options))


def _health_option(name: str, value: str) -> dict[str, int]:
    if name == "--retries":
        if not re.fullmatch(r"-?[0-9]{1,9}", value):
            raise InvalidChange(f'strconv.ParseInt: parsing "{value}": invalid syntax')
        if int(value) < 0:
            raise InvalidChange(f"--retries cannot be negative ({int(value)})")
        return {"retries": int(value)}
    if name not in _HEALTH_DURATIONS:
        raise InvalidChange(f"unknown flag: {name}")
    try:
        duration_ns = parse_duration(value)
    except BadDuration as error:
        raise InvalidChange(error.message) from None
    if 0 < duration_ns < _MIN_DURATION_NS or duration_ns < 0:
        raise InvalidChange(f'Interval "{name[2:]}" cannot be less than 1ms')
    return {_HEALTH_DURATIONS[name]: duration_ns}


_INSTRUCTIONS: Final[dict[str, Callable[[RunConfig, str], RunConfig]]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
