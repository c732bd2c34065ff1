"""Wish 4: Dockerfiles rebuilt from histories as builders write them, and what is said to be a guess."""

from __future__ import annotations

from typing import Any

import pytest

from pier.cli.dockerfile import rebuild, text

CONFIG: dict[str, Any] = {
    "Env": ["A=1", "B=two words"],
    "Labels": {"a": "b", "c d": "e f"},
    "Cmd": ["/bin/sh", "-ec", "echo hi"],
    "Entrypoint": ["/bin/sh", "-c"],
    "Shell": ["/bin/sh", "-ec"],
    "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000},
}


def lines(*created_by: str, config: dict[str, Any] | None = None, size: int = 0) -> list[tuple[str, bool]]:
    """(text, exact?) of the lines below FROM; steps are given the oldest first."""
    steps = [{"CreatedBy": step, "Size": size, "Comment": ""} for step in reversed(created_by)]
    return [(line.text, not line.doubt) for line in rebuild(steps, config or {})[1:]]


@pytest.mark.parametrize(
    ("step", "line", "exact"),
    [
        ('/bin/sh -c #(nop)  CMD ["/bin/sh" "-ec" "echo hi"]', 'CMD ["/bin/sh","-ec","echo hi"]', True),
        ('CMD ["/bin/sh" "-ec" "echo hi"]', 'CMD ["/bin/sh","-ec","echo hi"]', True),
        ('CMD ["old" "one"]', 'CMD ["old","one"]', True),
        ("/bin/sh -ec #(nop)  SHELL [/bin/sh -ec]", 'SHELL ["/bin/sh","-ec"]', True),
        ("SHELL [/bin/other -c]", 'SHELL ["/bin/other","-c"]', False),
        ("/bin/sh -c #(nop)  EXPOSE 53/udp 80", "EXPOSE 53/udp 80", True),
        ("EXPOSE map[53/udp:{} 80/tcp:{}]", "EXPOSE 53/udp 80/tcp", True),
        ("/bin/sh -c #(nop)  VOLUME [/data]", 'VOLUME ["/data"]', True),
        ("/bin/sh -c #(nop)  ENV A=1 B=two words", 'ENV A=1 B="two words"', True),
        ("ENV A=1", "ENV A=1", True),
        ("ENV X=1 Y=2 3", "ENV X=1 Y=2 3", False),
        ("/bin/sh -c #(nop)  LABEL a=b c d=e f", 'LABEL a=b "c d"="e f"', True),
        (
            "/bin/sh -c #(nop)  HEALTHCHECK &{[CMD-SHELL true] 5s 0s 0s 0s 0}",
            "HEALTHCHECK --interval=5s CMD true",
            True,
        ),
        ("/bin/sh -c #(nop) WORKDIR /work", "WORKDIR /work", True),
        ("WORKDIR /work", "WORKDIR /work", True),
        ("/bin/sh -c #(nop)  ONBUILD RUN ls", "ONBUILD RUN ls", True),
        ("/bin/sh -c apk add x", "RUN apk add x", True),
        ("RUN /bin/sh -c apk add x # buildkit", "RUN apk add x", True),
        ("RUN /bin/sh -c a\nb # buildkit", "RUN <<EOF\na\nb\nEOF", True),
        ("/bin/sh -c #(nop) ADD file:0dada2 in /y ", "ADD file:0dada2 /y", False),
        ("COPY a b /x/ # buildkit", "COPY a b /x/", False),
        ("/bin/sh -c #(nop)  MAINTAINER me", 'LABEL maintainer="me"', False),
        ("-c echo hi", "RUN -c echo hi", False),
    ],
)
def test_wish_4_one_step(step: str, line: str, exact: bool) -> None:
    assert lines(step, config=CONFIG)[0] == (line, exact)


def test_build_arguments_come_before_the_command_that_had_them() -> None:
    assert lines("|2 V=1 W=x y /bin/sh -c echo $V") == [("ARG V", False), ("ARG W", False), ("RUN echo $V", True)]
    assert lines("ARG V=1", "|1 V=1 /bin/sh -c echo $V") == [("ARG V=1", True), ("RUN echo $V", True)]


def test_a_layer_without_words_is_files_from_somewhere() -> None:
    assert lines("", size=5) == [("ADD rootfs.tar /", False)]
    assert lines("", size=0) == []


def test_what_no_step_says_is_taken_from_the_configuration() -> None:
    found = lines(
        "/bin/sh -c true", config={"Env": ["A=b c"], "Cmd": ["x"], "User": "5", "ExposedPorts": {"80/tcp": {}}}
    )
    assert found[1:] == [('ENV A="b c"', False), ("EXPOSE 80/tcp", False), ("USER 5", False), ('CMD ["x"]', False)]


def test_the_last_command_counts() -> None:
    config = {"Cmd": ["new"]}
    assert lines('CMD ["old"]', config=config) == [('CMD ["old"]', True), ('CMD ["new"]', False)]
    assert lines('CMD ["old"]', 'CMD ["new"]', config=config)[-1] == ('CMD ["new"]', True)


def test_the_file_says_how_many_lines_are_guessed() -> None:
    steps = [{"CreatedBy": "COPY a /b # buildkit", "Size": 3, "Comment": ""}]
    assert text(rebuild(steps, {}), "x:1").splitlines() == [
        "# Rebuilt from the history of x:1: 1 lines are exact, 1 are guessed.",
        "FROM scratch",
        "# guessed: the names are exact, the files themselves are in the layer only",
        "COPY a /b",
    ]
