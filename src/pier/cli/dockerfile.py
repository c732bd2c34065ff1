"""A Dockerfile rebuilt from an image's history and configuration (wish 4). Pure: lines, and how sure each is.

A history keeps the text of each step as its builder wrote it: the old builder `/bin/sh -c #(nop) CMD …` and
`/bin/sh -c COMMAND`, BuildKit `RUN /bin/sh -c COMMAND # buildkit`. What no step says (`commit --change`)
is taken from the configuration.
"""

from __future__ import annotations

import re

from pier.cli.jsontext import dumps
from pier.cli.units import go_duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

EXACT = ""
_NOP = "#(nop)"
_BUILDKIT = re.compile(r"\s*# buildkit$")
_SHELL = re.compile(r"^(?:\|(\d+) (.*?) )?/bin/sh -c ", re.DOTALL)
_KEYWORD = re.compile(
    r"^(ADD|ARG|CMD|COPY|ENTRYPOINT|ENV|EXPOSE|HEALTHCHECK|LABEL|MAINTAINER|ONBUILD|RUN|SHELL|STOPSIGNAL|USER|VOLUME"
    r"|WORKDIR)(?: |$)"
)
_UNKNOWN_SOURCE = "the files are in the layer, where they came from is not known"


class Line:
    """One line of the result. `doubt` says why it is a guess; empty: it is exact."""

    __slots__ = ("doubt", "text")

    def __init__(self, text: str, doubt: str = EXACT) -> None:
        self.text = text
        self.doubt = doubt


def rebuild(steps: list[dict[str, Any]], config: dict[str, Any]) -> list[Line]:
    """The lines for a history (as the API gives it, newest first) and the image's `Config`."""
    lines = [Line("FROM scratch", "" if steps else "the image has no history")]
    for step in reversed(steps):
        known = {line.text.partition("=")[0] for line in lines if line.text.startswith("ARG ")}
        lines += [line for line in _step(step, config) if not (line.doubt and line.text in known)]
    return [*lines, *_missing(lines, config)]


def text(lines: list[Line], name: str) -> str:
    """The file; a guess has a comment above it that says why."""
    guesses = sum(bool(line.doubt) for line in lines)
    head = f"# Rebuilt from the history of {name}: {len(lines) - guesses} lines are exact, {guesses} are guessed.\n"
    return head + "".join((f"# guessed: {line.doubt}\n" if line.doubt else "") + f"{line.text}\n" for line in lines)


def _step(step: dict[str, Any], config: dict[str, Any]) -> list[Line]:
    created_by, comment = step.get("CreatedBy", "").strip(), step.get("Comment", "")
    plain = _BUILDKIT.sub("", created_by)
    if not plain:
        if step.get("Size"):
            doubt = comment or "a layer of which nothing is written down"
            return [Line("ADD rootfs.tar /", f"{doubt}; {_UNKNOWN_SOURCE}")]
        return []
    nop = _SHELL.sub("", plain) if _NOP in plain else plain
    if _NOP in nop:
        nop = nop.partition(_NOP)[2].strip()
    found = _KEYWORD.match(nop)
    if found:
        return _instruction(found[1], nop[found.end() :].strip(), config)
    shell = _SHELL.match(plain)
    if shell:
        return _run(plain[shell.end() :], shell[2] or "", shell[1])
    return [Line(f"RUN {plain}", "a commit of a container that ran this; what else happened in it is not known")]


def _instruction(keyword: str, rest: str, config: dict[str, Any]) -> list[Line]:  # noqa: PLR0911 - one return a form
    match keyword:
        case "RUN":
            shell = _SHELL.match(rest)
            return _run(rest[shell.end() :], shell[2] or "", shell[1]) if shell else [Line(f"RUN {rest}")]
        case "ADD" | "COPY":
            return [_files(keyword, rest)]
        case "EXPOSE":
            ports = re.findall(r"[0-9][0-9-]*(?:/[a-z]+)?", rest.removeprefix("map["))
            return [Line(f"EXPOSE {' '.join(ports)}")]
        case "VOLUME" if rest.startswith("["):
            return [Line(f"VOLUME {_words(rest)}")]
        case "CMD" | "ENTRYPOINT" | "SHELL" if rest.startswith("["):
            known = config.get({"CMD": "Cmd", "ENTRYPOINT": "Entrypoint", "SHELL": "Shell"}[keyword])
            if known and rest in (dumps(known), _go_list(known), f"[{' '.join(known)}]"):
                return [Line(f"{keyword} {dumps(known)}")]
            return [_listed(keyword, rest)]
        case "HEALTHCHECK":
            return [_health(rest, config)]
        case "ENV":
            return [_pairs(keyword, rest, config.get("Env") or [])]
        case "LABEL":
            return [_pairs(keyword, rest, [f"{key}={value}" for key, value in (config.get("Labels") or {}).items()])]
        case "MAINTAINER":
            return [Line(f"LABEL maintainer={dumps(rest)}", "MAINTAINER, which is no instruction any more")]
        case _:
            return [Line(f"{keyword} {rest}".rstrip())]


def _run(command: str, arguments: str, count: str | None) -> list[Line]:
    """A RUN, after the build arguments it was given."""
    command = command.strip()
    shown = command if "\n" not in command else f"<<EOF\n{command}\nEOF"
    lines = []
    if count and int(count):
        names = re.findall(r"(?:^|\s)([A-Za-z_]\w*)=", arguments)
        lines = [Line(f"ARG {name}", "a build argument; whether it had a default is not known") for name in names]
    return [*lines, Line(f"RUN {shown}")]


