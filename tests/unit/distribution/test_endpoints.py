"""Where a repository is fetched from, and through what."""

import pytest
from yarl import URL

from pier.distribution.endpoints import (
    Endpoint,
    ProxyConfig,
    RegistryConfig,
    bypasses_proxy,
    endpoints_for,
    is_insecure,
    proxy_for,
)
from pier.distribution.errors import ProxyUnusable


def urls(domain: str, **config: tuple[str, ...]) -> list[str]:
    return [endpoint.url for endpoint in endpoints_for(domain, RegistryConfig(**config))]  # type: ignore[arg-type]


def test_a_registry_is_spoken_to_encrypted_unless_told_otherwise() -> None:
    assert endpoints_for("quay.io", RegistryConfig()) == [Endpoint("https://quay.io", verify=True)]
    assert endpoints_for("r.test:5000", RegistryConfig(insecure=("r.test:5000",))) == [
        Endpoint("https://r.test:5000", verify=False),
        Endpoint("http://r.test:5000", verify=False),
    ]


def test_mirrors_stand_before_docker_hub_and_before_nothing_else() -> None:
    mirrors = ("https://m1.test/", "http://m2.test:5000/hub")
    assert urls("docker.io", mirrors=mirrors) == [
        "https://m1.test",
        "http://m2.test:5000/hub",
        "https://registry-1.docker.io",
    ]
    assert urls("quay.io", mirrors=mirrors) == ["https://quay.io"]
    assert endpoints_for("docker.io", RegistryConfig(mirrors=mirrors))[1].host == "m2.test:5000"
    assert Endpoint("https://u:p@r.test").host == "r.test"
    assert Endpoint("https://[::1]:443/x").host == "[::1]:443"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1", True),
        ("127.8.9.10:5000", True),
        ("[::1]:5000", True),
        ("localhost.evil.test", False),
        ("127.0.0.1.evil.test", False),
        ("128.0.0.1", False),
        ("listed.test:5000", True),
        ("listed.test:5001", False),
        ("listed.test", False),
        ("10.1.2.3:443", True),
        ("11.1.2.3", False),
        ("[fd00::7]:5000", True),
        ("scheme.test", True),
    ],
)
def test_is_insecure(host: str, expected: bool) -> None:
    assert is_insecure(host, ["listed.test:5000", "10.0.0.0/8", "fd00::/8", "http://scheme.test/"]) is expected


@pytest.mark.parametrize(
    ("host", "port", "no_proxy", "expected"),
    [
        ("a.test", 443, "", False),
        ("a.test", 443, "*", True),
        ("a.test", 443, "a.test", True),
        ("b.a.test", 443, "a.test", True),
        ("ba.test", 443, "a.test", False),
        ("a.test", 443, ".a.test", False),
        ("b.a.test", 443, ".a.test", True),
        ("b.a.test", 443, "*.a.test", True),
        ("A.test.", 443, " x , a.TEST ", True),
        ("a.test", 443, "a.test:443", True),
        ("a.test", 444, "a.test:443", False),
        ("10.0.0.7", 443, "10.0.0.0/24", True),
        ("10.0.1.7", 443, "10.0.0.0/24", False),
        ("10.0.0.7", 443, "10.0.0.7", True),
        ("10.0.0.7", 5000, "10.0.0.7:5000", True),
        ("210.0.0.7", 443, "10.0.0.7", False),
        ("localhost", 80, "", True),
        ("127.0.0.1", 80, "", True),
        ("::1", 80, "", True),
    ],
)
def test_no_proxy(host: str, port: int, no_proxy: str, expected: bool) -> None:
    assert bypasses_proxy(host, port, no_proxy) is expected


def test_proxy_for() -> None:
    proxies = ProxyConfig(http="p.test:3128", https="http://u:pw@p.test:3129", no_proxy="in.test")
    assert proxy_for(URL("http://r.test/v2/"), proxies) == "http://p.test:3128"
    assert proxy_for(URL("https://r.test/v2/"), proxies) == "http://u:pw@p.test:3129"
    assert proxy_for(URL("https://in.test/v2/"), proxies) is None
    assert proxy_for(URL("https://r.test/v2/"), ProxyConfig(http="p.test:1")) is None


@pytest.mark.parametrize("proxy", ["socks4://u:pw@p.test:1080", "ftp://u:pw@p.test", "http://"])
def test_trap_15_a_proxy_that_cannot_be_used_is_named_without_its_password(proxy: str) -> None:
    with pytest.raises(ProxyUnusable) as caught:
        proxy_for(URL("https://r.test/"), ProxyConfig(https=proxy))
    assert "pw" not in caught.value.wire
    assert '"proxies"' in caught.value.wire


def test_proxies_from_the_environment() -> None:
    environment = {"HTTPS_PROXY": "a:1", "http_proxy": "b:2", "NO_PROXY": "", "no_proxy": "c"}
    assert ProxyConfig.from_environment(environment) == ProxyConfig("b:2", "a:1", "c")
