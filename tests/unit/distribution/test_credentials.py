"""Credentials, challenges, and where a password may go."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pier.distribution.credentials import BadCredentials, Challenge, Credentials, check_realm, parse_challenges
from pier.distribution.endpoints import Endpoint
from pier.distribution.errors import RealmRefused


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_from_auth_config() -> None:
    assert Credentials.from_auth_config(None) == Credentials()
    assert Credentials.from_auth_config({"username": "u", "password": "p"}) == Credentials("u", "p")
    assert Credentials.from_auth_config({"auth": b64("u:p:q\0")}) == Credentials("u", "p:q")
    assert Credentials.from_auth_config({"identitytoken": "i"}).identity_token == "i"
    assert Credentials("u", "p").basic == f"Basic {b64('u:p')}"
    assert Credentials("u").basic is None


@pytest.mark.parametrize(
    "config",
    [{"auth": "*"}, {"auth": b64("u") + "!"}, {"registrytoken": "a\r\nX: y"}, {"username": "a:b", "password": "c"}],
)
def test_bad_credentials(config: dict[str, str]) -> None:
    with pytest.raises(BadCredentials):
        Credentials.from_auth_config(config)


def test_secrets_are_not_shown() -> None:
    shown = repr(Credentials("user", "SECRET", "SECRET", "SECRET"))
    assert "user" in shown
    assert "SECRET" not in shown
    assert Credentials().who == "nobody (not logged in)"
    assert Credentials("u\n" + "x" * 1000, "p").who.isprintable()


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], []),
        (["Basic"], [Challenge("basic", {})]),
        (['Basic realm="a, b"'], [Challenge("basic", {"realm": "a, b"})]),
        (
            ['Bearer realm="https://a.test/t",service="s",scope="repository:x:pull,push"'],
            [Challenge("bearer", {"realm": "https://a.test/t", "service": "s", "scope": "repository:x:pull,push"})],
        ),
        (
            ['Basic realm="x", Bearer Realm="https://a.test" , error=insufficient_scope'],
            [
                Challenge("basic", {"realm": "x"}),
                Challenge("bearer", {"realm": "https://a.test", "error": "insufficient_scope"}),
            ],
        ),
        ([r'Basic realm="a\"b"'], [Challenge("basic", {"realm": 'a"b'})]),
        (['Bearer realm="a",realm="b"'], [Challenge("bearer", {"realm": "a"})]),
        (["=", ""], []),
    ],
)
def test_parse_challenges(headers: list[str], expected: list[Challenge]) -> None:
    assert parse_challenges(headers) == expected


@given(st.lists(st.text(alphabet='Bb aA=",\\ /:\t', max_size=300), max_size=3))
def test_no_header_hangs_or_crashes_the_reader(headers: list[str]) -> None:
    for challenge in parse_challenges(headers):
        assert challenge.scheme == challenge.scheme.lower()


@pytest.mark.parametrize(
    ("realm", "endpoint", "allowed"),
    [
        ("https://auth.test/token", "https://r.test", True),
        ("https://auth.test/token", "http://localhost:5000", True),
        ("http://r.test/token", "https://r.test", False),
        ("http://auth.test/token", "https://r.test", False),
        ("http://localhost:5001/token", "http://localhost:5000", True),
        ("http://auth.test/token", "http://localhost:5000", False),
        ("file:///etc/passwd", "https://r.test", False),
        ("//auth.test/token", "https://r.test", False),
        ("", "https://r.test", False),
        ("https://u:p@auth.test/", "https://r.test", False),
        ("http://[", "http://localhost:5000", False),
    ],
)
def test_attack_18_realm_must_be_https(realm: str, endpoint: str, allowed: bool) -> None:
    if allowed:
        assert str(check_realm(realm, Endpoint(endpoint))) == realm
    else:
        with pytest.raises(RealmRefused, match="credentials were not sent"):
            check_realm(realm, Endpoint(endpoint))
