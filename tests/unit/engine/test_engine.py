from ipaddress import IPv4Network
from pathlib import Path

from pier.engine.cgroup_driver import CgroupDriver
from pier.engine.config import AddressPool, DaemonConfig, Proxies
from pier.engine.engine import containers_config, engine_id, network_config, registries_config
from pier.engine.reload import attributes, merge
from pier.kernel.cgroups import Layout
from pier.model.host_config import Ulimit
from pier.networks.ipam import DEFAULT_POOLS

V1 = Layout("v1", {"memory": "/cg/memory"}, ("/cg/memory",))


def test_the_default_bridge() -> None:
    config = network_config(DaemonConfig())
    assert (config.bridge, config.mtu, config.ip, list(config.pools)) == ("pier0", 1500, "0.0.0.0", list(DEFAULT_POOLS))


def test_settings_reach_the_networks() -> None:
    config = network_config(
        DaemonConfig(
            bridge="br7",
            bip="10.7.0.1/24",
            fixed_cidr="10.7.0.128/25",
            mtu=9000,
            ip="127.0.0.1",
            icc=False,
            ip_forward=False,
            ip_masq=False,
            iptables=False,
            default_address_pools=[AddressPool("10.9.0.0/16", 24)],
        )
    )
    assert (config.bridge, config.bip, config.fixed_cidr, config.mtu) == ("br7", "10.7.0.1/24", "10.7.0.128/25", 9000)
    assert (config.icc, config.ip_forward, config.ip_masq, config.iptables) == (False, False, False, False)
    assert config.ip == "127.0.0.1"
    assert [(pool.base, pool.size) for pool in config.pools] == [(IPv4Network("10.9.0.0/16"), 24)]


def test_settings_reach_the_containers() -> None:
    config = containers_config(
        DaemonConfig(
            data_root="/d",
            exec_root="/e",
            cgroup_parent="/own",
            default_ulimits={"nofile": Ulimit(name="nofile", soft=1, hard=2)},
            no_new_privileges=True,
            init=True,
            seccomp_profile="unconfined",
            log_opts={"max-size": "1m"},
            dns=["9.9.9.9"],
            default_shm_size=1 << 20,
        ),
        V1,
        CgroupDriver("cgroupfs", "/own"),
    )
    assert (config.data_root, config.exec_root, config.cgroup_parent, config.cgroups) == ("/d", "/e", "/own", V1)
    assert [limit.name for limit in config.default_ulimits] == ["nofile"]
    assert (config.no_new_privileges, config.init, config.seccomp_profile) == (True, True, "unconfined")
    assert (config.log_opts, config.dns, config.default_shm_size) == ({"max-size": "1m"}, ["9.9.9.9"], 1 << 20)
    assert not config.systemd_cgroups
    scopes = containers_config(DaemonConfig(), V1, CgroupDriver("systemd", "system.slice"))
    assert (scopes.systemd_cgroups, scopes.cgroup_parent) == (True, "system.slice")


def test_the_engine_keeps_its_id(tmp_path: Path) -> None:
    first = engine_id(str(tmp_path))
    assert engine_id(str(tmp_path)) == first
    (tmp_path / "engine-id").write_text("nonsense")
    assert engine_id(str(tmp_path)) != first


def test_settings_reach_the_registries() -> None:
    surroundings = {"HTTP_PROXY": "http://env:1", "https_proxy": "http://env:2", "NO_PROXY": "local"}
    config = DaemonConfig(
        registry_mirrors=["https://mirror.local"],
        insecure_registries=["reg.local:5000"],
        proxies=Proxies(http_proxy="http://own:3128"),
    )
    registries = registries_config(config, surroundings)
    assert (registries.mirrors, registries.insecure) == (("https://mirror.local",), ("reg.local:5000",))
    proxies = registries.proxies
    assert (proxies.http, proxies.https, proxies.no_proxy) == ("http://own:3128", "http://env:2", "local")


def test_a_reload_takes_what_may_change_and_names_the_rest() -> None:
    before = DaemonConfig(registry_mirrors=["https://a.test"], bip="10.0.0.1/24")
    wanted = DaemonConfig(registry_mirrors=["https://b.test"], bip="10.0.1.1/24", mtu=9000, debug=True)
    after, waiting = merge(before, wanted)
    assert (after.registry_mirrors, after.debug, after.bip, after.mtu) == (["https://b.test"], True, "10.0.0.1/24", 0)
    assert waiting == ["bip", "mtu"]
    assert attributes(after)["registry-mirrors"] == '["https://b.test"]'
    assert merge(before, before) == (before, [])


def test_a_reload_s_event_holds_no_password() -> None:
    config = DaemonConfig(proxies=Proxies(https_proxy="http://user:s3cret@p.test"))
    assert "s3cret" not in str(attributes(config))
