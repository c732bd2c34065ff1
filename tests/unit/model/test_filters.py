from __future__ import annotations

import time

import pytest

from pier.model.filters import Filters, InvalidFilter, InvalidFilterValue, UnknownFilter


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", {}),
        ("{}", {}),
        ('{"label": ["a", "b=c"]}', {"label": ("a", "b=c")}),
        ('{"label": {"a": true, "b=c": true}}', {"label": ("a", "b=c")}),
        ('{"label": [], "name": null}', {}),
    ],
)
def test_parse(text: str, terms: dict[str, tuple[str, ...]]) -> None:
    assert Filters.parse(text).terms == terms


@pytest.mark.parametrize(
    "text", ["x", "[]", '{"a": 1}', '{"a": [1]}', '{"a": "b"}', "null", "[" * 90_000, " " * 70_000]
)
def test_parse_refuses(text: str) -> None:
    with pytest.raises(InvalidFilter, match=r"^invalid filter$"):
        Filters.parse(text)


def test_unknown_names_are_refused_in_dockers_words() -> None:
    with pytest.raises(UnknownFilter, match=r"^invalid filter 'foo'$"):
        Filters.parse('{"foo": ["x"], "zoo": ["x"]}', accepted=("label",))


@pytest.mark.parametrize(
    ("values", "expected"),
    [((), False), (("1",), True), (("true",), True), (("TRUE",), True), (("0",), False), (("false",), False)],
)
def test_boolean(values: tuple[str, ...], expected: bool) -> None:
    assert Filters({"dangling": values} if values else {}).boolean("dangling") is expected


@pytest.mark.parametrize("values", [("zz",), ("true", "false"), ("",)])
def test_boolean_refuses(values: tuple[str, ...]) -> None:
    with pytest.raises(InvalidFilterValue):
        Filters({"dangling": values}).boolean("dangling")


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        (("a",), True),
        (("a=1",), True),
        (("a", "b"), True),
        (("a=2",), False),
        (("a", "c"), False),
        (("a=",), False),
        (("b=",), True),
    ],
)
def test_labels(terms: tuple[str, ...], expected: bool) -> None:
    labels = {"a": "1", "b": ""}
    assert Filters({"label": terms}).key_values("label", labels) is expected


def test_labels_that_must_be_missing() -> None:
    assert Filters({"label!": ("c", "a=2")}).lacks_key_values("label!", {"a": "1"})
    assert not Filters({"label!": ("c", "a=1")}).lacks_key_values("label!", {"a": "1"})


@pytest.mark.parametrize(
    ("values", "candidate", "expected"),
    [
        (("web",), "web-1", True),
        (("^web$",), "web-1", False),
        (("^/?web$",), "web", True),
        (("a", "b"), "xb", True),
        (("a.b",), "a.b", True),
        (("[",), "[", True),
        (("^web.*[0-9]+$",), "web-x-17", True),
    ],
)
def test_pattern(values: tuple[str, ...], candidate: str, expected: bool) -> None:
    assert Filters({"name": values}).pattern("name", candidate) is expected


@pytest.mark.parametrize(
    "value",
    [
        "[",
        "(a+)+$",
        "((a*)*)b",
        "(a|a?)+$",
        r"(.*)\1",
        "(x{1,9}){1,9}y",
        "a" * 300,
        "(?=a+)+",
        "((a+))+b",
        "a*" * 50 + "b",
        "a?" * 30 + "a" * 30,
    ],
)
def test_patterns_that_do_not_end_are_refused(value: str) -> None:
    begin = time.monotonic()
    with pytest.raises(InvalidFilterValue):
        Filters({"name": (value,)}).pattern("name", "a" * 60 + "!")
    assert time.monotonic() - begin < 1


def test_absent_filters_match_everything() -> None:
    none = Filters()
    assert not none
    assert none.exact("a", "x")
    assert none.prefix("a", "x")
    assert none.pattern("a", "x")
    assert none.key_values("a", {})
    assert none.get("a") == ()


def test_one_of() -> None:
    assert Filters({"status": ("running",)}).one_of("status", ("running", "exited")) == ("running",)
    with pytest.raises(InvalidFilterValue, match=r"^invalid filter 'status=\[zz\]'$"):
        Filters({"status": ("zz",)}).one_of("status", ("running",))
