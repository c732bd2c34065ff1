"""Paths below a hostile root: openat2 and the walker that stands in for it obey the same rules."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pier.kernel import paths
from pier.kernel.paths import (
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    mkdir_in_root,
    open_in_root,
    touch_in_root,
)

Open = Callable[..., int]
DEFAULT = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS


@pytest.fixture(params=["openat2", "walk"])
def open_below(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Open:
    if request.param == "walk":

        def refuse(*_: object, **__: object) -> int:
            raise OSError(errno.ENOSYS, "no openat2")

        monkeypatch.setattr(paths, "openat2", refuse)
    return open_in_root


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    inside = tmp_path / "root"
    (inside / "etc").mkdir(parents=True)
    (inside / "etc" / "passwd").write_text("inside")
    (inside / "var").mkdir()
    (inside / "var" / "run").symlink_to("/run")
    (inside / "run").mkdir()
    (inside / "run" / "pid").write_text("1")
    (inside / "up").symlink_to("../../../../etc")
    (inside / "loop").symlink_to("loop")
    (inside / "out").symlink_to(tmp_path / "secret")
    (inside / "dangling").symlink_to("new/place")
    (tmp_path / "secret").write_text("outside")
    fd = os.open(inside, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def read(fd: int) -> str:
    with os.fdopen(fd) as file:
        return file.read()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("etc/passwd", "inside"),
        ("/etc/passwd", "inside"),
        ("../../etc/passwd", "inside"),
        ("/var/run/pid", "1"),
        ("up/passwd", "inside"),
        ("./etc/../etc//passwd", "inside"),
    ],
)
def test_a_path_means_what_it_means_inside(open_below: Open, root: int, path: str, text: str) -> None:
    assert read(open_below(root, path, os.O_RDONLY)) == text


@pytest.mark.parametrize(
    ("path", "resolve", "number"),
    [
        ("out", DEFAULT, errno.ENOENT),
        ("loop", DEFAULT, errno.ELOOP),
        ("etc/passwd/x", DEFAULT, errno.ENOTDIR),
        ("nothing", DEFAULT, errno.ENOENT),
        ("../x", RESOLVE_BENEATH, errno.EXDEV),
        ("var/run/pid", RESOLVE_BENEATH, errno.EXDEV),
        ("up/passwd", RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS, errno.ELOOP),
    ],
)
def test_what_would_leave_the_root_fails(open_below: Open, root: int, path: str, resolve: int, number: int) -> None:
    with pytest.raises(OSError, match=r".") as caught:
        os.close(open_below(root, path, os.O_RDONLY, resolve=resolve))
    assert caught.value.errno == number


def test_magic_links_are_refused(open_below: Open) -> None:
    proc = os.open("/", os.O_PATH)
    held = os.open("/usr", os.O_PATH)
    try:
        for path in (f"/proc/self/fd/{held}", "/proc/self/cwd", "/proc/self/root/etc"):
            with pytest.raises(OSError, match=r".") as caught:
                os.close(open_below(proc, path, os.O_PATH))
            assert caught.value.errno == errno.ELOOP
        os.close(open_below(proc, "/proc/self/status", os.O_RDONLY))
    finally:
        os.close(proc)
        os.close(held)


def test_last_link_itself_with_nofollow(open_below: Open, root: int) -> None:
    fd = open_below(root, "out", os.O_PATH | os.O_NOFOLLOW)
    assert stat.S_ISLNK(os.fstat(fd).st_mode)
    os.close(fd)


def test_create(open_below: Open, root: int, tmp_path: Path) -> None:
    os.close(open_below(root, "/var/run/new", os.O_CREAT | os.O_WRONLY, 0o600))
    assert (tmp_path / "root" / "run" / "new").exists()
    with pytest.raises(FileExistsError):
        open_below(root, "/var/run/new", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)


def test_attack_07_mount_points_are_made_inside(open_below: Open, root: int, tmp_path: Path) -> None:
    """CVE-2024-45310: the directories and files made for mounts never appear on the host."""
    for path in ("/var/run/a/b", "/up/made", "/dangling/deep", "/out/x"):
        os.close(mkdir_in_root(root, path))
    os.close(touch_in_root(root, "/up/file"))
    inside = tmp_path / "root"
    assert (inside / "run" / "a" / "b").is_dir()
    assert (inside / "etc" / "made").is_dir()
    assert (inside / "etc" / "file").is_file()
    assert (inside / "new" / "place" / "deep").is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root", "secret"]
    assert (tmp_path / "secret").read_text() == "outside"


def test_mkdir_through_a_loop_fails(open_below: Open, root: int) -> None:
    with pytest.raises(OSError, match=r".") as caught:
        mkdir_in_root(root, "/loop/x")
    assert caught.value.errno == errno.ELOOP


def test_require_fs_tells_procfs_from_a_look_alike(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="refused"), paths.closing(os.open(tmp_path, os.O_PATH)) as fd:
        paths.require_fs(fd, paths.PROC_SUPER_MAGIC, "/proc")
    with paths.closing(os.open("/proc/self/status", os.O_RDONLY)) as fd:
        paths.require_fs(fd, paths.PROC_SUPER_MAGIC, "/proc")


@pytest.mark.parametrize(
    ("path", "parts"),
    [("/a/b/c", ("a/b", "c")), ("a", ("", "a")), ("/", ("", "")), ("//a//b/.", ("a", "b"))],
)
def test_split(path: str, parts: tuple[str, str]) -> None:
    assert paths.split(path) == parts
