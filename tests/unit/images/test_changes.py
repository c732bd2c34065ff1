"""`--change`: Dockerfile lines on an image's configuration."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.errors import PierError
from pier.images.changes import InvalidChange, apply_changes, expand, unquote, words
from pier.oci import RunConfig
from pier.oci.image_config import HealthConfig

ENV = RunConfig(env=["PATH=/bin", "HOME=/root"])


@pytest.mark.parametrize(
    ("lines", "field", "value"),
    [
        (['CMD ["sh", "-c"]'], "cmd", ["sh", "-c"]),
        (["CMD echo $HOME"], "cmd", ["/bin/sh", "-c", "echo $HOME"]),
        (["CMD ['a']"], "cmd", ["/bin/sh", "-c", "['a']"]),
        (["CMD"], "cmd", ["/bin/sh", "-c"]),
        (["cmd true"], "cmd", ["/bin/sh", "-c", "true"]),
        (['ENTRYPOINT ["/bin/true"]'], "entrypoint", ["/bin/true"]),
        (["ENTRYPOINT"], "entrypoint", None),
        (["ENTRYPOINT []"], "entrypoint", None),
        (['ENTRYPOINT ["x"]'], "cmd", None),
        (['CMD ["y"]', 'ENTRYPOINT ["x"]'], "cmd", ["y"]),
        (['ENTRYPOINT ["x"]', 'CMD ["y"]'], "cmd", ["y"]),
        (["CMD []"], "cmd", []),
        (["# a comment", "CMD x"], "cmd", ["/bin/sh", "-c", "x"]),
        (["ENV A=1 \\\n B=2"], "env", ["PATH=/bin", "HOME=/root", "A=1", "B=2"]),
        (["ENV q='$HOME' r=\"$HOME\" s=\\$HOME"], "env", [*ENV.env, "q=$HOME", "r=/root", "s=$HOME"]),
        (["STOPSIGNAL RTMIN+3"], "stop_signal", "RTMIN+3"),
        (["STOPSIGNAL 9"], "stop_signal", "9"),
        (['ENV A=b C="d e"'], "env", ["PATH=/bin", "HOME=/root", "A=b", "C=d e"]),
        (["ENV A b c d"], "env", ["PATH=/bin", "HOME=/root", "A=b c d"]),
        (["ENV PATH=/x:$PATH"], "env", ["PATH=/x:/bin", "HOME=/root"]),
        (["ENV A=1", "ENV B=${A}2"], "env", ["PATH=/bin", "HOME=/root", "A=1", "B=12"]),
        (["EXPOSE 80 53/udp"], "exposed_ports", {"53/udp": {}, "80/tcp": {}}),
        (["EXPOSE 8000-8002"], "exposed_ports", {"8000/tcp": {}, "8001/tcp": {}, "8002/tcp": {}}),
        (['LABEL x=y "a b"="c d"'], "labels", {"x": "y", "a b": "c d"}),
        (["LABEL x=y\nLABEL z=1"], "labels", {"x": "y", "z": "1"}),
        (["USER 1:1"], "user", "1:1"),
        (["WORKDIR /a", "WORKDIR b", "WORKDIR ../c"], "working_dir", "/a/c"),
        (["WORKDIR $HOME/x"], "working_dir", "/root/x"),
        (["VOLUME /data /logs"], "volumes", {"/data": {}, "/logs": {}}),
        (['VOLUME ["/a b"]'], "volumes", {"/a b": {}}),
        (["ONBUILD RUN ls"], "on_build", ["RUN ls"]),
        (["STOPSIGNAL SIGINT"], "stop_signal", "SIGINT"),
        (["HEALTHCHECK NONE"], "healthcheck", HealthConfig(test=["NONE"])),
        (
            ["HEALTHCHECK --interval=5s --retries=3 CMD true"],
            "healthcheck",
            HealthConfig(test=["CMD-SHELL", "true"], interval=5_000_000_000, retries=3),
        ),
        (['HEALTHCHECK CMD ["a", "b"]'], "healthcheck", HealthConfig(test=["CMD", "a", "b"])),
    ],
)
def test_changes(lines: list[str], field: str, value: Any) -> None:
    assert getattr(apply_changes(ENV, lines), field) == value


def test_an_entrypoint_takes_the_command_that_was_there_away() -> None:
    old = RunConfig(cmd=["old"])
    assert apply_changes(old, ['ENTRYPOINT ["x"]']).cmd is None
    assert apply_changes(old, ["ENV A=1"]).cmd == ["old"]
    assert apply_changes(old, []) is old


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("FOO x", "FOO is not a valid change command"),
        ("RUN x", "RUN is not a valid change command"),
        ("EXPOSE x", "Invalid containerPort: x"),
        ("EXPOSE 70000", "Invalid containerPort: 70000"),
        ("EXPOSE 80/icmp", "Invalid proto: icmp"),
        ("ENV x", "ENV must have two arguments"),
        ('LABEL a="b c" d', 'Syntax error - can\'t find = in "d". Must be of the form: name=value'),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK --interval=1us CMD x", 'Interval "interval" cannot be less than 1ms'),
        ("HEALTHCHECK FOO x", 'Unknown type "FOO" in HEALTHCHECK (try CMD)'),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("USER", "USER requires exactly one argument"),
        ("", "file with no instructions"),
        ("# nothing", "file with no instructions"),
        ('CMD ["a", 1]', "when using JSON array syntax, arrays must be comprised of strings only"),
        ("STOPSIGNAL BOGUS", "invalid signal: BOGUS"),
        ("STOPSIGNAL 65", "invalid signal: 65"),
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)"),
        ("ENV A=1#x # y", 'Syntax error - can\'t find = in "#". Must be of the form: name=value'),
        ("VOLUME []", "VOLUME requires at least one argument"),
    ],
)
def test_invalid_changes_in_docker_s_words(line: str, message: str) -> None:
    with pytest.raises(InvalidChange) as caught:
        apply_changes(ENV, [line])
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$A-${A}", "1-1"),
        ("${B:-x} ${A:-x}", "x 1"),
        ("${B:+x} ${A:+x}", " x"),
        (r"\$A", r"\$A"),
        ("'$A'", "'$A'"),
        ("$", "$"),
        ("$B", ""),
    ],
)
def test_expand(text: str, value: str) -> None:
    assert expand(text, {"A": "1"}) == value


def test_words_keep_quotes_and_unquote_takes_them_away() -> None:
    assert words("""a="b c" d\\ e 'f g'""") == ['a="b c"', "d\\ e", "'f g'"]
    assert list(map(unquote, ['a="b \\"c"', "d\\ e", "'f g'"])) == ['a=b "c', "d e", "f g"]
    with pytest.raises(InvalidChange, match="matching quote"):
        words('a="b')


@given(st.text(max_size=60))
def test_any_line_changes_something_or_is_refused(text: str) -> None:
    for keyword in ("CMD", "ENV", "EXPOSE", "LABEL", "HEALTHCHECK", "VOLUME", "WORKDIR"):
        try:
            apply_changes(ENV, [f"{keyword} {text}"])
        except PierError:
            continue
