import json
from pathlib import Path
from typing import Any

import pytest

from pier.engine.config import BadConfigFile, DaemonConfig, UnsupportedOption, load
from pier.engine.flags import BadFlag, flag_specs, read
from pier.engine.options import INERT
from pier.engine.values import BadValue, parse_pool, parse_ulimit, size_bytes

DOCKERD_28_FLAGS = """
add-runtime allow-direct-routing authorization-plugin bip bip6 bridge cdi-spec-dir cgroup-parent containerd
containerd-namespace containerd-plugins-namespace cpu-rt-period cpu-rt-runtime cri-containerd data-root debug
default-address-pool default-cgroupns-mode default-gateway default-gateway-v6 default-ipc-mode default-network-opt
default-runtime default-shm-size default-ulimit dns dns-opt dns-search exec-opt exec-root experimental feature
fixed-cidr fixed-cidr-v6 group host host-gateway-ip http-proxy https-proxy icc init init-path insecure-registry ip
ip-forward ip-forward-no-drop ip-masq ip6tables iptables ipv6 label live-restore log-driver log-format log-level
log-opt max-concurrent-downloads max-concurrent-uploads max-download-attempts metrics-addr mtu
network-control-plane-mtu no-new-privileges no-proxy node-generic-resource pidfile raw-logs registry-mirror rootless
seccomp-profile selinux-enabled shutdown-timeout storage-driver storage-opt swarm-default-advertise-addr tls tlscacert
tlscert tlskey tlsverify userland-proxy userland-proxy-path
""".split()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "daemon.json"


def configure(path: Path, file: Any, *argv: str) -> DaemonConfig:
    path.write_text(file if isinstance(file, str) else json.dumps(file))
    return read(["--config-file", str(path), *argv]).load().config


def test_every_flag_of_dockerd_is_known() -> None:
    assert set(DOCKERD_28_FLAGS) <= {spec.name for spec in flag_specs()}


def test_no_option_both_acts_and_does_not() -> None:
    names = [spec.key for spec in flag_specs()]
    assert len(names) == len(set(names))


def test_defaults() -> None:
    config = DaemonConfig()
    assert config.listen == ["unix:///run/pier/pier.sock"]
    assert config.pid_path == "/run/pier/pier.pid"
    assert config.claims_docker_socket
    assert not DaemonConfig(exec_root="/run/other").claims_docker_socket
    assert DaemonConfig(debug=True).level == "debug"


def test_the_file_and_the_flags_make_one_configuration(path: Path) -> None:
    file = {
        "data-root": "/srv/pier",
        "dns": ["9.9.9.9"],
        "default-ulimits": {"nofile": {"Name": "nofile", "Hard": 64000, "Soft": 64000}},
        "default-shm-size": "128M",
        "log-opts": {"max-size": "10m"},
        "proxies": {"http-proxy": "http://proxy:3128"},
        "default-address-pools": [{"base": "10.9.0.0/16", "size": 24}],
        "icc": True,
    }
    argv = ["--init", "-l", "warn", "--ip-masq=false", "-H", "unix:///a", "-H", "fd://"]
    config = configure(path, file, *argv, "--label", "a=1")
    assert (config.data_root, config.dns, config.default_shm_size) == ("/srv/pier", ["9.9.9.9"], 128 << 20)
    assert config.default_ulimits["nofile"].hard == 64000
    assert config.proxies.http_proxy == "http://proxy:3128"
    assert config.default_address_pools[0].size == 24
    assert (config.init, config.ip_masq, config.log_level) == (True, False, "warn")
    assert config.hosts == ["unix:///a", "fd://"]
    assert config.labels == ["a=1"]


