"""The zygote's light modules against the real ones."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pier.runtime import stand_in_ctypes, stand_ins
from pier.runtime.monitor.trace import describe

SOURCE = Path(__file__).resolve().parents[3] / "src"
DECLARATIONS = """
from typing import Any, NamedTuple
from dataclasses import dataclass, field

class Point(NamedTuple):
    x: int
    y: int = 2
    def total(self): return self.x + self.y

@dataclass(frozen=True, slots=True)
class Box:
    name: str
    points: list = field(default_factory=list)
    lid: bool = False
"""


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `DECLARATIONS` declares where the stand-ins are in place."""
    for module in (stand_ins._typing(), stand_ins._dataclasses()):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    namespace: dict[str, Any] = {"__name__": "declared"}
    # As the zygote's modules are: annotations stay text.
    exec("from __future__ import annotations\n" + DECLARATIONS, namespace)
    return namespace


def test_named_tuple(declared: dict[str, Any]) -> None:
    point = declared["Point"](1)
    assert point == declared["Point"](y=2, x=1) == (1, 2)
    assert (point.x, point.y, point.total()) == (1, 2, 3)
    assert point._replace(y=5) == (1, 5)
    with pytest.raises(AttributeError):
        point.x = 3
    match point:
        case (x, y):
            assert (x, y) == (1, 2)


@pytest.mark.parametrize(("values", "named"), [((), {}), ((1, 2, 3), {}), ((1,), {"x": 1}), ((1,), {"z": 1})])
def test_named_tuple_refuses_other_fields(declared: dict[str, Any], values: tuple[Any, ...], named: Any) -> None:
    with pytest.raises(TypeError, match="field"):
        declared["Point"](*values, **named)


def test_dataclass(declared: dict[str, Any]) -> None:
    box, other = declared["Box"]("a", lid=True), declared["Box"](name="b")
    assert (box.name, box.points, box.lid, other.lid) == ("a", [], True, False)
    assert box.points is not other.points


@pytest.mark.parametrize(
    ("values", "named"), [((), {}), (("a", [], True, 1), {}), (("a",), {"colour": 1}), (("a",), {"name": "b"})]
)
def test_dataclass_refuses_other_fields(declared: dict[str, Any], values: tuple[Any, ...], named: Any) -> None:
    with pytest.raises(TypeError, match="field"):
        declared["Box"](*values, **named)


LIGHT, REAL = stand_ins._contexts(), contextlib


def story(contexts: Any, inside: BaseException | None, at_exit: BaseException | None, swallow: bool) -> list[str]:
    """What happens, step by step, in a block of each kind of context manager."""
    steps: list[str] = []

    @contexts.contextmanager  # type: ignore[untyped-decorator]
    def managed(name: str) -> Iterator[str]:
        steps.append(f"enter {name}")
        try:
            yield name
        except KeyError:
            steps.append(f"{name} saw a KeyError")
            if not swallow:
                raise
        finally:
            steps.append(f"leave {name}")
            if at_exit is not None and name == "b":
                raise at_exit

    class Thing:
        def close(self) -> None:
            steps.append("closed")

    try:
        with contexts.ExitStack() as stack:
            steps.append(stack.enter_context(managed("a")))
            steps.append(stack.enter_context(managed("b")))
            stack.enter_context(contexts.closing(Thing()))
            stack.callback(steps.append, "called")
            stack.enter_context(contexts.suppress(IndexError))
            if inside is not None:
                raise inside
        steps.append("went on")
    except BaseException as error:
        steps.append(f"raised {error!r}")
    return steps


@pytest.mark.parametrize("inside", [None, KeyError("k"), IndexError("i"), ValueError("v"), SystemExit(3)])
@pytest.mark.parametrize("at_exit", [None, OSError("late"), KeyError("late")])
@pytest.mark.parametrize("swallow", [False, True])
def test_contexts_do_what_the_real_ones_do(
    inside: BaseException | None, at_exit: BaseException | None, swallow: bool
) -> None:
    assert story(LIGHT, inside, at_exit, swallow) == story(REAL, inside, at_exit, swallow)


