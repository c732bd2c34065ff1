"""The build graph: identity of steps, what a vertex refuses, order."""

from __future__ import annotations

import pytest

from pier.builder.graph import (
    EMPTY,
    NO_NOTE,
    Copy,
    Diff,
    Exec,
    File,
    FileAction,
    InvalidVertex,
    MakeFile,
    Merge,
    Meta,
    Mount,
    NamedUser,
    Note,
    Op,
    Output,
    Owner,
    Position,
    Remove,
    Source,
    Vertex,
    below,
)
from pier.oci import Platform

ROOT = Mount("/", input=0, output=0)


def image(name: str = "busybox", **more: object) -> Output:
    return Vertex(Source(f"docker-image://{name}"), **more).output()  # type: ignore[arg-type]


def run(command: str, root: Output, note: Note = NO_NOTE) -> Vertex:
    return Vertex(Exec(Meta(("/bin/sh", "-c", command)), (ROOT,)), (root,), note=note)


def test_a_step_is_what_it_does_and_what_it_stands_on() -> None:
    same = run("make", image()), run("make", image(), Note("[2/2] RUN make", ignore_cache=True))
    assert same[0].digest == same[1].digest
    others = [
        run("make all", image()),
        run("make", image("alpine")),
        run("make", image(platform=Platform.parse("linux/arm64"))),
        run("make", run("true", image()).output()),
    ]
    assert len({same[0].digest, *(other.digest for other in others)}) == 5


def test_the_order_of_attributes_does_not_matter() -> None:
    one, other = Source("local://c", {"a": "1", "b": "2"}), Source("local://c", {"b": "2", "a": "1"})
    assert Vertex(one).digest == Vertex(other).digest


@pytest.mark.parametrize(
    ("op", "inputs", "reason"),
    [
        (Source("busybox"), 0, "SCHEME://NAME"),
        (Source("docker-image://busybox"), 1, "no inputs"),
        (Exec(Meta(()), (ROOT,)), 1, "no command"),
        (Exec(Meta(("x",)), ()), 0, "the root"),
        (Exec(Meta(("x",)), (ROOT, Mount("/", input=0))), 1, "the root"),
        (Exec(Meta(("x",)), (ROOT,)), 0, "names input 0, and there are 0"),
        (Exec(Meta(("x",)), (Mount("/", input=0, output=1),)), 1, "numbered"),
        (Exec(Meta(("x",)), (ROOT, Mount("/a", output=0))), 1, "numbered"),
        (File(()), 0, "no action"),
        (File((FileAction(Remove("/x"), input=0, output=0),)), 0, "names input 0"),
        (File((FileAction(Remove("/x"), input=-2, output=0),)), 1, "names input -2"),
        (File((FileAction(Copy("a", "b"), input=0, secondary_input=2, output=0),)), 2, "names input 2"),
        (File((FileAction(MakeFile("a", b"", owner=Owner(NamedUser("me", 1))), output=0),)), 1, "names input 1"),
        (Merge((0, 1)), 1, "names input 1"),
        (Diff(0, 3), 2, "names input 3"),
    ],
)
def test_a_vertex_refuses_what_is_not_there(op: Op, inputs: int, reason: str) -> None:
    with pytest.raises(InvalidVertex, match=reason):
        Vertex(op, (image(),) * inputs)


def test_a_later_action_takes_the_result_of_an_earlier_one() -> None:
    actions = (FileAction(MakeFile("/a", b"x")), FileAction(Remove("/b"), input=1, output=0))
    assert Vertex(File(actions), (image(),)).name == "mkfile /a, rm /b"


def test_an_empty_root_is_an_input_of_its_own() -> None:
    assert Vertex(Exec(Meta(("x",)), (Mount("/", input=EMPTY, output=0),))).name == "x"


def test_inputs_come_before_those_who_take_them_and_each_step_once() -> None:
    base = image()
    left, right = run("left", base), run("right", image())
    join = Vertex(Merge((0, 1)), (left.output(), right.output()))
    assert [each.name for each in below([join.output(), left.output()])] == [
        "docker-image://busybox",
        "/bin/sh -c left",
        "/bin/sh -c right",
        "merge",
    ]


def test_a_long_chain_needs_no_stack() -> None:
    vertex = run("0", image())
    for number in range(3000):
        vertex = run(str(number), vertex.output())
    assert len(list(below([vertex.output()]))) == 3002


def test_positions_of_a_file_compare() -> None:
    assert Position(3) == Position(3, 0)
