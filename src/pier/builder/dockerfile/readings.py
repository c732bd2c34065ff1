"""How the arguments of each instruction are read: a function a keyword, Statement in, instruction out.

All raise Fault, with the offset of what is wrong where that is not the whole line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from pier.builder.dockerfile import instructions as i
from pier.builder.dockerfile.flags import Flags, Kind
from pier.builder.dockerfile.gotext import SPACE, quote
from pier.builder.dockerfile.heredoc import Heredoc, parse_heredoc
from pier.builder.dockerfile.mounts import check_device, check_mount
from pier.builder.dockerfile.source import Fault, meant
from pier.builder.dockerfile.statement import Statement, listed_words, split
from pier.builder.dockerfile.words import BLANK, blank_separated, quoted_words
from pier.model.time import BadDuration, parse_duration
from pier.oci.image_config import HealthConfig

_STAGE_NAME: Final = re.compile(r"[a-z][a-z0-9\-_.]*")
_NETWORKS: Final = ("default", "none", "host")
_SECURITIES: Final = ("sandbox", "insecure")
_MIN_INTERVAL_NS: Final = 1_000_000
_MAX_RETRIES: Final = (1 << 31) - 1


def description(comments: tuple[str, ...], name: str) -> str:
    """What a comment line `# name some words` says of a name."""
    for line in comments if name else ():
        if line.startswith(name + " "):
            return line[len(name) + 1 :]
    return ""


# --- stages and variables


def read_from(statement: Statement) -> i.From:
    words = [word for word, _ in blank_separated(statement.rest)]
    offsets = [statement.offset + offset for _, offset in blank_separated(statement.rest)]
    name, as_written = "", ""
    if len(words) == 3 and words[1].lower() == "as":
        as_written, name = words[1], words[2].lower()
        if not _STAGE_NAME.fullmatch(name):
            reason = (
                f"invalid name for build stage: {quote(words[2])}, name can't start with a number or contain symbols"
            )
            raise Fault(reason, offsets[2])
    elif len(words) != 1:
        at = offsets[1] if len(words) > 1 else None
        raise Fault("FROM requires either one or three arguments", at)
    flags = statement.known_flags({"platform": Kind.STRING})
    return i.From(
        **statement.frame(),
        base=words[0],
        stage=name,
        stage_written=words[2] if name else "",
        as_written=as_written,
        platform=flags.string("platform"),
        description=description(statement.comments, name),
    )


def read_arg(statement: Statement) -> i.Arg:
    statement.known_flags()
    statement.needed()
    definitions = []
    for word, offset in quoted_words(statement.rest, statement.escape):
        name, equals, value = word.partition("=")
        if not name:
            raise Fault("ARG names can not be blank", statement.offset + offset)
        definitions.append(i.Definition(name, value if equals else None, description(statement.comments, name)))
    return i.Arg(**statement.frame(), definitions=tuple(definitions))


def _pairs(statement: Statement) -> tuple[i.Pair, ...]:
    """`a=b c="d e"`, or the old form: `a`, then the rest of the line."""
    statement.known_flags()
    statement.needed()
    words = quoted_words(statement.rest, statement.escape)
    if not words:
        raise Fault(f"{statement.name} requires at least one argument")
    if "=" not in words[0][0]:
        parts = BLANK.split(statement.rest, maxsplit=1)
        if len(parts) < 2:
            raise Fault(f"{statement.name} must have two arguments", statement.offset)
        return (i.Pair(parts[0], parts[1], legacy=True),)
    pairs = []
    for word, offset in words:
        name, equals, value = word.partition("=")
        if not equals:
            reason = f"Syntax error - can't find = in {quote(word)}. Must be of the form: name=value"
            raise Fault(reason, statement.offset + offset)
        if not name:
            raise Fault(f"{statement.name} names can not be blank", statement.offset + offset)
        pairs.append(i.Pair(name, value))
    return tuple(pairs)


def read_env(statement: Statement) -> i.Env:
    return i.Env(**statement.frame(), pairs=_pairs(statement))


def read_label(statement: Statement) -> i.Label:
    return i.Label(**statement.frame(), pairs=_pairs(statement))


# --- files

_TRANSFER_FLAGS: Final = {
    "chown": Kind.STRING,
    "chmod": Kind.STRING,
    "link": Kind.BOOLEAN,
    "exclude": Kind.STRINGS,
}
_COPY_FLAGS: Final = {**_TRANSFER_FLAGS, "from": Kind.STRING, "parents": Kind.BOOLEAN}
_ADD_FLAGS: Final = {
    **_TRANSFER_FLAGS,
    "keep-git-dir": Kind.BOOLEAN,
    "checksum": Kind.STRING,
    "unpack": Kind.BOOLEAN,
}


def read_copy(statement: Statement) -> i.Copy:
    flags = statement.known_flags(_COPY_FLAGS)
    sources, contents, dest = _sources_and_dest(statement)
    return i.Copy(
        **statement.frame(),
        **_transfer(flags),
        sources=sources,
        contents=contents,
        dest=dest,
        from_=flags.string("from"),
        parents=flags.boolean("parents"),
    )


def read_add(statement: Statement) -> i.Add:
    flags = statement.known_flags(_ADD_FLAGS)
    sources, contents, dest = _sources_and_dest(statement)
    return i.Add(
        **statement.frame(),
        **_transfer(flags),
        sources=sources,
        contents=contents,
        dest=dest,
        keep_git_dir=flags.tristate("keep-git-dir"),
        checksum=flags.string("checksum"),
        unpack=flags.tristate("unpack"),
    )


def _transfer(flags: Flags) -> dict[str, Any]:
    return {
        "chown": flags.string("chown"),
        "chmod": flags.string("chmod"),
        "link": flags.boolean("link"),
        "exclude": flags.strings("exclude"),
    }


def _sources_and_dest(statement: Statement) -> tuple[tuple[str, ...], tuple[Heredoc, ...], str]:
    """(source paths, source heredocs, destination)."""
    listed = statement.listed()
    words = [word for word, _ in blank_separated(statement.rest)] if listed is None else listed
    if len(words) < 2:
        raise Fault(
            f"{statement.name} requires at least two arguments, but only one was provided. "
            "Destination could not be determined"
            if words
            else f"{statement.name} requires at least two arguments"
        )
    dest = words[-1]
    bodies = {heredoc.name: heredoc for heredoc in statement.heredocs}
    if listed is None and parse_heredoc(dest):
        raise Fault(f"{statement.name} cannot accept a heredoc as a destination", statement.text.rfind(dest))
    sources, contents = [], []
    for word in words[:-1]:
        heredoc = parse_heredoc(word) if listed is None else None
        if heredoc and heredoc.name in bodies:
            contents.append(bodies[heredoc.name])
        else:
            sources.append(word)
    return tuple(sources), tuple(contents), dest


def read_volume(statement: Statement) -> i.Volume:
    statement.known_flags()
    statement.needed()
    listed = statement.listed()
    paths = [word for word, _ in blank_separated(statement.rest)] if listed is None else listed
    paths = [path.strip(SPACE) for path in paths]
    if not paths:
        raise Fault("VOLUME requires at least one argument")
    if not all(paths):
        raise Fault("VOLUME specified can not be an empty string", statement.offset)
    return i.Volume(**statement.frame(), paths=tuple(paths))


def read_workdir(statement: Statement) -> i.Workdir:
    statement.known_flags()
    return i.Workdir(**statement.frame(), path=statement.one())


# --- commands


def read_run(statement: Statement) -> i.Run:
    known = {"mount": Kind.STRINGS, "network": Kind.STRING, "security": Kind.STRING, "device": Kind.STRINGS}
    flags = statement.known_flags(known)
    _refuse_binary(statement)
    for mount in flags.strings("mount"):
        _at_flag(check_mount, mount, flags, "mount")
    for device in flags.strings("device"):
        _at_flag(check_device, device, flags, "device")
    return i.Run(
        **statement.frame(),
        command=statement.command(),
        heredocs=statement.heredocs,
        mounts=flags.strings("mount"),
        network=_one_of(flags, "network", _NETWORKS, "network mode"),
        security=_one_of(flags, "security", _SECURITIES, "security"),
        devices=flags.strings("device"),
    )


def _refuse_binary(statement: Statement) -> None:
    """Heredocs that become arguments or configuration have to be text."""
    for heredoc in statement.heredocs:
        if re.search("[\0\udc80-\udcff]", heredoc.content):
            raise Fault(f"heredoc {heredoc.name} contains bytes that are not UTF-8 text", statement.offset)


def _at_flag(check: Callable[[str], None], value: str, flags: Flags, name: str) -> None:
    try:
        check(value)
    except Fault as fault:
        raise Fault(fault.reason, flags.offsets[name]) from None


def _one_of(flags: Flags, name: str, known: tuple[str, ...], what: str) -> str:
    value = flags.string(name)
    if name in flags.given and value not in known:
        raise Fault(meant(f"invalid {what} {quote(value)}", value, known), flags.offsets[name])
    return value


def read_cmd(statement: Statement) -> i.Cmd:
    statement.known_flags()
    return i.Cmd(**statement.frame(), command=statement.command())


def read_entrypoint(statement: Statement) -> i.Entrypoint:
    statement.known_flags()
    return i.Entrypoint(**statement.frame(), command=statement.command())


def read_shell(statement: Statement) -> i.Shell:
    statement.known_flags()
    listed = statement.listed()
    if not statement.rest or listed == []:
        raise Fault("SHELL requires at least one argument")
    if listed is None:
        raise Fault("SHELL requires the arguments to be in JSON form", statement.offset)
    return i.Shell(**statement.frame(), words=tuple(listed))


_HEALTH_FLAGS: Final = {
    "interval": "interval",
    "timeout": "timeout",
    "start-period": "start_period",
    "start-interval": "start_interval",
}


def read_healthcheck(statement: Statement) -> i.Healthcheck:
    statement.needed()
    kind, *rest = re.split(rf"[{SPACE}]+", statement.rest, maxsplit=1)
    command = rest[0] if rest else ""
    if kind.upper() == "NONE":
        if command:
            raise Fault("HEALTHCHECK NONE takes no arguments", statement.offset)
        return i.Healthcheck(**statement.frame(), check=HealthConfig(test=["NONE"]))
    flags = statement.known_flags(dict.fromkeys([*_HEALTH_FLAGS, "retries"], Kind.STRING))
    if kind.upper() != "CMD":
        reason = f"Unknown type {quote(kind.upper())} in HEALTHCHECK (try CMD)"
        raise Fault(reason, statement.offset)
    listed = listed_words(command, statement.offset + len(statement.rest) - len(command))
    if not command or listed == []:
        raise Fault("Missing command after HEALTHCHECK CMD", statement.offset)
    test = ["CMD", *listed] if listed is not None else ["CMD-SHELL", command]
    durations = {field: _interval(flags, name) for name, field in _HEALTH_FLAGS.items()}
    check = HealthConfig(test=test, retries=_retries(flags), **durations)
    return i.Healthcheck(**statement.frame(), check=check)


def _interval(flags: Flags, name: str) -> int:
    """Nanoseconds; 0 where the flag is not given."""
    value = flags.string(name)
    if not value:
        return 0
    try:
        duration_ns = parse_duration(value)
    except BadDuration as fault:
        raise Fault(fault.message, flags.offsets[name]) from None
    if duration_ns and duration_ns < _MIN_INTERVAL_NS:
        raise Fault(f"Interval {quote(name)} cannot be less than 1ms", flags.offsets[name])
    return duration_ns


def _retries(flags: Flags) -> int:
    value = flags.string("retries")
    if not value:
        return 0
    if not re.fullmatch(r"[+-]?[0-9]+", value):
        raise Fault(f"strconv.ParseInt: parsing {quote(value)}: invalid syntax", flags.offsets["retries"])
    if len(value) > 11 or int(value) > _MAX_RETRIES:
        raise Fault(f"strconv.ParseInt: parsing {quote(value)}: value out of range", flags.offsets["retries"])
    if int(value) < 0:
        raise Fault(f"--retries cannot be negative ({int(value)})", flags.offsets["retries"])
    return int(value)


# --- the image's configuration


def read_expose(statement: Statement) -> i.Expose:
    statement.known_flags()
    statement.needed()
    return i.Expose(**statement.frame(), ports=tuple(sorted(word for word, _ in blank_separated(statement.rest))))


def read_user(statement: Statement) -> i.User:
    statement.known_flags()
    return i.User(**statement.frame(), user=statement.one())


def read_stopsignal(statement: Statement) -> i.StopSignal:
    statement.known_flags()
    return i.StopSignal(**statement.frame(), signal=statement.one())


def read_maintainer(statement: Statement) -> i.Maintainer:
    statement.known_flags()
    return i.Maintainer(**statement.frame(), author=statement.one())


def read_onbuild(statement: Statement) -> i.Onbuild:
    statement.known_flags()
    statement.needed()
    inner = split(statement.rest, statement.escape)
    if inner.name == "ONBUILD":
        raise Fault("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed", statement.offset)
    if inner.name in ("MAINTAINER", "FROM"):
        raise Fault(f"{inner.name} isn't allowed as an ONBUILD trigger", statement.offset)
    if inner.name not in READINGS:
        raise Fault(unknown(inner.keyword), statement.offset)
    _refuse_binary(statement)
    bodies = "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in statement.heredocs)
    return i.Onbuild(**statement.frame(), trigger=statement.rest + bodies)


def unknown(keyword: str) -> str:
    return meant(f"unknown instruction: {keyword}", keyword, READINGS, ignore_case=True)


READINGS: Final[Mapping[str, Callable[[Statement], i.Instruction]]] = {
    "ADD": read_add,
    "ARG": read_arg,
    "CMD": read_cmd,
    "COPY": read_copy,
    "ENTRYPOINT": read_entrypoint,
    "ENV": read_env,
    "EXPOSE": read_expose,
    "FROM": read_from,
    "HEALTHCHECK": read_healthcheck,
    "LABEL": read_label,
    "MAINTAINER": read_maintainer,
    "ONBUILD": read_onbuild,
    "RUN": read_run,
    "SHELL": read_shell,
    "STOPSIGNAL": read_stopsignal,
    "USER": read_user,
    "VOLUME": read_volume,
    "WORKDIR": read_workdir,
}
