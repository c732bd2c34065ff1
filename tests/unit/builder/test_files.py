"""FileOp: what lands where, as BuildKit has it, and that nothing reaches outside."""

from __future__ import annotations

import gzip
import io
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from pier.builder import layers
from pier.builder.graph import (
    EMPTY,
    Copy,
    Diff,
    File,
    FileAction,
    MakeDir,
    MakeFile,
    Merge,
    NamedUser,
    Owner,
    Remove,
    Symlink,
    UserID,
    Vertex,
)
from pier.builder.progress import Finished, Warned
from pier.builder.solver import StepFailed
from pier.builder.sources import context
from pier.builder.steps import copying, modes

from ..storage.archives import archive, directory, hard_link, member, symlink
from .conftest import Lab, base, file, local, sh

pytestmark = pytest.mark.root

DOCKERFILE: dict[str, Any] = {
    "follow_symlink": True,
    "dir_copy_contents": True,
    "create_dest_path": True,
    "allow_wildcard": True,
    "allow_empty_wildcard": True,
}
"""How a Dockerfile's COPY is compiled."""
CONTEXT: dict[str, bytes | str] = {
    "a.txt": b"A",
    "b.txt": b"B",
    "dir/x": b"X",
    "dir/sub/y": b"Y",
    "link": "a.txt",
    "dirlink": "dir",
}


def files_only(tree: dict[str, Any]) -> dict[str, Any]:
    return {path: value for path, value in tree.items() if not isinstance(value, list)}


@pytest.mark.parametrize(
    ("src", "dest", "expected"),
    [
        ("/a.txt", "/", {"a.txt": b"A"}),
        ("/a.txt", "/new", {"new": b"A"}),
        ("/a.txt", "/new/", {"new/a.txt": b"A"}),
        ("/a.txt", "/deep/er/new", {"deep/er/new": b"A"}),
        ("/link", "/got", {"got": b"A"}),
        ("/dir", "/", {"x": b"X", "sub/y": b"Y"}),
        ("/dir", "/new", {"new/x": b"X", "new/sub/y": b"Y"}),
        ("/dir/", "/new/", {"new/x": b"X", "new/sub/y": b"Y"}),
        ("/dirlink", "/new", {"new/x": b"X", "new/sub/y": b"Y"}),
        ("/*.txt", "/t/", {"t/a.txt": b"A", "t/b.txt": b"B"}),
        ("/[ab].t?t", "/t/", {"t/a.txt": b"A", "t/b.txt": b"B"}),
        ("/d*/x", "/t/", {"t/x": b"X"}),
        ("/no*", "/t/", {}),
        ("/../../a.txt", "/../../up", {"up": b"A"}),
    ],
)
async def test_what_lands_where(lab: Lab, src: str, dest: str, expected: dict[str, bytes]) -> None:
    step = file(Copy(src, dest, **DOCKERFILE), source=local())
    tree = await lab.tree(step, locals={"context": lab.context(CONTEXT)})
    assert files_only(tree) == expected


async def test_a_directory_as_such_and_a_link_as_such(lab: Lab) -> None:
    as_such = file(Copy("/dir", "/in/", create_dest_path=True), source=local())
    tree = await lab.tree(file(Copy("/link", "/in/"), as_such, local()), locals={"context": lab.context(CONTEXT)})
    assert files_only(tree) == {"in/dir/x": b"X", "in/dir/sub/y": b"Y", "in/link": "a.txt"}


async def test_what_is_missing_is_named(lab: Lab) -> None:
    files = lab.context(CONTEXT)
    with pytest.raises(StepFailed, match='"/none": not found'):
        await lab.solve(file(Copy("/none", "/", **DOCKERFILE), source=local()), locals={"context": files})
    strict = Copy("/n*", "/", allow_wildcard=True)
    with pytest.raises(StepFailed, match=r'"/n\*": not found'):
        await lab.solve(file(strict, source=local()), locals={"context": files})
    assert lab.problems() == []