def test_a_cache_calls_once() -> None:
    calls: list[int] = []
    double = stand_ins._functions().cache(lambda number: calls.append(number) or number * 2)
    assert (double(2), double(2), calls) == (4, 4, [2])
    double.cache_clear()
    assert (double(2), calls) == (4, [2, 2])


@pytest.mark.parametrize("value", [None, {"a": [1, 2.5, True, "\u2028é\x00"]}, [], "text", -1])
def test_json_says_what_the_real_one_says(value: Any) -> None:
    light = stand_ins._json_modules()[0]
    text = light.dumps(value, separators=(",", ":"))
    assert text == json.dumps(value, separators=(",", ":"))
    assert light.loads(text) == light.loads(text.encode()) == value


@pytest.mark.parametrize("text", ["", "{", '{"a":1}}', "[1,]", '"\n"'])
def test_json_refuses_what_the_real_one_refuses(text: str) -> None:
    # In a process of its own: `_json` looks for the error's class among the loaded modules.
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pier.runtime import stand_ins; stand_ins.install()\n"
        "import json\n"
        "try: json.loads(sys.argv[2])\n"
        "except ValueError: sys.exit(7)"
    )
    assert subprocess.run([sys.executable, "-IS", "-c", code, SOURCE, text], check=False).returncode == 7


C_TYPES = [name for name in stand_in_ctypes.__all__ if name.startswith("c_")]


@pytest.mark.parametrize("name", C_TYPES)
def test_c_types_hold_what_the_real_ones_hold(name: str) -> None:
    light, real = getattr(stand_in_ctypes, name), getattr(ctypes, name)
    assert (light._type_, ctypes.sizeof(light)) == (real._type_, ctypes.sizeof(real))


def test_libraries_are_called_as_by_the_real_ones() -> None:
    light = stand_in_ctypes
    libc = light.CDLL(None, use_errno=True)
    assert libc.getpid() == os.getpid()
    assert libc.close(light.c_int(-1)) == -1
    assert light.get_errno() == errno.EBADF
    by_name = light.CFUNCTYPE(light.c_long, light.c_char_p, use_errno=True)(("strlen", libc))
    assert by_name(b"four") == 4
    with pytest.raises(ctypes.ArgumentError):
        by_name(4)
    with pytest.raises(AttributeError):
        _ = libc.nosuchfunction
    assert (light.create_string_buffer(3).raw, light.create_string_buffer(b"ab").raw) == (b"\0\0\0", b"ab\0")
    for init, size in ((b"ab", 2), (b"a\0b", 3), (b"a", 4)):
        assert light.create_string_buffer(init, size).raw == ctypes.create_string_buffer(init, size).raw


def test_a_late_stand_in_is_made_when_it_is_looked_at() -> None:
    made: list[int] = []

    def make() -> ModuleType:
        made.append(1)
        return stand_ins._functions()

    module = stand_ins._late("functools", make)
    assert (hasattr(module, "__path__"), made) == (False, [])
    assert (module.partial, module.cache, made) == (stand_ins._functions().partial, module.cache, [1])
    with pytest.raises(AttributeError):
        _ = module.reduce


def test_sockets_are_sockets() -> None:
    light = stand_ins._sockets()
    one, other = light.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        one.send(b"x")
        assert other.recv(1) == b"x"


HEAVY = {"asyncio", "inspect", "enum", "re", "subprocess", "traceback", "logging", "keyword", "reprlib"}


@pytest.mark.parametrize("module", ["pier.runtime.zygote", "pier.runtime.command.start"])
def test_the_zygote_and_the_command_line_are_spared_the_heavy_modules(module: str) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pier.runtime import stand_ins; stand_ins.install()\n"
        f"import {module}\n"
        f"print(*sorted({HEAVY} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-IS", "-c", code, SOURCE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_traceback_without_the_module() -> None:
    try:
        int("x")
    except ValueError as error:
        lines = describe(error).splitlines()
    assert "test_a_traceback_without_the_module" in lines[0]
    assert lines[-1].startswith("ValueError: invalid literal")
