"""Accounts: the configuration file, credential helpers, and what never shows."""

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from pier.cli.auth import HUB, Accounts, auth_header, registry_auth_header, registry_of, server_key
from pier.cli.errors import Failure
from pier.cli.flags import Flag, Options
from pier.cli.verbs import login

HELPER = """#!/bin/sh
echo "$1" >>{log}
case $1 in
get) read -r server
    [ -s {folder}/"$server" ] || {{ echo "credentials not found in native keychain"; exit 1; }}
    cat {folder}/"$server";;
store) cat >{folder}/stored;;
erase) read -r server; rm {folder}/"$server";;
list) echo '{{"a.test": "alice"}}';;
esac
"""


def options(folder: Path) -> Options:
    given = Options((Flag("config", "", "string", ""),))
    given.accept(Flag("config", "", "string", ""), str(folder))
    return given


def accounts(folder: Path, config: Any = None) -> Accounts:
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return Accounts(options(folder))


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`docker-credential-box` in PATH; its folder."""
    folder = tmp_path / "box"
    folder.mkdir()
    program = tmp_path / "docker-credential-box"
    program.write_text(HELPER.format(log=tmp_path / "log", folder=folder))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return folder


@pytest.mark.parametrize(
    ("server", "key"),
    [
        ("", HUB),
        ("docker.io", HUB),
        ("https://index.docker.io/v1/", HUB),
        ("https://r.test:5000/v2/", "r.test:5000"),
        ("r.test", "r.test"),
    ],
)
def test_server_key(server: str, key: str) -> None:
    assert server_key(server) == key


@pytest.mark.parametrize(
    ("name", "key"), [("busybox", HUB), ("a/b", HUB), ("r.test/a", "r.test"), ("localhost/a", "localhost")]
)
def test_registry_of(name: str, key: str) -> None:
    assert registry_of(name) == key


def test_the_file_keeps_what_is_not_ours(tmp_path: Path) -> None:
    kept = accounts(tmp_path, {"psFormat": "x", "auths": {"b.test": {"auth": "Yjpj"}}})
    kept.keep("a.test", {"username": "alice", "password": "pass:word"})
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["psFormat"] == "x"
    assert base64.b64decode(config["auths"]["a.test"]["auth"]) == b"alice:pass:word"
    assert (tmp_path / "config.json").stat().st_mode & 0o777 == 0o600
    again = accounts(tmp_path)
    assert again.get("a.test") == {"username": "alice", "password": "pass:word", "serveraddress": "a.test"}
    again.forget("a.test")
    assert list(json.loads((tmp_path / "config.json").read_text())["auths"]) == ["b.test"]


def test_a_configuration_file_that_is_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("{}")
    (tmp_path / "config.json").symlink_to("real.json")
    accounts(tmp_path).keep("a.test", {"username": "a", "password": "b"})
    assert (tmp_path / "config.json").is_symlink()
    assert "a.test" in (tmp_path / "real.json").read_text()


def test_an_identity_token_takes_the_password_s_place(tmp_path: Path) -> None:
    kept = accounts(tmp_path)
    kept.keep("a.test", {"username": "alice", "password": "never", "identitytoken": "t0ken"})
    assert "never" not in base64.b64decode(json.loads(kept_text(tmp_path))["auths"]["a.test"]["auth"]).decode()
    assert kept.get("a.test")["identitytoken"] == "t0ken"


def kept_text(folder: Path) -> str:
    return (folder / "config.json").read_text()


def test_old_keys_with_a_scheme_are_found(tmp_path: Path) -> None:
    kept = accounts(tmp_path, {"auths": {"https://r.test/v1/": {"auth": "YTpi"}}})
    assert kept.get("r.test")["username"] == "a"
    kept.forget("r.test")
    assert json.loads(kept_text(tmp_path))["auths"] == {}


def test_a_damaged_account_is_told(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"a\.test in config\.json is damaged: `pier login a\.test`"):
        accounts(tmp_path, {"auths": {"a.test": {"auth": "%%%%="}}}).get("a.test")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(Failure, match="JSON object"):
        accounts(tmp_path)


def test_a_helper_keeps_the_secret_out_of_the_file(tmp_path: Path, helper: Path) -> None:
    kept = accounts(tmp_path, {"credsStore": "box"})
    assert kept.get("a.test") == {}
    kept.keep("a.test", {"username": "alice", "password": "s3cret"})
    assert json.loads((helper / "stored").read_text()) == {
        "ServerURL": "a.test",
        "Username": "alice",
        "Secret": "s3cret",
    }
    assert json.loads(kept_text(tmp_path))["auths"] == {"a.test": {}}
    (helper / "a.test").write_text('{"Username": "alice", "Secret": "s3cret"}')
    assert kept.get("a.test")["password"] == "s3cret"
    (helper / "a.test").write_text('{"Username": "<token>", "Secret": "t0ken"}')
    assert kept.get("a.test") == {"identitytoken": "t0ken", "serveraddress": "a.test"}
    kept.forget("a.test")
    assert not (helper / "a.test").exists()


def test_a_helper_for_one_server(tmp_path: Path, helper: Path) -> None:
    kept = accounts(tmp_path, {"credHelpers": {"a.test": "box"}, "auths": {"b.test": {"auth": "Yjpj"}}})
    assert (kept.helper("a.test"), kept.helper("b.test")) == ("box", "")
    assert kept.get("b.test")["username"] == "b"


def test_a_helper_that_fails_or_lacks(tmp_path: Path) -> None:
    with pytest.raises(Failure, match='"docker-credential-nowhere": executable file not found'):
        accounts(tmp_path, {"credsStore": "nowhere"}).get("a.test")
    with pytest.raises(Failure, match="no name of a credential helper"):
        accounts(tmp_path, {"credsStore": "../../bin/sh"}).get("a.test")


def test_wish_03_login_list_shows_where_and_as_whom_and_no_secret(
    tmp_path: Path, helper: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kept = accounts(tmp_path, {"credsStore": "box", "auths": {"b.test": {"auth": "Ym9iOmIwYnMzY3JldA=="}}})
    assert login.show(kept) == 0
    shown = capfd.readouterr().out
    assert [line.split() for line in shown.splitlines()[1:]] == [
        ["a.test", "alice", "box"],
        ["b.test", "bob", "config.json"],
    ]
    assert "b0bs3cret" not in shown


def test_the_header_is_what_the_daemon_reads(tmp_path: Path) -> None:
    accounts(tmp_path, {"auths": {"r.test": {"auth": "YTpi"}}})
    [header] = registry_auth_header(options(tmp_path), "r.test/app:1")
    name, _, value = header.partition(": ")
    assert name == "X-Registry-Auth"
    assert json.loads(base64.urlsafe_b64decode(value)) == {"username": "a", "password": "b", "serveraddress": "r.test"}
    assert registry_auth_header(options(tmp_path), "other.test/app") == ()
    assert "+" not in auth_header({"password": "\xfb\xff\xfe>>>???"}).partition(": ")[2]