async def test_patterns_leave_files_out(lab: Lab) -> None:
    deed = Copy("/", "/", **DOCKERFILE, exclude_patterns=("dir/sub", "b.*"))
    tree = await lab.tree(file(deed, source=local()), locals={"context": lab.context(CONTEXT)})
    assert sorted(files_only(tree)) == ["a.txt", "dir/x", "dirlink", "link"]
    deed = Copy("/", "/", **DOCKERFILE, include_patterns=("dir/sub/*",))
    tree = await lab.tree(file(deed, source=local()), locals={"context": lab.context(CONTEXT)})
    assert sorted(tree) == ["dir", "dir/sub", "dir/sub/y"]


async def test_files_replace_files_and_directories_are_merged(lab: Lab) -> None:
    first = file(Copy("/", "/", **DOCKERFILE), source=local("one"))
    locals_ = {"one": lab.context({"f": b"1", "d/a": b"1"}), "two": lab.context({"f": b"2", "d/b": b"2"})}
    tree = await lab.tree(file(Copy("/", "/", **DOCKERFILE), first, local("two")), locals=locals_)
    assert files_only(tree) == {"f": b"2", "d/a": b"1", "d/b": b"2"}


async def test_a_file_does_not_take_a_directorys_place_unless_it_may(lab: Lab) -> None:
    locals_ = {"one": lab.context({"x/a": b"1"}), "two": lab.context({"x": b"2"})}
    first = file(Copy("/", "/", **DOCKERFILE), source=local("one"))
    with pytest.raises(StepFailed, match="cannot replace to directory /x with file"):
        await lab.solve(file(Copy("/", "/", **DOCKERFILE), first, local("two")), locals=locals_)
    over = Copy("/", "/", **DOCKERFILE, always_replace_existing_dest_paths=True)
    assert files_only(await lab.tree(file(over, first, local("two")), locals=locals_)) == {"x": b"2"}
    second = file(Copy("/", "/", **DOCKERFILE), source=local("two"))
    with pytest.raises(StepFailed, match="cannot copy to non-directory: /x"):
        await lab.solve(file(Copy("/", "/", **DOCKERFILE), second, local("one")), locals=locals_)


async def test_owner_mode_and_time(lab: Lab) -> None:
    owner = Owner(NamedUser("ana", 0), NamedUser("wheel", 0))
    deed = Copy("/dir", "/new", **DOCKERFILE, owner=owner, mode=0o640, timestamp_ns=10**18)
    [result] = await lab.solve(file(deed, base(), local()), locals={"context": lab.context(CONTEXT)})
    with layers.shown(lab.ground, result) as fd:
        for name in ("new", "new/x", "new/sub", "new/sub/y"):
            info = os.stat(name, dir_fd=fd)
            assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (1000, 10, 0o640), name
            assert name == "new" or info.st_mtime_ns == 10**18


async def test_an_owner_that_is_not_there_is_root_and_warned_of(lab: Lab) -> None:
    deed = Copy("/a.txt", "/", **DOCKERFILE, owner=Owner(NamedUser("bob", 0)))
    [result] = await lab.solve(file(deed, base(), local()), locals={"context": lab.context(CONTEXT)})
    warned = [event.text for event in await lab.events() if isinstance(event, Warned)]
    assert warned == ["there is no bob in the image's /etc/passwd: the files belong to root"]
    with layers.shown(lab.ground, result) as fd:
        assert os.stat("a.txt", dir_fd=fd).st_uid == 0


@pytest.mark.parametrize(
    ("text", "mode", "is_dir", "expected"),
    [
        ("755", 0o600, False, 0o755),
        ("u=rwX,go=rX", 0o100600, False, 0o644),
        ("u=rwX,go=rX", 0o100700, False, 0o755),
        ("u=rwX,go=rX", 0o700, True, 0o755),
        ("a+x", 0o644, False, 0o755),
        ("+x", 0o644, False, 0o755),
        ("go-rwx", 0o777, False, 0o700),
        ("g=u", 0o640, False, 0o660),
        ("u+s,o+t", 0o755, False, 0o5755),
        ("u=rw,g+w", 0o755, False, 0o675),
    ],
)
def test_modes_in_words(text: str, mode: int, is_dir: bool, expected: int) -> None:
    assert modes.changed(mode, text, is_dir=is_dir) == expected


