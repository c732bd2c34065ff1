"""Instructions that change the image's configuration or the variables, and no files (WORKDIR makes its folder)."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from pier.builder.dockerfile import instructions as i
from pier.builder.dockerfile import lint
from pier.builder.dockerfile.gotext import duration, plain_list, quote, quote_list, quote_number
from pier.builder.dockerfile.ownership import owner_of
from pier.builder.dockerfile.scope import NOT_IN_ENVIRONMENT, ArgInfo
from pier.builder.dockerfile.state import StageState
from pier.builder.dockerfile.words_in_stage import expand_word, expand_words
from pier.builder.graph import EMPTY, File, FileAction, MakeDir, Vertex
from pier.images.changes import is_signal
from pier.oci.image_config import HealthConfig

MAX_PORTS: Final = 65_536
MAX_EXPOSED: Final = 3 * MAX_PORTS
"""Ports of one instruction: all there are, of three protocols."""
_SECRET_NAME: Final = re.compile(
    r"(?:_|^)(?:apikey|auth|credential|credentials|key|password|pword|passwd|secret|token)(?:_|$)", re.IGNORECASE
)
_NO_SECRET_NAME: Final = re.compile(r"(?:_|^)(?:public|file|version)(?:_|$)", re.IGNORECASE)


def env(state: StageState, instruction: i.Env) -> None:
    listed = list(state.config.env)
    for pair in instruction.pairs:
        _check_form(state, instruction, pair)
        _check_secret(state, instruction, pair.name)
        state.set_env(pair.name, pair.value)
        item = f"{pair.name}={pair.value}"
        places = [number for number, old in enumerate(listed) if old.partition("=")[0] == pair.name]
        if places:
            listed[places[0]] = item
        else:
            listed.append(item)
    state.configure(env=listed)
    state.remember(" ".join(["ENV", *(f"{pair.name}={pair.value}" for pair in instruction.pairs)]))


def label(state: StageState, instruction: i.Label) -> None:
    for pair in instruction.pairs:
        _check_form(state, instruction, pair)
    state.configure(labels={**state.config.labels, **{pair.name: pair.value for pair in instruction.pairs}})
    state.remember(" ".join(["LABEL", *(f"{pair.name}={pair.value}" for pair in instruction.pairs)]))


def _check_form(state: StageState, instruction: i.Instruction, pair: i.Pair) -> None:
    if pair.legacy:
        word = instruction.keyword
        detail = f'"{word} key=value" should be used instead of legacy "{word} key value" format'
        state.shared.linter.report(lint.LEGACY_KEY_VALUE_FORMAT, detail, instruction.source)


def _check_secret(state: StageState, instruction: i.Instruction, name: str) -> None:
    if _SECRET_NAME.search(name) and not _NO_SECRET_NAME.search(name):
        detail = f"Do not use ARG or ENV instructions for sensitive data ({instruction.name} {quote(name)})"
        state.shared.linter.report(lint.SECRETS_USED_IN_ARG_OR_ENV, detail, instruction.source)


def arg(state: StageState, instruction: i.Arg) -> None:
    given, inherited = state.shared.options.build_args, state.shared.global_args.values
    said = []
    for definition in instruction.definitions:
        name = definition.name
        _check_secret(state, instruction, name)
        own = True
        if name in given:
            value: str | None = given[name]
        elif definition.default is not None:
            value = expand_word(state, instruction, definition.default)
        else:
            value = inherited.get(name)
            own = value is None
        if value is not None and name not in NOT_IN_ENVIRONMENT:
            state.set_env(name, value)
        if own:
            described = state.shared.global_args.info.get(name)
            comment = definition.comment or (described.definition.comment if described else "")
            definition = msgspec.structs.replace(definition, comment=comment)  # noqa: PLW2901
            state.arg_info[name] = ArgInfo(definition, value or "", instruction.source)
        state.arg_uses.add(name)
        state.build_args.append(msgspec.structs.replace(definition, default=value))
        said.append(name if value is None else f"{name}={value}")
    state.remember(f"ARG {' '.join(said)}")


def maintainer(state: StageState, instruction: i.Maintainer) -> None:
    state.image = msgspec.structs.replace(state.image, author=instruction.author)
    state.remember(f"MAINTAINER {instruction.author}")


# --- commands


def cmd(state: StageState, instruction: i.Cmd) -> None:
    _once(state, instruction)
    words = _command(state, instruction, instruction.command)
    state.configure(cmd=words, args_escaped=True)
    state.remember(f"CMD {quote_list(words)}")


def entrypoint(state: StageState, instruction: i.Entrypoint) -> None:
    _once(state, instruction)
    words = _command(state, instruction, instruction.command)
    state.configure(entrypoint=words or None)
    if "CMD" not in state.used_once:
        state.configure(cmd=None)
    state.remember(f"ENTRYPOINT {quote_list(words)}")


def _command(state: StageState, instruction: i.Instruction, command: i.Command) -> list[str]:
    if not command.shell_form:
        return list(command.words)
    if not state.config.shell:
        detail = (
            f"JSON arguments recommended for {instruction.keyword} to prevent unintended behavior related to OS signals"
        )
        state.shared.linter.report(lint.JSON_ARGS_RECOMMENDED, detail, instruction.source)
    return list(state.with_shell(command.words))


def _once(state: StageState, instruction: i.Instruction) -> None:
    before = state.used_once.get(instruction.name)
    if before is not None:
        detail = (
            f"Multiple {instruction.keyword} instructions should not be used in the same stage because only the last "
            "one will be used"
        )
        state.shared.linter.report(lint.MULTIPLE_INSTRUCTIONS_DISALLOWED, detail, before.source)
    state.used_once[instruction.name] = instruction


def healthcheck(state: StageState, instruction: i.Healthcheck) -> None:
    _once(state, instruction)
    state.configure(healthcheck=instruction.check)
    state.remember(f"HEALTHCHECK {_health_text(instruction.check)}")


def _health_text(check: HealthConfig) -> str:
    """`%q` of a pointer to Go's struct: numbers are characters."""
    times = (check.interval, check.timeout, check.start_period, check.start_interval)
    durations = " ".join(quote(duration(each)) for each in times)
    return f"&{{{quote_list(check.test)} {durations} {quote_number(check.retries)}}}"


