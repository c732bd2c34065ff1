"""The build checks against what BuildKit of Docker 28.5 has found in the same files; reports as buildx prints them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from pier.builder.dockerfile import lint
from pier.builder.dockerfile.checking import Report, as_json, as_text, check_dockerfile, summary
from pier.builder.dockerfile.lint import CheckOptions, Rule
from pier.builder.dockerfile.options import Options
from pier.builder.dockerfile.source import DockerfileError

from .compiling import AMD64, Images, image

RECORDED = json.loads((Path(__file__).parents[3] / "fixtures" / "dockerfile_checks.json").read_text())


def check(text: str, **options: Any) -> Report:
    wanted = Options(**{"build_platform": AMD64, **options})
    return asyncio.run(check_dockerfile(text.encode(), wanted, Images({"busybox": image()}), "Dockerfile"))


def found(report: Report) -> list[list[Any]]:
    return [[each.rule.name, each.detail, list(each.at.lines)] for each in report.warnings]


@pytest.mark.parametrize("recorded", RECORDED, ids=[str(number) for number in range(len(RECORDED))])
def test_as_buildkit_finds_it(recorded: dict[str, Any]) -> None:
    report = check(recorded["dockerfile"])
    assert sorted(found(report)) == sorted(recorded["warnings"])
    assert (report.error and report.error.message) == (recorded["error"] and recorded["error"][0])


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        # a list may have spaces, and skipping goes before experiments
        ("# check=skip=JSONArgsRecommended, MaintainerDeprecated\nFROM scratch\nMAINTAINER x\nCMD a", []),
        ("# check=experimental=all;skip=InvalidDefinitionDescription\n# x\nARG A=1\nFROM scratch", []),
        # an empty line parts a comment from what follows, as the rule itself says
        ("# check=experimental=all\nFROM scratch\n# x\n\nARG A", []),
        ("# check=experimental=all\nFROM scratch\n# x\nARG A", ["InvalidDefinitionDescription"]),
        # names of files and versions are no secrets
        ("FROM scratch\nARG AUTH_FILE secret_version KEYS TOKEN", ["SecretsUsedInArgOrEnv"]),
        ("FROM scratch\nEXPOSE $XX", ["UndefinedVar"]),
        ("FROM scratch\nARG A=1\nRUN --mount=type=bind,source=$B,target=/x true", ["UndefinedVar"]),
    ],
)
def test_what_is_found(text: str, rules: list[str]) -> None:
    assert [warning.rule.name for warning in check(text).warnings] == rules


@pytest.mark.parametrize(
    ("patterns", "files"),
    [
        (["a", "sub", "*.md"], ["a", "sub/x", "sub", "x.md", "*.md"]),
        (["*"], ["a", "b", "sub/x", "sub", "x.md", "d/x.md", ".", "*.md"]),
        (["*", "!a"], []),
        ([], []),
    ],
)
def test_files_that_the_context_leaves_out(patterns: list[str], files: list[str]) -> None:
    text = "FROM scratch\nCOPY a b /x/\nADD sub/x ./sub /y/\nCOPY x.md d/x.md . /z/\nCOPY *.md /q/\n"
    text += "COPY --from=busybox a /a"
    assert check(text, ignore_patterns=tuple(patterns)).warnings == ()
    report = check(f"# check=experimental=CopyIgnoredFile\n{text}", ignore_patterns=tuple(patterns))
    assert [warning.detail.split('"')[1] for warning in report.warnings] == files


def test_a_base_image_of_another_platform() -> None:
    report = check("FROM --platform=$BUILDPLATFORM busybox", build_platform=AMD64)
    assert report.warnings == ()
    arm = Options(build_platform=AMD64).build_platform.parse("linux/arm64")
    (warning,) = check("FROM busybox", target_platform=arm).warnings
    assert warning.detail == (
        'Base image busybox was pulled with platform "linux/amd64", expected "linux/arm64" for current build'
    )


def test_trap_06_shell_form_is_warned_of_with_its_line() -> None:
    (warning,) = check("FROM scratch\nENV A=1\nENTRYPOINT run me").warnings
    assert (warning.rule.name, warning.at.first_line) == ("JSONArgsRecommended", 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("foo", 'failed to parse check options: invalid check option "foo"'),
        ("skip=all;foo=1", 'failed to parse check options: invalid check option "foo"'),
        ("skpi=all", 'failed to parse check options: invalid check option "skpi" (did you mean skip?)'),
        (
            "error=maybe",
            'failed to parse check options: failed to parse check option "error=maybe": invalid boolean value "maybe"',
        ),
    ],
)
def test_bad_options(text: str, message: str) -> None:
    with pytest.raises(DockerfileError) as raised:
        CheckOptions.parse(text)
    assert raised.value.message == message
    report = check(f"# check={text}\nFROM scratch")
    assert report.error is not None
    assert report.error.message == message


def test_all_rules() -> None:
    rules = {rule.name: rule for rule in vars(lint).values() if isinstance(rule, Rule)}
    assert len(rules) == 22
    assert [rule.name for rule in rules.values() if not rule.url] == ["InvalidBaseImagePlatform"]


# --- reports

_TEXT = "# check=error=true\nFROM scratch\nENV A \\\n b\nCMD a\n"


def test_report_as_text() -> None:
    assert as_text(check(_TEXT)) == (
        "Check complete, 2 warnings have been found!\n"
        "\n"
        "WARNING: LegacyKeyValueFormat - https://docs.docker.com/go/dockerfile/rule/legacy-key-value-format/\n"
        '"ENV key=value" should be used instead of legacy "ENV key value" format\n'
        "Dockerfile:3\n"
        "--------------------\n"
        "   2 |     FROM scratch\n"
        "   3 | >>> ENV A \\\n"
        "   4 | >>>  b\n"
        "   5 |     CMD a\n"
        "--------------------\n"
        "\n"
        "WARNING: JSONArgsRecommended - https://docs.docker.com/go/dockerfile/rule/json-args-recommended/\n"
        "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals\n"
        "Dockerfile:5\n"
        "--------------------\n"
        "   3 |     ENV A \\\n"
        "   4 |      b\n"
        "   5 | >>> CMD a\n"
        "   6 |     \n"
        "--------------------\n"
        "\n"
        "ERROR: lint violation found for rules: LegacyKeyValueFormat, JSONArgsRecommended\n"
    )
    assert as_text(check('FROM scratch\nCMD ["a"]')) == "Check complete, no warnings found.\n"


def test_a_file_that_cannot_be_read_is_an_error_alone() -> None:
    report = check("FROM scratch\nCMD a\nCOPPY b\n")
    assert report.exit_code == 1
    assert as_text(report) == (
        "ERROR: dockerfile parse error on line 3: unknown instruction: COPPY (did you mean COPY?)\n"
        "Dockerfile:3\n"
        "--------------------\n"
        "   1 |     FROM scratch\n"
        "   2 |     CMD a\n"
        "   3 | >>> COPPY b\n"
        "   4 |     \n"
        "--------------------\n"
    )


def test_report_as_json() -> None:
    document = json.loads(as_json(check(_TEXT)))
    assert document["warnings"][0] == {
        "ruleName": "LegacyKeyValueFormat",
        "description": "Legacy key/value format with whitespace separator should not be used",
        "url": "https://docs.docker.com/go/dockerfile/rule/legacy-key-value-format/",
        "detail": '"ENV key=value" should be used instead of legacy "ENV key value" format',
        "location": {
            "ranges": [{"start": {"line": 3}, "end": {"line": 3}}, {"start": {"line": 4}, "end": {"line": 4}}]
        },
    }
    assert document["sources"][0]["filename"] == "Dockerfile"
    assert document["buildError"]["message"].startswith("lint violation found for rules: ")
    assert json.loads(as_json(check("FROM scratch")))["warnings"] is None


def test_summary_of_a_build() -> None:
    assert summary(check("FROM scratch\nENV A b\nCMD a").warnings) == [
        "JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals "
        "(line 3)",
        'LegacyKeyValueFormat: "ENV key=value" should be used instead of legacy "ENV key value" format (line 2)',
    ]
