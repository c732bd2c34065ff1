"""The daemon's configuration: Docker's `daemon.json` keys and `dockerd` flags, under the same names.

A field of `DaemonConfig` is an option that acts: its kebab-case name is the key of `daemon.json`, and the flag unless
`Flag.name` says otherwise. Options that Docker documents and Pier does not act on are in `options.py`. The wording of
refusals is Docker's, since installers and users match on it.
"""

from __future__ import annotations

import ipaddress
import json
import os
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from pier.containers.oci_runtimes import OWN
from pier.engine import cgroup_driver, runtimes
from pier.engine.options import INERT
from pier.engine.runtimes import RuntimeEntry
from pier.engine.values import BadValue, size_bytes
from pier.errors import PierError
from pier.model.host_config import Ulimit
from pier.storage.layer import DEFAULT_LAYER_BYTES
from pier.storage.tar import DEFAULT_ENTRIES

DEFAULT_FILE = "/etc/pier/daemon.json"
DATA_ROOT = "/var/lib/pier"
EXEC_ROOT = "/run/pier"
MAX_FILE_BYTES = 1 << 20
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")
NO_TCP_YET = "Pier listens on unix sockets only for now; ssh or a TLS proxy can carry one to another machine"
SIZE_KEYS = ("default-shm-size", "max-layer-size")
"""Numbers of bytes that may be written with a unit."""
PROXY_KEYS = ("http-proxy", "https-proxy", "no-proxy")
FEATURES = frozenset({"buildkit", "containerd-snapshotter"})
"""Of `features`: BuildKit's door is always open; the other one is said to clients."""
GIVEN_TWICE = frozenset({"features", "runtimes"})
"""Docker merges these instead of refusing."""


class BadConfigFile(PierError):
    """unable to configure the Docker daemon with file {path}: {reason}"""

    exit_code = 1


class UnsupportedOption(PierError):
    """the daemon option {key} cannot be honoured: {why}"""

    exit_code = 1
    remedy = "remove it from the flags or from {path}"


@dataclass(frozen=True, slots=True)
class Flag:
    """How an option looks on the command line."""

    help: str
    short: str = ""
    name: str = ""
    """Where it is not the key, as `--dns-opt` for `dns-opts`."""