def test_flags_in_the_shape_of_the_file(path: Path) -> None:
    argv = ["--default-ulimit", "nofile=10:20", "--log-opt", "max-size=1m", "--default-shm-size", "1g"]
    argv += ["--max-layer-size", "20g", "--max-layer-files", "1000"]
    config = configure(
        path, {}, *argv, "--default-address-pool", "base=10.9.0.0/16,size=24", "--http-proxy", "http://p"
    )
    assert (config.default_ulimits["nofile"].soft, config.default_ulimits["nofile"].hard) == (10, 20)
    assert config.log_opts == {"max-size": "1m"}
    assert (config.default_shm_size, config.max_layer_size, config.max_layer_files) == (1 << 30, 20 << 30, 1000)
    assert config.default_address_pools[0].base == "10.9.0.0/16"
    assert config.proxies.http_proxy == "http://p"


@pytest.mark.parametrize(
    ("file", "argv", "reason"),
    [
        ({"foo": 1, "bar": 2}, [], "the following directives don't match any configuration option: bar, foo"),
        (
            {"debug": True},
            ["-D"],
            "the following directives are specified both as a flag and in the configuration file: "
            "debug: (from flag: true, from file: true)",
        ),
        (
            {"hosts": ["unix:///a", "fd://"]},
            ["-H", "fd://"],
            "the following directives are specified both as a flag and in the configuration file: "
            "hosts: (from flag: [fd://], from file: [unix:///a fd://])",
        ),
        ("{bad", [], "invalid JSON: "),
        ("[]", [], "invalid JSON: an object is wanted"),
        ("[" * 100_000, [], "invalid JSON: "),
        ({"group": 5}, [], "invalid JSON: Expected `str`, got `int` - at `$.group`"),
        ({"dns": ["x"]}, [], "invalid IP address: x"),
        ({"bip": "172.17.0.1"}, [], "invalid CIDR address: 172.17.0.1"),
        ({"default-shm-size": "lots"}, [], "invalid size: 'lots'"),
        ({"max-layer-size": 0}, [], "invalid max-layer-size: 0"),
        ({"max-layer-files": -1}, [], "invalid max-layer-files: -1"),
        ({"layer-blobs": "drop"}, [], "invalid layer-blobs: drop: keep or rebuild"),
        (
            {"hosts": ["x://"]},
            [],
            "merged configuration validation from file and command line flags failed: "
            "invalid bind address (x://): unsupported proto 'x'",
        ),
        ({"hosts": ["tcp://0.0.0.0:2375"]}, [], "unix sockets only"),
        ({"mtu": -1}, [], "invalid default MTU: -1"),
        ({"log-level": "zz"}, [], "invalid logging level: zz"),
        ({"labels": ["a"]}, [], "bad attribute format: a"),
        (
            {"registry-mirrors": ["foo"]},
            [],
            """invalid mirror: no scheme specified for "foo": must use either 'https://' or 'http://'""",
        ),
        ({"default-cgroupns-mode": "z"}, [], 'invalid default cgroup namespace (z): use "host" or "private"'),
        ({"data-root": "relative"}, [], "must be absolute"),
    ],
)
def test_refusals_in_dockers_words(path: Path, file: Any, argv: list[str], reason: str) -> None:
    with pytest.raises(BadConfigFile) as caught:
        configure(path, file, *argv)
    assert str(caught.value).startswith(f"unable to configure the Docker daemon with file {path}: ")
    assert reason in str(caught.value)
    assert caught.value.exit_code == 1


def test_a_missing_file_matters_only_when_asked_for(tmp_path: Path) -> None:
    missing = str(tmp_path / "daemon.json")
    assert load({}, path=missing).config == DaemonConfig()
    with pytest.raises(BadConfigFile, match="no such file or directory"):
        load({}, path=missing, path_given=True)


def test_an_inert_option_warns_and_a_guard_is_refused(path: Path) -> None:
    path.write_text(json.dumps({"metrics-addr": "127.0.0.1:9323", "live-restore": True}))
    loaded = load({}, path=str(path))
    assert loaded.warnings == ["the daemon option metrics-addr has no effect: the metrics page is not implemented yet"]
    for guard, value in (("authorization-plugins", ["opa"]), ("selinux-enabled", True)):
        with pytest.raises(UnsupportedOption, match=guard):
            load({guard: value}, path=str(path.with_name("none")))


