from __future__ import annotations

import pytest

from pier.kernel import mounts
from pier.volumes import options


def test_a_folder_needs_no_mount() -> None:
    assert options.plan(None) is None
    assert options.plan({"size": "1g"}) is None
    assert options.size_bytes("v", {"size": "1g"}) == 1 << 30


def test_tmpfs() -> None:
    plan = options.plan({"type": "tmpfs", "device": "tmpfs", "o": "size=1m,nosuid,,mode=1777"})
    assert plan is not None
    assert plan.own_instance
    assert not plan.bind
    assert plan.options.set == mounts.MOUNT_ATTR_NOSUID
    assert plan.options.filesystem == [("size", "1m"), ("mode", "1777")]


@pytest.mark.parametrize(("words", "recursive"), [("bind", False), ("rbind,ro", True)])
def test_bind(words: str, recursive: bool) -> None:
    plan = options.plan({"type": "none", "device": "/srv", "o": words})
    assert plan is not None
    assert plan.bind
    assert not plan.own_instance
    assert plan.options.recursive_bind is recursive


@pytest.mark.parametrize(
    ("given", "asked", "words"),
    [
        ({"type": "nfs", "device": ":/x", "o": "addr=store,rw"}, ["store"], ("rw", "addr=10.9.8.7")),
        ({"type": "nfs", "device": ":/x", "o": "addr=10.1.1.1,rw"}, [], ("rw", "addr=10.1.1.1")),
        ({"type": "nfs4", "device": ":/x", "o": "addr=fd00::1"}, [], ("addr=fd00::1",)),
        ({"type": "cifs", "device": "//store/s", "o": "username=u"}, ["store"], ("username=u", "addr=10.9.8.7")),
        ({"type": "cifs", "device": "//10.1.1.1/s", "o": "a=b"}, [], ("a=b", "addr=10.1.1.1")),
        ({"type": "ext4", "device": "/dev/x", "o": "addr=store"}, [], ("addr=store",)),
    ],
)
def test_the_address_of_a_server_is_looked_up(given: dict[str, str], asked: list[str], words: tuple[str, ...]) -> None:
    plan, looked_up = options.plan(given), []

    def look_up(host: str) -> str:
        looked_up.append(host)
        return "10.9.8.7"

    assert plan is not None
    assert options.resolve(plan, look_up).words == words
    assert looked_up == asked


@pytest.mark.parametrize("word", ["password=secret", "pass=secret", "passwd=secret", "password2=secret"])
def test_secrets_are_not_said(word: str) -> None:
    plan = options.plan({"type": "cifs", "device": "//h/s", "o": f"username=u,{word},rw"})
    assert plan is not None
    assert plan.describe("/x") == f"mount //h/s:/x, data: username=u,{word.partition('=')[0]}=********,rw"
    assert "secret" not in options.masked(f"mount cifs, option {word}: invalid argument")
