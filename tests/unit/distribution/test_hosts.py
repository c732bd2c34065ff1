"""hosts.toml of containerd: what it may say, what it decides."""

from pathlib import Path

import pytest

from pier.distribution.endpoints import RegistryConfig, TlsFiles, endpoints_for
from pier.distribution.errors import BadHostsFile
from pier.distribution.hosts import parse_hosts

FULL = """
server = "https://registry.test"

[host."https://mirror.test"]
  capabilities = ["pull", "resolve"]
  ca = "ca.crt"
  client = [["client.cert", "client.key"]]
  [host."https://mirror.test".header]
    x-custom = ["a", "b"]

[host."http://cache.test:5000/proxy/v2"]
  capabilities = ["pull", "resolve"]
  override_path = true

[host."https://push.test"]
  skip_verify = true
"""


def config(root: Path, domain: str, text: str) -> RegistryConfig:
    folder = root / domain
    folder.mkdir(exist_ok=True)
    (folder / "hosts.toml").write_text(text)
    return RegistryConfig(certs_dirs=(str(root),), mirrors=("https://never.test",))


def test_the_file_decides(tmp_path: Path) -> None:
    settings = config(tmp_path, "docker.io", FULL)
    first, second, third, origin = endpoints_for("docker.io", settings)
    assert (first.base, first.mirror, first.verify) == ("https://mirror.test/v2", True, True)
    pair = (str(tmp_path / "docker.io/client.cert"), str(tmp_path / "docker.io/client.key"))
    assert first.tls == TlsFiles((str(tmp_path / "docker.io/ca.crt"),), (pair,))
    assert first.headers == (("x-custom", "a, b"),)
    assert second.base == "http://cache.test:5000/proxy/v2"
    assert (third.base, third.verify) == ("https://push.test/v2", False)
    assert (origin.base, origin.mirror) == ("https://registry.test/v2", True)
    assert [e.url for e in endpoints_for("docker.io", settings, push=True)] == [
        "https://push.test",
        "https://registry.test",
    ]


def test_attack_18_only_the_registry_itself_gets_its_login(tmp_path: Path) -> None:
    text = '[host."https://r.test:5000"]\n[host."https://r.test"]\n'
    endpoints = endpoints_for("r.test:5000", config(tmp_path, "r.test:5000", text))
    assert [(e.url, e.mirror) for e in endpoints] == [("https://r.test:5000", False), ("https://r.test", True)]


def test_the_default_file_is_for_all_others(tmp_path: Path) -> None:
    settings = config(tmp_path, "_default", '[host."https://m.test"]\n')
    assert [e.url for e in endpoints_for("quay.io", settings)] == ["https://m.test", "https://quay.io"]


def test_without_a_file_it_is_as_before(tmp_path: Path) -> None:
    settings = RegistryConfig(certs_dirs=(str(tmp_path),), mirrors=("https://m.test",))
    assert [e.url for e in endpoints_for("docker.io", settings)] == ["https://m.test", "https://registry-1.docker.io"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("server = [", "Invalid value"),
        ("server = 3", "server: a str is wanted"),
        ('[host."https://a.test"]\nskip_verfy = true', "unknown key skip_verfy"),
        ('[host."https://a.test"]\nskip_verify = "yes"', "skip_verify: a bool is wanted"),
        ('[host."https://a.test"]\ncapabilities = ["pull", "fly"]', "unknown capability 'fly'"),
        ('[host."ftp://a.test"]', "not the URL of a registry"),
        ('[host."https://u:p@a.test"]', "not the URL of a registry"),
        ('[host."https://a.test".header]\n"a b" = "c"', "is not one of HTTP"),
        ('[host."https://a.test".header]\na = "c\\r\\nEvil: 1"', "is not one of HTTP"),
        ('[host."https://a.test"]\nclient = [["a", "b", "c"]]', "a certificate and its key"),
        ("capabilities = []", "which is not given"),
        ("#" * 70_000, "more than"),
    ],
)
def test_files_that_are_refused(text: str, reason: str) -> None:
    with pytest.raises(BadHostsFile) as caught:
        parse_hosts(text.encode(), "/certs.d/a/hosts.toml")
    assert reason in caught.value.message
    assert caught.value.message.startswith("/certs.d/a/hosts.toml: ")
    assert "hosts.toml is wanted" in caught.value.wire