def test_features_that_are_known_and_that_are_not(path: Path) -> None:
    path.write_text(json.dumps({"features": {"buildkit": True, "time-travel": True}}))
    loaded = load(read(["--feature", "containerd-snapshotter"]).flags, path=str(path))
    assert loaded.config.features == {"containerd-snapshotter": True}
    loaded = load({}, path=str(path))
    assert loaded.warnings == ["the feature time-travel has no effect: it is none of buildkit, containerd-snapshotter"]


@pytest.mark.parametrize("key", sorted(INERT))
def test_every_inert_option_says_why(key: str) -> None:
    assert INERT[key].why
    assert not INERT[key].why.endswith(".")


@pytest.mark.parametrize("argv", [["--no-such"], ["--mtu", "x"], ["--icc=maybe"], ["stray"]])
def test_a_bad_flag_is_one_line(argv: list[str]) -> None:
    with pytest.raises(BadFlag) as caught:
        read(argv)
    assert "\n" not in str(caught.value)
    assert "pierd --help" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "size"),
    [("4096", 4096), ("64m", 64 << 20), ("64MiB", 64 << 20), ("1.5g", 3 << 29), ("2kb", 2048), ("1 K", 1024)],
)
def test_size_bytes(text: str, size: int) -> None:
    assert size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1x", "m", "1.m", "0x10", "\u0661m"])
def test_size_bytes_refuses(text: str) -> None:
    with pytest.raises(BadValue):
        size_bytes(text)


def test_ulimits_and_pools() -> None:
    assert parse_ulimit("nofile=5") == ("nofile", {"Name": "nofile", "Soft": 5, "Hard": 5})
    assert parse_ulimit("core=0:-1") == ("core", {"Name": "core", "Soft": 0, "Hard": -1})
    for text in ("nofile=5:2", "nofile", "nofile=-1:5", "=1"):
        with pytest.raises(BadValue):
            parse_ulimit(text)
    assert parse_pool("size=24,base=10.0.0.0/8") == {"base": "10.0.0.0/8", "size": 24}
    with pytest.raises(BadValue):
        parse_pool("10.0.0.0/8")


def test_networks(path: Path) -> None:
    file = {
        "ipv6": True,
        "bip6": "fd00::1/64",
        "default-gateway": "10.0.0.9",
        "default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "1400"}},
        "ip6tables": False,
        "userland-proxy": False,
        "published-ports-firewall": "host",
    }
    config = configure(path, file, "--allow-direct-routing", "--ip-forward-no-drop", "--fixed-cidr-v6", "fd00::/80")
    assert (config.ipv6, config.bip6, config.fixed_cidr_v6) == (True, "fd00::1/64", "fd00::/80")
    assert config.default_network_opts == {"bridge": {"com.docker.network.driver.mtu": "1400"}}
    assert (config.ip6tables, config.userland_proxy, config.allow_direct_routing) == (False, False, True)
    assert (config.ip_forward_no_drop, config.published_ports_firewall) == (True, "host")
    options = ["--default-network-opt", "bridge=a=1", "--default-network-opt", "bridge=b=2=3"]
    assert configure(path, {}, *options).default_network_opts == {"bridge": {"a": "1", "b": "2=3"}}


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ({"published-ports-firewall": "ufw"}, 'invalid published-ports-firewall: ufw: use "bypass" or "host"'),
        ({"default-gateway": "foo"}, "invalid IP address: foo"),
        ({"fixed-cidr-v6": "foo"}, "invalid CIDR address: foo"),
        ({"default-network-opts": {"bridge": {"com.docker.network.driver.mtu": 1400}}}, "Expected `str`, got `int`"),
    ],
)
def test_wrong_settings_of_networks(path: Path, file: dict[str, Any], words: str) -> None:
    with pytest.raises(BadConfigFile) as caught:
        configure(path, file)
    assert words in str(caught.value)


def test_a_default_network_option_that_is_none(path: Path) -> None:
    with pytest.raises(BadValue, match="DRIVER=KEY=VALUE is wanted"):
        configure(path, {}, "--default-network-opt", "foo")