@pytest.mark.parametrize("text", ["", "u", "rwx", "u=q", "77777", "u=r,,g=w"])
def test_a_mode_that_is_none(text: str) -> None:
    with pytest.raises(modes.BadMode):
        modes.changed(0o644, text, is_dir=False)


async def test_actions_go_on_with_the_result_of_the_one_before(lab: Lab) -> None:
    actions = (
        FileAction(MakeDir("/a/b", make_parents=True, mode=0o711), output=EMPTY),
        FileAction(MakeFile("/a/b/c", b"data", mode=0o600, owner=Owner(UserID(5), UserID(6))), input=0),
        FileAction(Symlink("/a/b/c", "/l"), input=1),
        FileAction(Remove("/a/none", allow_not_found=True), input=2, output=0),
        FileAction(Remove("/l"), input=3, output=1),
    )
    vertex = Vertex(File(actions))
    with_link, without = await lab.solve(vertex.output(0), vertex.output(1))
    assert files_only(lab.read(with_link)) == {"a/b/c": b"data", "l": "/a/b/c"}
    assert files_only(lab.read(without)) == {"a/b/c": b"data"}
    assert len(with_link.layers) == 1
    assert lab.problems() == []


async def test_removal(lab: Lab) -> None:
    with pytest.raises(StepFailed, match='"/none": not found'):
        await lab.solve(file(Remove("/none"), base()))
    tree = await lab.tree(file(Remove("/etc/*o*p", allow_wildcard=True), base()))
    assert tree["etc"] == ["passwd"]
    with pytest.raises(StepFailed, match="that is the root"):
        await lab.solve(file(Remove("/"), base()))


# --- archives


def unpacked(deed: Copy, lab: Lab, name: str, raw: bytes) -> Any:
    return lab.tree(file(deed, base(), local()), locals={"context": lab.context({name: raw})})


async def test_an_archive_is_unpacked_by_its_content_not_its_name(lab: Lab) -> None:
    raw = archive([directory("d"), member("d/f", data=b"F", uid=7)])
    for data in (raw, gzip.compress(raw)):
        tree = await unpacked(Copy("/data", "/to", **DOCKERFILE, attempt_unpack=True), lab, "data", data)
        assert tree["to/d/f"] == b"F"
    tree = await unpacked(Copy("/x.tar", "/to/", **DOCKERFILE, attempt_unpack=True), lab, "x.tar", b"no archive")
    assert tree["to/x.tar"] == b"no archive"


async def test_folders_that_an_archive_implies_are_roots(lab: Lab) -> None:
    """As BuildKit has it: the owner is for what is in the archive, and for where it goes."""
    deed = Copy("/x.tar", "/to/", **DOCKERFILE, attempt_unpack=True, owner=Owner(UserID(5)))
    context = lab.context({"x.tar": archive([member("d/f", data=b"F", uid=7)])})
    [result] = await lab.solve(file(deed, base(), local()), locals={"context": context})
    with layers.shown(lab.ground, result) as fd:
        assert [os.stat(name, dir_fd=fd).st_uid for name in ("to", "to/d", "to/d/f")] == [5, 0, 5]


@pytest.mark.parametrize(
    "hostile",
    [
        [symlink("d", "/outside"), member("d/f", data=b"F")],
        [symlink("up", "../../../../../.."), member("up/etc/planted", data=b"F")],
        [member("/abs", data=b"F")],
        [hard_link("l", "/etc/shadow")],
        [member("../planted", data=b"F")],
    ],
)
async def test_attack_10_an_archive_reaches_outside(lab: Lab, hostile: Any) -> None:
    before = sorted(os.listdir("/")), os.stat("/etc/shadow").st_nlink
    add = Copy("/x.tar", "/to/", **DOCKERFILE, attempt_unpack=True)
    try:
        tree = await unpacked(add, lab, "x.tar", archive(hostile))
    except StepFailed:
        tree = {}
    assert (sorted(os.listdir("/")), os.stat("/etc/shadow").st_nlink) == before
    assert not Path("/outside").exists()
    assert all(not isinstance(value, bytes) or value != Path("/etc/shadow").read_bytes() for value in tree.values())


