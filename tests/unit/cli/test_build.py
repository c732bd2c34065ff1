"""`pier build` without a daemon: what is sent, what is shown."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pier.cli import build_progress, build_sync
from pier.cli.build_context import LARGE_BYTES, Context
from pier.cli.build_progress import Plain, RawJson, Terminal
from pier.cli.errors import ApiError, Failure
from pier.cli.verbs.build import called_as_given, context_of, secrets_of

S = 10**9


def sent(folder: Path, dockerfile: str = "Dockerfile", **more: Any) -> dict[str, tarfile.TarInfo]:
    raw = b"".join(Context(str(folder), dockerfile, **more).chunks())
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        return {entry.name: entry for entry in archive}


def tree(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


@pytest.mark.parametrize(
    ("ignore", "expected"),
    [
        ("", ["a/b", "a/c.o", "x.o"]),
        ("*.o", ["a/b", "a/c.o"]),
        ("**/*.o", ["a/b"]),
        ("a\n!a/b", ["a/b", "x.o"]),
        ("a", ["x.o"]),
        ("*", []),
        ("*\n!x.o", ["x.o"]),
    ],
)
def test_what_dockerignore_leaves_out_is_not_sent(tmp_path: Path, ignore: str, expected: list[str]) -> None:
    tree(tmp_path, "Dockerfile", "a/b", "a/c.o", "x.o")
    (tmp_path / ".dockerignore").write_text(ignore)
    found = sent(tmp_path)
    assert [name for name, entry in found.items() if entry.isreg() and name not in ("Dockerfile", ".dockerignore")] == (
        expected
    )
    assert {"Dockerfile", ".dockerignore"} <= set(found)
    assert {entry.uid for entry in found.values()} == {0}


def test_the_dockerfiles_own_ignore_file_counts_first(tmp_path: Path) -> None:
    tree(tmp_path, "sub/Dockerfile", "a", "b")
    (tmp_path / ".dockerignore").write_text("a")
    (tmp_path / "sub/Dockerfile.dockerignore").write_text("b")
    assert "b" not in sent(tmp_path, "sub/Dockerfile")
    assert "a" in sent(tmp_path, "sub/Dockerfile")


def test_a_dockerfile_outside_its_context_goes_with_it(tmp_path: Path) -> None:
    tree(tmp_path, "context/a", "elsewhere/Other")
    found = context_of(str(tmp_path / "context"), str(tmp_path / "elsewhere/Other"))
    assert isinstance(found, Context)
    assert sent(tmp_path / "context", found.dockerfile, outside=found.outside)[found.dockerfile].size == 15


def test_a_dockerfile_from_elsewhere_is_called_as_it_was_given(tmp_path: Path) -> None:
    path = str(tmp_path / 'El"se')
    Path(path).write_text("FROM x\n")
    (tmp_path / "context").mkdir()
    context = context_of(str(tmp_path / "context"), path)
    assert isinstance(context, Context)
    [told] = called_as_given([json.dumps({"stream": f"{context.dockerfile}:1:1"}).encode()], context)
    assert json.loads(told) == {"stream": f"{path}:1:1"}
    assert [*called_as_given([b"{}"], None)] == [b"{}"]


def test_trap_23_large_files_that_are_sent_are_named(tmp_path: Path) -> None:
    with open(tmp_path / "big", "wb") as file:
        file.truncate(LARGE_BYTES + 1)
    context = Context(str(tmp_path), "Dockerfile")
    for _ in context.chunks():
        pass
    text = build_progress.summary(build_progress.Progress(), 1.0, context.sent_bytes, context.large)
    assert "large files were sent: big (10.49MB); .dockerignore can leave them out" in text


def test_a_context_that_is_not_there() -> None:
    with pytest.raises(Failure, match='path "/nowhere" not found'):
        context_of("/nowhere", "")


def events() -> list[dict[str, Any]]:
    def step(id: str, name: str, at: int, **more: Any) -> dict[str, Any]:
        return {"id": id, "name": name, "at": at, "line": 1, **more}

    return [
        {"started": step("1", "FROM busybox", 0, cached=False)},
        {"finished": step("1", "FROM busybox", S // 2, cached=True, error="")},
        {"started": step("2", "RUN make", S, cached=False)},
        {"counted": {"id": "2", "what": "layer", "action": "", "current": 1, "total": 2, "done": False}},
        {"printed": {"id": "2", "stream": 1, "text": "hel"}},
        {"printed": {"id": "2", "stream": 1, "text": "lo\nend"}},
        {"finished": step("2", "RUN make", 3 * S, cached=False, error="")},
        {"started": step("3", "RUN test", 3 * S, cached=False)},
        {"printed": {"id": "3", "stream": 2, "text": "bad\n"}},
        {"warned": {"text": "careful", "detail": [], "url": ""}},
        {"finished": step("3", "RUN test", 4 * S, cached=False, error="exit code: 1")},
    ]


def shown(kind: type[build_progress.Progress]) -> tuple[str, build_progress.Progress]:
    reader, writer = os.pipe()
    progress = kind(writer)
    for event in events():
        progress.take(event)
    progress.close()
    os.close(writer)
    with open(reader, encoding="utf-8") as file:
        return file.read(), progress


def test_wish_06_each_step_ends_with_its_seconds_and_output_stays() -> None:
    text, progress = shown(Plain)
    assert text.splitlines() == [
        "#1 FROM busybox",
        "#1 CACHED 0.5s",
        "",
        "#2 RUN make",
        "#2 hello",
        "#2 end",
        "#2 DONE 2.0s",
        "",
        "#3 RUN test",
        "#3 bad",
        "WARNING: careful",
        "#3 ERROR 1.0s: exit code: 1",
        "",
    ]
    assert build_progress.summary(progress, 4.0, 2048, []).splitlines() == [
        "built in 4.0s, 3 steps, 1 of them cached, 2.048kB sent",
        "slowest: 2.0s RUN make; 1.0s RUN test",
    ]


def test_on_a_terminal_what_has_ended_stays_above_what_moves() -> None:
    text, _ = shown(Terminal)
    last = text.rpartition("\x1b[J")[2]
    assert " x RUN test" in last
    assert last.endswith("     bad\n")
    assert " + RUN make" in text
    assert "     hello\n     end\n" in text


def test_raw_events() -> None:
    text, _ = shown(RawJson)
    assert len(text.splitlines()) == len(events())


def test_a_failure_shows_output_and_the_marked_line() -> None:
    _, progress = shown(Plain)
    text = build_progress.failure(progress, {"message": "x", "step": "3", "excerpt": "Dockerfile:3\n  3 | >>> RUN"})
    assert text.splitlines() == ["------", " > RUN test:", "bad", "------", "Dockerfile:3", "  3 | >>> RUN"]


def test_secrets_of_files_and_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("s")
    monkeypatch.setenv("TOKEN", "t")
    assert secrets_of([f"id=a,src={tmp_path}/key", "id=b,env=TOKEN", "id=TOKEN"]) == {
        "a": "cw==",
        "b": "dA==",
        "TOKEN": "dA==",
    }
    with pytest.raises(Failure, match="invalid secret"):
        secrets_of(["src=x"])


def test_a_daemon_that_is_another_than_piers_is_called_so(tmp_path: Path) -> None:
    class Docker:
        def request(self, *_: Any, **__: Any) -> None:
            raise ApiError(500, "Cannot locate specified Dockerfile: Dockerfile")

    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    with pytest.raises(Failure, match="another than Pier's"):
        build_sync.build(cast(Any, SimpleNamespace(client=Docker())), Context(str(tmp_path), "Dockerfile"), {}, {}, ())
