"""`docker` and `pier` side by side on one daemon: the same command line, the same stdout, stderr and exit status.

The daemon is the session's pierd; PIER_PARITY_HOST (with PIER_PARITY_IMAGE, a busybox, and PIER_PARITY_TAR, the
archive of a root file system) puts any other Docker-compatible daemon in its place.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cli_parity_cases import ANSWERS, ERRORS, FIRST_LINE_ONLY, FLAG_ERRORS

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="Docker's command line is not installed"),
]
PREFIX = "parity-"
API_VERSION = "1.50"  # what Docker's CLI 28.2 speaks: some answers differ from one version to the next
COMMAND_S = 60
SOURCE = Path(__file__).resolve().parents[2] / "src"
PIER = [
    sys.executable,
    "-IS",
    "-c",
    f"import sys; sys.path.insert(0, {str(SOURCE)!r}); from pier.cli.main import main; main()",
]


@dataclass(frozen=True)
class Target:
    """The daemon both talk to, and what `{i}`, `{tar}` stand for."""

    host: str
    image: str
    archive: str

    def run(self, argv: list[str]) -> tuple[str, str, int]:
        done = subprocess.run(
            argv,
            env={**os.environ, "DOCKER_HOST": self.host, "DOCKER_API_VERSION": API_VERSION, "COLUMNS": "80"},
            input=b"in\n",
            capture_output=True,
            timeout=COMMAND_S,
            check=False,
        )
        return done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"), done.returncode


@pytest.fixture(scope="module")
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    if host := os.environ.get("PIER_PARITY_HOST"):
        made = Target(host, os.environ["PIER_PARITY_IMAGE"], os.environ["PIER_PARITY_TAR"])
    else:
        daemon: Any = request.getfixturevalue("daemon")
        archives: list[Path] = request.getfixturevalue("starter_images")
        made = Target(f"unix://{daemon.socket}", "busybox", str(archives[0]))
    running = ["run", "-d", "--name", f"{PREFIX}r", "-p", "18480:80", "-p", "18481:81/udp", "--label", "a=b"]
    ended = ["run", "--name", f"{PREFIX}e", made.image, "sh", "-c", "echo out; sleep 0.1; echo err >&2; exit 3"]
    remove = ["docker", "rm", "-f", f"{PREFIX}r", f"{PREFIX}e"]
    made.run(remove)
    assert made.run([*PIER, *running, made.image, "sleep", "10000"])[2] == 0
    assert made.run([*PIER, *ended])[2] == 3
    yield made
    names = made.run(["docker", "ps", "-aq", "--filter", f"name={PREFIX}"])[0].split()
    made.run([*remove, *names])


_SHARED: list[tuple[str, str]] = [
    (r"127\.0\.0\.1:\d{5}->", "127.0.0.1:PORT->"),
    (r"\b[0-9a-f]{64}\b", "ID"),
    (r"\b[0-9a-f]{12}\b", "SHORT"),
    (r"(\d+ (seconds|minutes)|Less than a second|About a minute|1 second) *", "TIME "),
    (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "WHEN"),
    (r"docker-import-\d+", "docker-import-N"),
    (r"\b[a-z]+_[a-z]+\b *$", "NAME"),
    (r'"Pid":\s*\d+', '"Pid":N'),
    (r" +", " "),
]
"""What differs from one run to the next, whoever asks."""
_OF_DOCKER: list[tuple[str, str]] = [
    (r"^docker: ", "pier: "),
    (r"'docker ", "'pier "),
    (r"Usage:  docker", "Usage:  pier"),
    (r"command: docker", "command: pier"),
    (r"SRun ", "Run "),  # a slip of the pen in 28.2
]
"""What differs because the program has another name."""


def comparable(text: str, program: str) -> str:
    """A program's output with names, times and IDs made equal."""
    for pattern, replacement in (_OF_DOCKER if program == "docker" else []) + _SHARED:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text.replace(f"{PREFIX}{program}-", f"{PREFIX}X-")


def words(case: str, target: Target, program: str) -> list[str]:
    """A case's words for one program; names it makes carry the program's."""
    values = {
        "i": target.image,
        "tar": target.archive,
        "r": f"{PREFIX}r",
        "rname": f"{PREFIX}r",
        "e": f"{PREFIX}e",
        "p": f"{PREFIX}{program}-",
    }
    return shlex.split(re.sub(r"\{(i|tar|r|rname|e|p)\}", lambda match: values[match[1]], case))


def outcome(case: str, target: Target, program: str) -> tuple[str, str, int]:
    argv = ["docker"] if program == "docker" else PIER
    out, err, status = target.run([*argv, *words(case, target, program)])
    if case in FIRST_LINE_ONLY:
        err = err.partition("\n")[0]
    return comparable(out, program), comparable(err, program), status


def same(case: str, target: Target) -> None:
    assert outcome(case, target, "pier") == outcome(case, target, "docker")


@pytest.mark.parametrize("case", FLAG_ERRORS)
def test_what_is_refused_before_the_daemon_is_asked(case: str, target: Target) -> None:
    same(case, target)


@pytest.mark.parametrize("case", ERRORS)
def test_what_the_daemon_refuses(case: str, target: Target) -> None:
    same(case, target)


@pytest.mark.parametrize("case", ANSWERS)
def test_answers(case: str, target: Target) -> None:
    same(case, target)


def notice(target: Target, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.setenv("PIER_EXIT_NOTICE", "always")

    def run(*command: str) -> str:
        out, err, status = target.run([*PIER, "run", "-d", "--name", f"{PREFIX}n", target.image, *command])
        target.run(["docker", "rm", "-f", f"{PREFIX}n"])
        assert status == 0
        assert re.fullmatch(r"[0-9a-f]{64}\n", out)
        return err

    return run


def test_trap_04_a_detached_container_that_ends_at_once_says_why(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = notice(target, monkeypatch)
    err = run("sh", "-c", "echo last words; exit 4")
    assert f"container {PREFIX}n has exited already, with code 4" in err
    assert "\n  last words\n" in err
    assert "A container lives as long as its main process" in run("true")
    assert "add -it" in run("sh")
    assert run("sleep", "100") == ""


def test_trap_12_no_terminal_names_the_flag_to_drop(target: Target) -> None:
    _, err, status = target.run([*PIER, "run", "--rm", "-it", target.image, "true"])
    assert status == 1
    assert err.startswith("the input device is not a TTY\n")
    assert "drop -t" in err
