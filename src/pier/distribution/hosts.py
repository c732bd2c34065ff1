"""containerd's `hosts.toml`: where a registry is really fetched from and pushed to, one file a registry in `certs.d`.

Format: containerd's docs/hosts.md. Unknown keys are refused: a misspelt one would send traffic elsewhere in silence.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from yarl import URL

from pier.distribution.errors import BadHostsFile

MAX_BYTES: Final = 64 << 10
CAPABILITIES: Final = frozenset({"pull", "resolve", "push"})
_KEYS: Final = frozenset({"capabilities", "ca", "client", "skip_verify", "override_path", "header", "dial_timeout"})
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


@dataclass(frozen=True, slots=True)
class Host:
    """One place of the file."""

    url: str
    """Without a slash at its end."""
    capabilities: frozenset[str] = CAPABILITIES
    skip_verify: bool = False
    override_path: bool = False
    authorities: tuple[str, ...] = ()
    clients: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class HostsFile:
    """A file read."""

    hosts: tuple[Host, ...]
    """In the order of the file."""
    server: Host | None
    """Stands for the registry itself; None: the registry's own name."""


def hosts_file(domain: str, certs_dirs: Iterable[str]) -> HostsFile | None:
    """The file of a registry, or the one for all others in `_default`; None without either. Raises BadHostsFile."""
    folders = [os.path.join(root, name) for name in (domain, "_default") for root in certs_dirs]
    for path in (os.path.join(folder, "hosts.toml") for folder in folders):
        try:
            with open(path, "rb") as file:
                data = file.read(MAX_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise BadHostsFile(path=path, reason=error.strerror) from None
        return parse_hosts(data, path)
    return None


def parse_hosts(data: bytes, path: str) -> HostsFile:
    """Raises BadHostsFile, with `path` in its message and as the place that relative names start from."""
    try:
        if len(data) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
        tree = tomllib.loads(data.decode())
        listed = _typed(tree.pop("host", {}), dict, "host")
        server = _typed(tree.pop("server", ""), str, "server")
        folder = os.path.dirname(path)
        origin = _host(server, tree, folder) if server else None
        if origin is None and tree:
            raise ValueError(f"{sorted(tree)[0]} stands for `server`, which is not given")
        hosts = tuple(_host(url, _typed(keys, dict, url), folder) for url, keys in listed.items())
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError
        raise BadHostsFile(path=path, reason=str(error)) from None
    return HostsFile(hosts, origin)


def _host(text: str, keys: Mapping[str, Any], folder: str) -> Host:
    unknown = sorted(keys.keys() - _KEYS)
    if unknown:
        raise ValueError(f"unknown key {unknown[0]}")
    url = URL(text if "://" in text else f"https://{text}")
    if url.scheme not in ("http", "https") or not url.host or url.user or url.query_string:
        raise ValueError(f"{text!r} is not the URL of a registry")
    capabilities = frozenset(_strings(keys.get("capabilities", sorted(CAPABILITIES)), "capabilities"))
    if not capabilities <= CAPABILITIES:
        raise ValueError(f"unknown capability {sorted(capabilities - CAPABILITIES)[0]!r}")
    override_path = _typed(keys.get("override_path", False), bool, "override_path")
    plain = str(url).rstrip("/")
    return Host(
        # containerd takes a path that ends in /v2 as given with it.
        url=plain if override_path else plain.removesuffix("/v2"),
        capabilities=capabilities,
        skip_verify=_typed(keys.get("skip_verify", False), bool, "skip_verify"),
        override_path=override_path,
        authorities=tuple(os.path.join(folder, name) for name in _strings(keys.get("ca", []), "ca")),
        clients=tuple(_pairs(keys.get("client", []), folder)),
        headers=tuple(_headers(_typed(keys.get("header", {}), dict, "header"))),
    )


def _pairs(value: Any, folder: str) -> list[tuple[str, str]]:
    """`"both.pem"`, `["both.pem", …]` or `[["cert.pem", "key.pem"], …]`."""
    items = value if isinstance(value, list) else [value]
    pairs = [item if isinstance(item, list) else [item, ""] for item in items]
    found = []
    for pair in pairs:
        certificate, key = [*_strings(pair, "client"), ""][:2] if len(pair) in (1, 2) else ("", "")
        if not certificate:
            raise ValueError("client: a certificate and its key are wanted")
        found.append((os.path.join(folder, certificate), os.path.join(folder, key) if key else ""))
    return found


def _headers(given: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = []
    for name, value in given.items():
        text = ", ".join(_strings(value, f"header.{name}"))
        if not _HEADER.fullmatch(name) or any(c < " " for c in text):
            raise ValueError(f"header {name!r} is not one of HTTP")
        found.append((name, text))
    return found


def _strings(value: Any, what: str) -> list[str]:
    items = value if isinstance(value, list) else [value]
    return [_typed(item, str, what) for item in items]


def _typed(value: Any, kind: type[Any], what: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{what}: a {kind.__name__} is wanted")
    return value
