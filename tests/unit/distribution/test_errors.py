"""What registries say when they refuse, fit for a message."""

import pytest

from pier.distribution.errors import describe_refusal, tame


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}',
            ("MANIFEST_UNKNOWN", "manifest unknown: manifest unknown"),
        ),
        (b'{"errors":[{"code":"DENIED"}]}', ("DENIED", "denied")),
        (b'{"errors":[{"message":"no"}]}', ("", "no")),
        (b'{"details":"incorrect username or password"}', ("", "incorrect username or password")),
        (b'{"errors":[]}', ("", "unexpected status code 404 Not Found")),
        (b'{"errors":null}', ("", "unexpected status code 404 Not Found")),
        (b"<html>", ("", "unexpected status code 404 Not Found")),
        (b"\xff", ("", "unexpected status code 404 Not Found")),
        (b"[" * 100_000, ("", "unexpected status code 404 Not Found")),
    ],
)
def test_describe_refusal(body: bytes, expected: tuple[str, str]) -> None:
    assert describe_refusal(404, "Not Found", body) == expected


def test_what_a_registry_says_cannot_write_on_the_terminal() -> None:
    code, said = describe_refusal(
        400, "", b'{"errors":[{"code":"X","message":"\\u001b[2J\\nok\\u202e' + b"a" * 999 + b'"}]}'
    )
    assert code == "X"
    assert said.isprintable()
    assert len(said) < 310
    assert tame("a\r\nb\x9b") == "a b"
