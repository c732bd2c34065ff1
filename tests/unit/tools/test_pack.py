"""The file that `pier-runtime` loads its modules from: the same modules, and only while it is that of the sources."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pier.runtime.command import packed
from pier.runtime.command.flags import VERBS

sys.path.append(str(Path(__file__).resolve().parents[3] / "tools"))
from launchers import pack_of, runtime_code

ROOT = Path(__file__).resolve().parents[3]
LATER = {"pier.runtime.command.filter_cache", "pier.runtime.command.hooks", "pier.runtime.group"}
PACKED = "pier.runtime.command.packed"
ROOTS = sorted({f"pier.runtime.command.{verb.module}" for verb in VERBS.values()} | LATER)

PROBE = """
def main():
    import json, sys
    from pier.runtime import stand_ins
    stand_ins.install(late=True)
    for root in ["pier.runtime.command.main", *sys.argv[1:]]:
        __import__(root)
    import pier.errors
    kinds, found = [pier.errors.PierError], {}
    for kind in kinds:
        kinds += kind.__subclasses__()
        found[kind.__module__ + "." + kind.__qualname__] = kind.__doc__
    modules = {name: module for name, module in sys.modules.items() if name.startswith("pier")}
    print(json.dumps({
        "from_pack": sorted(name for name, module in modules.items() if module.__spec__ is None
                            or type(module.__loader__).__name__ == "_Finder"),
        "names": {name: sorted(set(vars(module)) - {"annotations", "__cached__", "__builtins__"})
                  for name, module in modules.items()},
        "files": {name: module.__file__ for name, module in modules.items()},
        "all": sorted(name for name, module in sys.modules.items() if module),
        "messages": found,
    }))
"""
"""In place of `pier.runtime.command.entry`: what there is once some modules are loaded."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources with a probe for an entry, and their pack."""
    code = tmp_path_factory.mktemp("packed") / "code"
    for room in ("kernel", "runtime"):
        shutil.copytree(ROOT / "src/pier" / room, code / "pier" / room, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (ROOT / "src/pier").glob("*.py"):
        shutil.copy2(path, code / "pier")
    (code / "pier/runtime/command/entry.py").write_text(PROBE)
    make(code)
    return code


@pytest.fixture
def code(template: Path) -> Iterator[Path]:
    """The same; whatever a test changes of it is put back."""
    paths = [*template.rglob("*.py"), pack(template)]
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}
    yield template
    for path, (mtime_ns, content) in before.items():
        if not path.exists() or (path.stat().st_mtime_ns, path.read_bytes()) != (mtime_ns, content):
            path.write_bytes(content)
            os.utime(path, ns=(mtime_ns, mtime_ns))


def make(code: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(code)}
    subprocess.run([sys.executable, "-X", "no_debug_ranges", ROOT / "tools/pack.py"], env=environment, check=True)


def pack(code: Path) -> Path:
    return Path(pack_of(str(code), sys.implementation.cache_tag))


def load(code: Path, *roots: str) -> dict[str, Any]:
    argv = [sys.executable, "-IS", "-c", runtime_code(str(code)), *roots]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("root", ROOTS)
def test_packed_modules_are_the_modules(code: Path, root: str) -> None:
    there = load(code, root)
    pack(code).unlink()
    plain = load(code, root)
    assert plain["from_pack"] == []
    assert there["from_pack"] == sorted(there["files"])
    assert set(there["files"]) - set(plain["files"]) == {PACKED}
    for key in ("names", "files", "messages"):
        assert {name: value for name, value in there[key].items() if name != "pier.runtime.command.packed"} == plain[
            key
        ]
    # Looking for a module in folders takes what nobody needs who has a pack.
    assert set(there["all"]) - set(plain["all"]) <= {PACKED, "posix"}


def edited(code: Path, name: str) -> None:
    path = code / f"{name.replace('.', '/')}.py"
    path.write_text(path.read_text() + "\n")


def touched(code: Path, name: str) -> None:
    path = code / f"{name.replace('.', '/')}.py"
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))


@pytest.mark.parametrize("change", [edited, touched])
@pytest.mark.parametrize("name", ["pier.errors", "pier.runtime.command.main", "pier.runtime.command.listing"])
def test_a_changed_source_counts(code: Path, name: str, change: Callable[[Path, str], None]) -> None:
    change(code, name)
    found = load(code, "pier.runtime.command.listing")
    assert name not in found["from_pack"]
    assert "pier.runtime.command.entry" in found["from_pack"]  # what has not changed with it still comes from the pack


@pytest.mark.parametrize("name", ["pier.runtime.command.entry", "pier.runtime.command.packed"])
def test_a_change_in_the_first_modules_makes_the_pack_useless(code: Path, name: str) -> None:
    touched(code, name)
    assert load(code, "pier.runtime.command.listing")["from_pack"] == []


def of_another_interpreter(path: Path) -> None:
    path.write_bytes(b"3.11.99 (main)" + path.read_bytes())


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [of_another_interpreter, a_folder, empty, Path.unlink])
def test_a_file_that_is_no_pack_for_this_interpreter_is_passed_over(code: Path, damage: Callable[[Path], None]) -> None:
    damage(pack(code))
    assert load(code, "pier.runtime.command.listing")["from_pack"] == []
    if pack(code).is_dir():
        pack(code).rmdir()


def test_another_file_in_its_place_is_not_read_as_the_first_one(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finder = packed._Finder(str(pack(code)), {"pier.runtime.command.main": (packed.HEAD_MAX, 1000)})
    fresh = pack(code).with_name("fresh")
    shutil.copy(pack(code), fresh)
    fresh.replace(pack(code))
    assert finder.find_spec("pier.runtime.command.main") is None


def test_a_module_that_fails_is_not_left_behind() -> None:
    text = compile("raise KeyError('no')", "failing", "exec")
    with pytest.raises(KeyError, match="no"):
        packed._run([("failing_module", packed.CODE, (None, text))])
    assert "failing_module" not in sys.modules


def test_no_descriptor_stays_open(code: Path) -> None:
    (code / "pier/runtime/command/entry.py").write_text(
        "import os\ndef main():\n    print(os.listdir('/proc/self/fd'))\n"
    )
    make(code)
    argv = [sys.executable, "-IS", "-c", runtime_code(str(code))]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    assert sorted(eval(done.stdout)) == ["0", "1", "2", "3"]
