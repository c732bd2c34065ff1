"""Every field of config.json with what does not belong there: the schema is walked, so that none can be forgotten.

First by the schema alone; then what passes it is given to `create`: one line that names the field, or a container.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pier.kernel.cgroup_layout import detect
from pier.runtime.command import schema
from pier.runtime.command.bundle import SPEC
from pier.runtime.command.schema import Array, BadField, Check, Integer, Keyed, OneOf, Structure

from ..bundles import Bench, a_bench
from ..conftest import CGROUP_PARENT

Path_ = tuple[str | int, ...]
"""`("mounts", 0, "options")`"""


def walk(check: Check, path: Path_ = ()) -> Iterator[tuple[Path_, Check]]:
    """Every place of a document, with what is checked there."""
    yield path, check
    if isinstance(check, Structure):
        for key, inner in check.fields.items():
            yield from walk(inner, (*path, key))
    elif isinstance(check, Array):
        yield from walk(check.item, (*path, 0))
    elif isinstance(check, Keyed):
        yield from walk(check.item, (*path, "key"))


PLACES = dict(walk(SPEC))
STRINGS = (schema.text, schema.name, schema.absolute)


def written(path: Path_) -> str:
    """As messages write it."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def sample(check: Check) -> Any:
    """The plainest value that passes, with what is required in it."""
    if isinstance(check, Structure):
        return {key: sample(check.fields[key]) for key in check.required}
    if isinstance(check, Array):
        return []
    if isinstance(check, Keyed):
        return {}
    if isinstance(check, Integer):
        return max(check.allowed.start, 0)
    if isinstance(check, OneOf):
        return sorted(check.words)[0]
    return False if check is schema.boolean else "/x"


def document(path: Path_, value: Any) -> Any:
    """A configuration that is right everywhere but at `path`."""
    made: Any = sample(SPEC)
    place = made
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        inner = value if last else sample(PLACES[path[: depth + 1]])
        if isinstance(part, int):
            place.append(inner)
        elif last or part not in place:
            place[part] = inner
        place = place[part]
    return made


HOSTILE: list[Any] = [
    True, 0, -1, 7, 2**31, 2**63, 2**64, 10**400, 1.5, -0.0, float("inf"), "", "text", "a\0b", "\ud800", "x" * 200_000,
    "..", "/a/../../b", "../../etc", "/", "a\nb", [], {}, [[]], [{}], [None], ["a", 3], [True], {"a": None}, {"a": {}},
    {"": ""}, {"a\nb": "c"}, {"\ud800": "x"}, [0] * 70_000,
]  # fmt: skip


def fits(check: Check, value: Any) -> bool:
    """Whether a value is at least of the kind of JSON that belongs in a place."""
    if value is None:
        return True
    if isinstance(check, (Structure, Keyed)):
        return isinstance(value, dict)
    if isinstance(check, Array):
        return isinstance(value, list)
    if isinstance(check, Integer):
        return isinstance(value, int) and not isinstance(value, bool)
    if check is schema.boolean:
        return isinstance(value, bool)
    assert check in STRINGS or isinstance(check, OneOf)
    return isinstance(value, str)


def test_the_schema_has_the_fields_of_runtime_spec() -> None:
    assert len(PLACES) > 200
    for path in ("process.scheduler.flags[0]", "linux.resources.blockIO.weightDevice[0].leafWeight", "domainname"):
        assert path in {written(place) for place in PLACES}


@pytest.mark.parametrize("path", PLACES, ids=written)
def test_every_field_refuses_what_does_not_belong_there(path: Path_) -> None:
    if path:
        SPEC(document(path, sample(PLACES[path])), "")
    for value in HOSTILE:
        try:
            SPEC(document(path, value) if path else value, "")
        except BadField as error:
            text = str(error)
            assert text.startswith(written(path)) or not path
            assert "\n" not in text
            assert len(text) < 1000
        else:
            assert fits(PLACES[path], value), f"{value!r} passed"


# --- with a runtime --------------------------------------------------------------------------------------------------


@pytest.fixture
def bench(tmp_path: Path, busybox_root: Path) -> Iterator[Bench]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    # A copy: places that a configuration names are made in it.
    root = shutil.copytree(busybox_root, tmp_path / "rootfs", symlinks=True)
    yield from a_bench(tmp_path, root)


TEXTS = ["", "/nosuch/x", "a\nb" + "x" * 5000]


def passing(path: Path_) -> Iterator[Any]:
    """Values that the schema lets through, and that may still be impossible."""
    check = PLACES[path]
    if isinstance(check, Integer):
        candidates: list[Any] = [check.allowed.start, check.allowed.stop - 1]
    elif isinstance(check, OneOf):
        candidates = sorted(check.words)[:2]
    elif check is schema.boolean:
        candidates = [True, False]
    elif check in STRINGS:
        candidates = TEXTS
    else:
        candidates = [[], {}]
    for value in candidates:
        try:
            check(value, "")
        except BadField:
            continue
        yield value


LEFT_OUT = {
    # Values that would do to this machine what they say.
    ("process", "scheduler"),
    # The test's own: the folder of the container, and where its cgroup is.
    ("linux", "cgroupsPath"),
    ("root", "path"),
    # As the other kinds of hooks.
    ("hooks", "prestart"),
    ("hooks", "startContainer"),
    ("hooks", "poststart"),
}
FIELDS = [
    path
    for path, check in PLACES.items()
    if path and not isinstance(check, Structure) and not any(path[: len(out)] == out for out in LEFT_OUT)
]
SECTIONS = sorted({path[:3] if path[:2] == ("linux", "resources") else path[:2] for path in FIELDS}, key=written)


def put(spec: dict[str, Any], path: Path_, value: Any) -> None:
    """Put a value into a configuration that can be run, with what its surroundings need."""
    place: Any = spec
    for depth, part in enumerate(path):
        inner = value if depth == len(path) - 1 else sample(PLACES[path[: depth + 1]])
        if isinstance(part, int):
            if depth == len(path) - 1 or not place:
                place[:] = [inner]
        elif depth == len(path) - 1 or part not in place:
            place[part] = inner
        place = place[part]


def cgroups_left() -> list[Path]:
    return [path for mount in detect().hierarchies for path in Path(f"{mount}{CGROUP_PARENT}").glob("field*")]


@pytest.mark.root
@pytest.mark.parametrize("section", SECTIONS, ids=written)
def test_every_field_that_passes_the_schema_makes_a_container_or_a_sentence(bench: Bench, section: Path_) -> None:
    for path in (path for path in FIELDS if path[: len(section)] == section):
        for value in passing(path):
            bench.spec = bench.fresh_spec()
            put(bench.spec, path, value)
            told = f"{written(path)} = {str(value)[:60]!r}"
            result = bench.make("create", "field")
            assert result.code in (0, 1), told
            assert "Traceback" not in result.err, told
            errors = [line for line in result.err.splitlines() if "level=error" in line]
            if result.code:
                assert len(errors) == 1, f"{told}: {result.err}"
                assert len(result.err) < 20_000, told
                assert not (bench.root / "field").exists(), told
                assert cgroups_left() == [], told
            else:
                assert errors == [], told
                assert bench.call("delete", "--force", "field").code == 0, told
            assert str(bench.folder) not in Path("/proc/self/mountinfo").read_text(), told
