"""Where a repository is fetched from: mirrors, the registry itself, with or without encryption, through which proxy.

Data and pure functions; the rules are Docker's `registry-mirrors`, `insecure-registries` and Go's `NO_PROXY`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Self

from yarl import URL

from pier.distribution.errors import ProxyUnusable
from pier.distribution.hosts import Host, HostsFile, hosts_file
from pier.oci.reference import DEFAULT_DOMAIN

SOCKS: Final = ("socks5", "socks5h")
DOCKER_HUB: Final = "registry-1.docker.io"
"""The host that serves what is named `docker.io`."""
CERTS_DIRS: Final = ("/etc/pier/certs.d", "/etc/docker/certs.d")


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """Proxies of the daemon's own traffic: URLs, empty for none; `no_proxy` as in Go's httpproxy package."""

    http: str = ""
    https: str = ""
    no_proxy: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """HTTP_PROXY, HTTPS_PROXY and NO_PROXY, or their lower-case forms."""

        def of(name: str) -> str:
            return environment.get(name) or environment.get(name.lower(), "")

        return cls(of("HTTP_PROXY"), of("HTTPS_PROXY"), of("NO_PROXY"))


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Files of one endpoint beside those of its folder in `certs.d`."""

    authorities: tuple[str, ...] = ()
    clients: tuple[tuple[str, str], ...] = ()
    """Certificate and key; an empty key is in the certificate's file."""

    @property
    def paths(self) -> tuple[str, ...]:
        return self.authorities + tuple(path for pair in self.clients for path in pair if path)


NO_FILES: Final = TlsFiles()


@dataclass(frozen=True, slots=True)
class RegistryConfig:
    """What `daemon.json` says about registries."""

    mirrors: tuple[str, ...] = ()
    """`registry-mirrors`: base URLs tried in order before Docker Hub, and for Docker Hub only."""
    insecure: tuple[str, ...] = ()
    """`insecure-registries`: `host[:port]` or an address range; loopback is among them without being named."""
    proxies: ProxyConfig = field(default_factory=ProxyConfig)
    certs_dirs: tuple[str, ...] = CERTS_DIRS
    """Folders with a folder for each `host[:port]`; the first is the one that messages name."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place that speaks the distribution protocol."""

    url: str
    """`scheme://host[:port]` and perhaps a path, without a slash at its end."""
    verify: bool = True
    """Must its certificate verify?"""
    mirror: bool = False
    """Mirrors never get the credentials of the registry they stand for."""
    override_path: bool = False
    """Is `/v2` part of `url` already?"""
    tls: TlsFiles = NO_FILES
    headers: tuple[tuple[str, str], ...] = ()
    """Sent with every request to it, and to no other host."""

    @property
    def host(self) -> str:
        """`host[:port]`, as it is written in `insecure-registries` and `certs.d`."""
        return self.url.partition("://")[2].partition("/")[0].rpartition("@")[2]

    @property
    def base(self) -> str:
        """What paths of the protocol are below."""
        return self.url if self.override_path else f"{self.url}/v2"

    @property
    def plain(self) -> bool:
        return self.url.startswith("http://")


def endpoints_for(domain: str, config: RegistryConfig, *, push: bool = False) -> list[Endpoint]:
    """The places to try for a registry's name, in order; for a push only those that may be pushed to.

    A `hosts.toml` in the registry's folder decides, else `registry-mirrors`. Blocks on that file's few bytes.
    Raises BadHostsFile.

    >>> [endpoint.url for endpoint in endpoints_for("localhost:5000", RegistryConfig())]
    ['https://localhost:5000', 'http://localhost:5000']
    """
    listed = hosts_file(domain, config.certs_dirs)
    if listed is not None:
        return _listed_endpoints(listed, domain, config, push=push)
    origin = _origin(DOCKER_HUB if domain == DEFAULT_DOMAIN else domain, config.insecure)
    if domain != DEFAULT_DOMAIN or push:
        return origin
    return [*(_mirror(url, config.insecure) for url in config.mirrors), *origin]


