"""The command line of `pierd`: `dockerd`'s flags, read into the shapes `daemon.json` would hold."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

from pier.engine.config import DEFAULT_FILE, PROXY_KEYS, SIZE_KEYS, Builder, DaemonConfig, Flag, Loaded, keys, load
from pier.engine.options import INERT, Shape
from pier.engine.runtimes import parse_runtimes
from pier.engine.values import parse_network_opt, parse_pool, parse_ulimit
from pier.errors import PierError
from pier.model.booleans import parse_bool


class BadFlag(PierError):
    """{reason}"""

    exit_code = 1
    remedy = "see `pierd --help`"


@dataclass(frozen=True, slots=True)
class FlagSpec:
    """One flag: the key it sets, its names, and how its text is read."""

    key: str
    name: str
    short: str
    shape: Shape
    help: str


@dataclass(frozen=True, slots=True)
class CommandLine:
    """What `pierd` was called with."""

    flags: dict[str, Any]
    """Key of `daemon.json` -> value, for the flags that were given."""
    config_file: str
    config_file_given: bool
    validate: bool
    version: bool

    def load(self) -> Loaded:
        """The configuration these flags and the file make. Raises what `config.load` raises."""
        return load(self.flags, path=self.config_file, path_given=self.config_file_given)


def flag_specs() -> list[FlagSpec]:
    """Every flag that sets an option, in alphabetical order, the inert ones too."""
    inert = (
        FlagSpec(key, option.flag or key, "", option.shape, f"(no effect: {option.why})")
        for key, option in INERT.items()
    )
    proxies = (FlagSpec(key, key, "", "str", f"{key} of the daemon's own traffic") for key in PROXY_KEYS)
    return sorted([*inert, *_acting(), *proxies], key=lambda spec: spec.name)


def _acting() -> Iterator[FlagSpec]:
    hints = get_type_hints(DaemonConfig, include_extras=True)
    for name, key in keys().items():
        kind, *extras = get_args(hints[name])
        for flag in extras:
            if isinstance(flag, Flag):
                yield FlagSpec(key, flag.name or key, flag.short, _shape(kind), flag.help)


def _shape(kind: Any) -> Shape:
    shapes: dict[Any, Shape] = {bool: "bool", int: "int", str: "str", list: "list", dict: "map", Builder: "map"}
    return shapes[get_origin(kind) or kind]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadFlag(reason=message)


def parser() -> argparse.ArgumentParser:
    """The parser behind `read`, and behind `pierd --help`."""
    made = _Parser(prog="pierd", usage="pierd [OPTIONS]", allow_abbrev=False, add_help=True)
    made.description = "The daemon of Pier, a container platform that speaks Docker's protocols."
    made.add_argument("--config-file", metavar="string", help=f"Daemon configuration file (default {DEFAULT_FILE})")
    made.add_argument("--validate", action="store_true", help="Validate daemon configuration and exit")
    made.add_argument("-v", "--version", action="store_true", help="Print version information and quit")
    for spec in flag_specs():
        names = [f"--{spec.name}", *([f"-{spec.short}"] if spec.short else [])]
        common: dict[str, Any] = {"dest": spec.key, "default": None, "metavar": spec.shape, "help": spec.help}
        match spec.shape:
            case "bool":
                made.add_argument(*names, nargs="?", const=True, type=_boolean, **common)
            case "int":
                made.add_argument(*names, type=str if spec.key in SIZE_KEYS else int, **common)
            case "str":
                made.add_argument(*names, **common)
            case "list" | "map":
                made.add_argument(*names, action="append", **common)
    return made


def read(argv: list[str]) -> CommandLine:
    """Read the arguments after the program's name; prints and exits for --help. Raises BadFlag, BadValue."""
    parsed = vars(parser().parse_args(argv))
    flags = {spec.key: _combine(spec, parsed[spec.key]) for spec in flag_specs() if parsed[spec.key] is not None}
    config_file = parsed["config_file"]
    return CommandLine(
        flags=flags,
        config_file=config_file or DEFAULT_FILE,
        config_file_given=config_file is not None,
        validate=parsed["validate"],
        version=parsed["version"],
    )


def _combine(spec: FlagSpec, given: Any) -> Any:
    """What was given for one flag, in the shape of its key."""
    if spec.key in _COMBINED:
        return _COMBINED[spec.key](given)
    if spec.shape == "map":
        return dict(text.partition("=")[::2] for text in given)
    return given


def parse_network_opts(given: list[str]) -> dict[str, dict[str, str]]:
    """`DRIVER=KEY=VALUE` -> what `daemon.json` would hold. Raises BadValue."""
    found: dict[str, dict[str, str]] = {}
    for driver, key, value in map(parse_network_opt, given):
        found.setdefault(driver, {})[key] = value
    return found


def parse_builder(given: list[str]) -> dict[str, dict[str, Any]]:
    """`gc.KEY=VALUE` -> what `daemon.json` would hold."""
    found: dict[str, dict[str, Any]] = {}
    for text in given:
        path, _, value = text.partition("=")
        part, _, key = path.partition(".")
        found.setdefault(part, {})[key] = _boolean(value) if value.lower() in ("true", "false") else value
    return found


_COMBINED: dict[str, Callable[[list[str]], Any]] = {
    "builder": parse_builder,
    "default-address-pools": lambda given: [parse_pool(text) for text in given],
    "default-network-opts": parse_network_opts,
    "default-ulimits": lambda given: dict(map(parse_ulimit, given)),
    "features": lambda given: {
        name: _boolean(value or "true") for name, _, value in (text.partition("=") for text in given)
    },
    "runtimes": parse_runtimes,
}


def _boolean(text: str) -> bool:
    """Go's spellings of a boolean."""
    try:
        return parse_bool(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid boolean {text!r}") from None