def _files(keyword: str, rest: str) -> Line:
    """`ADD file:SHA in /` of the old builder, `COPY a b /` of BuildKit."""
    old = re.fullmatch(r"(?:(--\S+ )*)((?:file|dir|multi):[0-9a-f]+) in (\S*)\s*", rest)
    if old:
        return Line(f"{keyword} {old[2]} {old[3] or '/'}", f"known by a checksum only: {_UNKNOWN_SOURCE}")
    return Line(f"{keyword} {rest}", "the names are exact, the files themselves are in the layer only")


def _listed(keyword: str, rest: str) -> Line:
    """A list as Go prints it, `["a" "b"]`; without quotes where a word ends cannot be seen."""
    if re.fullmatch(r'\[("(?:[^"\\]|\\.)*"[ ,]*)*\]', rest):
        return Line(f"{keyword} {_words(rest)}")
    return Line(f"{keyword} {_words(rest)}", "where its words end is not written down")


def _words(rest: str) -> str:
    """`["a" "b"]`, `[a b]` or `["a","b"]` as a JSON list."""
    quoted = re.findall(r'"((?:[^"\\]|\\.)*)"', rest)
    return dumps(quoted or rest.strip("[]").split())


def _go_list(words: list[str]) -> str:
    return "[" + " ".join(dumps(word) for word in words) + "]"


def _pairs(keyword: str, rest: str, known: list[str]) -> Line:
    """`A=b C=d e` as builders write it, without quotes: where a value ends is seen by the image's own values."""
    found: list[str] = []
    left = rest
    while left:
        fitting = [item for item in known if left == item or left.startswith(f"{item} ")]
        if not fitting:
            break
        found.append(max(fitting, key=len))
        left = left[len(found[-1]) :].lstrip()
    if left and (" " in left or left.count("=") != 1):
        return Line(
            f"{keyword} {rest}", "a later step has replaced a value, so where this one's values end is not known"
        )
    return Line(f"{keyword} {' '.join(map(_pair, [*found, *([left] if left else [])]))}")


def _pair(item: str) -> str:
    """`A=b c` with the quotes it needs."""
    name, _, value = item.partition("=")
    name = dumps(name) if re.search(r"\s", name) else name
    return f"{name}={dumps(value)}" if re.search(r"[\s\"'\\$]", value) else f"{name}={value}"


def _health(rest: str, config: dict[str, Any]) -> Line:
    check = config.get("Healthcheck") or {}
    if not check.get("Test"):
        return Line(f"# HEALTHCHECK {rest}", "a later step has replaced it")
    return Line(f"HEALTHCHECK {_health_words(check)}", "" if rest.startswith("&") else "from the configuration")


def _health_words(check: dict[str, Any]) -> str:
    test = check["Test"]
    if test == ["NONE"]:
        return "NONE"
    times = {
        "interval": "Interval",
        "timeout": "Timeout",
        "start-period": "StartPeriod",
        "start-interval": "StartInterval",
    }
    flags = [f"--{flag}={go_duration(check[key])}" for flag, key in times.items() if check.get(key)]
    if check.get("Retries"):
        flags.append(f"--retries={check['Retries']}")
    command = test[1] if test[0] == "CMD-SHELL" else dumps(test[1:])
    return " ".join([*flags, "CMD", command])


def _missing(lines: list[Line], config: dict[str, Any]) -> list[Line]:
    """What the configuration has and no line says."""
    said = "\n".join(line.text for line in lines)
    doubt = "in the configuration, and in no step of the history"
    wanted: list[str] = [f"ENV {_pair(item)}" for item in config.get("Env") or () if not _sets(said, "ENV", item)]
    wanted += [
        f"LABEL {_pair(f'{key}={value}')}" for key, value in (config.get("Labels") or {}).items() if key not in said
    ]
    for port in config.get("ExposedPorts") or {}:
        if not re.search(rf"^EXPOSE .*\b{port.removesuffix('/tcp')}\b", said, re.MULTILINE):
            wanted.append(f"EXPOSE {port}")
    wanted += [
        f"VOLUME {dumps([path])}"
        for path in config.get("Volumes") or ()
        if dumps(path) not in said and path not in said
    ]
    for keyword, key in (("USER", "User"), ("WORKDIR", "WorkingDir"), ("STOPSIGNAL", "StopSignal")):
        if config.get(key) and config[key] != "/" and f"{keyword} {config[key]}" not in said:
            wanted.append(f"{keyword} {config[key]}")
    for keyword, key in (("SHELL", "Shell"), ("ENTRYPOINT", "Entrypoint"), ("CMD", "Cmd")):
        if config.get(key) and _last(lines, keyword) != f"{keyword} {dumps(config[key])}":
            wanted.append(f"{keyword} {dumps(config[key])}")
    if (config.get("Healthcheck") or {}).get("Test") and "HEALTHCHECK" not in said:
        wanted.append(f"HEALTHCHECK {_health_words(config['Healthcheck'])}")
    wanted += [f"ONBUILD {trigger}" for trigger in config.get("OnBuild") or () if f"ONBUILD {trigger}" not in said]
    return [Line(text, doubt) for text in wanted]


def _sets(said: str, keyword: str, item: str) -> bool:
    """Whether a line of this keyword names the variable."""
    name = re.escape(item.partition("=")[0])
    return re.search(rf"^{keyword} (?:.* )?{name}[= ]", said, re.MULTILINE) is not None


def _last(lines: list[Line], keyword: str) -> str:
    return next((line.text for line in reversed(lines) if line.text.startswith(f"{keyword} ")), "")