def _listed_endpoints(listed: HostsFile, domain: str, config: RegistryConfig, *, push: bool) -> list[Endpoint]:
    """What a hosts.toml says, then the registry itself unless the file names it or another in its place."""
    needed = {"push"} if push else {"pull", "resolve"}
    own = DOCKER_HUB if domain == DEFAULT_DOMAIN else domain
    origin = [_listed_endpoint(listed.server, own, config)] if listed.server else _origin(own, config.insecure)
    hosts = [_listed_endpoint(host, own, config) for host in listed.hosts if needed <= host.capabilities]
    known = {endpoint.url for endpoint in hosts}
    return [*hosts, *(endpoint for endpoint in origin if endpoint.url not in known)]


def _listed_endpoint(host: Host, own: str, config: RegistryConfig) -> Endpoint:
    endpoint = Endpoint(host.url, override_path=host.override_path, headers=host.headers)
    return replace(
        endpoint,
        verify=not (host.skip_verify or is_insecure(endpoint.host, config.insecure)),
        mirror=endpoint.host != own,
        tls=TlsFiles(host.authorities, host.clients),
    )


def _origin(host: str, insecure: Iterable[str]) -> list[Endpoint]:
    if not is_insecure(host, insecure):
        return [Endpoint(f"https://{host}")]
    return [Endpoint(f"https://{host}", verify=False), Endpoint(f"http://{host}", verify=False)]


def _mirror(url: str, insecure: Iterable[str]) -> Endpoint:
    mirror = Endpoint(url.rstrip("/"), mirror=True)
    return replace(mirror, verify=not is_insecure(mirror.host, insecure))


def is_insecure(host: str, entries: Iterable[str]) -> bool:
    """May `host[:port]` be spoken to without a verified certificate, or in the clear?

    Loopback may; so may what is listed, a name by its exact text, an address also by a range it is in. Names are not
    looked up: what a name server answers does not switch encryption off.
    """
    name = host_name(host)
    address = _address(name)
    if name == "localhost" or (address is not None and address.is_loopback):
        return True
    for entry in entries:
        listed = entry.removeprefix("https://").removeprefix("http://").rstrip("/")
        if listed == host or (address is not None and _in_range(address, entry)):
            return True
    return False


def host_name(host: str) -> str:
    """The name of `host[:port]`, without brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def proxy_for(url: URL, proxies: ProxyConfig) -> str | None:
    """The proxy's URL for a request to `url`, None for a direct connection. Raises ProxyUnusable."""
    proxy = proxies.https if url.scheme == "https" else proxies.http
    if not proxy or bypasses_proxy(url.host or "", url.port or 0, proxies.no_proxy):
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    scheme = proxy.partition("://")[0]
    if scheme not in ("http", "https", *SOCKS):
        raise ProxyUnusable(proxy=without_password(proxy), reason=f"{scheme} is no kind of proxy that is known here")
    try:
        host = URL(proxy).host
    except ValueError as error:
        raise ProxyUnusable(proxy=without_password(proxy), reason=str(error)) from None
    if not host:
        raise ProxyUnusable(proxy=without_password(proxy), reason="no host")
    return proxy


def is_socks(proxy: str) -> bool:
    """`socks5://` and `socks5h://`: in both the proxy looks names up."""
    return proxy.partition("://")[0] in SOCKS


def without_password(url: str) -> str:
    """A URL as it may be shown."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def bypasses_proxy(host: str, port: int, no_proxy: str) -> bool:
    """Does NO_PROXY, or being this machine, exempt a host?

    Entries, separated by commas: `*`, an address, a range, `name` (with what is below it), `.name` (only what is below
    it); `:port` may follow a name.
    """
    name = host.rstrip(".").lower()
    address = _address(name)
    if name == "localhost" or (address is not None and address.is_loopback):
        return True
    return any(_exempts(entry.strip().lower(), name, port, address) for entry in no_proxy.split(",") if entry.strip())


def _exempts(entry: str, name: str, port: int, address: _IPAddress | None) -> bool:
    if entry == "*":
        return True
    if address is not None and _in_range(address, entry):
        return True
    wanted = host_name(entry)
    rest = entry[len(wanted) :].lstrip("]")
    entry_port = rest.rpartition(":")[2] if ":" in rest else ""
    if entry_port and entry_port != str(port):
        return False
    wanted = wanted.removeprefix("*")
    if wanted.startswith("."):
        return name.endswith(wanted)
    return name == wanted or (address is None and name.endswith("." + wanted))


_IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def _address(text: str) -> _IPAddress | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _in_range(address: _IPAddress, text: str) -> bool:
    try:
        return address in ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
