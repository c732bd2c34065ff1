"""The flag parser against pflag's conventions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.cli.errors import ArgumentError, UsageError
from pier.cli.flags import Command, Flag, HelpWanted, parse
from pier.cli.words import parse_int

FLAGS = (
    Flag("interactive", "i", "bool", ""),
    Flag("tty", "t", "bool", ""),
    Flag("detach", "d", "bool", ""),
    Flag("publish", "p", "list", ""),
    Flag("name", "", "string", ""),
    Flag("memory", "m", "bytes", ""),
    Flag("last", "n", "int", ""),
    Flag("filter", "f", "filter", ""),
    Flag("annotation", "", "map", ""),
    Flag("label", "l", "label", ""),
    Flag("timeout", "", "int", ""),
    Flag("time", "", "int", "", replaced_by="timeout"),
)
RUN = Command("[OPTIONS] IMAGE [COMMAND] [ARG...]", flags=FLAGS, arity=(0, None), interspersed=False)
PS = Command("[OPTIONS]", flags=FLAGS, arity=(0, None))


def values(command: Command, *words: str) -> tuple[dict[str, Any], list[str]]:
    opts, args = parse(command, "run", list(words))
    return {flag.name: opts[flag.name] for flag in FLAGS if opts.given(flag.name)}, args


@pytest.mark.parametrize(
    ("words", "expected", "args"),
    [
        ("-it box sh", {"interactive": True, "tty": True}, ["box", "sh"]),
        ("-itp80:80 box", {"interactive": True, "tty": True, "publish": ["80:80"]}, ["box"]),
        ("-p 1:1 -p=2:2 --publish 3:3 --publish=4:4 box", {"publish": ["1:1", "2:2", "3:3", "4:4"]}, ["box"]),
        ("--name=x --name y box", {"name": "y"}, ["box"]),
        ("-t=false -d=true box", {"tty": False, "detach": True}, ["box"]),
        ("--tty=0 box", {"tty": False}, ["box"]),
        ("box -it --name x", {}, ["box", "-it", "--name", "x"]),
        ("-i -- -t box", {"interactive": True}, ["-t", "box"]),
        ("box -- x", {}, ["box", "--", "x"]),
        ("- x", {}, ["-", "x"]),
        ("--name= box", {"name": ""}, ["box"]),
        ("--name -i box", {"name": "-i"}, ["box"]),
        ("-m 1.5g box", {"memory": 1610612736}, ["box"]),
        ("-n -1 box", {"last": -1}, ["box"]),
        ("-f Status=x -f a=b=c box", {"filter": [("status", "x"), ("a", "b=c")]}, ["box"]),
        ("-l a=b=c --label d box", {"label": ["a=b=c", "d"]}, ["box"]),
        ("--annotation a=b --annotation c=d box", {"annotation": {"a": "b", "c": "d"}}, ["box"]),
    ],
)
def test_flags_stop_at_the_first_argument(words: str, expected: dict[str, Any], args: list[str]) -> None:
    assert values(RUN, *words.split(" ")) == (expected, args)


def test_flags_may_follow_arguments_where_interspersed() -> None:
    assert values(PS, "a", "-i", "b", "--name", "x", "--", "-t") == (
        {"interactive": True, "name": "x"},
        ["a", "b", "-t"],
    )


def test_a_renamed_flag_sets_the_new_one_and_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    opts, _ = parse(PS, "stop", ["--time", "5"])
    assert opts["timeout"] == 5
    assert capfd.readouterr().err == "Flag --time has been deprecated, use --timeout instead\n"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--bogus"], "unknown flag: --bogus"),
        (["--bogus=x"], "unknown flag: --bogus"),
        (["-y"], "unknown shorthand flag: 'y' in -y"),
        (["-itxd"], "unknown shorthand flag: 'x' in -xd"),
        (["--name"], "flag needs an argument: --name"),
        (["-itp"], "flag needs an argument: 'p' in -p"),
        (["--=x"], "bad flag syntax: --=x"),
        (["---x"], "bad flag syntax: ---x"),
        (["--tty=maybe"], 'invalid argument "maybe" for "-t, --tty" flag: strconv.ParseBool: parsing "maybe": invalid syntax'),  # noqa: E501
        (["-n", "x"], 'invalid argument "x" for "-n, --last" flag: strconv.ParseInt: parsing "x": invalid syntax'),
        (["-n", "99999999999999999999"], 'invalid argument "99999999999999999999" for "-n, --last" flag: '
         'strconv.ParseInt: parsing "99999999999999999999": value out of range'),
        (["-l", "=x"], 'invalid argument "=x" for "-l, --label" flag: invalid label \'=x\': empty name'),
        (["-l", "a b=c"], 'invalid argument "a b=c" for "-l, --label" flag: label \'a b\' contains whitespaces'),
        (["-f", "x"], 'invalid argument "x" for "-f, --filter" flag: bad format of filter (expected name=value)'),
        (["-m", "zz"], "invalid argument \"zz\" for \"-m, --memory\" flag: invalid size: 'zz'"),
    ],
)  # fmt: skip
def test_a_wrong_flag_exits_125_with_pflags_words(words: list[str], problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(RUN, "run", words)
    assert caught.value.status == 125
    assert caught.value.text == (
        f"{problem}\n\nUsage:  pier run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\nRun 'pier run --help' for more information"  # noqa: E501
    )


@pytest.mark.parametrize(
    ("arity", "count", "problem"),
    [
        ((0, 0), 1, "'pier x' accepts no arguments"),
        ((1, 1), 0, "'pier x' requires 1 argument"),
        ((2, 2), 1, "'pier x' requires 2 arguments"),
        ((1, None), 0, "'pier x' requires at least 1 argument"),
        ((2, None), 1, "'pier x' requires at least 2 arguments"),
        ((0, 1), 2, "'pier x' requires at most 1 argument"),
        ((1, 2), 3, "'pier x' requires at least 1 and at most 2 arguments"),
    ],
)
def test_a_wrong_count_of_arguments_exits_1(arity: tuple[int, int | None], count: int, problem: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        parse(Command("ARGS", arity=arity), "x", ["a"] * count)
    assert caught.value.status == 1
    assert caught.value.text.startswith(f"pier: {problem}\n\nUsage:  pier x ARGS\n\n")


@pytest.mark.parametrize("words", [["--help"], ["-i", "--help"], ["-ih"]])
def test_help_is_asked_for_before_anything_is_checked(words: list[str]) -> None:
    with pytest.raises(HelpWanted):
        parse(Command("X", flags=FLAGS, arity=(3, 3)), "x", words)


@pytest.mark.parametrize(("text", "value"), [("0x10", 16), ("010", 8), ("-5", -5), ("1_000", 1000), ("0b11", 3)])
def test_integers_as_go_reads_them(text: str, value: int) -> None:
    assert parse_int(text) == value


WORD = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=8)


@given(st.lists(st.one_of(WORD, st.sampled_from(["-it", "--name", "--", "-p", "--tty=x", "-", "-i=", "--publish="]))))
def test_any_words_either_parse_or_are_refused(words: list[str]) -> None:
    try:
        _, args = parse(RUN, "run", words)
    except (UsageError, HelpWanted):
        return
    assert args == words[len(words) - len(args) :]


@given(st.text(min_size=1), st.lists(st.text()))
def test_values_arrive_as_they_were_given(name: str, ports: list[str]) -> None:
    words = [f"--name={name}", *(word for port in ports for word in ("-p", port))]
    opts, args = parse(RUN, "run", [*words, "image"])
    assert (opts["name"], opts["publish"], args) == (name, ports, ["image"])