async def test_attack_10_a_copy_through_links_stays_in_both_trees(lab: Lab) -> None:
    victim = lab.folder / "victim"
    victim.mkdir()
    (victim / "secret").write_bytes(b"host")
    files = lab.context({"out": str(victim), "abs": f"{victim}/secret", "f": b"F"})
    with pytest.raises(StepFailed, match="not found"):
        await lab.solve(file(Copy("/abs", "/", **DOCKERFILE), source=local()), locals={"context": files})
    linked = file(Symlink(str(victim), "/to"))
    tree = await lab.tree(file(Copy("/f", "/to/f", **DOCKERFILE), linked, local()), locals={"context": files})
    assert sorted(os.listdir(victim)) == ["secret"]
    assert [path for path in tree if path.endswith("/f")] == [f"{str(victim).lstrip('/')}/f"]


async def test_attack_19_removal_through_a_parent_that_leads_out(lab: Lab) -> None:
    victim = lab.folder / "victim"
    victim.mkdir()
    (victim / "kept").write_bytes(b"")
    linked = file(Symlink(str(victim), "/to"))
    with pytest.raises(StepFailed):
        await lab.solve(file(Remove("/to/kept"), linked))
    with pytest.raises(StepFailed):
        await lab.solve(file(Remove(f"/../../../..{victim}/kept"), base()))
    assert (victim / "kept").exists()


async def test_attack_19_a_fifo_in_the_context_hangs_nobody(lab: Lab) -> None:
    files = lab.context({"f": b"F"})
    os.mkfifo(f"{files.path}/pipe")
    [result] = await lab.solve(file(Copy("/", "/", **DOCKERFILE), source=local()), locals={"context": files})
    with layers.shown(lab.ground, result) as fd:
        assert stat.S_ISFIFO(os.stat("pipe", dir_fd=fd).st_mode)


async def test_hard_links_within_what_is_copied(lab: Lab) -> None:
    files = lab.context({"d/a": b"A"})
    os.link(f"{files.path}/d/a", f"{files.path}/d/b")
    [result] = await lab.solve(file(Copy("/d", "/to/d", **DOCKERFILE), source=local()), locals={"context": files})
    with layers.shown(lab.ground, result) as fd:
        assert os.stat("to/d/a", dir_fd=fd).st_ino == os.stat("to/d/b", dir_fd=fd).st_ino


