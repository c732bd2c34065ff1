"""Attack 27: nothing that a local user can place runs inside the commands."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
TOOL = ROOT / "tools" / "launchers.py"

PROBE = """
import json, sys
def main():
    print(json.dumps({"path": sys.path, "modules": sorted(sys.modules), "argv": sys.argv[1:]}))
    return 7
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder with the commands, that call probes in place of Pier."""
    for module in ("cli/main.py", "api/daemon.py", "runtime/command/entry.py"):
        path = tmp_path / "code" / "pier" / module
        path.parent.mkdir(parents=True)
        path.write_text(PROBE)
        (path.parent / "__init__.py").touch()
    (tmp_path / "code" / "pier" / "__init__.py").touch()
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "evil.pth").write_text("import os; os.write(1, b'owned by .pth')\n")
    write_launchers(sys.executable, tmp_path)
    return tmp_path


def write_launchers(python: str, root: Path) -> None:
    (root / "bin").mkdir(exist_ok=True)
    folders = ["--bin", str(root / "bin"), "--code", str(root / "code"), "--packages", str(root / "packages")]
    subprocess.run([sys.executable, str(TOOL), "--python", python, *folders], check=True)


@pytest.mark.parametrize("command", ["pier", "pierd", "pier-runtime"])
def test_attack_27_hostile_surroundings_do_not_run(installed: Path, command: str, tmp_path: Path) -> None:
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    bomb = "import os; os.write(1, b'owned by ' + __name__.encode() + b'\\n')\n"
    for name in ("json", "sitecustomize", "usercustomize", "os", "pier", "encodings"):
        (hostile / f"{name}.py").write_text(bomb)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    user_site = hostile / "home" / ".local" / "lib" / version / "site-packages"
    user_site.mkdir(parents=True)
    (user_site / "usercustomize.py").write_text(bomb)
    (user_site / "evil.pth").write_text("import os; os.write(1, b'owned by .pth')\n")
    environment = {
        **os.environ,
        "PYTHONPATH": str(hostile),
        "PYTHONHOME": str(hostile),
        "PYTHONSTARTUP": str(hostile / "json.py"),
        "PYTHONUSERBASE": str(hostile / "home" / ".local"),
        "PYTHONINSPECT": "1",
        "HOME": str(hostile / "home"),
    }
    done = subprocess.run(
        [installed / "bin" / command, "a b", "-c"],
        cwd=hostile,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stderr) == (7, "")
    assert "owned" not in done.stdout
    assert str(hostile) not in done.stdout
    assert '"argv": ["a b", "-c"]' in done.stdout
    for module in ("site", "sitecustomize", "usercustomize"):
        assert f'"{module}"' not in done.stdout


@pytest.mark.parametrize("name", ["with a blank", "x" * 200 + "/" + "y" * 100])
def test_an_interpreter_that_a_shebang_cannot_name(installed: Path, name: str) -> None:
    python = installed / name / "python3"
    python.parent.mkdir(parents=True)
    python.symlink_to(os.path.realpath(sys.executable))
    write_launchers(str(python), installed)
    done = subprocess.run([installed / "bin" / "pier", "x"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (7, "")


EXE = """
import os, json
def main():
    print(json.dumps([bool(os.statvfs("/proc/self/exe").f_flag & os.ST_RDONLY), os.stat("/proc/self/exe").st_ino]))
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or os.uname().machine != "x86_64", reason="needs root, and a launcher for x86-64")
def test_attack_01_the_runtimes_interpreter_is_on_a_read_only_mount_from_its_start(installed: Path) -> None:
    (installed / "code" / "pier" / "runtime" / "command" / "entry.py").write_text(EXE)
    before = Path("/proc/self/mountinfo").read_text()
    done = subprocess.run([installed / "bin" / "pier-runtime"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [True, os.stat(os.path.realpath(sys.executable)).st_ino]
    assert Path("/proc/self/mountinfo").read_text() == before


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to lose")
def test_who_may_not_mount_gets_the_runtime_all_the_same(installed: Path) -> None:
    without = ["setpriv", "--bounding-set=-sys_admin"]
    done = subprocess.run([*without, installed / "bin" / "pier-runtime"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (7, "")


def test_an_interpreter_that_is_gone_is_said(installed: Path) -> None:
    write_launchers("/nosuch/python3", installed)
    done = subprocess.run([installed / "bin" / "pier-runtime"], capture_output=True, text=True, check=False)
    assert done.returncode in (126, 127)
    assert "/nosuch/python3" in done.stderr


def test_the_installed_commands_are_ours(tmp_path: Path) -> None:
    """The commands of this environment, where `make` wrote them, start isolated and without `site`."""
    for command in ("pier", "pierd"):
        path = Path(sysconfig.get_path("scripts"), command)
        if not path.exists():
            pytest.skip("not installed by make")
        assert " -IS\n" in path.read_text()


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_locks_name_hashes_and_no_host(lock: str) -> None:
    lines = (ROOT / lock).read_text().splitlines()
    assert not [line for line in lines if "://" in line or line.startswith(("-", "--"))]
    starts = [number for number, line in enumerate(lines) if "==" in line and not line.startswith(" ")]
    assert starts
    assert all(lines[number + 1].startswith("    --hash=sha256:") for number in starts)
