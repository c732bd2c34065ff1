"""`--format` templates: syntax, functions, Go's way of printing, and errors that name the position."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.cli.template import Template, TemplateError, mark

DATA = mark(
    {
        "Id": "abc",
        "Name": "/web",
        "RestartCount": 2,
        "Args": ["-c", "echo <hi>"],
        "State": {"Status": "running", "Running": True, "ExitCode": 0, "Error": ""},
        "Config": {"Labels": {"b": "2", "a": "1"}, "Env": None, "Cmd": ["x"]},
        "HostConfig": {"PidsLimit": None, "Memory": 0, "LogConfig": {"Type": "json-file", "Config": {}}},
        "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}], "81/udp": None}},
        "Mounts": [],
    }
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{.Id}}", "abc"),
        ("{{.ID}}", "abc"),
        ("{{ .State.Status }}-{{.State.ExitCode}}", "running-0"),
        ("{{.State.Running}}", "true"),
        ("{{.State}}", "{running true 0 }"),
        ("{{.Config.Labels}}", "map[a:1 b:2]"),
        ("{{.Args}} {{.Config.Env}} {{.HostConfig.PidsLimit}}", "[-c echo <hi>] [] <nil>"),
        ("{{.Config.Labels.nosuch}}|{{index .Config.Labels \"nosuch\"}}", "<no value>|"),
        ('{{json .Args}}', '["-c","echo <hi>"]'),
        ("{{json .State.Health}}", "null"),
        ("{{if .State.Health}}x{{else}}none{{end}}", "none"),
        ("{{if .State.Running}}up{{end}}", "up"),
        ("{{if not .State.Running}}a{{else if eq .State.Status \"running\"}}b{{else}}c{{end}}", "b"),
        ("{{with .State}}{{.Status}}{{end}}", "running"),
        ("{{with .State.Error}}x{{else}}fine{{end}}", "fine"),
        ("{{range .Args}}[{{.}}]{{end}}", "[-c][echo <hi>]"),
        ("{{range $i, $a := .Args}}{{$i}}={{$a}};{{end}}", "0=-c;1=echo <hi>;"),
        ("{{range .Mounts}}x{{else}}empty{{end}}", "empty"),
        ("{{range $k, $v := .Config.Labels}}{{$k}}{{$v}}{{end}}", "a1b2"),
        ("{{range $p, $b := .NetworkSettings.Ports}}{{$p}}:{{if $b}}{{(index $b 0).HostPort}}{{end}} {{end}}",
         "80/tcp:8080 81/udp: "),
        ("{{range .Args}}{{.}}{{break}}{{end}}", "-c"),
        ("{{range $i, $a := .Args}}{{if eq $i 0}}{{continue}}{{end}}{{$a}}{{end}}", "echo <hi>"),
        ("{{$x := .Name}}{{$x}}{{$x = \"y\"}}{{$x}}", "/weby"),
        ("{{$.Id}}{{range .Args}}{{$.Id}}{{end}}", "abcabcabc"),
        ('{{.Name | printf "%s!"}}', "/web!"),
        ('{{printf "%-6s|%5d|%q|%v|%t|%x|%05d" .Id .RestartCount .Id .Args true 255 7}}',
         'abc   |    2|"abc"|[-c echo <hi>]|true|ff|00007'),
        ("{{join .Args \",\"}} {{split \"a,b\" \",\"}} {{upper .Id}} {{lower \"X\"}} {{title \"a bc\"}}",
         "-c,echo <hi> [a b] ABC x A Bc"),
        ("{{len .Args}} {{len .Id}} {{slice .Id 1 2}} {{index .Args 0}}", "2 3 b -c"),
        ("{{println .Id 1}}{{print \"a\" 1 2 \"b\"}}", "abc 1\na1 2b"),
        ("{{and 1 0}} {{or 0 \"x\"}} {{not 1}} {{lt 1 2}} {{ge \"b\" \"a\"}} {{eq 1 2 1}} {{ne 1 1}}",
         "0 x false true true true false"),
        ("a {{- .Id -}} b", "aabcb"),
        ("{{/* nothing */}}x", "x"),
        ("{{`raw`}} {{\"q\\\"\\n\"}}", 'raw q"\n'),
        ("{{pad \"x\" 1 2}}|{{truncate \"abcdef\" 3}}", " x  |abc"),
        ("}} {", "}} {"),
        ("", ""),
    ],
)  # fmt: skip
def test_render(text: str, expected: str) -> None:
    assert Template(text).render(DATA) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{{.Id", "template: :1: unclosed action"),
        ("a\n{{.Id", "template: :2: unclosed action"),
        ("{{foo}}", 'template: :1: function "foo" not defined'),
        ("{{$x}}", 'template: :1: undefined variable "$x"'),
        ("{{if .Id}}", "template: :1: unexpected EOF"),
        ("{{end}}", "template: :1: unexpected {{end}}"),
        ("{{}}", "template: :1: missing value for command"),
        ("{{if}}{{end}}", "template: :1: missing value for if"),
        ("{{break}}", "template: :1: {{break}} outside {{range}}"),
        ('{{"a}}', "template: :1: unterminated quoted string"),
        ("{{(.Id}}", "template: :1: unclosed left paren"),
    ],
)
def test_parse_errors_name_the_line(text: str, problem: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template(text)
    assert str(caught.value) == problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{{.Foo}}", 'template: :1:2: executing "" at <.Foo>: map has no entry for key "Foo"'),
        ("x\n {{.State.Foo}}", 'template: :2:9: executing "" at <.State.Foo>: map has no entry for key "Foo"'),
        ("{{index .Args 9}}", 'template: :1:2: executing "" at <index .Args 9>: error calling index: index out of range: 9'),  # noqa: E501
        ("{{join .Args}}", 'template: :1:2: executing "" at <join>: wrong number of args for join: want 2 got 1'),
        ("{{.Id.x}}", "template: :1:5: executing \"\" at <.Id.x>: can't evaluate field x in type string"),
        ("{{lt 1 \"a\"}}", 'template: :1:2: executing "" at <lt 1 "a">: error calling lt: incompatible types for comparison'),  # noqa: E501
    ],
)  # fmt: skip
def test_run_errors_name_line_column_and_expression(text: str, problem: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template(text).render(DATA)
    assert str(caught.value) == problem


@given(st.text(alphabet='{}.$|()"` -/*abIdrangeendifelse:=,1\n', max_size=40))
def test_any_text_renders_or_is_refused(text: str) -> None:
    problem = "template: :"
    try:
        Template(text).render({"Id": "x"})
    except TemplateError as error:
        problem = str(error)
    assert problem.startswith("template: :")


@given(st.text().filter(lambda text: "{{" not in text))
def test_text_without_actions_is_itself(text: str) -> None:
    assert Template(text).render(None) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("{{json .}}", '{"Env":null,"Labels":null,"Args":[],"Options":{},"Deep":[{"Cmd":null}],"Text":"<a> & b"}'),
        ("{{json .Env}} {{.Env}} {{len .Env}}", "null [] 0"),
        ("{{json .Labels}} {{.Labels}} {{len .Labels}} {{.Labels.x}}", "null map[] 0 <no value>"),
        ("{{json .Args}} {{json .Options}}", "[] {}"),
        ("{{json .Text}}", '"<a> & b"'),
    ],
)
def test_what_go_has_as_nil_is_null_as_json(text: str, shown: str) -> None:
    value: Any = {"Env": None, "Labels": None, "Args": [], "Options": {}, "Deep": [{"Cmd": None}]}
    value["Text"] = "<a> & b"
    assert Template(text).render(mark(value)) == shown


def test_marking_keeps_values() -> None:
    value: Any = {"Labels": {"a": None}, "Env": None, "x": [1, {"y": "z"}]}
    assert mark(value) == {"Labels": {"a": None}, "Env": [], "x": [1, {"y": "z"}]}