class Proxies(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """Proxies of the daemon's own traffic."""

    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""


class BuilderGC(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """How much the build cache may keep; sizes are texts such as `20GB`. Policies of several steps are not there."""

    enabled: bool = True
    default_keep_storage: str = ""
    default_reserved_space: str = ""
    """Docker's newer name for the same."""
    default_max_used_space: str = ""

    def limit_bytes(self, disk_bytes: int) -> int | None:
        """What may stay after a build; None: everything. By default a tenth of the disk. Raises BadValue."""
        if not self.enabled:
            return None
        text = self.default_max_used_space or self.default_keep_storage or self.default_reserved_space
        return size_bytes(text) if text else disk_bytes // 10


class BuilderEntitlements(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """What builds may be given where they ask for it (`--allow`)."""

    network_host: bool = True
    security_insecure: bool = False

    @property
    def names(self) -> frozenset[str]:
        """As BuildKit calls them."""
        asked = {"network.host": self.network_host, "security.insecure": self.security_insecure}
        return frozenset(name for name, given in asked.items() if given)


class Builder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The builder's part of the configuration."""

    gc: BuilderGC = BuilderGC()
    entitlements: BuilderEntitlements = BuilderEntitlements()


class AddressPool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Networks are cut from `base` in pieces of prefix length `size`."""

    base: str
    size: int


class DaemonConfig(msgspec.Struct, frozen=True, rename="kebab", kw_only=True):
    """What the daemon was asked to be. Defaults are Docker's, with paths of Pier's own."""

    data_root: Annotated[str, Flag("Root directory of persistent state")] = DATA_ROOT
    exec_root: Annotated[str, Flag("Root directory for sockets and running containers")] = EXEC_ROOT
    hosts: Annotated[list[str], Flag("Daemon socket(s) to listen on", "H", "host")] = []
    group: Annotated[str, Flag("Group for the unix socket", "G")] = "docker"
    pidfile: Annotated[str, Flag("Path to use for daemon PID file", "p")] = ""
    debug: Annotated[bool, Flag("Enable debug mode", "D")] = False
    log_level: Annotated[str, Flag('Set the logging level ("debug"|"info"|"warn"|"error"|"fatal")', "l")] = "info"
    labels: Annotated[list[str], Flag("Set key=value labels to the daemon", name="label")] = []
    experimental: Annotated[bool, Flag("Enable experimental features")] = False
    live_restore: Annotated[bool, Flag("Leave containers running when the daemon stops")] = True
    shutdown_timeout: Annotated[int, Flag("Set the default shutdown timeout, in seconds")] = 15

    storage_driver: Annotated[str, Flag("Storage driver to use", "s")] = ""
    layer_blobs: Annotated[
        str, Flag('Keep the blobs of unpacked layers, or drop those that can be rebuilt ("keep" | "rebuild")')
    ] = "keep"
    max_layer_size: Annotated[int, Flag("Bytes that a layer may have, compressed or unpacked")] = DEFAULT_LAYER_BYTES
    max_layer_files: Annotated[int, Flag("Files and directories that a layer may have")] = DEFAULT_ENTRIES
    storage_opts: Annotated[list[str], Flag("Storage driver options", name="storage-opt")] = []
    registry_mirrors: Annotated[list[str], Flag("Preferred Docker registry mirror", name="registry-mirror")] = []
    insecure_registries: Annotated[
        list[str], Flag("Enable insecure registry communication", name="insecure-registry")
    ] = []
    max_concurrent_downloads: Annotated[int, Flag("Set the max concurrent downloads")] = 3
    max_concurrent_uploads: Annotated[int, Flag("Set the max concurrent uploads")] = 5
    max_download_attempts: Annotated[int, Flag("Set the max download attempts for each pull")] = 5
    proxies: Proxies = Proxies()
    builder: Annotated[Builder, Flag("The builder: gc.KEY=VALUE, or entitlements.KEY=true")] = Builder()
    bridge: Annotated[str, Flag("Attach containers to a network bridge", "b")] = ""
    bip: Annotated[str, Flag("IPv4 address for the default bridge")] = ""
    bip6: Annotated[str, Flag("IPv6 address for the default bridge")] = ""
    fixed_cidr: Annotated[str, Flag("IPv4 subnet for the default bridge network")] = ""
    fixed_cidr_v6: Annotated[str, Flag("IPv6 subnet for the default bridge network")] = ""
    default_gateway: Annotated[str, Flag("Default gateway IPv4 address for the default bridge network")] = ""
    default_gateway_v6: Annotated[str, Flag("Default gateway IPv6 address for the default bridge network")] = ""
    default_network_opts: Annotated[
        dict[str, dict[str, str]], Flag("Default network options, as DRIVER=KEY=VALUE", name="default-network-opt")
    ] = {}
    ipv6: Annotated[bool, Flag("Enable IPv6 networking for the default bridge network")] = False
    default_address_pools: Annotated[
        list[AddressPool], Flag("Default address pools, as base=CIDR,size=N", name="default-address-pool")
    ] = []
    mtu: Annotated[int, Flag('Set the MTU for the default "bridge" network')] = 0
    ip: Annotated[str, Flag("Host IP for port publishing from the default bridge network")] = "0.0.0.0"  # noqa: S104
    icc: Annotated[bool, Flag("Enable inter-container communication for the default bridge network")] = True
    ip_forward: Annotated[bool, Flag("Enable IP forwarding in system configuration")] = True
    ip_masq: Annotated[bool, Flag("Enable IP masquerading for the default bridge network")] = True
    ip_forward_no_drop: Annotated[
        bool, Flag("Let this machine forward for others where Pier enables IP forwarding")
    ] = False
    iptables: Annotated[bool, Flag("Enable addition of firewall rules")] = True
    ip6tables: Annotated[bool, Flag("Enable addition of firewall rules for IPv6")] = True
    allow_direct_routing: Annotated[bool, Flag("Allow remote access to published ports on container IP addresses")] = (
        False
    )
    userland_proxy: Annotated[
        bool, Flag("Carry published ports that the kernel does not translate: between IPv4 and IPv6, and from ::1")
    ] = True
    published_ports_firewall: Annotated[
        str, Flag('Published ports bypass the firewall of the host, or obey it ("bypass" | "host")')
    ] = "bypass"
    dns: Annotated[list[str], Flag("DNS server to use")] = []
    dns_opts: Annotated[list[str], Flag("DNS options to use", name="dns-opt")] = []
    dns_search: Annotated[list[str], Flag("DNS search domains to use")] = []
    cdi_spec_dirs: Annotated[
        list[str], Flag("CDI specification directories to use; none: /etc/cdi and /var/run/cdi", name="cdi-spec-dir")
    ] = []
    host_gateway_ips: Annotated[
        list[str], Flag("IP addresses that the special 'host-gateway' string resolves to", name="host-gateway-ip")
    ] = []

    cgroup_parent: Annotated[str, Flag("Set parent cgroup for all containers")] = ""
    exec_opts: Annotated[list[str], Flag("Runtime execution options", name="exec-opt")] = []
    default_ipc_mode: Annotated[str, Flag('Default mode for containers ipc ("shareable" | "private")')] = "private"
    default_cgroupns_mode: Annotated[str, Flag('Default cgroup namespace mode ("host" | "private")')] = ""
    default_shm_size: Annotated[int, Flag("Default shm size for containers")] = 64 << 20
    features: Annotated[
        dict[str, bool],
        Flag("Enable feature, as containerd-snapshotter=true", name="feature"),
    ] = {}
    default_ulimits: Annotated[dict[str, Ulimit], Flag("Default ulimits for containers", name="default-ulimit")] = {}
    default_runtime: Annotated[str, Flag("Default OCI runtime for containers")] = OWN
    runtimes: Annotated[
        dict[str, RuntimeEntry], Flag("Register an additional OCI compatible runtime, as NAME=PATH", name="add-runtime")
    ] = {}
    init: Annotated[bool, Flag("Run an init in the container to forward signals and reap processes")] = False
    userns_remap: Annotated[str, Flag("User/Group setting for user namespaces")] = ""
    no_new_privileges: Annotated[bool, Flag("Set no-new-privileges by default for new containers")] = False
    seccomp_profile: Annotated[str, Flag('Path to seccomp profile, "builtin" or "unconfined"')] = "builtin"
    log_driver: Annotated[str, Flag("Default driver for container logs")] = "json-file"
    log_opts: Annotated[dict[str, str], Flag("Default log driver options for containers", name="log-opt")] = {}

    @property
    def socket_path(self) -> str:
        """The unix socket of the daemon's own, in its exec root."""
        return os.path.join(self.exec_root, "pier.sock")

    @property
    def listen(self) -> list[str]:
        """Addresses to listen on: those asked for, or the daemon's own socket."""
        return self.hosts or [f"unix://{self.socket_path}"]

    @property
    def claims_docker_socket(self) -> bool:
        """Shall the daemon also answer on /var/run/docker.sock when that is free? Only the system's own daemon does."""
        return not self.hosts and self.exec_root == EXEC_ROOT

    @property
    def pid_path(self) -> str:
        return self.pidfile or os.path.join(self.exec_root, "pier.pid")

    @property
    def level(self) -> str:
        """The log level in force."""
        return "debug" if self.debug else self.log_level


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and what has to be said about it."""

    config: DaemonConfig
    warnings: list[str]


def load(flags: dict[str, Any], *, path: str = DEFAULT_FILE, path_given: bool = False) -> Loaded:
    """Merge the file with the flags (key -> value in the shape the file would hold) and check the whole.

    A missing file is an error only where it was asked for. Raises BadConfigFile, UnsupportedOption.
    """
    values = read_file(path, must_exist=path_given)
    check_keys(values, flags, path)
    merged = values | flags
    if isinstance(values.get("runtimes"), dict) and "runtimes" in flags:
        merged["runtimes"] = values["runtimes"] | flags["runtimes"]
    warnings = check_inert(merged, path)
    given = merged.get("features")
    for name in sorted(given if isinstance(given, dict) else ()):
        if name not in FEATURES:
            warnings.append(f"the feature {name} has no effect: it is none of {', '.join(sorted(FEATURES))}")
    config = build(merged, path)
    return Loaded(config, warnings)


def read_file(path: str, *, must_exist: bool) -> dict[str, Any]:
    """The options of a file, `proxies` flattened as Docker does it. Raises BadConfigFile."""
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        if must_exist:
            raise BadConfigFile(path=path, reason=f"open {path}: no such file or directory") from None
        return {}
    except OSError as error:
        raise BadConfigFile(path=path, reason=f"open {path}: {(error.strerror or '').lower()}") from error
    if len(text) > MAX_FILE_BYTES:
        raise BadConfigFile(path=path, reason=f"it is larger than {MAX_FILE_BYTES} bytes")
    if not text.strip():
        return {}
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadConfigFile(path=path, reason=f"invalid JSON: {error}") from error
    if not isinstance(values, dict):
        raise BadConfigFile(path=path, reason=f"invalid JSON: an object is wanted, not {type(values).__name__}")
    proxies = values.pop("proxies", None)
    if proxies is not None and not isinstance(proxies, dict):
        raise BadConfigFile(path=path, reason="invalid JSON: proxies must be an object")
    return values | (proxies or {})


def check_keys(values: dict[str, Any], flags: dict[str, Any], path: str) -> None:
    """Refuse keys nobody knows, and keys given twice. Raises BadConfigFile with Docker's words."""
    known = {*keys().values(), *INERT, *PROXY_KEYS}
    unknown = sorted(set(values) - known)
    if unknown:
        reason = f"the following directives don't match any configuration option: {', '.join(unknown)}"
        raise BadConfigFile(path=path, reason=reason)
    twice = [key for key in sorted(set(values) & set(flags)) if key not in GIVEN_TWICE]
    if twice:
        pairs = (f"{key}: (from flag: {go_text(flags[key])}, from file: {go_text(values[key])})" for key in twice)
        reason = (
            f"the following directives are specified both as a flag and in the configuration file: {', '.join(pairs)}"
        )
        raise BadConfigFile(path=path, reason=reason)


def check_inert(values: dict[str, Any], path: str) -> list[str]:
    """A warning for each option that does nothing here. Raises UnsupportedOption where that would lower a guard."""
    warnings = []
    for key in sorted(INERT.keys() & values.keys()):
        option, value = INERT[key], values[key]
        if value in option.harmless or value in ([], {}, None):
            continue
        if option.refused:
            raise UnsupportedOption(key=key, why=option.why, path=path)
        warnings.append(f"the daemon option {key} has no effect: {option.why}")
    return warnings


def build(values: dict[str, Any], path: str) -> DaemonConfig:
    """The typed configuration of merged values. Raises BadConfigFile."""
    wanted = {key: value for key, value in values.items() if key in keys().values() and value is not None}
    wanted["proxies"] = {key: values[key] for key in PROXY_KEYS if key in values}
    try:
        for key in SIZE_KEYS:
            if isinstance(wanted.get(key), str):
                wanted[key] = size_bytes(wanted[key])
        config = msgspec.convert(wanted, DaemonConfig)
    except (msgspec.ValidationError, BadValue) as error:
        raise BadConfigFile(path=path, reason=f"invalid JSON: {error}") from error
    problem = find_problem(config)
    if problem:
        problem = f"merged configuration validation from file and command line flags failed: {problem}"
        raise BadConfigFile(path=path, reason=problem)
    return config


def find_problem(config: DaemonConfig) -> str:
    """The first thing wrong with the values themselves, in Docker's words; empty when there is none."""
    wrong = (
        (config.log_level not in LOG_LEVELS, f"invalid logging level: {config.log_level}"),
        (config.layer_blobs not in ("keep", "rebuild"), f"invalid layer-blobs: {config.layer_blobs}: keep or rebuild"),
        (config.max_layer_size <= 0, f"invalid max-layer-size: {config.max_layer_size}"),
        (config.max_layer_files <= 0, f"invalid max-layer-files: {config.max_layer_files}"),
        (config.mtu < 0, f"invalid default MTU: {config.mtu}"),
        (
            config.published_ports_firewall not in ("bypass", "host"),
            f'invalid published-ports-firewall: {config.published_ports_firewall}: use "bypass" or "host"',
        ),
        (
            config.max_concurrent_downloads < 0,
            f"invalid max concurrent downloads: {config.max_concurrent_downloads}",
        ),
        (config.max_concurrent_uploads < 0, f"invalid max concurrent uploads: {config.max_concurrent_uploads}"),
        (config.max_download_attempts <= 0, f"invalid max download attempts: {config.max_download_attempts}"),
        (
            config.default_cgroupns_mode not in ("", "host", "private"),
            f'invalid default cgroup namespace ({config.default_cgroupns_mode}): use "host" or "private"',
        ),
        (
            config.default_ipc_mode not in ("private", "shareable"),
            f'IPC can only be "private" or "shareable", not "{config.default_ipc_mode}"',
        ),
        (
            not (os.path.isabs(config.data_root) and os.path.isabs(config.exec_root)),
            "data-root and exec-root must be absolute paths",
        ),
    )
    checks = (
        (_bad_label, config.labels),
        (_bad_mirror, config.registry_mirrors),
        (_bad_host, config.hosts),
        (_bad_address, [*config.dns, *config.host_gateway_ips, config.ip]),
        (_bad_address, [text for text in (config.default_gateway, config.default_gateway_v6) if text]),
        (_bad_subnet, [text for text in (config.bip, config.bip6, config.fixed_cidr, config.fixed_cidr_v6) if text]),
        (_bad_subnet, [pool.base for pool in config.default_address_pools]),
    )
    found = [text for is_wrong, text in wrong if is_wrong]
    found += filter(None, [_builder_problem(config.builder)])
    found += filter(None, [runtimes.problem(config.runtimes, config.default_runtime)])
    found += filter(None, [cgroup_driver.find_problem(config.exec_opts, config.cgroup_parent)])
    found += [problem for check, items in checks for item in items if (problem := check(item))]
    return found[0] if found else ""


def _bad_label(label: str) -> str:
    key, equals, _ = label.partition("=")
    return "" if key and equals else f"bad attribute format: {label}"


def _bad_mirror(mirror: str) -> str:
    scheme, separator, rest = mirror.partition("://")
    if not separator:
        return f"invalid mirror: no scheme specified for {json.dumps(mirror)}: must use either 'https://' or 'http://'"
    if scheme not in ("http", "https") or not rest.strip("/"):
        return f"invalid mirror: unsupported scheme {json.dumps(scheme)} in {json.dumps(mirror)}"
    return ""


def _bad_host(host: str) -> str:
    scheme, _, rest = host.partition("://")
    if scheme == "fd" or (scheme == "unix" and rest.startswith("/")):
        return ""
    if scheme == "tcp":
        return f"invalid bind address ({host}): {NO_TCP_YET}"
    if scheme == "unix":
        return f"invalid bind address ({host}): the socket's path must be absolute"
    return f"invalid bind address ({host}): unsupported proto '{scheme}'"


def _bad_address(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return f"invalid IP address: {text}"
    return ""


def _builder_problem(builder: Builder) -> str:
    try:
        builder.gc.limit_bytes(0)
    except BadValue as error:
        return error.message
    return ""


def _bad_subnet(text: str) -> str:
    try:
        ipaddress.ip_interface(text)
    except ValueError:
        return f"invalid CIDR address: {text}"
    return "" if "/" in text else f"invalid CIDR address: {text}"


def go_text(value: Any) -> str:
    """A JSON value as Go's `%v` prints it: `true`, `[a b]`, `map[k:v]`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{' '.join(map(go_text, value))}]"
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{go_text(item)}' for key, item in sorted(value.items()))}]"
    return "<nil>" if value is None else str(value)


def keys() -> dict[str, str]:
    """Field name -> key of `daemon.json`, for the options that act (`proxies` is spread over its own keys)."""
    return {
        name: key
        for name, key in zip(DaemonConfig.__struct_fields__, DaemonConfig.__struct_encode_fields__, strict=True)
        if name != "proxies"
    }
