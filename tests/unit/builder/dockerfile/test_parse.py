"""Dockerfile text -> instructions: tables for each of them, errors with their places, and text that nobody meant."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pier.builder.dockerfile import instructions as i
from pier.builder.dockerfile.lines import MAX_BYTES, MAX_LINES
from pier.builder.dockerfile.parse import parse, parse_trigger
from pier.builder.dockerfile.readings import READINGS
from pier.builder.dockerfile.source import DockerfileError, SourceRange
from pier.oci.image_config import HealthConfig


def read(text: str) -> i.Dockerfile:
    return parse(text.encode("utf-8", "surrogateescape"))


def one(line: str) -> Any:
    """The instruction of a stage that has only this one."""
    (stage,) = read(f"FROM scratch\n{line}\n").stages
    (instruction,) = stage.instructions
    return instruction


def fields(instruction: i.Instruction, *names: str) -> tuple[Any, ...]:
    return tuple(getattr(instruction, name) for name in names)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("FROM a", ("a", "", "")),
        ("from a:1 as Build", ("a:1", "build", "")),
        ("FROM --platform=$BUILDPLATFORM a@sha256:0 AS b-1.x_y", ("a@sha256:0", "b-1.x_y", "$BUILDPLATFORM")),
        ("FROM\t a  \t AS\tb", ("a", "b", "")),
    ],
)
def test_from(line: str, expected: tuple[str, ...]) -> None:
    (stage,) = read(line).stages
    assert fields(stage.start, "base", "stage", "platform") == expected


@pytest.mark.parametrize(
    ("line", "words", "shell_form"),
    [
        ("RUN echo  a   b", ("echo  a   b",), True),
        ('RUN ["a", "b c"]', ("a", "b c"), False),
        ('RUN  [ "a" ]  ', ("a",), False),
        ("RUN [ -f /x ] && true", ("[ -f /x ] && true",), True),
        ('RUN ["a", b]', ('["a", b]',), True),
        ('RUN ["a"] x', ('["a"] x',), True),
        ("RUN []", (), False),
        ("RUN [NaN]", ("[NaN]",), True),
        ("RUN", (), True),
        ('RUN ["\\u00e9", "\\ud800"]', ("é", "\ufffd"), False),
        ("RUN --network=none -- --x", ("--x",), True),
        ("RUN a \\\n   b \\\n\n # no\nc", ("a    b c",), True),
        ("RUN a \\\\", ("a \\\\",), True),
        ("RUN a \\ \t", ("a",), True),
        ("RUN a#b # c", ("a#b # c",), True),
        ("\v\fRUN\va", ("a",), True),
    ],
)
def test_commands_have_two_forms(line: str, words: tuple[str, ...], shell_form: bool) -> None:
    assert one(line).command == i.Command(words, shell_form)


def test_flags_of_run() -> None:
    run = one(
        "RUN --mount=type=cache,target=/a --mount='type=bind,target=/b c' --network=host --security=insecure "
        "--device=vendor.com/class=x,required true"
    )
    assert run.mounts == ("type=cache,target=/a", "type=bind,target=/b c")
    assert fields(run, "network", "security", "devices") == ("host", "insecure", ("vendor.com/class=x,required",))


@pytest.mark.parametrize(
    ("line", "pairs"),
    [
        ("ENV a=b", [("a", "b")]),
        ("ENV a=b c='d e' f=\"g h\" i=j\\ k", [("a", "b"), ("c", "'d e'"), ("f", '"g h"'), ("i", "j\\ k")]),
        ("ENV a=", [("a", "")]),
        ("ENV a b=c  d ", [("a", "b=c  d")]),
        ('ENV a=""', [("a", '""')]),
        ("ENV a='b", [("a", "'b")]),
        ("ENV a=b\\", [("a", "b")]),
        ("ENV a=b=c", [("a", "b=c")]),
        ("LABEL a.b-c=1 \\\n  d=2", [("a.b-c", "1"), ("d", "2")]),
        ('LABEL "a b"=c', [('"a b"', "c")]),
    ],
)
def test_pairs(line: str, pairs: list[tuple[str, str]]) -> None:
    assert [(pair.name, pair.value) for pair in one(line).pairs] == pairs


def test_the_old_form_of_a_pair_is_marked() -> None:
    assert one("ENV a b").pairs == (i.Pair("a", "b", legacy=True),)
    assert not one("ENV a=b").pairs[0].legacy


def test_arg_names_several_with_their_descriptions() -> None:
    arg = one("# A the first\n# C is not\nARG A=1 B C= D='x y'")
    assert arg.definitions == (
        i.Definition("A", "1", "the first"),
        i.Definition("B"),
        i.Definition("C", "", "is not"),
        i.Definition("D", "'x y'"),
    )


def test_comments_above_an_instruction() -> None:
    arg = one("# A the first\n\n # two\nARG A")
    assert arg.definitions == (i.Definition("A", comment="the first"),)
    assert arg.comments == ("A the first", "", "two")


def test_copy_and_add() -> None:
    copy = one("COPY --from=0 --chown=a:b --chmod=u+x --link --parents --exclude=*.c --exclude=x a b/ /c/")
    assert fields(copy, "from_", "chown", "chmod", "link", "parents", "exclude", "sources", "dest") == (
        "0", "a:b", "u+x", True, True, ("*.c", "x"), ("a", "b/"), "/c/",
    )  # fmt: skip
    assert fields(one('COPY ["a b", "c"]'), "sources", "dest", "link") == (("a b",), "c", False)
    add = one("ADD --checksum=sha256:0 --keep-git-dir=false --unpack https://x/y z")
    assert fields(add, "checksum", "keep_git_dir", "unpack", "sources", "dest") == (
        "sha256:0", False, True, ("https://x/y",), "z",
    )  # fmt: skip
    assert fields(one("ADD a b"), "keep_git_dir", "unpack") == (None, None)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("HEALTHCHECK NONE", HealthConfig(test=["NONE"])),
        ("HEALTHCHECK CMD a  b", HealthConfig(test=["CMD-SHELL", "a  b"])),
        ('HEALTHCHECK cmd ["a", "b"]', HealthConfig(test=["CMD", "a", "b"])),
        (
            "HEALTHCHECK --interval=1m --timeout=2s --start-period=3ms --start-interval=0 --retries=4 CMD a",
            HealthConfig(
                test=["CMD-SHELL", "a"], interval=60 * 10**9, timeout=2 * 10**9, start_period=3 * 10**6, retries=4
            ),
        ),
    ],
)
def test_healthcheck(line: str, expected: HealthConfig) -> None:
    assert one(line).check == expected


def test_the_rest() -> None:
    assert one("EXPOSE 80/udp 443 ${X}-90").ports == ("${X}-90", "443", "80/udp")
    assert one('VOLUME ["/a b", " /c "]').paths == ("/a b", "/c")
    assert one("VOLUME /a /b").paths == ("/a", "/b")
    assert one("USER a:b").user == "a:b"
    assert one("WORKDIR /a b").path == "/a b"
    assert one("STOPSIGNAL SIGTERM").signal == "SIGTERM"
    assert one("MAINTAINER me <a@b>").author == "me <a@b>"
    assert one('SHELL ["/bin/bash", "-c"]').words == ("/bin/bash", "-c")
    assert one("onbuild  RUN a \\\n b").trigger == "RUN a  b"


# --- heredocs


def test_heredoc_of_run() -> None:
    run = one("RUN <<EOF\necho a\n\techo b\nEOF")
    assert run.command == i.Command(("<<EOF",), shell_form=True)
    (heredoc,) = run.heredocs
    assert (heredoc.name, heredoc.expand, heredoc.text) == ("EOF", True, "echo a\n\techo b\n")
    assert (run.source.first_line, run.source.last_line) == (2, 5)


@pytest.mark.parametrize(
    ("start", "expand"),
    [("<<EOF", True), ("<<'EOF'", False), ('<<"EOF"', False), ("<<E'O'F", False), ("3<<EOF", True)],
)
def test_a_quoted_name_keeps_variables(start: str, expand: bool) -> None:
    (heredoc,) = one(f"COPY {start} /x\n$a\nEOF").contents
    assert (heredoc.expand, heredoc.content) == (expand, "$a\n")


def test_tabs_go_only_where_that_was_asked_for() -> None:
    copy = one("COPY <<-a <<b /x/\n\t\tone\n\ta\n\ttwo\nb")
    assert [heredoc.text for heredoc in copy.contents] == ["one\n", "\ttwo\n"]


def test_heredocs_beside_files() -> None:
    copy = one("COPY a <<b c <<d /x/\n1\nb\n2\nd")
    assert copy.sources == ("a", "c")
    assert [(heredoc.name, heredoc.text) for heredoc in copy.contents] == [("b", "1\n"), ("d", "2\n")]


def test_heredocs_of_a_shell_command() -> None:
    run = one("RUN cat <<a | tee <<b\n1\na\n2\nb")
    assert [heredoc.name for heredoc in run.heredocs] == ["a", "b"]


@pytest.mark.parametrize("line", ["RUN a <<< b", 'RUN ["a", "<<b"]', "RUN '<<b'", "RUN a \\<<b", "ENV a=<<b", "RUN <<"])
def test_what_looks_like_a_heredoc(line: str) -> None:
    assert not getattr(one(line), "heredocs", ())


def test_a_heredoc_of_any_bytes() -> None:
    found = parse(b"FROM scratch\nCOPY <<EOF /x\n\xff\xfe\nEOF\n").stages[0].instructions[0]
    assert isinstance(found, i.Copy)
    assert found.contents[0].content.encode("utf-8", "surrogateescape") == b"\xff\xfe\n"


def test_heredoc_of_a_trigger() -> None:
    onbuild = one("ONBUILD COPY <<EOF /x\na\nEOF")
    trigger = parse_trigger(onbuild.trigger, SourceRange("f", 7, 9))
    assert isinstance(trigger, i.Copy)
    assert trigger.contents[0].text == "a\n"
    assert trigger.source == SourceRange("f", 7, 9)


# --- directives, comments, ends of lines


def test_directives() -> None:
    file = read("# syntax = docker/dockerfile:1\n#escape=`\n# check=skip=all;error=true\nFROM a\nRUN b `\n c \\")
    assert (file.syntax, file.escape, file.check) == ("docker/dockerfile:1", "`", "skip=all;error=true")
    assert file.stages[0].instructions[0].code == "RUN b  c \\"


@pytest.mark.parametrize("above", ["# a comment\n", "\n", "# foo=bar\n"])
def test_a_directive_stands_at_the_top_or_is_none(above: str) -> None:
    assert read(above + "# escape=`\nFROM a").escape == "\\"


def test_byte_order_mark_and_carriage_returns() -> None:
    (stage,) = parse(b"\xef\xbb\xbf# escape=`\r\nFROM a\r\nRUN b `\r\n  c\r\nCOPY <<E /x\r\n1\r\nE\r\n").stages
    run, copy = stage.instructions
    assert isinstance(run, i.Run)
    assert isinstance(copy, i.Copy)
    assert run.command.words == ("b   c",)
    assert copy.contents[0].content == "1\r\n"


def test_stages_and_arguments_before_them() -> None:
    file = read("ARG A=1\nARG B\nFROM $A AS x\nRUN y\nFROM x\nCMD z\nCMD w")
    assert [arg.definitions[0].name for arg in file.global_args] == ["A", "B"]
    assert [len(stage.instructions) for stage in file.stages] == [1, 2]


def test_lines_that_continue_with_nothing() -> None:
    file = read("FROM a\nRUN b \\\n\n  c\nRUN d")
    assert [each.first_line for each in file.empty_continuations] == [4]


# --- what is refused


@pytest.mark.parametrize(
    ("text", "message", "place"),
    [
        ("FROM a\n  RUNN b", "dockerfile parse error on line 2: unknown instruction: RUNN (did you mean RUN?)", "2:3"),
        ("fron a", "dockerfile parse error on line 1: unknown instruction: fron (did you mean FROM?)", "1:1"),
        ("XYZZY a", "dockerfile parse error on line 1: unknown instruction: XYZZY", "1:1"),
        ("FROM", "dockerfile parse error on line 1: FROM requires either one or three arguments", "1:1"),
        ("FROM a b", "dockerfile parse error on line 1: FROM requires either one or three arguments", "1:8"),
        (
            "FROM a AS 1b",
            "dockerfile parse error on line 1: invalid name for build stage: \"1b\", name can't start with a number or "
            "contain symbols",
            "1:11",
        ),
        (
            "FROM --platfrom=b a",
            "dockerfile parse error on line 1: unknown flag: --platfrom (did you mean platform?)",
            "1:6",
        ),
        ("FROM a\nCOPY --from b c d", "dockerfile parse error on line 2: missing a value on flag: --from", "2:6"),
        ("FROM a\nCOPY --link --link b", "dockerfile parse error on line 2: duplicate flag specified: --link", "2:13"),
        (
            "FROM a\nCOPY --link=x b c",
            "dockerfile parse error on line 2: expecting boolean value for flag --link, not: x",
            "2:6",
        ),
        ("FROM a\nRUN b \\\n --c\nENV \\\n d", "dockerfile parse error on line 5: ENV must have two arguments", "5:2"),
        (
            "FROM a\nENV b=c \\\n  d",
            'dockerfile parse error on line 3: Syntax error - can\'t find = in "d". Must be of the form: name=value',
            "3:3",
        ),
        ("FROM a\nENV =b", "dockerfile parse error on line 2: ENV names can not be blank", "2:5"),
        ("FROM a\nARG", "dockerfile parse error on line 2: ARG requires at least one argument", "2:1"),
        ("FROM a\nUSER", "dockerfile parse error on line 2: USER requires exactly one argument", "2:1"),
        (
            "FROM a\nCOPY b",
            "dockerfile parse error on line 2: COPY requires at least two arguments, but only one was provided. "
            "Destination could not be determined",
            "2:1",
        ),
        (
            "FROM a\nCOPY b <<E\nE",
            "dockerfile parse error on line 2: COPY cannot accept a heredoc as a destination",
            "2:8",
        ),
        ("FROM a\nRUN <<E\nb", "dockerfile parse error on line 2: unterminated heredoc: no line is E", "2:5"),
        (
            'FROM a\nVOLUME ["b", 1]',
            "dockerfile parse error on line 2: when using JSON array syntax, arrays must be comprised of strings only",
            "2:8",
        ),
        ('FROM a\nVOLUME [""]', "dockerfile parse error on line 2: VOLUME specified can not be an empty string", "2:8"),
        ("FROM a\nSHELL b", "dockerfile parse error on line 2: SHELL requires the arguments to be in JSON form", "2:7"),
        ("FROM a\nSHELL []", "dockerfile parse error on line 2: SHELL requires at least one argument", "2:1"),
        (
            "FROM a\nONBUILD ONBUILD b",
            "dockerfile parse error on line 2: Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
            "2:9",
        ),
        ("FROM a\nONBUILD FROM b", "dockerfile parse error on line 2: FROM isn't allowed as an ONBUILD trigger", "2:9"),
        (
            "FROM a\nHEALTHCHECK CMDD b",
            'dockerfile parse error on line 2: Unknown type "CMDD" in HEALTHCHECK (try CMD)',
            "2:13",
        ),
        (
            "FROM a\nHEALTHCHECK --interval=1us CMD b",
            'dockerfile parse error on line 2: Interval "interval" cannot be less than 1ms',
            "2:13",
        ),
        (
            "FROM a\nHEALTHCHECK --retries=-1 CMD b",
            "dockerfile parse error on line 2: --retries cannot be negative (-1)",
            "2:13",
        ),
        (
            "FROM a\nRUN --network=hots b",
            'dockerfile parse error on line 2: invalid network mode "hots" (did you mean host?)',
            "2:5",
        ),
        ("# escape=x\nFROM a", "invalid escape token 'x' does not match ` or \\", "1:1"),
        ("# syntax=a\n# syntax=b\nFROM a", "only one syntax parser directive can be used", "2:1"),
        ("RUN a", "no build stage in current context", "1:1"),
        ("FROM a\nRUN b\0c", "the line contains a NUL byte", "2:6"),
        ("FROM a\nRUN b\udcff", "the line contains a byte that is not UTF-8", "2:6"),
    ],
)  # fmt: skip
def test_a_syntax_error_names_its_place(text: str, message: str, place: str) -> None:
    with pytest.raises(DockerfileError) as raised:
        read(text)
    assert raised.value.message == message
    assert raised.value.wire == f"{message} (Dockerfile:{place})"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the Dockerfile cannot be empty"),
        (b"# a\n\n", "file with no instructions"),
        (b"ARG a", "dockerfile contains no stages to build"),
        ("FROM a".encode("utf-16"), "Dockerfile is encoded in UTF-16; save it as UTF-8"),
        (b"#" * (MAX_BYTES + 1), "Dockerfile has 4194305 bytes, more than the 4194304 a Dockerfile may have"),
        (b"\n" * (MAX_LINES + 1), "Dockerfile has more than the 100000 lines a Dockerfile may have"),
    ],
)
def test_no_dockerfile_at_all(data: bytes, message: str) -> None:
    with pytest.raises(DockerfileError) as raised:
        parse(data)
    assert raised.value.wire == message


def test_more_instructions_than_a_history_has_entries() -> None:
    with pytest.raises(DockerfileError, match="more than the 10000 instructions"):
        read("FROM a\n" + "USER b\n" * 10_000)


def test_the_excerpt_marks_the_lines_to_blame() -> None:
    text = "FROM a\nRUN b\nRUN c \\\n  --d\nENV e\nRUN f\nRUN g\nRUN h\n"
    with pytest.raises(DockerfileError) as raised:
        read(text)
    assert raised.value.excerpt(text) == (
        "Dockerfile:5\n"
        "--------------------\n"
        "   3 |     RUN c \\\n"
        "   4 |       --d\n"
        "   5 | >>> ENV e\n"
        "   6 |     RUN f\n"
        "   7 |     RUN g\n"
        "--------------------"
    )


# --- text that nobody meant

_PIECES = st.sampled_from(
    [
        *READINGS,
        *"\n|\n\n|\\\n| |\t|\r\n|#|# escape=`\n|<<EOF|<<-'E'|EOF|\nEOF\n".split("|"),
        *"[|]|\"|'|$|${|}|:-|=|--|--mount=|--from=a|,".split("|"),
        *"a|b/|/|*|type=bind|target=/x|\0|é|\ufeff|\udcff|[[|`|\\|{|NaN|NONE|sha256:|CMD".split("|"),
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_PIECES, max_size=40))
@example(["FROM", " ", "a", "\n", "RUN", " ", "<<EOF", "\n", "\nEOF\n"])
def test_any_text_is_read_or_refused(pieces: list[str]) -> None:
    text = "FROM a\n" + "".join(pieces)
    try:
        file = read(text)
        places = [each.source for stage in file.stages for each in stage.instructions]
    except DockerfileError as error:
        places = list(error.at)
    assert all(1 <= place.first_line <= place.last_line <= text.count("\n") + 1 for place in places)
    assert all(before.last_line < after.first_line for before, after in pairwise(places))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with suppress(DockerfileError):
        assert parse(data).stages


@pytest.mark.parametrize(
    "line",
    [
        "RUN " + "[" * 100_000,
        "ENV a=" + "'\"\\" * 50_000,
        "ENV " + "\\" * 100_001,
        "COPY " + "<<a" * 30_000 + " b",
        "RUN " + "--mount=type=bind " * 2_000,
        "RUN --mount=" + '"' * 50_001 + " a",
        "RUN " + " \\\n" * 30_000 + "a",
        "HEALTHCHECK" + " " * 100_000 + "x",
    ],
)
def test_long_lines_take_no_long_time(line: str) -> None:
    with suppress(DockerfileError):
        assert one(line).source