def shell(state: StageState, instruction: i.Shell) -> None:
    state.configure(shell=list(instruction.words))
    state.remember(f"SHELL {plain_list(instruction.words)}")


def onbuild(state: StageState, instruction: i.Onbuild) -> None:
    state.configure(on_build=[*state.config.on_build, instruction.trigger])


def stopsignal(state: StageState, instruction: i.StopSignal) -> None:
    if not is_signal(instruction.signal):
        raise state.fail(f"invalid signal: {instruction.signal}", instruction)
    state.configure(stop_signal=instruction.signal)
    state.remember(f"STOPSIGNAL {instruction.signal}")


# --- places and people


def user(state: StageState, instruction: i.User) -> None:
    state.user = instruction.user
    state.configure(user=instruction.user)
    state.remember(f"USER {instruction.user}")


def volume(state: StageState, instruction: i.Volume) -> None:
    if not all(instruction.paths):
        raise state.fail("VOLUME specified can not be an empty string", instruction)
    volumes: dict[str, Any] = {**state.config.volumes, **{path: {} for path in instruction.paths}}
    state.configure(volumes=dict(sorted(volumes.items())))
    state.remember(f"VOLUME {plain_list(instruction.paths)}")


def workdir(state: StageState, instruction: i.Workdir) -> None:
    if not state.workdir_set and not instruction.path.startswith("/"):
        detail = f"Relative workdir {quote(instruction.path)} can have unexpected results if the base image changes"
        state.shared.linter.report(lint.WORKDIR_RELATIVE_PATH, detail, instruction.source)
    state.workdir_set = True
    path = instruction.path
    if not path.startswith("/"):
        path = posixpath.normpath(posixpath.join("/", state.config.working_dir, path))
    state.cwd = path
    state.configure(working_dir=path)
    state.known_folders.add(posixpath.normpath(path))
    if path != "/":
        _make_folder(state, instruction, path)
    state.remember(f"WORKDIR {path}", layer=path != "/")


def _make_folder(state: StageState, instruction: i.Workdir, path: str) -> None:
    inputs = () if state.output is None else (state.output,)
    base = EMPTY if state.output is None else 0
    owner = owner_of(state.config.user, base) if state.config.user else None
    deed = MakeDir(path, make_parents=True, owner=owner, timestamp_ns=state.timestamp_ns)
    shown = state.shown(instruction.code, state.env, state.shared.lexer)
    state.output = Vertex(
        File((FileAction(deed, input=base, output=0),)),
        inputs,
        platform=state.platform,
        note=state.note(instruction, shown),
    ).output()


# --- ports


def expose(state: StageState, instruction: i.Expose) -> None:
    ports: list[str] = []
    for written in instruction.ports:
        for word in expand_words(state, instruction, written):
            _check_port(state, instruction, word)
            ports += _ports(state, instruction, word)
            if len(ports) > MAX_EXPOSED:
                raise state.fail(f"EXPOSE names more than {MAX_EXPOSED} ports", instruction)
    exposed: dict[str, Any] = {**state.config.exposed_ports, **{port: {} for port in ports}}
    state.configure(exposed_ports=dict(sorted(exposed.items())))
    state.remember(f"EXPOSE {plain_list(ports)}")


def _check_port(state: StageState, instruction: i.Instruction, word: str) -> None:
    container = word.rpartition(":")[2]
    if container != word:
        detail = f"EXPOSE instruction should not define an IP address or host-port mapping, found '{word}'"
        state.shared.linter.report(lint.EXPOSE_INVALID_FORMAT, detail, instruction.source)
    protocol = container.partition("/")[2]
    if protocol != protocol.lower():
        detail = f"Defined protocol '{word}' in EXPOSE instruction should be lowercase"
        state.shared.linter.report(lint.EXPOSE_PROTO_CASING, detail, instruction.source)


def _ports(state: StageState, instruction: i.Instruction, word: str) -> list[str]:
    """`80`, `53/udp`, `8000-8010/tcp`, also behind `ip:` and `hostport:` -> `80/tcp`, …"""
    container, _, protocol = word.rpartition(":")[2].partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in ("tcp", "udp", "sctp"):
        raise state.fail(f'invalid port: "{word}": invalid proto: {protocol}', instruction)
    if not container:
        raise state.fail(f"no port specified: {word}<empty>", instruction)
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", container)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
    if not 0 <= first <= last < MAX_PORTS:
        raise state.fail(f"invalid containerPort: {container}", instruction)
    return [f"{port}/{protocol}" for port in range(first, last + 1)]


CONFIGURING: Final[Mapping[str, Callable[[StageState, Any], None]]] = {
    "ARG": arg,
    "CMD": cmd,
    "ENTRYPOINT": entrypoint,
    "ENV": env,
    "EXPOSE": expose,
    "HEALTHCHECK": healthcheck,
    "LABEL": label,
    "MAINTAINER": maintainer,
    "ONBUILD": onbuild,
    "SHELL": shell,
    "STOPSIGNAL": stopsignal,
    "USER": user,
    "VOLUME": volume,
    "WORKDIR": workdir,
}
