"""The daemon's keys `runtimes` and `default-runtime`: what they mean, and the words of their refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pier.containers.oci_runtimes import OciRuntime, OciRuntimes, RuntimeMissing, UnknownRuntime
from pier.engine import config, flags
from pier.engine.runtimes import FEATURES_KEY, About, RuntimeEntry, entries, features, problem
from pier.engine.values import BadValue


def entry(**fields: Any) -> RuntimeEntry:
    return msgspec.convert(fields, RuntimeEntry)


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("runc", {"path": "/x"}, "runtime name 'runc' is reserved"),
        ("pier", {"path": "/x"}, "runtime name 'pier' is reserved"),
        ("a", {}, "runtime a: either a runtimeType or a path must be configured"),
        ("a", {"path": "x", "runtimeType": "y"},
         "runtime a: cannot configure both path and runtimeType for the same runtime"),
        ("a", {"path": "x", "options": {"b": 1}}, "runtime a: options cannot be used with a path runtime"),
        ("a", {"runtimeType": "x", "runtimeArgs": ["y"]}, "runtime a: args cannot be used with a runtimeType runtime"),
        ("a", {"runtimeType": "io.containerd.runsc.v1"}, "is a containerd shim, and Pier has no containerd"),
        ("a", {"runtimeType": "io.containerd.runc.v2", "options": {"SystemdCgroup": True}}, "not SystemdCgroup"),
        ("a", {"runtimeType": "io.containerd.runc.v2", "options": {"BinaryName": 3}}, "BinaryName must be a path"),
    ],
)  # fmt: skip
def test_refused(name: str, fields: dict[str, Any], words: str) -> None:
    assert words in problem({name: entry(**fields)}, "pier")


def test_entries() -> None:
    shim = {"runtimeType": "io.containerd.runc.v2", "options": {"BinaryName": "/opt/crun"}}
    runtimes = {"a": entry(path="x", runtimeArgs=["--y"]), "b": entry(**shim)}
    assert problem(runtimes, "b") == ""
    assert entries(runtimes) == {"a": OciRuntime("x", ("--y",)), "b": OciRuntime("/opt/crun")}


def test_default_must_exist() -> None:
    assert problem({}, "zz") == "specified default runtime 'zz' does not exist"
    assert ("runc' does not exist (install runc" in problem({}, "runc")) == (shutil.which("runc") is None)


def test_flags_and_file_are_merged(tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    path.write_text(json.dumps({"runtimes": {"a": {"path": "/a"}, "b": {"path": "/b"}}, "default-runtime": "c"}))
    given = flags.read(["--config-file", str(path), "--add-runtime", "b=/other", "--add-runtime", "C=/c"])
    loaded = given.load()
    assert {name: item.path for name, item in loaded.config.runtimes.items()} == {"a": "/a", "b": "/other", "c": "/c"}
    assert loaded.config.default_runtime == "c"
    path.write_text(json.dumps({"runtimes": {"a": {"path": "/a", "colour": "red"}}}))
    with pytest.raises(config.BadConfigFile, match="colour"):
        given.load()


@pytest.mark.parametrize("text", ["x", "x=", "=/x", ""])
def test_flag_without_name_or_path(text: str) -> None:
    with pytest.raises(BadValue, match=f"invalid runtime argument: {text}"):
        flags.read(["--add-runtime", text])


def test_flag_given_twice() -> None:
    with pytest.raises(BadValue, match="runtime 'a' was already defined"):
        flags.read(["--add-runtime", "a=/x", "--add-runtime", "A=/y"])


def known(*names: str) -> OciRuntimes:
    return OciRuntimes("shell", {"shell": OciRuntime("/bin/sh", ("-e",))}, lambda path: path if path in names else None)


def test_names_and_commands() -> None:
    runtimes = known("/bin/sh", "runc")
    assert runtimes.name_for("") == "shell"
    assert runtimes.name_for("pier") == "pier"
    assert runtimes.name_for("io.containerd.runc.v2") == "io.containerd.runc.v2"
    assert runtimes.command("shell") == ["/bin/sh", "-e"]
    assert runtimes.command("") == runtimes.command("pier") == []
    with pytest.raises(UnknownRuntime, match="unknown or invalid runtime name: crun "):
        runtimes.name_for("crun")
    with pytest.raises(UnknownRuntime):
        known().name_for("runc")
    with pytest.raises(RuntimeMissing, match='exec: "/bin/sh": '):
        known().command("shell")


async def test_features_are_asked_for_once(tmp_path: Path) -> None:
    script = tmp_path / "runtime"
    script.write_text(f'#!/bin/sh\necho x >>{tmp_path}/calls\necho \'{{"ociVersionMin": "1.0.0"}}\'\n')
    script.chmod(0o755)
    about = About(OciRuntimes("a", {"a": OciRuntime(str(script)), "b": OciRuntime("/nonexistent")}))
    for _ in range(2):
        found = await about.all()
        assert found["a"].status == {FEATURES_KEY: '{"ociVersionMin":"1.0.0"}'}
        assert found["b"].status is None
        assert "ociVersionMax" in json.loads((found["pier"].status or {})[FEATURES_KEY])
    assert (tmp_path / "calls").read_text() == "x\n"


@pytest.mark.parametrize("script", ["echo no json", "exit 1", "echo []", "kill -9 $$"])
async def test_runtime_without_features(tmp_path: Path, script: str) -> None:
    path = tmp_path / "runtime"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    assert await features((str(path),)) is None
