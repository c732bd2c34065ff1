"""Dispatch, help, the catalog, and how little is imported to start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pier.cli import main as entry
from pier.cli.catalog import ABSENT, COMMON, GROUPS, SAME, SYNONYMS, VERBS
from pier.cli.early_exit import cause, describe
from pier.cli.errors import Failure
from pier.cli.help import aliases, command_help
from pier.cli.verbs.attach import banner, cannot_attach
from pier.cli.verbs.pull import full_name
from pier.cli.verbs.run import start_status

ROOT = Path(__file__).resolve().parents[3]
HEAVY = set(
    "argparse asyncio dataclasses enum http json re signal site socket ssl subprocess typing urllib msgspec aiohttp".split()  # noqa: E501
)


@pytest.mark.parametrize("path", sorted(VERBS))
def test_every_command_loads_and_has_help(path: str) -> None:
    verb = entry.load(path)
    text = command_help(path, verb.COMMAND, 80)
    assert text.startswith(f"Usage:  pier {path} ")
    assert all(len(line) <= 80 or "  " not in line for line in text.splitlines()[1:] if line.startswith("  -"))
    names = [flag.name for flag in verb.COMMAND.flags]
    shorts = [flag.short for flag in verb.COMMAND.flags if flag.short]
    assert len(set(names)) == len(names)
    assert len(set(shorts)) == len(shorts)


def test_the_catalog_agrees_with_itself() -> None:
    assert set(COMMON) <= set(VERBS)
    assert not ABSENT & set(VERBS)
    assert {path.split(" ")[0] for path in VERBS if " " in path} == set(GROUPS)
    assert set(SYNONYMS.values()) <= set(VERBS)
    assert {name for names in SAME for name in names} <= set(VERBS) | set(SYNONYMS)
    assert aliases("ps") == ("container ls", "container list", "container ps", "ps")


@pytest.mark.parametrize(
    ("words", "path", "rest"),
    [
        ("ps -a", "ps", ["-a"]),
        ("container ls -a", "container ls", ["-a"]),
        ("container ps", "container ls", []),
        ("image rm x", "image rm", ["x"]),
        ("container", "container", []),
    ],
)
def test_find(words: str, path: str, rest: list[str]) -> None:
    assert entry.find(words.split(" ")) == (path, rest)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("foo", "pier: unknown command: pier foo\n\nRun 'pier --help' for more information"),
        ("image bar", "pier: unknown command: pier image bar\n\nUsage:  pier image\n\nRun 'pier image --help' for more information"),  # noqa: E501
        ("compose up", "pier: 'pier compose' is not implemented by Pier yet"),
        ("plugin ls", "pier: 'pier plugin' is not implemented by Pier yet"),
        ("system dial-stdio", "pier: 'pier system dial-stdio' is not implemented by Pier yet"),
    ],
)  # fmt: skip
def test_unknown_and_absent_commands(words: str, text: str) -> None:
    with pytest.raises(Failure) as caught:
        entry.find(words.split(" "))
    assert (caught.value.text, caught.value.status) == (text, 1)


def isolated(code: str) -> str:
    start = f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); "
    done = subprocess.run([sys.executable, "-IS", "-c", start + code], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_listing_containers_imports_nothing_heavy() -> None:
    code = (
        "from pier.cli.main import run\n"
        "try: run(['-H', 'unix:///nowhere', 'ps'])\n"
        "except Exception as e: print(type(e).__name__)\n"
        "print(*sorted(sys.modules))"
    )
    kind, modules = isolated(code).splitlines()
    assert kind == "Unreachable"
    assert not {name.partition(".")[0] for name in modules.split(" ")} & HEAVY


@pytest.mark.parametrize(
    ("words", "status", "out", "err"),
    [
        (["-v"], 0, "Pier version ", ""),
        (["--help"], 0, "Usage:  pier [OPTIONS] COMMAND", ""),
        ([], 0, "", "Usage:  pier [OPTIONS] COMMAND"),
        (["help", "ps"], 0, "Usage:  pier ps [OPTIONS]", ""),
        (["container", "--help"], 0, "Usage:  pier container COMMAND", ""),
        (["help", "nosuch"], 1, "", "unknown help topic: nosuch"),
        (["-l", "nosuch", "ps"], 1, "", "Unable to parse logging level: nosuch"),
        (["ps", "--nosuch"], 125, "", "unknown flag: --nosuch"),
    ],
)
def test_the_process_ends_with_output_and_status(
    words: list[str],
    status: int,
    out: str,
    err: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Ended(BaseException):
        pass

    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(entry.os, "_exit", end)
    with pytest.raises(Ended) as caught:
        entry.main(words)
    written = capfd.readouterr()
    assert caught.value.args == (status,)
    assert written.out.startswith(out)
    assert bool(written.out) == bool(out)
    assert written.err.startswith(err)
    assert bool(written.err) == bool(err)


def test_the_reference_is_what_the_tables_say() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "cli_reference.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ('exec: "x": executable file not found in $PATH', 127),
        ("stat /x: no such file or directory", 127),
        ('exec: "/etc": is a directory: permission denied', 126),
        ("exec format error", 126),
        ("Conflict. The name is in use", 125),
    ],
)
def test_exit_status_of_a_failed_start(message: str, status: int) -> None:
    assert start_status(message) == status


def test_trap_02_the_banner_names_the_keys() -> None:
    assert "Detach with ctrl-p,ctrl-q" in banner(tty=True, stdin=True, proxy=True, keys="")
    assert "Detach with ctrl-x" in banner(tty=True, stdin=True, proxy=True, keys="ctrl-x")
    assert "--sig-proxy=false" in banner(tty=False, stdin=False, proxy=True, keys="")
    assert "the container goes on" in banner(tty=False, stdin=False, proxy=False, keys="")


@pytest.mark.parametrize(
    ("state", "start"),
    [({"Running": False}, "You cannot attach to a stopped"), ({"Running": True, "Paused": True}, "You cannot attach to a paused"),  # noqa: E501
     ({"Running": True, "Restarting": True}, "You cannot attach to a restarting"), ({"Running": True}, "")],
)  # fmt: skip
def test_what_cannot_be_attached_to(state: dict[str, bool], start: str) -> None:
    assert cannot_attach(state).startswith(start)
    assert bool(cannot_attach(state)) == bool(start)


@pytest.mark.parametrize(
    ("status", "facts", "words"),
    [
        (0, {"Path": "true"}, "its command was done"),
        (0, {"Path": "/bin/sh", "Args": [], "Config": {"OpenStdin": False}}, "add -it"),
        (0, {"Path": "sh", "Args": ["-c", "x"]}, "its command was done"),
        (127, {}, "was not found"),
        (126, {}, "cannot be executed"),
        (137, {"State": {"OOMKilled": True}}, "ran out of memory"),
        (139, {}, "SIGSEGV"),
        (4, {"Path": "x"}, "its command failed"),
    ],
)
def test_trap_04_likely_causes(status: int, facts: dict[str, object], words: str) -> None:
    assert words in cause(status, facts)
    assert describe("a" * 64, status, facts, ["x"])[:3] == [
        f"Note: container {'a' * 12} has exited already, with code {status}.",
        "Its last words:",
        "  x",
    ]


def test_full_names() -> None:
    assert full_name("busybox:1") == "docker.io/library/busybox:1"
    assert full_name("a/b:1") == "docker.io/a/b:1"
    assert full_name("h:5000/b:1") == "h:5000/b:1"