@pytest.mark.parametrize("left", [0, 2, 64], ids=["by the overlay", "both ways", "in the upper directory"])
async def test_however_new_directories_are_filled_the_layer_is_the_same(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    monkeypatch.setattr(copying, "LEFT_MAX", left)
    files = lab.context({f"d{number}/{name}": name.encode() for number in range(4) for name in ("a", "b/c", "b/e")})
    os.link(f"{files.path}/d0/a", f"{files.path}/d3/linked")
    os.symlink("../d0", f"{files.path}/d1/link")
    os.chmod(f"{files.path}/d2", 0o1770)
    os.chown(f"{files.path}/d2/a", 7, 8)
    os.setxattr(f"{files.path}/d2/b", "user.kept", b"1")
    step = file(Copy("/", "/etc", **DOCKERFILE, timestamp_ns=10**18), base(), local())
    [result] = await lab.solve(step, locals={"context": files})
    expected = {
        *(f"etc/d{number}{name}" for number in range(4) for name in ("", "/a", "/b", "/b/c", "/b/e")),
        "etc/d1/link",
        "etc/d3/linked",
    }
    with layers.shown(lab.ground, result) as fd:
        assert expected <= set(lab.read(result))
        assert os.stat("etc/d0/a", dir_fd=fd).st_ino == os.stat("etc/d3/linked", dir_fd=fd).st_ino
        infos = {path: os.stat(path, dir_fd=fd, follow_symlinks=False) for path in expected}
        assert {info.st_mtime_ns for info in infos.values()} == {10**18}
        assert stat.S_IMODE(infos["etc/d2"].st_mode) == 0o1770
        assert (infos["etc/d2/a"].st_uid, infos["etc/d2/a"].st_gid) == (7, 8)
        assert os.listxattr(f"/proc/self/fd/{fd}/etc/d2/b") == ["user.kept"]
    assert lab.problems() == []


async def test_a_directory_in_the_place_of_one_that_was_removed_has_nothing_of_it(lab: Lab) -> None:
    old = sh("mkdir -p /d/sub && echo old > /d/sub/old")
    actions = (FileAction(Remove("/d"), input=0), FileAction(Copy("/dir", "/d", **DOCKERFILE), 2, 1, output=0))
    step = Vertex(File(actions), (old, local())).output()
    tree = await lab.tree(step, locals={"context": lab.context(CONTEXT)})
    assert [path for path in sorted(tree) if path.startswith("d/")] == ["d/sub", "d/sub/y", "d/x"]


async def test_a_new_directory_behind_a_link_is_made_where_that_leads(lab: Lab) -> None:
    step = file(Copy("/dir", "/var/run/new", **DOCKERFILE), base(), local())
    tree = await lab.tree(step, locals={"context": lab.context(CONTEXT)})
    assert (tree["run/new/x"], tree["run/new/sub/y"], tree["var/run"]) == (b"X", b"Y", "/run")


async def test_attack_10_a_whiteout_among_the_files_of_a_client_is_refused(lab: Lab) -> None:
    files = lab.context(CONTEXT)
    os.mknod(f"{files.path}/dir/sub/hides", stat.S_IFCHR | 0o600, 0)
    with pytest.raises(StepFailed, match="operation not permitted"):
        await lab.solve(file(Copy("/dir", "/new", **DOCKERFILE), base(), local()), locals={"context": files})
    assert lab.problems() == []


# --- merge, diff, cache


async def test_merge_puts_layers_over_one_another(lab: Lab) -> None:
    one, two = file(MakeFile("/one", b"1")), file(MakeFile("/two", b"2"))
    merged = Vertex(Merge((0, 1, 2)), (base(), one, two)).output()
    tree = await lab.tree(sh("cat /one /two > /both", merged))
    assert tree["both"] == b"12"
    assert lab.problems() == []


async def test_diff_is_what_the_upper_has_more(lab: Lab) -> None:
    zero = sh("echo 0 > /zero")
    upper = sh("echo 1 > /one", zero)
    tree = await lab.tree(Vertex(Diff(0, 1), (base(), upper)).output())
    assert files_only(tree) == {"one": b"1\n", "zero": b"0\n"}
    tree = await lab.tree(Vertex(Diff(0, 1), (sh("echo 2 > /two", zero), upper)).output())
    assert files_only(tree) == {"one": b"1\n"}


async def test_a_copy_is_cached_by_the_files_it_takes(lab: Lab) -> None:
    async def cached(files: dict[str, bytes | str]) -> bool:
        await lab.solve(step, locals={"context": lab.context(files)})
        ended = [event for event in await lab.events() if isinstance(event, Finished)]
        return next(event.cached for event in ended if event.step.digest == step.vertex.digest)

    step = file(Copy("/*.txt", "/", **DOCKERFILE), source=local())
    assert not await cached(CONTEXT)
    assert await cached(CONTEXT)
    assert await cached({**CONTEXT, "other": b"more"})
    assert not await cached({**CONTEXT, "c.txt": b"C"})
    assert not await cached({**CONTEXT, "a.txt": b"changed"})
    touched = lab.context(CONTEXT)
    os.utime(f"{touched.path}/a.txt", (1, 1))
    await lab.solve(step, locals={"context": touched})
    assert [event.cached for event in await lab.events() if isinstance(event, Finished)][-1]


async def test_a_context_of_an_archive_belongs_to_root(lab: Lab) -> None:
    place = context.make(lab.ground)
    try:
        context.receive(place, io.BytesIO(archive([member("f", data=b"F", uid=1000), member(".wh.x", data=b"W")])))
        assert os.stat(f"{place}/f").st_uid == 0
        assert os.path.exists(f"{place}/.wh.x")
    finally:
        context.remove(place)
    assert not os.path.exists(place)
